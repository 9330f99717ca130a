package openapi

import _ "embed"

//go:embed events.json
var events string

// Spec returns the events API's description, OpenAPI 3.1 as JSON in UTF-8, which
// the gateway serves at GET /v1/openapi.json. The slice is the caller's own.
func Spec() []byte {
	return []byte(events)
}
