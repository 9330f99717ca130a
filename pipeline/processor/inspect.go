package processor

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
)

// Inspection answers from one partition's files what a processor would, without a
// broker. No processor may have them open meanwhile.
type Inspection struct {
	store  *state.Store
	clicks *clickStore
	cache  *state.Cache
}

// Inspect opens the files of a partition below a processor's -state-dir.
func Inspect(fs vfs.FS, stateDir string, id int32, log *slog.Logger) (*Inspection, error) {
	i := &Inspection{cache: state.NewCache(1 << 20)}
	if err := i.open(fs, fs.PathJoin(stateDir, engine.PartitionDir(id)), log); err != nil {
		return nil, errors.Join(fmt.Errorf("inspecting partition %d: %w", id, err), i.Close())
	}
	return i, nil
}

func (i *Inspection) open(fs vfs.FS, dir string, log *slog.Logger) (err error) {
	if i.store, err = state.Open(fs, fs.PathJoin(dir, engine.StoreDir), i.cache, log); err != nil {
		return err
	}
	have, err := engine.ReadIdentity(i.store)
	if err != nil {
		return err
	}
	id := clicklog.Identity{Cluster: have.Cluster, Topic: have.Leading, Partition: have.Partition}
	cfg := clicklog.DefaultConfig()
	cfg.SlabBytes = 1 << 20 // nothing will be put
	clicks, err := clicklog.Open(fs, clickDir(fs, dir), id, cfg, outOfOrderClicks{i.store}, time.Now)
	if err != nil {
		return err
	}
	i.clicks = &clickStore{log: clicks}
	return nil
}

// Click is the click of a token and the time at which it reached Kafka, if it is known.
func (i *Inspection) Click(t *[20]byte) (wire []byte, at event.Millis, ok bool, err error) {
	return i.clicks.lookupClick(t)
}

// Rows calls yield for every row that the changelog holds too: journeys, deadlines and
// totals.
func (i *Inspection) Rows(yield func(key, value []byte) bool) error {
	for _, table := range [][]byte{deadlinePrefix, journeyPrefix[:1], totalsKey} {
		if err := i.store.Scan(table, state.PrefixEnd(table), yield); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (i *Inspection) Close() error {
	defer i.cache.Close()
	var errs []error
	if i.clicks != nil {
		errs = append(errs, i.clicks.log.Close())
	}
	if i.store != nil {
		errs = append(errs, i.store.Close())
	}
	return errors.Join(errs...)
}
