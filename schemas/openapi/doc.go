// Package openapi holds the contracts of the HTTP interfaces, as OpenAPI 3.1 documents:
// events.json, by which merchant backends report leads, sales, refunds, cancellations
// and reversals, and report.json, by which people and programs read what became of
// them.
//
// It promises that the documents are valid OpenAPI 3.1, that each of their examples
// validates against the schema beside it, and that the signing sample runs as printed.
// Where JSON Schema cannot say a rule (the digits of a currency, the age of an event,
// the 2 kB of metadata), the field's description does.
//
// The documents are contracts: a change here is a change for every sender or reader. A
// new optional field or error code may be added; nothing is renamed, removed or made
// stricter within /v1. They are written by hand, except for the columns of an exported
// conversion and the types, verdicts and reviews of events: `go test ./schemas/openapi
// -rewrite` writes those from packages ledger and event.
package openapi
