package clicklog

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

// The machine dies before each single operation on the file system in turn, and keeps
// nothing, half or all of what was not synced. What is left opens, answers correctly
// for all offsets below Next, and is complete again after the topic has been read on.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, unsynced := range []int{0, 50, 100} {
		crashes := 0
		for at := 1; ; at++ {
			r := rand.New(rand.NewPCG(uint64(at), uint64(unsynced)))
			fs, store, died := runUntilCrash(t, r, at, unsynced)
			if !died {
				break
			}
			crashes++
			topic := randomTopic(rand.New(rand.NewPCG(1, 1)), 800)
			l := mustOpen(t, fs, store, clockAt(12_000))
			if err := verifyAnswers(l, store, topic, 0); err != nil {
				t.Fatalf("death before operation %d, %d %% of the unsynced kept: %v", at, unsynced, err)
			}
			for _, rec := range topic {
				if err := rec.putInto(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := verifyAnswers(l, store, topic, 0); err != nil {
				t.Fatalf("read on after death before operation %d: %v", at, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if crashes < 50 {
			t.Fatalf("only %d crashes: the test tests little", crashes)
		}
	}
}

// runUntilCrash runs a log over the topic and returns what a crash before the at-th
// write operation leaves; died is false if there are fewer.
func runUntilCrash(t *testing.T, r *rand.Rand, at, unsynced int) (fs *vfs.MemFS, store *memStore, died bool) {
	mem, full := newFS(t), newMemStore()
	count := 0 // operations come from the owner and from the writer, never both: the owner waits
	hooked := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			if count++; count == at {
				store = full.crash(r.IntN(2) == 0)
				fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: r})
			}
		}
		return nil
	}))
	l := mustOpen(t, hooked, full, clockAt(12_000))
	for i, rec := range randomTopic(rand.New(rand.NewPCG(1, 1)), 800) {
		if err := rec.putInto(l); err != nil {
			t.Fatal(err)
		}
		if i%200 == 199 {
			if err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.awaitWriter(); err != nil {
			t.Fatal(err)
		}
		if fs != nil {
			return fs, store, true
		}
	}
	return nil, nil, false
}

// Any order of puts, skips, seals, expiries, resizes, restarts and crashes gives the
// answers of a map.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		topic := randomTopic(r, 800)
		fs, store := newFS(t), newMemStore()
		now := clockAt(12_000)
		l := mustOpen(t, fs, store, now)
		collide := rapid.SampledFrom([]uint32{0xffffffff, 0xffffffff, 7, 0}).Draw(rt, "hash mask")
		l.hashMask = collide
		pos, expired := 0, uint32(0)
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		seek := func() { // after a restart the consumer continues at Next, or before it
			for pos = 0; pos < len(topic) && topic[pos].offset < l.Next()-int64(r.IntN(200)); pos++ {
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"read": func(rt *rapid.T) {
				n := rapid.IntRange(1, 400).Draw(rt, "n")
				for ; n > 0 && pos < len(topic); n-- {
					must(topic[pos].putInto(l))
					pos++
				}
			},
			"seal":   func(*rapid.T) { must(l.Seal()) },
			"resize": func(rt *rapid.T) { l.Resize(rapid.Int64Range(0, 4*minSlab).Draw(rt, "bytes")) },
			"expire": func(rt *rapid.T) {
				expired = max(expired, uint32(testEpoch+rapid.IntRange(9000, 10_500).Draw(rt, "seconds")))
				must(l.Expire(expired))
			},
			"check": func(*rapid.T) { must(verifyAnswers(l, store, topic, expired)) },
			"restart": func(*rapid.T) {
				next := l.Next()
				must(l.Close())
				l = mustOpen(t, fs, store, now)
				l.hashMask = collide
				if l.Next() != next {
					rt.Fatalf("next is %d after a restart, was %d", l.Next(), next)
				}
				seek()
			},
			"crash": func(rt *rapid.T) {
				cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: rapid.SampledFrom([]int{0, 30, 100}).Draw(rt,
					"unsynced"), RNG: r}
				keep := rapid.Bool().Draw(rt, "keep unflushed")
				// The writer may still run: copy the files first, or they could be
				// ahead of the copied store.
				dying := l
				fs = fs.CrashClone(cfg)
				store = store.crash(keep)
				must(dying.awaitWriter())
				l = mustOpen(t, fs, store, now)
				l.hashMask = collide
				seek()
				must(verifyAnswers(l, store, topic, expired))
			},
		})
		for ; pos < len(topic); pos++ {
			must(topic[pos].putInto(l))
		}
		must(verifyAnswers(l, store, topic, expired))
		must(l.Close())
	})
}
