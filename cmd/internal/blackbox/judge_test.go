//go:build linux

package blackbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// recordPosition is the position of a record in its topic.
type recordPosition struct {
	Partition int32
	Offset    int64
}

// topicContents are the records in Kafka.
type topicContents struct {
	clickRecords []*kgo.Record    // of clicks, in the same order
	clicks       []oracle.Click   // each copy that the spool sent
	events       []oracle.Event   // readable ones
	outcomes     []event.Outcome  // committed ones
	outcomesAt   []recordPosition // of outcomes, in the same order
}

func (r *rig) readTopics() *topicContents {
	r.t.Helper()
	f := &topicContents{}
	ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
	defer cancel()
	codec := r.codec
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes} {
		records, err := kafka.ReadAll(ctx, r.kafka, slog.New(slog.DiscardHandler), name)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, rec := range records {
			spot := fmt.Sprintf("%s %d/%d", name, rec.Partition, rec.Offset)
			if r.unreadable[spot] {
				continue
			}
			switch name {
			case topic.Clicks:
				k := oracle.Click{At: event.MillisOf(rec.Timestamp)}
				err = codec.DecodeClick(rec.Value, &k.Click)
				f.clicks = append(f.clicks, k)
				f.clickRecords = append(f.clickRecords, rec)
			case topic.Conversions:
				e := oracle.Event{Partition: rec.Partition, Offset: rec.Offset}
				err = codec.DecodeConversion(rec.Value, &e.Conversion)
				f.events = append(f.events, e)
			case topic.Outcomes:
				var o event.Outcome
				err = codec.DecodeOutcome(rec.Value, &o)
				f.outcomes = append(f.outcomes, o)
				f.outcomesAt = append(f.outcomesAt, recordPosition{rec.Partition, rec.Offset})
			}
			if err != nil {
				r.t.Fatalf("%s: %v", spot, err)
			}
		}
	}
	return f
}

// oracleResult returns the oracle's verdicts, at a time before any wait has ended.
func (f *topicContents) oracleResult(grace time.Duration) oracle.Result {
	cfg := oracle.DefaultConfig()
	cfg.Grace = grace
	return oracle.Judge(cfg, f.clicks, f.events, 0)
}

// awaitSettled waits until all clicks are in Kafka, every event has its outcome or
// waits as it must, and the tables hold what the topics hold.
func (r *rig) awaitSettled() {
	r.t.Helper()
	began := time.Now()
	for r.readMetric(r.redirector, "partners_spool_backlog_bytes") > 0 {
		if time.Since(began) > maxWait {
			r.t.Fatalf("the redirector's spool is not in Kafka after %v", maxWait)
		}
		sleepContext(r.t.Context(), 50*time.Millisecond)
	}
	unreadable := uint64(0)
	for spot := range r.unreadable {
		if strings.HasPrefix(spot, topic.Conversions+" ") {
			unreadable++
		}
	}
	truth := r.readTopics().oracleResult(r.waits)
	for {
		ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
		records := make(map[string]uint64)
		ends, err := r.adm.ListEndOffsets(ctx, topic.Clicks, topic.Conversions)
		err = errors.Join(err, ends.Error())
		// their offsets begin at 0 and have no markers
		ends.Each(func(o kadm.ListedOffset) { records[o.Topic] += uint64(o.Offset) })
		var at []struct {
			Read      uint64 `ch:"read"`
			Waiting   uint64 `ch:"waiting"`
			Events    uint64 `ch:"events"`
			Outcomes  uint64 `ch:"outcomes"`
			ClicksEnd uint64 `ch:"clicks_end"`
		}
		if err == nil {
			err = r.wh.Select(ctx, &at, `
SELECT
	(SELECT toUInt64(sum(read)) FROM conservation) AS read,
	(SELECT toUInt64(sum(waiting)) FROM conservation) AS waiting,
	(SELECT count() FROM conversions) AS events,
	(SELECT count() FROM outcomes) AS outcomes,
	(SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'clicks') AS clicks_end`)
		}
		cancel()
		if err == nil && at[0].Read == records[topic.Conversions] && at[0].Waiting == uint64(len(truth.Waiting)) &&
			at[0].Events == at[0].Read-unreadable &&
			at[0].Outcomes == uint64(len(truth.Outcomes)) && at[0].ClicksEnd == records[topic.Clicks] {
			r.t.Logf("settled in %v", time.Since(began).Round(100*time.Millisecond))
			return
		}
		// With more rows than records in Kafka, waiting is pointless. Compare rows,
		// since progress arrives after them.
		if all := records[topic.Conversions]; err == nil && (at[0].Outcomes > all || at[0].Events > all) {
			return
		}
		if time.Since(began) > maxWait {
			r.t.Errorf("not settled after %v: Kafka holds %v, of which %d events have rows and %d wait; "+
				"ClickHouse says %+v; %v", maxWait, records, len(truth.Outcomes), len(truth.Waiting), at, err)
			return // the comparison that follows shows more
		}
		sleepContext(r.t.Context(), 200*time.Millisecond)
	}
}

// checkLedger waits until everything is settled. It then compares Kafka and ClickHouse
// with the oracle and with the answers that the loads got.
func (r *rig) checkLedger(loads ...*trafficLoad) {
	r.t.Helper()
	r.awaitSettled()
	f := r.readTopics()
	truth := f.oracleResult(r.waits)
	r.wantNoFindings("outcomes in Kafka", oracle.Diff(truth.Outcomes, f.outcomes))
	r.compareTables(f)
	r.wantNoFindings("partner_daily", diffRows(keyedRows(oracle.Daily(f.clicks, truth.Outcomes), dailyText),
		keyedRows(r.readDaily(), dailyText)))
	r.compareCounts(f, loads)
	verdicts := map[string]int{}
	for i := range truth.Outcomes {
		verdicts[string(truth.Outcomes[i].Verdict)]++
	}
	r.t.Logf("ledger = oracle: %d clicks (%d records), %d events, %v, %d waiting",
		len(r.firstPositions(f)), len(f.clicks), len(f.events), verdicts, len(truth.Waiting))
}

func (r *rig) wantNoFindings(what string, lines []string) {
	r.t.Helper()
	for _, line := range lines[:min(len(lines), 10)] {
		r.t.Errorf("%s: %s", what, line)
	}
	if len(lines) > 10 {
		r.t.Errorf("%s: and %d more", what, len(lines)-10)
	}
}

func keyedRows[T any](list []T, text func(T) (key, value string)) map[string]string {
	m := make(map[string]string, len(list))
	for _, x := range list {
		key, value := text(x)
		m[key] = value
	}
	return m
}

func dailyText(row oracle.DailyRow) (key, value string) {
	return fmt.Sprintf("%+v", row.DailyKey), fmt.Sprintf("%+v", row.DailySums)
}

// diffRows returns the differences between two sets of rows, sorted.
func diffRows(want, got map[string]string) (lines []string) {
	for key, value := range want {
		if have, ok := got[key]; !ok {
			lines = append(lines, fmt.Sprintf("missing: %s %s", key, value))
		} else if have != value {
			lines = append(lines, fmt.Sprintf("%s: %s, want %s", key, have, value))
		}
	}
	for key, value := range got {
		if _, ok := want[key]; !ok {
			lines = append(lines, fmt.Sprintf("not wanted: %s %s", key, value))
		}
	}
	slices.Sort(lines)
	return lines
}

// firstPositions returns the position of each click's first record. All records of a
// token are in one partition.
func (r *rig) firstPositions(f *topicContents) map[string]recordPosition {
	at := make(map[string]recordPosition)
	for i, rec := range f.clickRecords {
		if _, ok := at[f.clicks[i].ClickToken]; !ok {
			at[f.clicks[i].ClickToken] = recordPosition{rec.Partition, rec.Offset}
		}
	}
	return at
}

// compareTables compares the base tables with the topics record by record.
func (r *rig) compareTables(f *topicContents) {
	r.t.Helper()
	name := func(p recordPosition) string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }
	clicks := make(map[string]string)
	events := make(map[string]string)
	outcomes := make(map[string]string)
	for token, at := range r.firstPositions(f) {
		clicks[name(at)] = token
	}
	for _, e := range f.events {
		events[name(recordPosition{e.Partition, e.Offset})] = fmt.Sprintf("%s %s %s %x",
			e.ClickToken, e.EventID, e.Type, e.ContentSHA256)
	}
	for i, o := range f.outcomes {
		amount := "none"
		if o.AmountMinor != nil {
			amount = fmt.Sprint(*o.AmountMinor)
		}
		link := ""
		if o.Click != nil {
			link = o.Click.LinkID
		}
		outcomes[name(f.outcomesAt[i])] = fmt.Sprintf("%s %s %d/%d %s %s %d %s %s",
			o.ClickToken, o.EventID, o.EventPartition, o.EventOffset, o.Verdict, o.Reason, o.Effect, amount, link)
	}
	r.wantNoFindings("table clicks", diffRows(clicks, r.readTable("clicks", "toString(click_token)")))
	r.wantNoFindings("table conversions", diffRows(events,
		r.readTable("conversions", "concatWithSeparator(' ', toString(click_token), toString(event_id), "+
			"toString(type), lower(hex(content_sha256)))")))
	r.wantNoFindings("table outcomes", diffRows(outcomes, r.readTable("outcomes", `
	concatWithSeparator(' ', toString(click_token), toString(event_id),
		concat(toString(event_partition), '/', toString(event_offset)), toString(verdict), toString(reason),
		toString(effect), ifNull(toString(amount_minor), 'none'), toString(link_id))`)))
}

// readTable reads a base table by position. A duplicate position fails the test.
func (r *rig) readTable(name, row string) map[string]string {
	r.t.Helper()
	var all []struct {
		At  string `ch:"at"`
		Row string `ch:"line"`
	}
	if err := r.wh.Select(r.t.Context(), &all, "SELECT concat(toString(src_partition), '/', "+
		"toString(src_offset)) AS at, "+row+" AS line FROM "+name); err != nil {
		r.t.Fatalf("reading table %s: %v", name, err)
	}
	m := make(map[string]string, len(all))
	for _, x := range all {
		if _, ok := m[x.At]; ok {
			r.t.Errorf("table %s has %s twice", name, x.At)
		}
		m[x.At] = x.Row
	}
	return m
}

func (r *rig) readDaily() (out []oracle.DailyRow) {
	r.t.Helper()
	rows, err := r.wh.Rows(r.t.Context(), `
SELECT
	workspace_id, toString(day), partner_id, program_id, link_id, currency, toInt32(exponent),
	toInt64(clicks), toInt64(human_clicks), toInt64(tokened_clicks),
	toInt64(leads), toInt64(sales), toInt64(refunds), toInt64(cancellations), toInt64(reversals),
	toInt64(gross_minor), toInt64(negative_minor), toInt64(net_minor), toInt64(standing_minor),
	toInt64(taken_beyond_minor), toInt64(given_beyond_minor), toInt64(reward_minor)
FROM partner_daily`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var d oracle.DailyRow
		if err := rows.Scan(&d.WorkspaceID, &d.Day, &d.PartnerID, &d.ProgramID, &d.LinkID, &d.Currency, &d.Exponent,
			&d.Clicks, &d.HumanClicks, &d.TokenedClicks, &d.Leads, &d.Sales,
			&d.Refunds, &d.Cancellations, &d.Reversals, &d.GrossMinor, &d.NegativeMinor, &d.NetMinor,
			&d.StandingMinor, &d.TakenBeyondMinor, &d.GivenBeyondMinor,
			&d.RewardMinor); err != nil {
			r.t.Fatal(err)
		}
		if d.DailySums != (oracle.DailySums{}) {
			out = append(out, d)
		}
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// compareCounts compares counts from different sources, and the answers that the loads
// got with the records.
func (r *rig) compareCounts(f *topicContents, loads []*trafficLoad) {
	r.t.Helper()
	var sums []struct {
		Rows       uint64 `ch:"rows"`
		Tokens     uint64 `ch:"tokens"`
		Clicks     uint64 `ch:"clicks"`
		Difference int64  `ch:"difference"`
		Workspaces int64  `ch:"workspaces"`
	}
	if err := r.wh.Select(r.t.Context(), &sums, `
SELECT
	(SELECT count() FROM clicks) AS rows,
	(SELECT uniqExact(click_token) FROM clicks) AS tokens,
	(SELECT toUInt64(sum(clicks)) FROM partner_daily) AS clicks,
	(SELECT toInt64(sum(abs(difference))) FROM conservation) AS difference,
	(SELECT toInt64(sum(abs(difference))) FROM workspace_conservation) AS workspaces`); err != nil {
		r.t.Fatal(err)
	}
	s := sums[0]
	if s.Rows != s.Tokens || s.Rows != s.Clicks {
		r.t.Errorf("count() of clicks is %d, uniqExact(click_token) %d, sum(clicks) of partner_daily %d",
			s.Rows, s.Tokens, s.Clicks)
	}
	if s.Difference != 0 || s.Workspaces != 0 {
		r.t.Errorf("conservation: difference %d, by workspace %d", s.Difference, s.Workspaces)
	}
	tokens, events := r.firstPositions(f), make(map[eventID]bool)
	for i := range f.events {
		events[eventID{f.events[i].ClickToken, f.events[i].EventID}] = true
	}
	sent := uint64(0)
	for _, l := range loads {
		sent += uint64(l.visits.Load())
		l.checkAnswers(tokens, events)
	}
	if s.Rows > sent {
		r.t.Errorf("%d clicks of %d requests", s.Rows, sent)
	}
	r.t.Logf("count() = uniqExact(click_token) = sum(clicks) = %d, of %d requests", s.Rows, sent)
}
