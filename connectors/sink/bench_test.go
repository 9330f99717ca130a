package sink

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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
	set := r.sink(r.wh).mappings[topic.Clicks].newRows()
	b.ReportAllocs()
	began := cpu(b)
	for b.Loop() {
		set.resetRows()
		for _, rec := range records {
			if err := set.appendRow(rec, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*benchRows/(cpu(b)-began).Seconds(), "rows/cpu-s")
}

// All of a click's way into the tables, from the record, ClickHouse with all views
// included; merges, which come later and are the same whoever inserts, are not. The
// limit is the same rows as a block that ClickHouse itself wrote, posted in its Native
// format: nobody decodes a record and no column is made.
func BenchmarkInsertClicks(b *testing.B) {
	r := newRig(b)
	if err := r.wh.Exec(b.Context(), "SYSTEM STOP MERGES"); err != nil {
		b.Fatal(err)
	}
	records := r.clickRecords(benchRows)
	set := r.sink(r.wh).mappings[topic.Clicks].newRows()
	ours := func(n int) {
		set.resetRows()
		for _, rec := range records {
			if err := set.appendRow(rec, nil); err != nil {
				b.Fatal(err)
			}
		}
		into := clickhouse.Insert{Table: "clicks", Token: fmt.Sprint("bench", n)}
		if err := r.wh.InsertBlock(b.Context(), into, set.block(), func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	at, err := url.Parse(r.dsn)
	if err != nil {
		b.Fatal(err)
	}
	post := func(query string, body io.Reader) []byte {
		res, err := http.Post("http://"+at.Host+"/?"+url.Values{"database": {strings.TrimPrefix(at.Path, "/")},
			"query": {query}}.Encode(), "application/octet-stream", body)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(res.Status, err, string(answer))
		}
		return answer
	}
	ours(0)
	block := post("SELECT * FROM clicks ORDER BY src_offset SETTINGS max_block_size = 1000000 FORMAT Native", nil)
	var way, limit time.Duration
	n := 0
	for b.Loop() {
		n++
		began := cpu(b)
		ours(n)
		half := cpu(b)
		post(fmt.Sprintf("INSERT INTO clicks SETTINGS insert_deduplication_token = 'limit%d' FORMAT Native", n),
			bytes.NewReader(block))
		way, limit = way+half-began, limit+cpu(b)-half
	}
	var rows []struct {
		N uint64 `ch:"n"`
	}
	if err := r.wh.Select(b.Context(), &rows, "SELECT count() AS n FROM clicks"); err != nil ||
		rows[0].N != uint64(2*n+1)*benchRows {
		b.Fatalf("%v, %v: %d inserts of %d rows", err, rows, 2*n+1, benchRows)
	}
	b.ReportMetric(float64(n)*benchRows/way.Seconds(), "rows/cpu-s")
	b.ReportMetric(limit.Seconds()/way.Seconds(), "of-Native")
}
