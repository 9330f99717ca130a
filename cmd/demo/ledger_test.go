package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
)

const (
	sales  = "SELECT count(), sum(effect * amount_minor) FROM outcomes WHERE effect != 0"
	rollup = "SELECT sum(clicks), sum(sales), sum(refunds), sum(gross_minor), sum(negative_minor), " +
		"sum(net_minor), sum(standing_minor), sum(reward_minor) FROM partner_daily WHERE partner_id = 'prt_nomura'"
)

// checkReport compares the report's figures after the first sale, read with the demo's
// reader token.
func (r *runningDemo) checkReport() {
	r.t.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, "reader-token-acme.txt"))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet,
		fmt.Sprintf("http://127.0.0.1:%d/v1/workspaces/acme/performance?partner=prt_nomura", r.base+2), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"sales":1`) ||
		!strings.Contains(string(body), `"standing_minor":10000`) {
		r.t.Errorf("the report says %d %s, %v", res.StatusCode, body, err)
	}
}

// One visitor, one sale and one refund, seen from outside. Then Ctrl-C and a start on
// the same data. Then rows are deleted and duplicated, and conservation must show it.
func TestLedgerLivesOn(t *testing.T) {
	t.Parallel()
	dir, base := t.TempDir(), freeBase(t)
	r := startServing(t, dir, base)
	location, tok := r.followLink("/nomura")
	if want := "https://shop.acme.com/?ref=a%2Bb&nim_ct=" + tok + "#top"; location != want || len(tok) != 27 {
		t.Fatalf("location %s, want %s", location, want)
	}
	r.postEvent(map[string]any{
		"event_id":    "e1",
		"type":        "sale",
		"click_token": tok,
		"amount":      "100.00",
		"currency":    "EUR",
		"order_id":    "o1",
	})
	r.awaitResult(sales, "1\t10000")
	r.awaitResult(rollup, "1\t1\t0\t10000\t0\t10000\t10000\t1000")
	r.checkReport()
	before := r.queryWarehouse("SELECT * FROM outcomes WHERE event_id = 'e1'")
	r.postEvent(map[string]any{
		"event_id":        "e2",
		"type":            "refund",
		"click_token":     tok,
		"amount":          "30.00",
		"currency":        "EUR",
		"parent_event_id": "e1",
	})
	r.awaitResult(sales, "2\t7000")
	r.awaitResult(rollup, "1\t1\t1\t10000\t-3000\t7000\t7000\t700")
	if after := r.queryWarehouse("SELECT * FROM outcomes WHERE event_id = 'e1'"); after != before {
		t.Errorf("the refund changed its sale:\n%s\n%s", before, after)
	}
	everything := func(r *runningDemo) string {
		return r.queryWarehouse("SELECT (SELECT (count(), sum(cityHash64(*))) FROM clicks), (SELECT (count(), "+
			"sum(cityHash64(*))) FROM conversions), (SELECT (count(), sum(cityHash64(*))) FROM outcomes)") +
			r.queryWarehouse(rollup)
	}
	was := everything(r)
	r.interrupt()

	r = startServing(t, dir, base)
	if is := everything(r); is != was {
		t.Errorf("after a restart: %s, was %s", is, was)
	}
	_, tok2 := r.followLink("/nomura")
	// of a sale before the restart
	r.postEvent(map[string]any{
		"event_id":        "e3",
		"type":            "refund",
		"click_token":     tok,
		"amount":          "20.00",
		"currency":        "EUR",
		"parent_event_id": "e1",
	})
	r.postEvent(map[string]any{"event_id": "e4", "type": "lead", "click_token": tok2})
	r.awaitResult(sales, "4\t5000")
	r.awaitResult(rollup, "2\t1\t2\t10000\t-5000\t5000\t5000\t500")
	const difference = "SELECT sum(difference) != 0, sum(waiting) FROM conservation"
	const perWorkspace = "SELECT sum(difference) != 0 FROM workspace_conservation"
	r.awaitResult("SELECT sum(read) FROM conservation", "4")
	r.awaitResult(difference, "0\t0")
	r.awaitResult(perWorkspace, "0")
	r.queryWarehouse("ALTER TABLE outcomes DELETE WHERE event_id = 'e4' SETTINGS mutations_sync = 1")
	r.awaitResult(difference, "1\t0")
	r.queryWarehouse("INSERT INTO outcomes SELECT * FROM outcomes WHERE event_id = 'e3' SETTINGS " +
		"insert_deduplicate = 0, " +
		"deduplicate_insert = 'disable'")
	r.awaitResult(perWorkspace, "1")
	r.interrupt()
}

// Conservation shows a waiting event that vanished from the state: fewer events are
// judged or waiting than were read.
func TestConservationSeesALostWaitingEvent(t *testing.T) {
	t.Parallel()
	dir, base := t.TempDir(), freeBase(t)
	args := []string{"-grace", "10m"}
	r := startServing(t, dir, base, args...)
	keys, err := token.LoadKeyring(os.DirFS(filepath.Join(dir, "token-keys")))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := keys.Mint("acme", time.Now(), strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	// its click never happened
	r.postEvent(map[string]any{"event_id": "w1", "type": "lead", "click_token": token.Text(&raw)})
	const conservation = "SELECT sum(read), sum(waiting), sum(difference) FROM conservation"
	r.awaitResult(conservation, "1\t1\t0")
	r.interrupt()

	cache := state.NewCache(1 << 20)
	defer cache.Close()
	lost := 0
	stores, err := filepath.Glob(filepath.Join(dir, "processor", "p*", "journeys"))
	if err != nil || len(stores) != 6 {
		t.Fatalf("%v %v", stores, err)
	}
	for _, path := range stores {
		s, err := state.OpenDir(path, cache, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		if err := s.Scan([]byte{'D'}, []byte{'E'}, func(key, _ []byte) bool {
			lost++
			b.Delete(key)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost != 1 {
		t.Fatalf("%d waiting events were lost, meant to lose 1", lost)
	}
	r = startServing(t, dir, base, args...)
	r.awaitResult("SELECT sum(read), sum(waiting), sum(difference) > 0 FROM conservation", "1\t0\t1")
	r.interrupt()
}
