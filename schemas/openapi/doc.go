// Package openapi holds the contract of the events API, by which merchant backends
// report leads, sales, refunds, cancellations and reversals: events.json, an OpenAPI
// 3.1 document.
//
// It promises that the document is valid OpenAPI 3.1, that each of its examples
// validates against the schema beside it, and that the signing sample in it runs as
// printed. Where JSON Schema cannot say a rule (the digits of a currency, the age of
// an event, the 2 kB of metadata), the field's description does.
//
// The document is written by hand and is a contract: a change here is a change
// for every sender. A new optional field or error code may be added; nothing is
// renamed, removed or made stricter within /v1.
package openapi
