package engine

import (
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

// Rows over a store are one sorted map: what the running transaction wrote hides what
// is committed, and deleted rows are gone, in look-ups and in scans that stop anywhere.
func TestRowsAreOneMap(t *testing.T) {
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	rapid.Check(t, func(t *rapid.T) {
		store, err := state.Open(vfs.NewMem(), "p", cache, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		index := func(*Partition, *state.Batch, []byte, []byte) error { return nil }
		p := &Partition{engine: &Engine{topo: Topology{Index: index}}, Store: store}
		p.Rows = NewRows(store, map[byte]int{'J': 21, 'D': 1})
		model := make(map[string]string)
		tokens := [][20]byte{{1}, {1, 2}, {255}}
		key := func(t *rapid.T) []byte {
			tok := rapid.SampledFrom(tokens).Draw(t, "token")
			n := rapid.IntRange(0, 5).Draw(t, "n")
			if rapid.Bool().Draw(t, "deadline") {
				return event.DeadlineKey(event.Millis(1000+n), &tok, int64(n))
			}
			return event.AppendIndexKey(nil, &tok, event.KindForEvent, "id", int64(n))
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				k, v := key(t), rapid.StringN(1, 3, 3).Draw(t, "v")
				model[string(k)] = v
				err = p.Rows.Put(k, []byte(v))
			case 3:
				k := key(t)
				delete(model, string(k))
				err = p.Rows.Put(k, nil)
			case 4:
				err = p.applyCommit(time.Now())
			case 5:
				k := key(t)
				prefix := k[:rapid.SampledFrom([]int{1, 21, 22}).Draw(t, "length")]
				if prefix[0] != 'D' {
					prefix = k[:max(len(prefix), 21)] // a journey's rows are scanned within the journey
				}
				limit := rapid.IntRange(1, 8).Draw(t, "limit")
				var want, got []string
				for _, k := range slices.Sorted(maps.Keys(model)) {
					if strings.HasPrefix(k, string(prefix)) && len(want) < limit {
						want = append(want, k+"="+model[k])
					}
				}
				if err := p.Rows.Scan(prefix, func(k, v []byte) bool {
					got = append(got, string(k)+"="+string(v))
					return len(got) < limit
				}); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("scan of %x: got %q, want %q", prefix, got, want)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for k, v := range model {
			got, err := p.Rows.Get([]byte(k))
			if err != nil || string(got) != v {
				t.Fatalf("Get(%x) = %q, %v; want %q", k, got, err, v)
			}
		}
	})
}
