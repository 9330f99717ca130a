package sink

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// cpu is the processor time of this process so far, ClickHouse included: it runs in it.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const benchRows = 50_000

func (r *rig) clickRecords(n int) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = r.clickRecord(r.click(i), 0, false)
		records[i].Offset, records[i].Timestamp = int64(i), epoch
	}
	return records
}

// What the sink itself does for a click: decode, and append to columns.
func BenchmarkCollectClicks(b *testing.B) {
	r := newRig(b)
	records := r.clickRecords(benchRows)
	set := r.sink(r.wh).feeds[topic.Clicks].newRows()
	b.ReportAllocs()
	began := cpu(b)
	for b.Loop() {
		set.reset()
		for _, rec := range records {
			if err := set.add(rec, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*benchRows/(cpu(b)-began).Seconds(), "rows/cpu-s")
}

// All of a click's way into the tables, ClickHouse with all views included.
func BenchmarkInsertClicks(b *testing.B) {
	r := newRig(b)
	records := r.clickRecords(benchRows)
	set := r.sink(r.wh).feeds[topic.Clicks].newRows()
	began, n := cpu(b), 0
	for b.Loop() {
		n++
		set.reset()
		for _, rec := range records {
			if err := set.add(rec, nil); err != nil {
				b.Fatal(err)
			}
		}
		err := r.wh.Insert(b.Context(), clickhouse.Insert{Table: "clicks", Columns: set.names(), Token: fmt.Sprint("bench", n)}, set.fill)
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*benchRows/(cpu(b)-began).Seconds(), "rows/cpu-s")
}
