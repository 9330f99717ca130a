package topic

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// PlacedSinceKey is the key of the record of `catalog` that holds a [PlacedSince].
const PlacedSinceKey = "install/placed-since"

// PlacedSince is the value of the record that says since when a record in another
// partition than its token's is misplaced. Programs of before do not look at places, so
// it is written when none of them is left. It is never moved: what was judged would have
// been judged otherwise. Its format is JSON.
type PlacedSince struct {
	// Since is compared with records' Kafka timestamps. It has whole milliseconds.
	Since time.Time `json:"since"`
}

// ParsePlacedSince reads the value of the record. A member that it does not know is an
// error: a later release has made the record, and means something by it.
func ParsePlacedSince(value []byte) (PlacedSince, error) {
	var p PlacedSince
	err := json.Unmarshal(value, &p, json.RejectUnknownMembers(true))
	switch {
	case err != nil:
	case p.Since.IsZero():
		err = errors.New("since: missing")
	case !p.Since.Equal(p.Since.Truncate(time.Millisecond)):
		err = fmt.Errorf("since: %v has a part of a millisecond", p.Since)
	}
	if err != nil {
		return PlacedSince{}, fmt.Errorf("reading record %s: %w", PlacedSinceKey, err)
	}
	return p, nil
}

// Encode writes the value of the record.
func (p PlacedSince) Encode() ([]byte, error) {
	value, err := json.Marshal(PlacedSince{p.Since.UTC().Truncate(time.Millisecond)}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing record %s: %w", PlacedSinceKey, err)
	}
	return value, nil
}
