package processor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
)

// Inspection answers from one partition's files what a processor would, without a
// broker. No processor may have them open meanwhile.
type Inspection struct {
	p     *partition
	cache *state.Cache
}

// Inspect opens the files of a partition below a processor's -state-dir.
func Inspect(fs vfs.FS, stateDir string, id int32, log *slog.Logger) (*Inspection, error) {
	i := &Inspection{p: newPartition(id), cache: state.NewCache(1 << 20)}
	if err := i.open(fs, filepath.Join(stateDir, partitionDir(id)), log); err != nil {
		return nil, errors.Join(fmt.Errorf("inspecting partition %d: %w", id, err), i.Close())
	}
	return i, nil
}

func (i *Inspection) open(fs vfs.FS, dir string, log *slog.Logger) (err error) {
	if i.p.store, err = state.Open(fs, filepath.Join(dir, "journeys"), i.cache, log); err != nil {
		return err
	}
	m, ok, err := readMeta(i.p.store)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("there is no position row: nothing was ever kept here")
	}
	i.p.meta = m
	id := clicklog.Identity{Cluster: m.Cluster, Partition: m.Partition}
	if n, err := hex.Decode(id.Topic[:], []byte(m.Clicks)); err != nil || n != len(id.Topic) {
		return fmt.Errorf("topic id %q in the position row", m.Clicks)
	}
	cfg := clicklog.DefaultConfig()
	cfg.SlabBytes = 1 << 20 // nothing will be put
	i.p.clicks, err = clicklog.Open(fs, filepath.Join(dir, "clicks"), id, cfg, lateClicks{i.p.store}, time.Now)
	return err
}

// Click is the click of a token and the time at which it reached Kafka, if it is known.
func (i *Inspection) Click(t *[20]byte) (wire []byte, at event.Millis, ok bool, err error) {
	return i.p.lookup(t)
}

// Rows calls yield for every row that the changelog holds too: journeys, deadlines and
// totals.
func (i *Inspection) Rows(yield func(key, value []byte) bool) error {
	for _, table := range [][]byte{event.DeadlineKey(0, new([20]byte), 0)[:1], event.JourneyPrefix(new([20]byte))[:1],
		totalsKey} {
		if err := i.p.store.Scan(table, state.PrefixEnd(table), yield); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (i *Inspection) Close() error {
	defer i.cache.Close()
	return i.p.close()
}
