package topic

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// InstallKey is the key of the record of `catalog` that holds an [Install].
const InstallKey = "install/partitions"

// GivenUpPrefix begins the keys of the records of `catalog` that give up a token's journey.
// The token's text follows. Such a record is never deleted: a journey that were judged anew
// would count its events again.
const GivenUpPrefix = "install/given-up/"

// GivenUp is the value of such a record, in JSON.
type GivenUp struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"` // in the words of who gave it up
}

// Install says with which topics an installation was made. Tokens are bound to its
// partition counts: a click, its events and its verdicts meet in one partition only as
// long as every program counts alike. Kafka's own tool adds partitions without a
// question, so the count that Kafka shows proves nothing. Its format is JSON.
type Install struct {
	// Epochs are the partition counts of the co-partitioned topics.
	Epochs Epochs `json:"epochs"`
	// Topics are all topics as they were made, by name without prefix.
	Topics map[string]Installed `json:"topics"`
}

// Installed is one topic of an installation.
type Installed struct {
	ID         string `json:"id"` // Kafka's, as its tools print it
	Partitions int32  `json:"partitions"`
	// Former are the ids that the topic had before it was restored under ID with the
	// same records at the same offsets.
	Former []string `json:"former,omitempty"`
}

// ParseInstall reads the value of the record. A member that it does not know is an
// error: a later release has made the record, and means something by it.
func ParseInstall(value []byte) (Install, error) {
	var i Install
	if err := json.Unmarshal(value, &i, json.RejectUnknownMembers(true)); err != nil {
		return Install{}, fmt.Errorf("reading record %s: %w", InstallKey, err)
	}
	if err := i.validate(); err != nil {
		return Install{}, fmt.Errorf("reading record %s: %w", InstallKey, err)
	}
	return i, nil
}

func (i Install) validate() error {
	if err := i.Epochs.Validate(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(i.Topics)) {
		t := i.Topics[name]
		switch {
		case t.ID == "":
			return fmt.Errorf("topics: %s has no id", name)
		case t.Partitions < 1:
			return fmt.Errorf("topics: %s has %d partitions", name, t.Partitions)
		}
	}
	if len(i.Topics) == 0 {
		return errors.New("topics: missing")
	}
	return nil
}

// Encode writes the value of the record. The same install gives the same bytes.
func (i Install) Encode() ([]byte, error) {
	value, err := json.Marshal(i, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing record %s: %w", InstallKey, err)
	}
	return value, nil
}
