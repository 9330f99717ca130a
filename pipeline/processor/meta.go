package processor

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/state"
)

// meta is the row that says what a partition's Pebble is the state of. It is in the
// same batch as the rows up to Position.
type meta struct {
	Version   int    `json:"version"`
	Cluster   string `json:"cluster"`
	Changelog string `json:"changelog"` // topic id, hex
	Clicks    string `json:"clicks"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"` // next offset of the changelog
	At        int64  `json:"at"`       // wall time in unix ms
	// Input are the offsets that were committed with the rows up to Position. State
	// from before they were kept has none.
	Input *starts `json:"input,omitempty"`
}

// ahead reports whether the state has applied what the group's committed offsets know
// nothing of: its transaction was aborted after all.
func (m meta) ahead(committed starts) error {
	if m.Input != nil && (m.Input.Clicks > committed.Clicks || m.Input.Conversions > committed.Conversions) {
		return fmt.Errorf("%w: it has applied inputs up to %+v, and the group committed only %+v",
			errStale, *m.Input, committed)
	}
	return nil
}

var metaKey = []byte{'M'}

func (m *meta) put(b *state.Batch) error {
	v, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding the position row: %w", err)
	}
	return b.Set(metaKey, v)
}

// readMeta returns the stored row, and whether there is one.
func readMeta(s *state.Store) (m meta, ok bool, err error) {
	v, ok, err := s.Get(metaKey, nil)
	if err != nil || !ok {
		return m, false, err
	}
	if err := json.Unmarshal(v, &m); err != nil || m.Version != 1 {
		return m, false, fmt.Errorf("%w: position row %q", errStale, v)
	}
	return m, true, nil
}

// continues reports whether state that says m can be continued as want, now.
func (m meta) continues(want meta, now time.Time) error {
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
