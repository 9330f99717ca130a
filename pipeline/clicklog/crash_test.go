package clicklog

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

// The machine dies before each single operation on the file system in turn, keeping
// nothing, half or all of what was not synced. Whatever is left opens, answers rightly
// for all below Next, and is whole again when the topic has been read on.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, unsynced := range []int{0, 50, 100} {
		crashes := 0
		for at := 1; ; at++ {
			r := rand.New(rand.NewPCG(uint64(at), uint64(unsynced)))
			fs, side, died := liveUntil(t, r, at, unsynced)
			if !died {
				break
			}
			crashes++
			topic := topicOf(rand.New(rand.NewPCG(1, 1)), 800)
			l := mustOpen(t, fs, side, clock(12_000))
			if err := verify(l, side, topic, 0); err != nil {
				t.Fatalf("death before operation %d, %d %% of the unsynced kept: %v", at, unsynced, err)
			}
			for _, rec := range topic {
				if err := rec.feed(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := verify(l, side, topic, 0); err != nil {
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

// liveUntil runs a log over the topic and returns what a crash before the at-th write
// operation leaves; died is false if there are fewer.
func liveUntil(t *testing.T, r *rand.Rand, at, unsynced int) (fs *vfs.MemFS, side *mapSide, died bool) {
	mem, full := newFS(t), newMapSide()
	count := 0 // operations come from the owner and from the writer, never both: the owner waits
	hooked := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			if count++; count == at {
				side = full.crash(r.IntN(2) == 0)
				fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: r})
			}
		}
		return nil
	}))
	l := mustOpen(t, hooked, full, clock(12_000))
	for i, rec := range topicOf(rand.New(rand.NewPCG(1, 1)), 800) {
		if err := rec.feed(l); err != nil {
			t.Fatal(err)
		}
		if i%200 == 199 {
			if err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.wait(); err != nil {
			t.Fatal(err)
		}
		if fs != nil {
			return fs, side, true
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
		topic := topicOf(r, 800)
		fs, side := newFS(t), newMapSide()
		now := clock(12_000)
		l := mustOpen(t, fs, side, now)
		collide := rapid.SampledFrom([]uint32{0xffffffff, 0xffffffff, 7, 0}).Draw(rt, "hash mask")
		l.hashMask = collide
		pos, expired := 0, uint32(0)
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		seek := func() { // where the consumer goes on after a restart: at Next, or before it
			for pos = 0; pos < len(topic) && topic[pos].offset < l.Next()-int64(r.IntN(200)); pos++ {
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"read": func(rt *rapid.T) {
				n := rapid.IntRange(1, 400).Draw(rt, "n")
				for ; n > 0 && pos < len(topic); n-- {
					must(topic[pos].feed(l))
					pos++
				}
			},
			"seal":   func(*rapid.T) { must(l.Seal()) },
			"resize": func(rt *rapid.T) { l.Resize(rapid.Int64Range(0, 4*minSlab).Draw(rt, "bytes")) },
			"expire": func(rt *rapid.T) {
				expired = max(expired, uint32(testEpoch+rapid.IntRange(9000, 10_500).Draw(rt, "seconds")))
				must(l.Expire(expired))
			},
			"check": func(*rapid.T) { must(verify(l, side, topic, expired)) },
			"restart": func(*rapid.T) {
				next := l.Next()
				must(l.Close())
				l = mustOpen(t, fs, side, now)
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
				// its writer may be at work: files first, or they could be ahead of
				// this copy of the Side
				dying := l
				fs, side = fs.CrashClone(cfg), side.crash(keep)
				must(dying.wait())
				l = mustOpen(t, fs, side, now)
				l.hashMask = collide
				seek()
				must(verify(l, side, topic, expired))
			},
		})
		for ; pos < len(topic); pos++ {
			must(topic[pos].feed(l))
		}
		must(verify(l, side, topic, expired))
		must(l.Close())
	})
}
