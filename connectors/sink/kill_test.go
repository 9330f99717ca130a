package sink

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMain also serves as the ClickHouse that a test kills.
func TestMain(m *testing.M) {
	clickhousetest.ServeIfChild()
	os.Exit(m.Run())
}

// ClickHouse is killed in inserts. After every second kill that hits one, a part that
// the insert has written is removed, as if the kill had come between the note of its
// token and its own name: a gap that a kill seldom meets. After every third kill the
// sink is killed, too. Tables and rollup are those of the source.
func TestClickHouseKilledInInserts(t *testing.T) {
	t.Parallel()
	process := clickhousetest.StartProcess(t)
	r := &rig{
		t:         t,
		dsn:       process.DSN("partners"),
		codec:     event.DefaultCodec(),
		want:      map[string][]spot{},
		sums:      map[string]int64{},
		spread:    1, // all parts that are written after an insert was sent are its own
		twoMonths: true,
	}
	r.cluster, r.brokers = kafkatest.Cluster(t)
	r.migrated()
	want := 4
	if long {
		want = 100
	}
	counts := map[string]float64{}
	hits, removed := 0, 0
	for kills := 0; hits < want || removed < want/4; kills++ {
		if kills == 20*want {
			t.Fatalf("%d of %d kills hit an insert", hits, kills)
		}
		s := r.sink(r.open(r.dsn))
		var parts atomic.Pointer[[]string] // when the insert was sent
		var sentAt atomic.Int64            // of the insert that is under way, Unix nanoseconds; 0: none
		var lastTook atomic.Int64          // nanoseconds
		var done atomic.Int64              // inserts that were confirmed
		sent := make(chan struct{}, 1)
		s.env.AfterStep = func(reached step, name string, _ int32) error {
			switch {
			case name != topic.Clicks:
			case reached == stepInsertSent:
				listed := listInsertedParts(t, process.DataDir())
				parts.Store(&listed)
				sentAt.Store(time.Now().UnixNano())
				select {
				case sent <- struct{}{}:
				default:
				}
			case reached == stepInsertDone:
				done.Add(1)
				lastTook.Store(time.Now().UnixNano() - sentAt.Swap(0))
			}
			return nil
		}
		run := r.start(s)
		// The first inserts of a process are slow: how long one takes is seen at the third.
		for range 3 {
			r.fillClicks(200)
			r.arrived()
		}
		took := time.Duration(lastTook.Load())
		for len(sent) > 0 {
			<-sent
		}
		r.fillClicks(200)
		select {
		case <-sent:
		case <-time.After(hang):
			t.Fatal("no insert was sent")
		}
		time.Sleep(rand.N(took + took/4)) // somewhere in the insert, or just behind it
		// After the kill the next attempt soon sets these.
		at := sentAt.Load()
		before := *parts.Load()
		finished := done.Load()
		process.Kill()
		if at > 0 && done.Load() == finished {
			hits++
			if hits%2 == 0 && removeNewPart(t, process.DataDir(), before) {
				removed++
			}
		}
		if kills%3 == 0 {
			s.killAll()
		}
		process.Start()
		r.arrivedOrKilled(run)
		s.metrics.addTo(t, counts)
	}
	last := r.start(r.sink(r.open(r.dsn)))
	r.arrived()
	last.stop(t)
	last.metrics.addTo(t, counts)
	t.Logf("killed in %d inserts, a part removed after %d of them: %v", hits, removed, counts)
	if removed == 0 || counts["rows"]+counts["sums"] == 0 {
		t.Error("no token was noted without its part")
	}
	r.check()
}

// insertedPart is the name of a part: month, first and last block, level. A part of one
// block was inserted, not merged.
var insertedPart = regexp.MustCompile(`^[0-9]{6}_([0-9]+)_([0-9]+)_[01]$`)

// listInsertedParts returns the directories of all parts that were inserted.
func listInsertedParts(t *testing.T, dataDir string) (parts []string) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(dataDir, "store", "*", "*", "*"))
	if err != nil {
		t.Error(err)
	}
	for _, dir := range dirs {
		if name := insertedPart.FindStringSubmatch(filepath.Base(dir)); name != nil && name[1] == name[2] {
			parts = append(parts, dir)
		}
	}
	return parts
}

// removeNewPart removes a part that was not there before, if there is one.
func removeNewPart(t *testing.T, dataDir string, before []string) bool {
	t.Helper()
	parts := slices.DeleteFunc(listInsertedParts(t, dataDir), func(dir string) bool {
		return slices.Contains(before, dir)
	})
	if len(parts) == 0 {
		return false
	}
	if err := os.RemoveAll(parts[rand.IntN(len(parts))]); err != nil {
		t.Fatal(err)
	}
	return true
}

// fillClicks produces n clicks.
func (r *rig) fillClicks(n int) {
	r.t.Helper()
	var clicks []*kgo.Record
	for i := range n {
		c := r.click(10 * i) // shown, by people
		clicks = append(clicks, r.clickRecord(c, int32(i%r.spread), false))
		if r.twoMonths && i/r.spread%2 == 1 {
			clicks[i].Timestamp = time.Now().AddDate(0, 0, -31)
		}
	}
	r.produce("clicks", clicks...)
	for _, name := range []string{"clicks", "human_clicks", "tokened_clicks"} {
		r.sums[name] += int64(n)
	}
}
