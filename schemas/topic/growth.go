package topic

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// GrowthKey is the key of the record of `catalog` that holds a [Growth].
const GrowthKey = "install/growth"

// GrowLead is how far ahead a new epoch must begin when its Growth is written. A program
// places a token only when it has read `catalog` to an end that was listed after the token
// was minted, so one whose clock is wrong by less than this knows of the epoch in time.
const GrowLead = 10 * time.Minute

// Growth is what is being added to an installation: it is written before the first topic
// gets partitions, so that these are told from those that somebody else has added, and
// deleted when an Install with the epoch is there. Meanwhile nobody places a token. Its
// format is JSON.
type Growth struct {
	Partitions int32     `json:"partitions"` // of the co-partitioned topics, when it is done
	From       time.Time `json:"from"`       // when the new epoch begins, in whole seconds, as tokens have
}

// ParseGrowth reads the value of the record. A member that it does not know is an error: a
// later release has made the record, and means something by it.
func ParseGrowth(value []byte) (Growth, error) {
	var g Growth
	err := json.Unmarshal(value, &g, json.RejectUnknownMembers(true))
	if err == nil {
		err = g.validate()
	}
	if err != nil {
		return Growth{}, fmt.Errorf("reading record %s: %w", GrowthKey, err)
	}
	return g, nil
}

func (g Growth) validate() error {
	switch {
	case g.Partitions < 1:
		return fmt.Errorf("partitions: %d is not a partition count", g.Partitions)
	case g.From.IsZero():
		return errors.New("from: missing")
	case !g.From.Equal(g.From.Truncate(time.Second)):
		return fmt.Errorf("from: %v has a part of a second", g.From)
	}
	return nil
}

// Encode writes the value of the record.
func (g Growth) Encode() ([]byte, error) {
	value, err := json.Marshal(Growth{g.Partitions, g.From.UTC()}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing record %s: %w", GrowthKey, err)
	}
	return value, nil
}

// IsAdded reports whether a partition of the co-partitioned topics was added after the
// installation was made: such a one began empty, and without a commit.
func (e Epochs) IsAdded(partition int32) bool {
	return len(e) > 0 && partition >= e[0].Partitions && partition < e.Now()
}

// Grown returns the epochs with one more.
func (e Epochs) Grown(g Growth) Epochs {
	return append(e[:len(e):len(e)], Epoch{From: g.From.UTC(), Partitions: g.Partitions})
}

// CoPartitioned are the topics whose partitions belong together, in the order in which
// they grow: what a processor writes is there before what it reads, and a click cannot be
// where its events cannot.
func CoPartitioned() []string { return []string{Outcomes, Changelog, Progress, Conversions, Clicks} }
