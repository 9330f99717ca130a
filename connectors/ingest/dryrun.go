package ingest

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// dryRunName is the member of a body that asks for an answer and no record: of an event
// that is sent alone, and of a batch beside its events.
const dryRunName = "dry_run"

// dryRun is the JSON type of the member dry_run, 0 if there is none.
type dryRun jsontext.Kind

// on reports whether nothing is to be written.
func (d dryRun) on() bool { return d == 't' }

// check refuses what is neither true nor false. null is the same as an absent member.
func (d dryRun) check() *refusal {
	switch d {
	case 0, 't', 'f', 'n':
		return nil
	}
	return newRefusal(codeInvalidField, dryRunName, "true or false, not "+kindName(jsontext.Kind(d)))
}

// mayBeDryRun reports whether a body may have the member dry_run, without reading it as
// JSON: its name is there, or an escape in which it could be written.
func mayBeDryRun(body []byte) bool {
	return bytes.Contains(body, []byte(dryRunName)) || bytes.Contains(body, []byte(`\u`))
}
