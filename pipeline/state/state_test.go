package state_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/state"
	"pgregory.net/rapid"
)

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

// After a crash the store is an exact prefix of the batches that were committed, at
// least up to the last flush: rows and the position in the same batch agree.
func TestCrashLeavesAPrefix(t *testing.T) {
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewCrashableMem()
		s, err := state.Open(fs, "p0", cache, discard)
		if err != nil {
			t.Fatal(err)
		}
		history := []map[string]string{{}} // content after each batch
		flushed := 0
		for range rapid.IntRange(1, 30).Draw(t, "batches") {
			now := maps.Clone(history[len(history)-1])
			b := s.NewBatch()
			for range rapid.IntRange(1, 5).Draw(t, "rows") {
				k, v := fmt.Sprint("k", rapid.IntRange(0, 20).Draw(t, "k")), rapid.StringN(0, 2000, 4000).Draw(t, "v")
				if rapid.Bool().Draw(t, "delete") {
					delete(now, k)
					err = b.Delete([]byte(k))
				} else {
					now[k] = v
					err = b.Set([]byte(k), []byte(v))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Set([]byte("position"), binary.BigEndian.AppendUint64(nil, uint64(len(history)))); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			history = append(history, now)
			if rapid.IntRange(0, 4).Draw(t, "flush") == 0 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				flushed = len(history) - 1
			}
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err = state.Open(after, "p0", cache, discard)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		got := make(map[string]string)
		if err := s.Scan([]byte("k"), state.PrefixEnd([]byte("k")), func(k, v []byte) bool {
			got[string(k)] = string(v)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		at := 0
		if v, ok, err := s.Get([]byte("position"), nil); err != nil {
			t.Fatal(err)
		} else if ok {
			at = int(binary.BigEndian.Uint64(v))
		}
		if at < flushed || !maps.Equal(got, history[at]) {
			t.Fatalf("at position %d (flushed %d) the rows are %d, want %d", at, flushed, len(got), len(history[at]))
		}
	})
}

func TestCloseKeepsEverything(t *testing.T) {
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	fs := vfs.NewMem()
	s, err := state.Open(fs, "p0", cache, discard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := s.Set(fmt.Append(nil, "k", i), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = state.Open(fs, "p0", cache, discard); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.Scan([]byte("k"), nil, func(_, _ []byte) bool { n++; return n < 60 }); err != nil || n != 60 {
		t.Errorf("a scan that stops at 60 saw %d (%v)", n, err)
	}
	if v, ok, err := s.Get([]byte("k99"), []byte("have ")); err != nil || !ok || string(v) != "have v" {
		t.Errorf("Get: %q %v %v", v, ok, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := state.Wipe(fs, "p0"); err != nil {
		t.Fatal(err)
	}
	if s, err = state.Open(fs, "p0", cache, discard); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok, _ := s.Get([]byte("k99"), nil); ok {
		t.Error("a wiped store still has rows")
	}
}

func TestPrefixEnd(t *testing.T) {
	f := func(prefix, want []byte) {
		t.Helper()
		if got := state.PrefixEnd(prefix); !bytes.Equal(got, want) {
			t.Errorf("%x: got %x, want %x", prefix, got, want)
		}
	}
	f([]byte("J"), []byte("K"))
	f([]byte{1, 0xff}, []byte{2})
	f([]byte{0xff, 0xff}, nil)
	if slices.Compare([]byte{1, 0xff, 0xff}, state.PrefixEnd([]byte{1, 0xff})) >= 0 {
		t.Error("the end is not above its prefix")
	}
}
