package openapi

import _ "embed"

var (
	//go:embed events.json
	events string
	//go:embed report.json
	report string
)

// Events returns the events API's description, OpenAPI 3.1 as JSON in UTF-8, which the
// gateway serves at GET /v1/openapi.json. The slice is the caller's own.
func Events() []byte {
	return []byte(events)
}

// Report returns the description of the report's pages, JSON and CSV, which the report
// serves at GET /v1/openapi.json. The slice is the caller's own.
func Report() []byte {
	return []byte(report)
}
