package web

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/prometheus/client_golang/prometheus"
)

// requests is how often a route was answered with a code.
func (r *rig) requests(route, code string) float64 {
	r.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(r.server.metrics.requests)
	families, err := reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if m.Label[0].GetValue() == code && m.Label[1].GetValue() == route {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// counted waits until a route was answered with a code.
func (r *rig) counted(route, code string) {
	r.Helper()
	for end := time.Now().Add(2 * time.Minute); r.requests(route, code) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("%s is not counted as %s", route, code)
		}
	}
}

// A download that breaks off midway never looks whole: its connection is cut, it is
// counted apart from those that arrived, and logged.
func TestBrokenDownload(t *testing.T) {
	const path, route, rows = "/v1/workspaces/acme/outcomes.csv", "GET /v1/workspaces/{w}/outcomes.csv", 20_000
	dsn := clickhousetest.ForTest(t)
	fillWarehouse(t, dsn)
	big := func(t *testing.T) *rig { t.Helper(); return newRigOn(t, dsn) }
	// Far more than fits into the buffers of a connection.
	if err := big(t).conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, occurred_at, event_partition, event_offset, reason_text, src_partition, src_offset)
		SELECT 'acme', toString(number), 't', 'attributed', 'lead', 1, toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 2, number, repeat('x', 1500), 2, number FROM numbers(20000)`); err != nil {
		t.Fatal(err)
	}
	try := func(r *rig, url string) (*http.Response, error) {
		r.Helper()
		req, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			r.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer secret of acme")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 100)); err != nil || res.StatusCode != 200 {
			return nil, errors.Join(fmt.Errorf("%s: %w", res.Status, err), res.Body.Close())
		}
		return res, nil
	}
	open := func(r *rig, url string) *http.Response {
		r.Helper()
		res, err := try(r, url)
		if err != nil {
			r.Fatal(err)
		}
		return res
	}
	t.Run("its reader leaves", func(t *testing.T) {
		r := big(t)
		open(r, r.URL).Body.Close()
		r.counted(route, codeAborted)
		if !r.logged.has("a CSV broke off") || r.requests(route, "200") != 0 {
			t.Error("it is not logged, or counted as answered too")
		}
	})
	t.Run("its reader stops until the time is over", func(t *testing.T) {
		// How much time brings the first bytes but not the last depends on the machine.
		r := big(t)
		limit := 2 * time.Second
		r.server.csvTime = limit
		res, err := try(r, r.URL)
		for attempt := 1; err != nil; attempt++ {
			if attempt == 5 {
				t.Fatalf("nothing comes within %v: %v", limit, err)
			}
			limit *= 2
			r = big(t)
			r.server.csvTime = limit
			res, err = try(r, r.URL)
		}
		defer res.Body.Close()
		r.counted(route, codeAborted)
		if _, err := io.Copy(io.Discard, res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("what breaks off ends with %v", err)
		}
		if !r.logged.has("a CSV broke off") {
			t.Error("it is not logged")
		}
	})
	t.Run("it takes longer than other answers may", func(t *testing.T) {
		r := big(t)
		hasty := httptest.NewUnstartedServer(r.server)
		hasty.Config.WriteTimeout = 50 * time.Millisecond // of everything that asks for no more
		hasty.Start()
		defer hasty.Close()
		began := time.Now()
		req, _ := http.NewRequest(http.MethodGet, hasty.URL+path, nil)
		req.Header.Set("Authorization", "Bearer secret of acme")
		code, _, body := r.do(req)
		records, err := csv.NewReader(bytes.NewReader([]byte(body))).ReadAll()
		if code != 200 || err != nil || len(records) != 1+160+rows || time.Since(began) < hasty.Config.WriteTimeout {
			t.Errorf("%d, %d records in %v: %v", code, len(records), time.Since(began), err)
		}
		r.counted(route, "200")
	})
}

// While ClickHouse is away every request gets 503, and the log one line.
func TestWarehouseAway(t *testing.T) {
	r := newRig(t)
	if err := r.conn.Close(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		for _, path := range []string{"/v1/workspaces/acme/performance", "/v1/workspaces/acme/outcomes", "/"} {
			if code, _, body := r.get("acme", path); code != 503 {
				t.Fatalf("%s: %d %.300s", path, code, body)
			}
		}
	}
	r.logged.mu.Lock()
	defer r.logged.mu.Unlock()
	if n := strings.Count(r.logged.text, "level="); n != 1 ||
		!strings.Contains(r.logged.text, `level=WARN msg="waiting for ClickHouse"`) {
		t.Errorf("%d lines:\n%s", n, r.logged.text)
	}
}

// A query that takes too long is said to, to its reader and in the log; a reader who
// leaves is neither an error nor an answer.
func TestTooLong(t *testing.T) {
	r := newRig(t)
	r.server.queryTime, r.server.csvTime = time.Nanosecond, time.Nanosecond
	for path, route := range map[string]string{"/v1/workspaces/acme/performance": "GET /v1/workspaces/{w}/performance",
		"/v1/workspaces/acme/performance.csv": "GET /v1/workspaces/{w}/performance.csv", "/": "GET /{$}"} {
		code, _, body := r.get("acme", path)
		if code != 503 || !bytes.Contains([]byte(body), []byte("ask for fewer days")) ||
			!r.logged.has(`msg="a query took too long" path=`+path+" ") {
			t.Errorf("%s: %d %.300s", path, code, body)
		}
		r.counted(route, "503")
	}
	left, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(left, http.MethodGet, "/v1/workspaces/acme/coverage", nil)
	req.Header.Set("Authorization", "Bearer secret of acme")
	r.server.queryTime = queryTime
	r.server.ServeHTTP(httptest.NewRecorder(), req)
	r.counted("GET /v1/workspaces/{w}/coverage", "499")
}
