package export

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// Rows of the last day, and the watermark that passes it, arrive right after the ends
// were read: the file lacks the rows, so it may not be called final.
func TestWatermarkPassesWhileAnExportBegins(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	direct, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn := clickhousetest.OpenMigrated(t, dsn)
	r := &rig{TB: t, conn: conn}
	r.catalog(0, "workspace", "workspace/acme", `{"name":"Acme","timezone":"Europe/Berlin"}`)
	r.rows(50, true)

	var once sync.Once
	happened := false
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: direct.Scheme, Host: direct.Host})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, q)
		if bytes.Contains(body, []byte("FROM tiled_ends")) {
			once.Do(func() {
				happened = true
				r.rows(50, true)
				r.exec("INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, caught_up, " +
					"src_partition, src_offset) SELECT number, now64(3), now64(3), now64(3), true, number, 0 " +
					"FROM numbers(2)")
				r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT " +
					"'x', 'progress', number, 0, 1, 1 FROM numbers(2)")
			})
		}
	}))
	t.Cleanup(proxy.Close)
	between, _ := url.Parse(proxy.URL)
	direct.Host = between.Host
	slow, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: direct.String()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slow.Close() })

	first, err := Run(t.Context(), slow, config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	later, err := Run(t.Context(), slow, config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if !happened || first.Rows >= later.Rows {
		t.Fatalf("nothing came between: %d rows, then %d", first.Rows, later.Rows)
	}
	if !first.Provisional || later.Provisional {
		t.Errorf("provisional: %v for the file that lacks rows, %v for the whole one; want true, false",
			first.Provisional, later.Provisional)
	}
}
