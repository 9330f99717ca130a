package clicklog_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/token"
)

// The benchmarks put the same clicks, 343 bytes each and as repetitive as real ones,
// into the log and into Pebble, and wait until all are durable. ns/op is elapsed time;
// cpu-ns/op is what all threads used, the background's included.
//
//	go test -run - -bench . -benchtime 3000000x ./pipeline/clicklog

const (
	benchEpoch  = 380_000_000 // seconds of the KSUID epoch, in 2026
	benchPerSec = 1000
	benchValue  = 343
	benchOwn    = 107       // of them are the visitor's; the rest is one of 997
	benchGets   = 1_000_000 // clicks to get from
)

type benchClicks struct{ bodies [][]byte }

func newBenchClicks() benchClicks {
	var c benchClicks
	for i := range 997 {
		b := fmt.Appendf(nil,
			"\x00\x00\x00\x00\x01ws_%04d|%027d|lnk_%08x|go.acme-1.example|partner-%d-spring|"+
				"https://www.acme-1.example/collections/spring-sale/%d|"+
				"prt_%06d|nomura-media-%d|Nomura Media %d|approved|prg_%04d|spring-%d|Spring Programme "+
				"%d|asg_%06d|partner|affiliate|spring_%d|banner_%d|hero-copy|b|www.youtube.com|%s",
			i%8, 0, uint32(i)*2654435761, i, i, i%97, i%97, i%97, i%23, i%23, i%23, i, i%23, i%5,
			[]string{"DE", "US", "JP"}[i%3])
		if len(b) < benchValue {
			b = append(b, "|desktop|Windows|Chrome|mobile|iOS|Safari|tablet|Android"...)
		}
		c.bodies = append(c.bodies, b[:benchValue])
	}
	return c
}

// fill writes the i-th click: its token and, in its value, the token as text and the
// time.
func (c benchClicks) fill(i int, t *token.Raw, value []byte) {
	binary.BigEndian.PutUint32(t[:], uint32(benchEpoch+i/benchPerSec))
	x := uint64(i) * 0x9E3779B97F4A7C15
	x ^= x >> 29
	y := x * 0xBF58476D1CE4E5B9
	y ^= y >> 32
	binary.BigEndian.PutUint64(t[4:], y)
	binary.BigEndian.PutUint64(t[12:], x*0x94D049BB133111EB)
	copy(value, c.bodies[i%len(c.bodies)])
	for k, b := range t { // 40 of the 343 bytes are random to a compressor
		value[13+2*k], value[14+2*k] = 'a'+b&15, 'a'+b>>4
	}
}

func benchNow() time.Time { return time.Unix(1_400_000_000+benchEpoch+1<<20, 0) }

type discardStore struct{}

func (discardStore) PutClick(*token.Raw, int64, []byte) error { return nil }
func (discardStore) Flush() error                             { return nil }
func (discardStore) GetClick(_ *token.Raw, b []byte) ([]byte, int64, bool, error) {
	return b, 0, false, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measureLoop runs the loop and reports what is common to all benchmarks.
func measureLoop(b *testing.B, loop func(n int)) {
	b.SetBytes(benchValue)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	loop(b.N)
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

func openBenchLog(b *testing.B) *clicklog.Log {
	l, err := clicklog.Open(vfs.Default, b.TempDir(), clicklog.Identity{Cluster: "bench"}, clicklog.DefaultConfig(),
		discardStore{}, benchNow)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

func fillLog(b *testing.B, l *clicklog.Log, n int) {
	c, t, value := newBenchClicks(), token.Raw{}, make([]byte, benchValue)
	for i := range n {
		c.fill(i, &t, value)
		if err := l.Put(&t, int64(1_400_000_000+benchEpoch+i/benchPerSec)*1000, value, benchOwn, int64(i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Seal(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPut(b *testing.B) {
	b.Run("harness", func(b *testing.B) {
		c, t, value := newBenchClicks(), token.Raw{}, make([]byte, benchValue)
		measureLoop(b, func(n int) {
			for i := range n {
				c.fill(i, &t, value)
			}
		})
	})
	b.Run("clicklog", func(b *testing.B) {
		l := openBenchLog(b)
		measureLoop(b, func(n int) { fillLog(b, l, n) })
		st := l.Stats()
		b.ReportMetric(float64(st.DiskBytes)/float64(b.N), "disk-B/op")
	})
	b.Run("pebble", func(b *testing.B) {
		db := openBenchPebble(b)
		measureLoop(b, func(n int) { fillPebble(b, db, n) })
		b.ReportMetric(float64(db.Metrics().DiskSpaceUsage())/float64(b.N), "disk-B/op")
	})
}

func BenchmarkGet(b *testing.B) {
	c := newBenchClicks()
	check := func(b *testing.B, v, want []byte, err error) {
		if err != nil || !bytes.Equal(v, want) {
			b.Fatal("wrong click", err)
		}
	}
	b.Run("clicklog", func(b *testing.B) {
		l := openBenchLog(b)
		fillLog(b, l, benchGets)
		r, t, want := rand.New(rand.NewPCG(1, 2)), token.Raw{}, make([]byte, benchValue)
		buf := make([]byte, 0, 512)
		measureLoop(b, func(n int) {
			for range n {
				c.fill(r.IntN(benchGets), &t, want)
				v, _, err := l.Get(&t, buf[:0])
				check(b, v, want, err)
			}
		})
	})
	b.Run("pebble", func(b *testing.B) {
		db := openBenchPebble(b)
		fillPebble(b, db, benchGets)
		r, t, want := rand.New(rand.NewPCG(1, 2)), token.Raw{}, make([]byte, benchValue)
		buf := make([]byte, 0, 512)
		measureLoop(b, func(n int) {
			for range n {
				c.fill(r.IntN(benchGets), &t, want)
				v, closer, err := db.Get(t[:])
				if err != nil {
					b.Fatal(err)
				}
				buf = append(buf[:0], v...)
				check(b, buf, want, closer.Close())
			}
		})
	})
}

func openBenchPebble(b *testing.B) *pebble.DB {
	opts := &pebble.Options{DisableWAL: true, MemTableSize: 64 << 20, MemTableStopWritesThreshold: 4,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             quietLogger{b}}
	opts.EnsureDefaults()
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(b.TempDir(), opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// fillPebble puts in batches of 100, which Pebble likes better than single puts.
func fillPebble(b *testing.B, db *pebble.DB, n int) {
	c, t, value := newBenchClicks(), token.Raw{}, make([]byte, benchValue)
	batch := db.NewBatch()
	for i := range n {
		c.fill(i, &t, value)
		if err := batch.Set(t[:], value, nil); err != nil {
			b.Fatal(err)
		}
		if batch.Count() == 100 || i == n-1 {
			if err := batch.Commit(pebble.NoSync); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	if err := batch.Close(); err != nil {
		b.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		b.Fatal(err)
	}
}

// quietLogger keeps Pebble's notices out of the figures.
type quietLogger struct{ b *testing.B }

func (quietLogger) Infof(string, ...any)                {}
func (quietLogger) Errorf(string, ...any)               {}
func (q quietLogger) Fatalf(format string, args ...any) { q.b.Fatalf(format, args...) }
