package engine

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/state"
)

// Identity names the input that a partition's side log stores.
type Identity struct {
	// Cluster is Kafka's cluster id.
	Cluster string
	// Leading is the topic id of the leading input.
	Leading [16]byte
	// Partition is the partition's number.
	Partition int32
}

// ReadIdentity returns whose state a store holds. It fails if nothing was ever kept
// there.
func ReadIdentity(s *state.Store) (Identity, error) {
	have, ok, err := readIdentity(s)
	if err != nil {
		return Identity{}, err
	}
	if !ok {
		return Identity{}, fmt.Errorf("there is no position row: nothing was ever kept here")
	}
	id := Identity{Cluster: have.Cluster, Partition: have.Partition}
	if n, err := hex.Decode(id.Leading[:], []byte(have.Clicks)); err != nil || n != len(id.Leading) {
		return Identity{}, fmt.Errorf("topic id %q in the position row", have.Clicks)
	}
	return id, nil
}

// PartitionDir is the name of a partition's directory below the state directory.
func PartitionDir(id int32) string { return fmt.Sprintf("p%05d", id) }

// inputOffsets are offsets of a partition's inputs, as the group commits them. The
// names in JSON are older than the engine: clicks lead, conversions follow.
type inputOffsets struct {
	Leading   int64 `json:"clicks"`
	Following int64 `json:"conversions"`
}

// stateIdentity is the row that says what a partition's store is the state of. It is in
// the same batch as the rows up to Position.
type stateIdentity struct {
	Version   int    `json:"version"`
	Cluster   string `json:"cluster"`
	Changelog string `json:"changelog"` // topic id, hex
	Clicks    string `json:"clicks"`    // topic id of the leading input, hex
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"` // next offset of the changelog
	At        int64  `json:"at"`       // wall time in unix ms
	// Input are the offsets that were committed with the rows up to Position. State
	// that was written before they were kept has none.
	Input *inputOffsets `json:"input,omitempty"`
}

var identityKey = []byte{'M'}

// checkCommitted returns errStale if the state has applied what the group's committed
// offsets do not cover: its transaction was aborted after all.
func (m stateIdentity) checkCommitted(committed inputOffsets) error {
	if m.Input != nil && (m.Input.Leading > committed.Leading || m.Input.Following > committed.Following) {
		return fmt.Errorf("%w: it has applied inputs up to %+v, and the group committed only %+v",
			errStale, *m.Input, committed)
	}
	return nil
}

func (m *stateIdentity) putRow(b *state.Batch) error {
	v, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding the position row: %w", err)
	}
	return b.Set(identityKey, v)
}

// readIdentity returns the stored row, and whether there is one.
func readIdentity(s *state.Store) (m stateIdentity, ok bool, err error) {
	v, ok, err := s.Get(identityKey, nil)
	if err != nil || !ok {
		return m, false, err
	}
	if err := json.Unmarshal(v, &m); err != nil || m.Version != 1 {
		return m, false, fmt.Errorf("%w: position row %q", errStale, v)
	}
	return m, true, nil
}

// checkContinues returns errStale unless state that says m can be continued as want,
// now.
func (m stateIdentity) checkContinues(want stateIdentity, now time.Time) error {
	if m.Cluster != want.Cluster || m.Changelog != want.Changelog || m.Clicks != want.Clicks ||
		m.Partition != want.Partition {
		return fmt.Errorf("%w: it belongs to partition %d of changelog %s and clicks %s in cluster %s",
			errStale, m.Partition, m.Changelog, m.Clicks, m.Cluster)
	}
	if age := now.Sub(time.UnixMilli(m.At)); age > tombstoneLife-clockError {
		return fmt.Errorf("%w: it is %v old, and the changelog keeps tombstones for %v",
			errStale, age.Round(time.Hour), tombstoneLife)
	}
	if ahead := time.UnixMilli(m.At).Sub(now); ahead > clockError {
		return fmt.Errorf("%w: it is from %v ahead of this machine's clock, so its age is not known",
			errStale, ahead.Round(time.Hour))
	}
	return nil
}
