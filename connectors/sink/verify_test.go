package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

// loss is what a ClickHouse that breaks off in an insert has lost of it, although it
// remembers its token.
type loss string

const (
	lostNothing  loss = "nothing"           // only the answer is lost
	lostAll      loss = "rows and sums"     // of the base table and the rollup
	lostSums     loss = "sums"              // those of the rollup
	lostRows     loss = "rows"              // those of the base table
	lostMonth    loss = "rows of one month" // one of two blocks of the base table
	lostRepair   loss = "a repair"          // what the sink added after one of these
	killedBefore loss = "sink killed before a repair arrived"
	killedAfter  loss = "sink killed after a repair arrived"
)

// ofRepairs are the losses of what the sink adds after a loss.
var ofRepairs = []loss{lostRepair, killedBefore, killedAfter}

// forgetful stands before ClickHouse. It breaks off inserts, and what it chooses of
// their rows and sums is lost. When such an insert is repeated it is acknowledged, as
// by a ClickHouse that remembers the token, and adds nothing.
type forgetful struct {
	r     *rig
	proxy *httputil.ReverseProxy
	twins sync.Mutex // of the tables without views

	want int // how often each loss comes about

	mu     sync.Mutex
	kill   func()          // kills the sink that runs
	losses map[loss]int    // how often each came about
	silent map[string]bool // tokens of inserts that are acknowledged and dropped
	seen   map[string]bool // tokens of all inserts
	busy   map[string]*sync.Mutex
}

func (f *forgetful) start(t *testing.T, dsn string) (through string) {
	t.Helper()
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.proxy = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to.Host})
	f.proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	f.losses = map[loss]int{}
	f.silent = map[string]bool{}
	f.seen = map[string]bool{}
	f.busy = map[string]*sync.Mutex{}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	to.Host = strings.TrimPrefix(server.URL, "http://")
	return to.String()
}

func (f *forgetful) count(l loss) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.losses[l]
}

// lock waits until no other insert with this token is under way.
func (f *forgetful) lock(token string) (unlock func()) {
	f.mu.Lock()
	busy := f.busy[token]
	if busy == nil {
		busy = new(sync.Mutex)
		f.busy[token] = busy
	}
	f.mu.Unlock()
	busy.Lock()
	return busy.Unlock
}

// fate chooses what is lost of an insert, and notes that a repetition is dropped.
func (f *forgetful) fate(token, table string) loss {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent[token] {
		return "dropped"
	}
	if f.seen[token] {
		return ""
	}
	f.seen[token] = true
	isMissing := func(l loss) bool { return f.losses[l] < f.want }
	choices := []loss{lostNothing, lostAll, lostSums, lostRows, lostMonth}
	isRepair := strings.Count(token, "/") > 3
	switch {
	case isRepair:
		choices = slices.Clone(ofRepairs)
	case table == "conversions":
		choices = []loss{lostAll, lostRows}
	}
	// Only after a loss comes a repair that can be lost.
	if isRepair || !slices.ContainsFunc(ofRepairs, isMissing) {
		choices = slices.DeleteFunc(choices, func(l loss) bool { return !isMissing(l) })
	}
	if len(choices) == 0 || rand.IntN(4) == 0 {
		return ""
	}
	chosen := choices[rand.IntN(len(choices))]
	f.losses[chosen]++
	if chosen == lostAll || chosen == lostSums || chosen == lostRepair {
		f.silent[token] = true
	}
	return chosen
}

func (f *forgetful) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	token := req.URL.Query().Get("insert_deduplication_token")
	into, isInsert := strings.CutPrefix(req.URL.Query().Get("query"), "INSERT INTO ")
	if token == "" || !isInsert {
		f.proxy.ServeHTTP(w, req)
		return
	}
	table, _, _ := strings.Cut(into, " ")
	// A token is noted, and what is lost is lost, before a repetition is answered.
	unlock := f.lock(token)
	defer unlock()
	fate := f.fate(token, table)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	// What arrived takes its course, whatever becomes of the sink.
	req = req.WithContext(context.WithoutCancel(req.Context()))
	req.Body = io.NopCloser(bytes.NewReader(body))
	switch fate {
	case "":
		f.proxy.ServeHTTP(w, req)
		return
	case "dropped":
		return
	case killedBefore, killedAfter:
		f.mu.Lock()
		kill := f.kill
		f.mu.Unlock()
		kill()
	}
	switch fate {
	case lostAll, lostRepair, killedBefore:
	case lostSums:
		f.forwardWithoutViews(table, req)
	default:
		f.proxy.ServeHTTP(httptest.NewRecorder(), req)
	}
	f.cutOff(token, table, fate)
}

// cutOff removes what is lost of an insert that has arrived, and breaks off.
func (f *forgetful) cutOff(token, table string, fate loss) {
	of := strings.Split(token, "/")
	rows := fmt.Sprintf("DELETE FROM %s WHERE src_partition = %s AND src_offset >= %s AND src_offset < %s",
		table, of[1], of[2], of[3])
	switch fate {
	case lostRows:
		f.r.exec(rows)
	case lostMonth:
		f.r.exec(rows + " AND toMonth(arrived_at) = toMonth(now())")
	}
	panic(http.ErrAbortHandler)
}

// forwardWithoutViews inserts into a base table and no table that its views feed.
func (f *forgetful) forwardWithoutViews(table string, req *http.Request) {
	f.twins.Lock()
	defer f.twins.Unlock()
	twin := table + "_twin"
	f.r.exec("CREATE TABLE IF NOT EXISTS " + twin + " AS " + table)
	values := req.URL.Query()
	values.Set("query", strings.Replace(values.Get("query"), "INTO "+table, "INTO "+twin, 1))
	req.URL.RawQuery = values.Encode()
	f.proxy.ServeHTTP(httptest.NewRecorder(), req)
	months := f.r.text("SELECT arrayStringConcat(groupUniqArray(partition_id), ' ') AS s FROM system.parts WHERE " +
		"active AND database = currentDatabase() AND table = '" + twin + "'")
	for _, month := range strings.Fields(months) {
		f.r.exec("ALTER TABLE " + table + " ATTACH PARTITION ID '" + month + "' FROM " + twin)
	}
	f.r.exec("TRUNCATE TABLE " + twin)
}

// ClickHouse acknowledges repeated inserts and has lost their rows, their sums, some of
// either, or what the sink added in their place; now and then the sink is killed at
// that. Tables and rollup are those of the source.
func TestAcknowledgedButLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	r.twoMonths = true
	f := &forgetful{r: r, want: 1}
	if long {
		f.want = 20
	}
	through := r.open(f.start(t, r.dsn))
	all := []loss{lostNothing, lostAll, lostSums, lostRows, lostMonth, lostRepair, killedBefore, killedAfter}
	enough := func() bool {
		for _, l := range all {
			if f.count(l) < f.want {
				return false
			}
		}
		return true
	}
	counts := map[string]float64{}
	for runs := 0; runs < 50*f.want && !enough(); runs++ {
		s := r.sink(through)
		s.cfg.BatchRows = 50
		run := r.start(s)
		f.mu.Lock()
		f.kill = func() { s.killAll() }
		f.mu.Unlock()
		r.fill(400)
		r.arrivedOrKilled(run)
		s.metrics.addTo(t, counts)
	}
	f.mu.Lock()
	f.kill = func() {}
	f.mu.Unlock()
	last := r.start(r.sink(through))
	r.arrived()
	last.stop(t)
	last.metrics.addTo(t, counts)
	t.Logf("lost in repeated inserts: %v; repaired: %v", f.losses, counts)
	if !enough() {
		t.Errorf("fewer than %d of each came about", f.want)
	}
	r.check()
}

// killAll ends the sink as a SIGKILL would.
func (s *Sink) killAll() {
	s.stopWithError(errKilled)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partitions := range s.owned {
		for _, p := range partitions {
			p.kill()
		}
	}
}

// addTo adds what was verified and repaired.
func (m *metrics) addTo(t *testing.T, counts map[string]float64) {
	t.Helper()
	for name, counter := range map[string]*prometheus.CounterVec{"verifications": m.verifications,
		"rows": m.repairedRows, "sums": m.repairedSums} {
		reg := prometheus.NewRegistry()
		reg.MustRegister(counter)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, metric := range family.Metric {
				counts[name] += metric.Counter.GetValue()
			}
		}
	}
}

// arrivedOrKilled waits until everything has arrived and stops the sink, or until the
// sink was killed.
func (r *rig) arrivedOrKilled(run *running) {
	r.t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(pollFirst) {
		select {
		case err := <-run.done:
			if !errors.Is(err, errKilled) {
				r.t.Fatalf("the sink ended with %v", err)
			}
			return
		default:
		}
		missing := r.missing()
		if missing == "" {
			run.cancel()
			if err := run.end(r.t); err != nil && !errors.Is(err, errKilled) {
				r.t.Fatalf("stopping the sink: %v", err)
			}
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("did not arrive: ", missing)
		}
	}
}

// killedInsert produces clicks, and a sink that is killed when their insert is done.
func (r *rig) killedInsert(t *testing.T, n int) {
	t.Helper()
	r.fillClicks(n)
	s := r.sink(r.wh)
	killAt(s, stepInsertDone, topic.Clicks, 1)
	r.start(s).killed(t)
}

// The rollup counts more than the base table has rows, and nothing explains it: the
// sink stops and says where. A rebuild mends it.
func TestSurplusStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fillClicks(50)
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	r.exec("INSERT INTO " + rollup.Table + " SELECT * FROM " + rollup.Table + " LIMIT 1")
	r.killedInsert(t, 50)
	r.stops(t, ErrSurplus, "more than table clicks has rows of partition 0 of clicks")
	r.stops(t, ErrSurplus, "quarter of an hour 2026-03-14 15:00:00 +0000 UTC")
	if done := r.complete(); len(done) != 1 || done[0].Had != 50 || done[0].Inserted != 0 {
		t.Errorf("completed %+v", done)
	}
	r.goesOn()
}

// Rows were dropped because of their age, and their sums stay, also in the quarters that
// a repeated insert touches.
func TestOldSumsStay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.twoMonths = true
	r.fillClicks(100)
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	r.exec("ALTER TABLE clicks DROP PARTITION ID '" + time.Now().UTC().AddDate(0, 0, -31).Format("200601") + "'")
	r.exec("ALTER TABLE clicks DROP PARTITION ID '" + time.Now().UTC().Format("200601") + "'")
	r.twoMonths = false
	r.killedInsert(t, 50)
	run = r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	counts := map[string]float64{}
	run.metrics.addTo(t, counts)
	if counts["verifications"] == 0 || counts["sums"] != 0 {
		t.Errorf("verified and repaired: %v", counts)
	}
	r.want["clicks"] = r.want["clicks"][100:]
	r.check()
}

// While an insert of the batch runs, nothing is taken for missing.
func TestVerificationWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sink(r.wh)
	id := batchID{topicID: "T", partition: 1, start: 10, end: 100}
	v := &verification{
		partition: s.newPartition(s.mappings[topic.Clicks], 1, 10, nil),
		batch:     &batch{batchID: id},
	}
	defer v.kill()
	for token, waits := range map[string]bool{
		id.deduplicationToken():                true,
		id.deduplicationToken() + "/rows/ab/0": true,
		id.deduplicationToken() + "0":          false, // another batch
	} {
		body, data := io.Pipe()
		inserted := make(chan error, 1)
		go func() { inserted <- r.insertRaw(token, body) }()
		for range 100_000 { // more than is read ahead
			fmt.Fprintln(data, "1\t10")
		}
		for deadline := time.Now().Add(hang); r.text("SELECT toString(count()) AS s FROM system.processes WHERE "+
			"Settings['insert_deduplication_token'] = '"+token+"'") == "0"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the insert does not run")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := v.awaitStillness(ctx)
		cancel()
		if waits != (err != nil) {
			t.Errorf("while an insert with token %s runs: %v", token, err)
		}
		data.Close()
		if err := <-inserted; err != nil {
			t.Fatal(err)
		}
		if err := v.awaitStillness(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// insertRaw inserts what comes from body into clicks.
func (r *rig) insertRaw(token string, body io.Reader) error {
	to, err := url.Parse(r.dsn)
	if err != nil {
		return err
	}
	query := url.Values{
		"database":                   {strings.TrimPrefix(to.Path, "/")},
		"query":                      {"INSERT INTO clicks (src_partition, src_offset) FORMAT TSV"},
		"insert_deduplication_token": {token},
	}
	res, err := http.Post("http://"+to.Host+"/?"+query.Encode(), "text/plain", body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s %w", res.Status, text, err)
	}
	return nil
}
