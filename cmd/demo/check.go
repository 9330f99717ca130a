package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/demo/internal/traffic"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// oracleFunc is oracle.Judge, or a test's replacement.
type oracleFunc func(oracle.Config, []oracle.Click, []oracle.Event, event.Millis) oracle.Result

// maxSettleTime bounds the wait, after the traffic, until everything is judged and in
// the tables.
const maxSettleTime = 2 * time.Minute

// topicContents are the records in Kafka, among them the input of the oracle.
type topicContents struct {
	clicks     []oracle.Click    // each copy that the spool sent
	events     []oracle.Event    // readable conversions
	outcomes   []event.Outcome   // committed ones
	rejections []event.Rejection // in order
}

// trafficAndCheck drives the traffic, waits until everything is judged and in the
// tables, and compares Kafka and ClickHouse with the oracle and with the answers that
// the traffic got.
func (d *demo) trafficAndCheck(ctx context.Context) error {
	before, err := d.readTopics(ctx)
	if err != nil {
		return err
	}
	ledger, err := d.driveTraffic(ctx)
	if err != nil {
		return err
	}
	wh, err := clickhouse.Open(ctx, d.warehouse, d.log)
	if err != nil {
		return err
	}
	defer wh.Close()
	f, err := d.awaitSettled(ctx, wh)
	if err != nil {
		return err
	}
	cfg := oracle.DefaultConfig()
	cfg.Grace = d.grace
	// No event waits any more, so judge at a time when every wait has ended.
	truth := d.runOracle(cfg, f.clicks, f.events, event.MillisOf(time.Now().Add(d.grace)))
	var problems []string
	found := func(what string, lines []string) {
		problems = append(problems, limitLines(what, lines)...)
	}
	found("outcomes in Kafka", oracle.Diff(truth.Outcomes, f.outcomes))
	tabled, err := tableOutcomes(ctx, wh)
	if err != nil {
		return err
	}
	found("outcomes in ClickHouse", oracle.Diff(truth.Outcomes, tabled))
	daily, err := tableDaily(ctx, wh)
	if err != nil {
		return err
	}
	found("partner_daily", diffDaily(oracle.Daily(f.clicks, truth.Outcomes), daily))
	clicks, conversions, rejections := f.recordsSince(before)
	found("clicks", ledger.CheckClicks(clicks))
	found("conversions", ledger.CheckConversions(conversions))
	found("rejections", ledger.CheckRejections(rejections))
	found("scenarios", ledger.CheckScenarios(f.outcomes))
	if len(problems) > 0 {
		return fmt.Errorf("the ledger differs from the oracle's:\n  %s", strings.Join(problems, "\n  "))
	}
	if err := d.printTables(ctx, wh); err != nil {
		return err
	}
	d.printLine(
		"ledger = oracle: %d clicks, %d events, %d rows compared in Kafka, in ClickHouse and in the rollup; %d "+
			"refusals as expected", len(f.clicks), len(f.events), len(truth.Outcomes), ledger.Refused())
	return nil
}

// limitLines prefixes lines, and leaves out all but the first ten.
func limitLines(prefix string, lines []string) (limited []string) {
	const maxLines = 10
	for _, l := range lines[:min(len(lines), maxLines)] {
		limited = append(limited, prefix+": "+l)
	}
	if len(lines) > maxLines {
		limited = append(limited, fmt.Sprintf("%s: and %d more", prefix, len(lines)-maxLines))
	}
	return limited
}

// driveTraffic runs the traffic and prints its progress.
func (d *demo) driveTraffic(ctx context.Context) (*traffic.Ledger, error) {
	c, err := catalog.Load(d.dataPath("catalog.yaml"))
	if err != nil {
		return nil, err
	}
	keys, err := token.LoadKeyring(os.DirFS(d.dataPath("token-keys")))
	if err != nil {
		return nil, err
	}
	cfg := traffic.DefaultConfig()
	cfg.Seed, cfg.Clicks = d.seed, d.clicks
	cfg.Redirector, cfg.Gateway = d.endpoints.Redirector, d.endpoints.Gateway
	cfg.Grace = d.grace
	cfg.Keys = keys
	cfg.Secrets = func(workspace string) string {
		b, err := os.ReadFile(d.dataPath("signing-secrets/" + workspace))
		if err != nil {
			return ""
		}
		first, _, _ := strings.Cut(string(b), "\n")
		return strings.TrimSpace(first)
	}
	began := time.Now()
	var bar *progressLine
	phase := ""
	ledger, err := traffic.Run(ctx, cfg, c.Workspaces(), func(done, total int, now string) {
		if bar == nil || now != phase {
			if bar != nil {
				bar.clearLine()
			}
			bar, phase = newProgressLine(d.stdout, now, "steps"), now
		}
		bar.update(done, total)
	})
	if bar != nil {
		bar.clearLine()
	}
	if err != nil {
		return nil, err
	}
	d.printLine("traffic     %d visits, %d events accepted, %d refused, in %v", ledger.Visits(), ledger.Accepted(),
		ledger.Refused(), time.Since(began).Round(100*time.Millisecond))
	return ledger, nil
}

// awaitSettled waits until every event has its outcome, none waits, and the tables hold
// what the topics hold. It then returns the contents of the topics.
func (d *demo) awaitSettled(ctx context.Context, wh *clickhouse.Conn) (*topicContents, error) {
	bar := newProgressLine(d.stdout, "settling", "rows")
	defer bar.clearLine()
	cl, err := kafka.NewClient(d.kafka, d.log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	deadline := time.Now().Add(maxSettleTime)
	for {
		names := []string{topic.Clicks, topic.Conversions, topic.Rejections}
		records, err := countRecords(ctx, adm, d.kafka, names)
		if err != nil {
			return nil, err
		}
		at, err := readTableState(ctx, wh)
		if err != nil {
			return nil, err
		}
		if at.Read == records[topic.Conversions] && at.Waiting == 0 && at.Conversions+at.Unreadable == at.Read &&
			at.Outcomes == at.Conversions &&
			at.ClicksEnd == records[topic.Clicks] && at.RejectionsEnd == records[topic.Rejections] {
			return d.readTopics(ctx)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("not settled after %v: Kafka holds %v; ClickHouse says %+v",
				maxSettleTime, records, at)
		}
		bar.update(int(at.Outcomes), int(records[topic.Conversions]))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// countRecords returns how many records each topic holds. Topics of the demo begin at
// offset 0, and these ones are not written in transactions.
func countRecords(ctx context.Context, adm *kadm.Client, cfg kafka.Config, names []string) (map[string]uint64, error) {
	counts := make(map[string]uint64)
	for _, name := range names {
		offsets, err := kafka.ListOffsets(ctx, adm, cfg.Topic(name))
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("listing the end of topic %s: %w", name, err)
		}
		for _, at := range offsets.Partitions(cfg.Topic(name)) {
			counts[name] += uint64(at.End)
		}
	}
	return counts, nil
}

// tableState is the progress of processor and sink, as the tables show it.
type tableState struct {
	Read          uint64 `ch:"read"`           // conversions that the processor has read
	Waiting       uint64 `ch:"waiting"`        // events
	Unreadable    uint64 `ch:"unreadable"`     // conversions
	Conversions   uint64 `ch:"conversions"`    // rows
	Outcomes      uint64 `ch:"outcomes"`       // rows
	ClicksEnd     uint64 `ch:"clicks_end"`     // sum of the offsets up to which clicks are complete
	RejectionsEnd uint64 `ch:"rejections_end"` // the same of rejections
}

func readTableState(ctx context.Context, wh *clickhouse.Conn) (tableState, error) {
	var rows []tableState
	err := wh.Select(ctx, &rows, `
SELECT
	(SELECT toUInt64(sum(read)) FROM conservation) AS read,
	(SELECT toUInt64(sum(waiting)) FROM conservation) AS waiting,
	(SELECT toUInt64(sum(unreadable)) FROM conservation) AS unreadable,
	(SELECT count() FROM conversions) AS conversions,
	(SELECT count() FROM outcomes) AS outcomes,
	(SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'clicks') AS clicks_end,
	(SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'rejections') AS rejections_end`)
	if err != nil {
		return tableState{}, err
	}
	return rows[0], nil
}

// recordsSince returns the records of f that are not in before: those of this run, in a
// data directory that earlier runs have used.
func (f *topicContents) recordsSince(before *topicContents) (clicks []event.Click, conversions []event.Conversion,
	rejections []event.Rejection) {
	seen := make(map[string]bool, len(f.clicks))
	for i := range before.clicks {
		seen[before.clicks[i].ClickToken] = true
	}
	for i := range f.clicks {
		if k := &f.clicks[i].Click; !seen[k.ClickToken] { // once, although the spool may have sent it twice
			seen[k.ClickToken] = true
			clicks = append(clicks, *k)
		}
	}
	old := make(map[oracle.Position]bool, len(before.events))
	for _, e := range before.events {
		old[oracle.Position{Partition: e.Partition, Offset: e.Offset}] = true
	}
	for _, e := range f.events {
		if !old[oracle.Position{Partition: e.Partition, Offset: e.Offset}] {
			conversions = append(conversions, e.Conversion)
		}
	}
	return clicks, conversions, f.rejections[len(before.rejections):]
}

// readTopics reads all records of the topics. It skips unreadable conversions, as the
// processor does.
func (d *demo) readTopics(ctx context.Context) (*topicContents, error) {
	f := &topicContents{}
	var errs []error
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Rejections} {
		records, err := kafka.ReadAll(ctx, d.kafka, d.log, d.kafka.Topic(name))
		errs = append(errs, err)
		for _, r := range records {
			errs = append(errs, f.addRecord(d.codec, name, r))
		}
	}
	return f, errors.Join(errs...)
}

func (f *topicContents) addRecord(codec *event.Codec, name string, r *kgo.Record) error {
	switch name {
	case topic.Clicks:
		c := oracle.Click{At: event.MillisOf(r.Timestamp)}
		if err := codec.DecodeClick(r.Value, &c.Click); err != nil {
			return err
		}
		f.clicks = append(f.clicks, c)
	case topic.Conversions:
		e := oracle.Event{Partition: r.Partition, Offset: r.Offset}
		if codec.DecodeConversion(r.Value, &e.Conversion) == nil && string(r.Key) == e.ClickToken {
			f.events = append(f.events, e)
		}
	case topic.Outcomes:
		var o event.Outcome
		if err := codec.DecodeOutcome(r.Value, &o); err != nil {
			return err
		}
		f.outcomes = append(f.outcomes, o)
	case topic.Rejections:
		var x event.Rejection
		if err := codec.DecodeRejection(r.Value, &x); err != nil {
			return err
		}
		f.rejections = append(f.rejections, x)
	}
	return nil
}

// diffDaily returns the differences between two rollups, sorted.
func diffDaily(want, got []oracle.DailyRow) (lines []string) {
	have := make(map[oracle.DailyKey]oracle.DailySums)
	for _, r := range got {
		have[r.DailyKey] = r.DailySums
	}
	for _, r := range want {
		if sums, ok := have[r.DailyKey]; !ok {
			lines = append(lines, fmt.Sprintf("missing: %+v", r))
		} else if sums != r.DailySums {
			lines = append(lines, fmt.Sprintf("%+v: got %+v, want %+v", r.DailyKey, sums, r.DailySums))
		}
		delete(have, r.DailyKey)
	}
	for k, sums := range have {
		lines = append(lines, fmt.Sprintf("not wanted: %+v %+v", k, sums))
	}
	slices.Sort(lines)
	return lines
}
