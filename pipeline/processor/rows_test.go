package processor

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

// The count of waiting events is the number of deadline rows, whatever is put or
// deleted twice, and whatever a commit has moved to the store.
func TestWaitingCountsDeadlines(t *testing.T) {
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	rapid.Check(t, func(t *rapid.T) {
		store, err := state.Open(vfs.NewMem(), "p", cache, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		tables := (&Processor{}).topology().Tables
		rows := newJourneyRows(engine.NewRows(store, tables))
		model := make(map[string]bool)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			tok := [20]byte{rapid.Byte().Draw(t, "token")}
			n := rapid.Int64Range(0, 5).Draw(t, "n")
			key := event.DeadlineKey(event.Millis(1000+n), &tok, n)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				model[string(key)] = true
				err = rows.Put(key, []byte{event.KindWaitClick})
			case 2:
				delete(model, string(key))
				err = rows.Put(key, nil)
			case 3: // a commit
				b := store.NewBatch()
				err = b.DeleteRange([]byte{'D'}, []byte{'E'})
				for k := range model {
					err = errors.Join(err, b.Set([]byte(k), []byte{event.KindWaitClick}))
				}
				err = errors.Join(err, b.Commit())
				rows.Rows = engine.NewRows(store, tables)
			}
			if err != nil {
				t.Fatal(err)
			}
			if rows.waiting != int64(len(model)) {
				t.Fatalf("%d waiting, want %d", rows.waiting, len(model))
			}
		}
	})
}
