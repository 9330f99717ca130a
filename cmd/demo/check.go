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
)

// oracleFunc is the oracle, or what a test puts in its place.
type oracleFunc func(oracle.Config, []oracle.Click, []oracle.Event, event.Millis) oracle.Result

var oracleJudge oracleFunc = oracle.Judge

// maxSettleTime is how long the pipeline may take to come to rest after the traffic.
const maxSettleTime = 2 * time.Minute

// topicContents is what Kafka holds: the input of the oracle, read with nothing but the
// decoder.
type topicContents struct {
	clicks     []oracle.Click
	events     []oracle.Event
	unreadable int
	outcomes   []event.Outcome
	rejections []event.Rejection
}

// trafficAndCheck drives the traffic, waits until everything is judged and in the
// tables, and holds Kafka and ClickHouse against the oracle and the traffic's own
// memory.
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
	// Every wait has ended: the pipeline came to rest with nothing waiting.
	truth := d.judge(cfg, f.clicks, f.events, event.MillisOf(time.Now().Add(d.grace)))
	var problems []string
	found := func(what string, lines []string) {
		for _, l := range lines[:min(len(lines), 10)] {
			problems = append(problems, what+": "+l)
		}
		if len(lines) > 10 {
			problems = append(problems, fmt.Sprintf("%s: and %d more", what, len(lines)-10))
		}
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
	found("stories", ledger.CheckScenarios(f.outcomes))
	if len(problems) > 0 {
		return fmt.Errorf("the ledger is not the oracle's:\n  %s", strings.Join(problems, "\n  "))
	}
	if err := d.printTables(ctx, wh); err != nil {
		return err
	}
	d.printLine("ledger = oracle: %d clicks, %d events, %d rows compared in Kafka, in ClickHouse and in the rollup; %d "+
		"refusals as expected", len(f.clicks), len(f.events), len(truth.Outcomes), ledger.Refused())
	return nil
}

// driveTraffic runs the traffic.
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
	cfg.Seed, cfg.Clicks, cfg.Redirector, cfg.Gateway, cfg.Grace, cfg.Keys = d.seed, d.clicks, d.endpoints.Redirector, d.endpoints.Gateway, d.grace, keys
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

// awaitSettled waits until every event has its row, nothing waits, and the tables hold what
// the topics hold; then it reads the topics.
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
		ends, err := adm.ListEndOffsets(ctx, d.kafka.Topic(topic.Clicks), d.kafka.Topic(topic.Conversions),
			d.kafka.Topic(topic.Rejections))
		if err = errors.Join(err, ends.Error()); err != nil {
			return nil, fmt.Errorf("listing the ends of the topics: %w", err)
		}
		records := make(map[string]uint64) // topics begin at 0, and only the processor writes transactions
		ends.Each(func(o kadm.ListedOffset) {
			records[strings.TrimPrefix(o.Topic, d.kafka.TopicPrefix)] += uint64(o.Offset)
		})
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
			return nil, fmt.Errorf("not at rest after %v: Kafka holds %v; ClickHouse says %+v",
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

// tableState is how far the tables are.
type tableState struct {
	Read          uint64 `ch:"read"`
	Waiting       uint64 `ch:"waiting"`
	Unreadable    uint64 `ch:"unreadable"`
	Conversions   uint64 `ch:"conversions"`
	Outcomes      uint64 `ch:"outcomes"`
	ClicksEnd     uint64 `ch:"clicks_end"`
	RejectionsEnd uint64 `ch:"rejections_end"`
}

func readTableState(ctx context.Context, wh *clickhouse.Conn) (tableState, error) {
	var rows []tableState
	err := wh.Select(ctx, &rows, `SELECT (SELECT toUInt64(sum(read)) FROM conservation) AS read, (SELECT toUInt64(sum(waiting)) FROM conservation) AS waiting,
		(SELECT toUInt64(sum(unreadable)) FROM conservation) AS unreadable, (SELECT count() FROM conversions) AS conversions, (SELECT count() FROM outcomes) AS outcomes,
		(SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'clicks') AS clicks_end, (SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'rejections') AS rejections_end`)
	if err != nil {
		return tableState{}, err
	}
	return rows[0], nil
}

// recordsSince returns what is in f and was not in before: one run's own doing, in a data
// directory that has seen others.
func (f *topicContents) recordsSince(before *topicContents) (clicks []event.Click, conversions []event.Conversion,
	rejections []event.Rejection) {
	seen := make(map[string]bool, len(f.clicks))
	for i := range before.clicks {
		seen[before.clicks[i].ClickToken] = true
	}
	for i := range f.clicks {
		if k := &f.clicks[i].Click; !seen[k.ClickToken] { // once, though the spool may have sent it twice
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

func (d *demo) readTopics(ctx context.Context) (*topicContents, error) {
	f := &topicContents{}
	var errs []error
	read := func(name string) {
		records, err := kafka.ReadAll(ctx, d.kafka, d.log, d.kafka.Topic(name))
		errs = append(errs, err)
		for _, r := range records {
			var err error
			switch name {
			case topic.Clicks:
				k := oracle.Click{At: event.MillisOf(r.Timestamp)}
				if err = d.codec.DecodeClick(r.Value, &k.Click); err == nil {
					f.clicks = append(f.clicks, k)
				}
			case topic.Conversions:
				e := oracle.Event{Partition: r.Partition, Offset: r.Offset}
				if err = d.codec.DecodeConversion(r.Value, &e.Conversion); err == nil && string(r.Key) == e.ClickToken {
					f.events = append(f.events, e)
				} else {
					f.unreadable++
					err = nil
				}
			case topic.Outcomes:
				var o event.Outcome
				if err = d.codec.DecodeOutcome(r.Value, &o); err == nil {
					f.outcomes = append(f.outcomes, o)
				}
			case topic.Rejections:
				var x event.Rejection
				if err = d.codec.DecodeRejection(r.Value, &x); err == nil {
					f.rejections = append(f.rejections, x)
				}
			}
			errs = append(errs, err)
		}
	}
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Rejections} {
		read(name)
	}
	return f, errors.Join(errs...)
}

// diffDaily compares two sorted rollups.
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
