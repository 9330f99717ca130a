//go:build linux

package blackbox

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

// An install of the first release is taken over in the order of the runbook, with
// traffic running. The sums are those of before; journeys that began under the first
// rules are finished under today's; an old manifest writes its file again, byte for
// byte.
//
// The traffic of the first release is written to Kafka in its schemas. Where
// PARTNERS_TEST_OLD_BINARIES names the programs of the first release, they serve visitors
// and merchants at first, and each of today's takes the place of one of them.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgradeRig(t)
	if err := unpackFixture(fixtureFile, u.dir); err != nil {
		t.Fatal(err)
	}
	u.broker = kafkatest.RealFrom(t, filepath.Join(u.dir, "kafka"), ageless...)
	u.useBroker()
	before := u.readTopics()
	old := oldRelease()
	var l *trafficLoad
	var stop func()
	if old != "" {
		u.startOldRelease(old)
		l = u.resumeLoad(before)
		stop = l.start(40, 30)
	}
	w := newFirstWriter(t, u, before)
	halt := w.start()

	release("").run(t, "ctl", "topics", "apply", "-brokers", u.brokers(), "-replication", "1",
		"-click-life", longGrace.String())
	u.migrate(old)
	u.checkManifest()
	if old == "" {
		u.addDaemons("")
	}
	u.takeOver(u.sinks[:]...)
	w.await(50)
	// The rows of journeys have a new version: no processor may run beside another's.
	u.takeOver(u.processors[:]...)
	w.await(50)
	u.takeOver(u.gateway, u.redirector)
	halt()

	if old == "" {
		l = u.resumeLoad(before)
		stop = l.start(40, 30)
	}
	for want := l.accepts.Load() + 300; l.accepts.Load() < want; {
		sleepContext(t.Context(), 50*time.Millisecond)
	}
	stop()
	u.checkUpgraded(before, w, l)
	if old != "" {
		u.checkNoWayBack(old)
	}
}

// checkNoWayBack starts a processor of the first release behind today's transactions: it
// must refuse each partition, and judge nothing.
func (u *upgradeRig) checkNoWayBack(old release) {
	u.t.Helper()
	u.stop(u.processors[:]...)
	outcomes := len(u.readTopics().outcomes)
	p := u.processors[0].of(old)
	if err := p.launch(); err != nil {
		u.t.Fatal(err)
	}
	const refusal = "totals row of unknown version"
	refused := func() bool {
		log, err := os.ReadFile(p.log)
		return err == nil && strings.Count(string(log), refusal) >= 10
	}
	for began := time.Now(); !refused(); sleepContext(u.t.Context(), 100*time.Millisecond) {
		if time.Since(began) > maxWait {
			u.t.Fatalf("a processor of the first release has not refused its partitions ten times after %v", maxWait)
		}
	}
	p.kill()
	if n := len(u.readTopics().outcomes); n != outcomes {
		u.t.Errorf("a processor of the first release wrote %d outcomes behind today's", n-outcomes)
	}
}

// startOldRelease starts the programs of the first release.
func (u *upgradeRig) startOldRelease(old release) {
	u.startClickHouse(old)
	u.addDaemons(old)
	u.start(u.daemons()...)
}

// takeOver stops programs of the first release, if they run, and starts today's in
// their place.
func (u *upgradeRig) takeOver(programs ...*childProcess) {
	u.t.Helper()
	for _, p := range programs {
		if p.isRunning() {
			u.stop(p)
		}
	}
	bin, err := binaries()
	if err != nil {
		u.t.Fatal(err)
	}
	for _, p := range programs {
		p.of(release(bin))
	}
	u.start(programs...)
}

// migrate brings ClickHouse up to date, and compares its sums with those of before as
// long as no sink has added any.
func (u *upgradeRig) migrate(old release) {
	u.t.Helper()
	if old != "" {
		u.stop(u.processors[:]...)
		u.awaitSinks()
		u.stop(u.sinks[:]...)
	} else {
		u.startClickHouse("")
	}
	want, err := os.ReadFile(filepath.Join(u.dir, "daily.tsv"))
	if err != nil {
		u.t.Fatal(err)
	}
	if old != "" {
		want = []byte(u.readDailyText())
	}
	release("").run(u.t, "ctl", "migrate", "-clickhouse", u.dsn(), "-brokers", u.brokers())
	if got := u.readDailyText(); got != string(want) || len(want) == 0 {
		u.t.Errorf("the migration changed partner_daily:\n%s", strings.Join(
			diffRows(lineSet(string(want)), lineSet(got)), "\n"))
	}
}

// awaitSinks waits until ClickHouse has every outcome.
func (u *upgradeRig) awaitSinks() {
	u.t.Helper()
	want := fmt.Sprintln(len(u.readTopics().outcomes))
	for began := time.Now(); ; sleepContext(u.t.Context(), 100*time.Millisecond) {
		got, err := query(u.t.Context(), "http://"+u.at(3), "SELECT count() FROM outcomes")
		if err == nil && got == want {
			return
		}
		if time.Since(began) > maxWait {
			u.t.Fatalf("the sinks have inserted %q of %q outcomes after %v: %v", got, want, maxWait, err)
		}
	}
}

func lineSet(text string) map[string]string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return keyedRows(lines, func(line string) (key, value string) { return line, "" })
}

// checkManifest writes the file of an old manifest again, and compares the bytes.
func (u *upgradeRig) checkManifest() {
	u.t.Helper()
	manifests, err := filepath.Glob(filepath.Join(u.dir, "export", "*.manifest.json"))
	if err != nil || len(manifests) != 1 {
		u.t.Fatalf("the fixture has the manifests %q, want one (%v)", manifests, err)
	}
	again := filepath.Join(u.dir, "export-again")
	release("").run(u.t, "export", "-admin-listen", "127.0.0.1:0", "-clickhouse", u.dsn(), "-workspace", "acme",
		"-provisional", "-verdict", "all", "-as-of", manifests[0], "-out", again)
	for _, file := range []string{manifests[0], strings.TrimSuffix(manifests[0], ".manifest.json") + ".csv"} {
		want, err := os.ReadFile(file)
		if err != nil {
			u.t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(again, filepath.Base(file)))
		if err != nil {
			u.t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			u.t.Errorf("%s: -as-of wrote other bytes:\n%s\nwant\n%s", filepath.Base(file), got, want)
		}
	}
}

// resumeLoad makes a load that comes back to the clicks and sales of the fixture.
func (u *upgradeRig) resumeLoad(before *topicContents) *trafficLoad {
	l := u.newLoad()
	l.eventNumber = 1_000_000
	for i := range before.clicks {
		l.recent = append(l.recent, visibleToken{before.clicks[i].WorkspaceID, before.clicks[i].ClickToken})
	}
	for i := range before.events {
		if e := &before.events[i]; e.Type == event.Sale {
			l.sales = append(l.sales, sale{visibleToken{e.WorkspaceID, e.ClickToken}, e.EventID})
		}
	}
	return l
}

// checkUpgraded compares Kafka and ClickHouse with the oracle of today's rules. A row
// that the first rules judged is the row of before.
func (u *upgradeRig) checkUpgraded(before *topicContents, w *firstWriter, l *trafficLoad) {
	u.t.Helper()
	u.awaitUpgraded()
	f := u.readTopics()
	truth := f.oracleResult(u.waits)
	apart := judgedApart(f, truth)
	kept := make(map[recordPosition]bool)
	for _, o := range before.outcomes {
		kept[recordPosition{o.EventPartition, o.EventOffset}] = true
	}
	first := make(map[recordPosition]bool)
	var gotKept, gotNow, wantNow []event.Outcome
	for _, o := range f.outcomes {
		at := recordPosition{o.EventPartition, o.EventOffset}
		first[at] = o.RulesVersion == 1
		switch {
		case kept[at]:
			gotKept = append(gotKept, o)
		case !first[at] && !apart[o.ClickToken]:
			gotNow = append(gotNow, o)
		}
	}
	for _, o := range truth.Outcomes {
		if !first[recordPosition{o.EventPartition, o.EventOffset}] && !apart[o.ClickToken] {
			wantNow = append(wantNow, o)
		}
	}
	u.wantNoFindings("outcomes of the fixture", oracle.Diff(before.outcomes, gotKept))
	u.wantNoFindings("outcomes of today's rules", oracle.Diff(wantNow, gotNow))
	if tokens := len(u.firstPositions(before)); len(gotNow) < 300 || 10*len(apart) > tokens {
		u.t.Errorf("%d rows under today's rules, want 300; of %d journeys, %d would have gone another way",
			len(gotNow), tokens, len(apart))
	}
	u.compareTables(f)
	u.checkDaily(f, truth, apart)
	tokens := u.firstPositions(f)
	events := make(map[eventID]bool)
	for i := range f.events {
		events[eventID{f.events[i].ClickToken, f.events[i].EventID}] = true
	}
	l.checkAnswers(tokens, events)
	u.checkConservation()
	// every visitor's click is there, those that the first release left in its spool too
	others := len(u.firstPositions(before)) + spooledClicks + int(w.journeys.Load())
	if n := len(tokens) - others; n < int(l.redirects.Load()) || n > int(l.visits.Load()) {
		u.t.Errorf("%d clicks are in Kafka, %d of them of neither load nor fixture; %d requests got %d redirects",
			len(tokens), n, l.visits.Load(), l.redirects.Load())
	}
	u.t.Logf("ledger = oracle: %d rows of the fixture, %d of today's; %d records of the first schemas meanwhile; "+
		"%d journeys would have gone another way under today's rules", len(gotKept), len(gotNow), w.records.Load(),
		len(apart))
}

// judgedApart are the tokens of which today's rules would have judged an event otherwise
// that the first rules judged: its row stays, so what comes after it may differ, too.
func judgedApart(f *topicContents, truth oracle.Result) map[string]bool {
	verdicts := make(map[recordPosition]string)
	text := func(o *event.Outcome) string { return fmt.Sprint(o.Verdict, o.Reason, o.ParentEventID, o.Effect) }
	for _, o := range f.outcomes {
		if o.RulesVersion == 1 {
			verdicts[recordPosition{o.EventPartition, o.EventOffset}] = text(&o)
		}
	}
	apart := make(map[string]bool)
	for _, o := range truth.Outcomes {
		if v := verdicts[recordPosition{o.EventPartition, o.EventOffset}]; v != "" && v != text(&o) {
			apart[o.ClickToken] = true
		}
	}
	for _, e := range truth.Waiting {
		if verdicts[recordPosition{e.Partition, e.Offset}] != "" {
			apart[e.ClickToken] = true
		}
	}
	return apart
}

// awaitUpgraded waits until every event has a row or waits, and the tables hold what the
// topics hold.
func (u *upgradeRig) awaitUpgraded() {
	u.t.Helper()
	for began := time.Now(); ; sleepContext(u.t.Context(), 200*time.Millisecond) {
		f := u.readTopics()
		want := fmt.Sprintf("%d\t%d\t%d\t%d\n", len(f.events), len(f.events), len(f.outcomes), len(f.clicks))
		got, err := query(u.t.Context(), "http://"+u.at(3), `
SELECT
	(SELECT sum(read) FROM conservation),
	(SELECT sum(outcomes_rows) + sum(waiting) FROM conservation),
	(SELECT count() FROM outcomes),
	(SELECT sum(end_offset) FROM tiled_ends WHERE topic = 'clicks')
FORMAT TabSeparated`)
		if err == nil && got == want && u.readMetric(u.redirector, "partners_spool_backlog_bytes") == 0 {
			return
		}
		if time.Since(began) > maxWait {
			u.t.Fatalf("not settled after %v: ClickHouse says %s, want %s; %v", maxWait, got, want, err)
		}
	}
}

// checkDaily compares partner_daily with the rows in Kafka. What stands is compared row
// by row, with the oracle, since rows of the first rules do not say it in Kafka.
func (u *upgradeRig) checkDaily(f *topicContents, truth oracle.Result, apart map[string]bool) {
	u.t.Helper()
	sent := func(rows []oracle.DailyRow) map[string]string {
		for i := range rows {
			rows[i].StandingMinor, rows[i].TakenBeyondMinor, rows[i].GivenBeyondMinor = 0, 0, 0
		}
		return keyedRows(rows, dailyText)
	}
	u.wantNoFindings("partner_daily", diffRows(sent(oracle.Daily(f.clicks, f.outcomes)), sent(u.readDaily())))

	want := make(map[string]string)
	for _, o := range truth.Outcomes {
		if !apart[o.ClickToken] && o.StandingChangeMinor != nil {
			want[fmt.Sprintf("%d/%d", o.EventPartition, o.EventOffset)] = fmt.Sprint(*o.StandingChangeMinor)
		}
	}
	var rows []struct {
		Token string `ch:"click_token"`
		At    string `ch:"at"`
		Minor int64  `ch:"minor"`
	}
	if err := u.wh.Select(u.t.Context(), &rows, `
SELECT click_token, concat(toString(event_partition), '/', toString(event_offset)) AS at,
	assumeNotNull(standing_change_minor) AS minor
FROM outcomes
WHERE standing_change_minor IS NOT NULL`); err != nil {
		u.t.Fatal(err)
	}
	got, sum := make(map[string]string), int64(0)
	for _, r := range rows {
		sum += r.Minor
		if !apart[r.Token] {
			got[r.At] = fmt.Sprint(r.Minor)
		}
	}
	u.wantNoFindings("standing change", diffRows(want, got))
	text, err := query(u.t.Context(), "http://"+u.at(3), "SELECT sum(standing_minor) FROM partner_daily")
	if err != nil || strings.TrimSpace(text) != fmt.Sprint(sum) {
		u.t.Errorf("partner_daily: %s stands, want %d (%v)", text, sum, err)
	}
}

func (u *upgradeRig) checkConservation() {
	u.t.Helper()
	text, err := query(u.t.Context(), "http://"+u.at(3), `
SELECT
	(SELECT sum(abs(difference)) FROM conservation),
	(SELECT sum(abs(difference)) FROM workspace_conservation)
FORMAT TabSeparated`)
	if err != nil {
		u.t.Fatal(err)
	}
	if text != "0\t0\n" {
		u.t.Errorf("conservation: difference, and by workspace: %s", text)
	}
}

// firstWriter writes clicks and events to Kafka as gateways and redirectors of the
// first release did. Some events come back to sales of the fixture.
type firstWriter struct {
	u                 *upgradeRig
	client            *kgo.Client
	click, conversion *avro.Schema // version 1
	sales             []*event.Conversion
	records           atomic.Int64 // acknowledged
	journeys          atomic.Int64 // whose click is acknowledged
}

// Schema ids of the first release.
const (
	firstClickID      = 1
	firstConversionID = 2
)

func newFirstWriter(t *testing.T, u *upgradeRig, before *topicContents) *firstWriter {
	t.Helper()
	w := &firstWriter{u: u, client: kafkatest.Client(t, u.broker.Brokers())}
	for _, s := range event.Schemas() {
		schema, err := avro.Parse(s.JSON)
		if err != nil {
			t.Fatal(err)
		}
		switch fmt.Sprint(s.Record, s.Version) {
		case "Click1":
			w.click = schema
		case "Conversion1":
			w.conversion = schema
		}
	}
	for i := range before.events {
		if e := &before.events[i].Conversion; e.Type == event.Sale {
			w.sales = append(w.sales, e)
		}
	}
	return w
}

// start writes until halt is called.
func (w *firstWriter) start() (halt func()) {
	ctx, cancel := context.WithCancel(w.u.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			if err := w.writeJourney(n); err != nil {
				w.u.t.Errorf("writing records of the first release: %v", err)
				return
			}
			sleepContext(ctx, 40*time.Millisecond)
		}
	}()
	halt = func() { cancel(); <-done }
	w.u.t.Cleanup(halt)
	return halt
}

// await waits until so many more records are written.
func (w *firstWriter) await(more int64) {
	for want := w.records.Load() + more; w.records.Load() < want && !w.u.t.Failed(); {
		sleepContext(w.u.t.Context(), 20*time.Millisecond)
	}
}

// writeJourney writes a click, a sale for it, and a refund of an earlier sale.
func (w *firstWriter) writeJourney(n int) error {
	t := w.u.t
	now := time.Now()
	var raw token.Raw
	crand.Read(raw[:])
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(now.UnixMilli()))
	k := &event.Click{
		WorkspaceID: "acme", ClickToken: token.Text(&raw), ClickedAt: event.MillisOf(now), WindowMs: 30 * 86400_000,
		TokenStatus: event.TokenAppended, LinkID: "lnk_nomura", Domain: "go.acme.com", Slug: "nomura",
		Trigger: event.TriggerLink, PartnerID: "prt_nomura", PartnerKey: "nomura", PartnerName: "Nomura Studio",
		PartnerRelationship: "approved", PartnerLifecycle: "active", ProgramID: "prg_agency", ProgramKey: "agency",
		ProgramName: "Agency partners", ProgramStatus: "active", RewardTerms: "10%",
	}
	amount, part := int64(1000+n), int64(100)
	s := &event.Conversion{
		WorkspaceID: "acme", EventID: fmt.Sprint("first-", n), ClickToken: k.ClickToken, Type: event.Sale,
		OccurredAt: k.ClickedAt, AmountMinor: &amount, Currency: "EUR", Exponent: 2, OrderID: fmt.Sprint("first-", n),
	}
	of := w.sales[rand.IntN(len(w.sales))]
	refund := &event.Conversion{
		WorkspaceID: of.WorkspaceID, EventID: fmt.Sprint("back-", n), ClickToken: of.ClickToken, Type: event.Refund,
		OccurredAt: k.ClickedAt, AmountMinor: &part, Currency: "EUR", Exponent: 2, ParentEventID: of.EventID,
	}
	records := []*kgo.Record{w.record(topic.Clicks, firstClickID, w.click, k.ClickToken, now, k)}
	for _, c := range []*event.Conversion{s, refund} {
		c.ReceivedAt = event.MillisOf(now)
		c.ContentSHA256 = c.ContentHash()
		records = append(records, w.record(topic.Conversions, firstConversionID, w.conversion, c.ClickToken, now, c))
	}
	ctx, cancel := context.WithTimeout(t.Context(), maxWait)
	defer cancel()
	records[0].Headers = []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}}
	for _, r := range records { // the click before its sale
		if r == nil {
			return fmt.Errorf("a record cannot be encoded")
		}
		if err := w.client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
		w.records.Add(1)
	}
	w.journeys.Add(1)
	w.sales = append(w.sales, s)
	return nil
}

// record encodes a value in a schema of the first release; nil if that fails.
func (w *firstWriter) record(name string, id uint32, schema *avro.Schema, key string, at time.Time, v any) *kgo.Record {
	framing := binary.BigEndian.AppendUint32([]byte{0}, id)
	b, err := schema.AppendEncode(framing, v)
	if err != nil {
		w.u.t.Errorf("encoding a record of %s: %v", name, err)
		return nil
	}
	raw, err := token.Parse(key)
	if err != nil {
		w.u.t.Errorf("token %q: %v", key, err)
		return nil
	}
	partition := topic.OneEpoch(kafkatest.Partitions).Partition(key, token.Time(&raw))
	return &kgo.Record{Topic: name, Partition: partition, Key: []byte(key), Value: b, Timestamp: at}
}
