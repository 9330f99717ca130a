package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

const grace = 2 * time.Second

// history is a random month of clicks and events, written to Kafka.
type history struct {
	testing.TB
	rand   *rand.Rand
	codec  *event.Codec
	client *kgo.Client
	epochs topic.Epochs
	clicks []*event.Click      // all that were written
	sent   []*event.Conversion // all that were written
	n      int                 // number of the last event
}

var catalogNow = map[[2]string]oracle.Partner{
	{"acme", "prt_0"}:   {Name: "Nomura Studio", Relationship: "approved"},
	{"acme", "prt_1"}:   {Name: "Creator Collective", Relationship: "banned"},
	{"globex", "prt_0"}: {Name: "Hank & Sons", Relationship: "review"},
}

func (h *history) produceRecords(records ...*kgo.Record) {
	h.Helper()
	if err := h.client.ProduceSync(h.Context(), records...).FirstErr(); err != nil {
		h.Fatal(err)
	}
}

// produceClick writes a random click of that age.
func (h *history) produceClick(ago time.Duration) {
	h.Helper()
	at := time.Now().Add(-ago)
	var raw token.Raw
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
	for i := 4; i < 20; i += 8 {
		binary.BigEndian.PutUint64(raw[i:], h.rand.Uint64())
	}
	partner := h.rand.IntN(3)
	k := &event.Click{
		WorkspaceID:         []string{"acme", "globex"}[h.rand.IntN(2)],
		ClickToken:          token.Text(&raw),
		ClickedAt:           event.MillisOf(at),
		WindowMs:            int64(1+h.rand.IntN(20)) * 86400_000,
		TokenStatus:         event.TokenAppended,
		LinkID:              fmt.Sprint("lnk_", h.rand.IntN(4)),
		Domain:              "go.acme.com",
		Slug:                "a",
		Trigger:             event.TriggerLink,
		PartnerID:           fmt.Sprint("prt_", partner),
		PartnerName:         fmt.Sprint("Then ", partner),
		PartnerRelationship: []string{"approved", "review"}[h.rand.IntN(2)],
		PartnerLifecycle:    "active",
		ProgramID:           fmt.Sprint("prg_", h.rand.IntN(2)),
		RewardTerms:         []string{"10%", "5.00 USD", ""}[h.rand.IntN(3)],
		CatalogOffset:       1,
		IsBot:               h.rand.IntN(8) == 0,
	}
	if partner == 2 {
		*k = withoutPartner(*k)
	}
	if k.IsBot {
		k.BotReason = "ua"
	}
	switch h.rand.IntN(10) {
	case 0:
		k.TokenStatus, k.TokenReason = event.TokenWithheld, "signed_url"
	case 1:
		k.TokenStatus, k.TokenReason = event.TokenOff, "tracking_off"
	}
	h.clicks = append(h.clicks, k)
	value, err := h.codec.AppendClick(nil, k)
	if err != nil {
		h.Fatal(err)
	}
	rec := kgo.Record{
		Topic:     topic.Clicks,
		Partition: h.epochs.Partition(k.ClickToken, at),
		Key:       []byte(k.ClickToken),
		Value:     value,
		Timestamp: time.Now(),
	}
	if k.TokenStatus == event.TokenAppended {
		rec.Headers = []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}}
	}
	h.produceRecords(&rec)
	if h.rand.IntN(10) == 0 { // the spool sends it again
		again := rec
		again.Headers = append([]kgo.RecordHeader{{Key: topic.HeaderReplay}}, rec.Headers...)
		h.produceRecords(&again)
	}
}

func withoutPartner(k event.Click) event.Click {
	k.PartnerID = ""
	k.PartnerName = ""
	k.PartnerRelationship = ""
	k.PartnerLifecycle = ""
	k.ProgramID = ""
	k.RewardTerms = ""
	return k
}

// eventsOfClick returns the events that were written for a click.
func (h *history) eventsOfClick(k *event.Click) (own []*event.Conversion) {
	for _, c := range h.sent {
		if c.ClickToken == k.ClickToken {
			own = append(own, c)
		}
	}
	return own
}

// produceEvent writes a random event for a click: of any type and time, valid or not.
func (h *history) produceEvent(k *event.Click) {
	h.Helper()
	h.n++
	currency := h.rand.IntN(3)
	amount := 1 + h.rand.Int64N(20_000)
	c := &event.Conversion{
		WorkspaceID: k.WorkspaceID,
		EventID:     fmt.Sprint("e", h.n),
		ClickToken:  k.ClickToken,
		Type:        event.Sale,
		EventName:   "checkout",
		OccurredAt:  k.ClickedAt + event.Millis(h.rand.Int64N(k.WindowMs*11/10)) - 60_000,
		ReceivedAt:  event.MillisOf(time.Now()),
		AmountMinor: &amount,
		Currency:    []string{"EUR", "JPY", "USD"}[currency],
		Exponent:    []int32{2, 0, 2}[currency],
		OrderID:     fmt.Sprint("o", h.n),
	}
	c.OccurredAt = min(c.OccurredAt, c.ReceivedAt)
	var parent *event.Conversion
	if own := h.eventsOfClick(k); len(own) > 0 && h.rand.IntN(3) > 0 {
		parent = own[h.rand.IntN(len(own))]
	}
	switch kind := h.rand.IntN(20); {
	case kind < 3:
		c.Type = event.Lead
		c.AmountMinor, c.Currency = nil, ""
		c.Exponent = 0
	case kind < 12 && parent != nil:
		c.Type = []event.Type{event.Refund, event.Cancellation, event.Reversal}[h.rand.IntN(3)]
		c.ParentEventID = parent.EventID
		c.OrderID = ""
		if h.rand.IntN(3) == 0 || parent.AmountMinor == nil {
			c.AmountMinor, c.Currency = nil, ""
			c.Exponent = 0
		} else {
			c.Currency, c.Exponent = parent.Currency, parent.Exponent
		}
	case (kind == 12 || kind > 15) && parent != nil: // again, or again with other contents
		*c = *parent
		c.ReceivedAt = event.MillisOf(time.Now())
		if h.rand.IntN(2) == 0 {
			c.AmountMinor = &amount
			if c.Currency == "" {
				c.Currency, c.Exponent = "EUR", 2
			}
		}
	case kind == 13: // an id that other tokens use too
		c.EventID = fmt.Sprint("shared-", h.rand.IntN(3))
	case kind == 14:
		c.Type, c.ParentEventID = event.Refund, "never sent"
	case kind == 15:
		c.WorkspaceID = "initech" // with the token of another workspace
	}
	c.ContentSHA256 = c.ContentHash()
	h.sent = append(h.sent, c)
	raw, err := token.Parse(c.ClickToken)
	if err != nil {
		h.Fatal(err)
	}
	value, err := h.codec.AppendConversion(nil, c)
	if err != nil {
		h.Fatal(err)
	}
	h.produceRecords(&kgo.Record{
		Topic:     topic.Conversions,
		Partition: h.epochs.Partition(c.ClickToken, token.Time(&raw)),
		Key:       []byte(c.ClickToken),
		Value:     value,
		Timestamp: c.ReceivedAt.Time(),
	})
}

func (h *history) produceMonth(clicks, events int) {
	h.Helper()
	for range clicks {
		h.produceClick(time.Duration(h.rand.Int64N(int64(25 * 24 * time.Hour))))
	}
	for range events {
		// Half of the events concern ten clicks, so that chains arise.
		k := h.clicks[h.rand.IntN(len(h.clicks))]
		if h.rand.IntN(2) == 0 {
			k = h.clicks[h.rand.IntN(min(10, len(h.clicks)))]
		}
		h.produceEvent(k)
	}
}

// After a random month every view equals the oracle's, and again after events for the
// first days have arrived late.
func TestViewsSayWhatTheOracleSays(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	brokers := kafkatest.Broker(t)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	wh := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	codec := event.DefaultCodec()
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance = t.TempDir(), "slot-0"
	cfg.Grace, cfg.ClickMemory = grace, 8<<20
	p, err := processor.New(cfg, k, codec, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	sinkCfg := sink.DefaultConfig()
	sinkCfg.Linger = 50 * time.Millisecond
	s, err := sink.New(sinkCfg, k, codec, wh, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- p.Run(ctx) }()
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := &history{
		TB:     t,
		rand:   rand.New(rand.NewPCG(seed, 0)),
		codec:  codec,
		client: kafkatest.Client(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner())),
		epochs: topic.OneEpoch(kafkatest.Partitions),
	}
	for key, partner := range catalogNow {
		h.produceRecords(&kgo.Record{Topic: topic.Catalog, Key: []byte("partner/" + key[0] + "/" + key[1]),
			Value: fmt.Appendf(nil, `{"id":%q,"name":%q,"relationship":%q}`, key[1], partner.Name,
				partner.Relationship)})
	}
	h.produceMonth(150, 500)
	compareViews(t, k, codec, wh)
	// Only clicks of the first days get events now, so that old days change.
	slices.SortFunc(h.clicks, func(a, b *event.Click) int { return int(a.ClickedAt - b.ClickedAt) })
	for range 200 {
		h.produceEvent(h.clicks[h.rand.IntN(25)])
	}
	compareViews(t, k, codec, wh)
}

// viewCheck compares the rows of one view, as texts by key.
type viewCheck struct {
	want  map[string]string // the oracle's
	query string            // returns the columns key and line
}

// verdictCounts prints the counts of a conservation view as the oracle does.
const verdictCounts = `
	concat('received:', toString(received), ' attributed:', toString(attributed), ' reversed:', toString(reversed),
		' duplicate:', toString(duplicate), ' conflict:', toString(conflict), ' unattributed:', toString(unattributed),
		' waiting:', toString(waiting))`

const performanceQuery = `
SELECT
	concat('{WorkspaceID:', workspace_id, ' Day:', toString(day), ' PartnerID:', partner_id,
		' ProgramID:', program_id, ' LinkID:', link_id, ' Currency:', currency,
		' Exponent:', toString(exponent), '}') AS key,
	concat(partner_name, ' ', partner_relationship, ' {Clicks:', toString(clicks),
		' HumanClicks:', toString(human_clicks), ' TokenedClicks:', toString(tokened_clicks),
		' Leads:', toString(leads), ' Sales:', toString(sales), ' Refunds:', toString(refunds),
		' Cancellations:', toString(cancellations), ' Reversals:', toString(reversals),
		' GrossMinor:', toString(gross_minor), ' NegativeMinor:', toString(negative_minor),
		' NetMinor:', toString(net_minor),
		' StandingMinor:', toString(standing_minor), ' TakenBeyondMinor:', toString(taken_beyond_minor),
		' GivenBeyondMinor:', toString(given_beyond_minor), ' RewardMinor:', toString(reward_minor), '}') AS line
FROM partner_performance
WHERE clicks + leads + sales + refunds + cancellations + reversals > 0
	OR gross_minor != 0 OR negative_minor != 0 OR reward_minor != 0`

const conversionQuery = `
SELECT
	concat(toString(event_partition), '/', toString(event_offset)) AS key,
	concatWithSeparator(';', workspace_id, event_id, type, verdict, reason, toString(effect),
		ifNull(amount, ''), ifNull(net_amount, ''), ifNull(standing_change, ''), currency, clawback, review,
		arrayStringConcat(flags, '|'), partner_name,
		partner_relationship_now, parent_event_id) AS line
FROM conversion_rows`

const reuseQuery = `
SELECT
	concat(workspace_id, ' ', event_id) AS key,
	concat(toString(tokens), ' tokens ', toString(events), ' events') AS line
FROM event_id_reuse`

const coverageQuery = `
WITH toUInt64(round(coverage * 1000000)) AS millionths
SELECT
	concat(workspace_id, ' ', link_id) AS key,
	concat(toString(clicks), ' clicks, ', toString(tokened_clicks), ' with token (',
		leftPad(toString(intDiv(millionths, 1000000)), 1, '0'), '.',
		leftPad(toString(millionths % 1000000), 6, '0'), '), ',
		toString(withheld_clicks), ' withheld, ', toString(off_clicks), ' off') AS line
FROM token_coverage`

const conservationQuery = `
SELECT
	toString(partition) AS key,
	concat('{', ` + verdictCounts + `, '} difference ', toString(difference)) AS line
FROM (SELECT *, read AS received FROM conservation)
WHERE received > 0`

const workspaceConservationQuery = `
SELECT
	concat(workspace_id, ' ', toString(day)) AS key,
	concat('{', ` + verdictCounts + `, '} difference ', toString(difference)) AS line
FROM workspace_conservation`

// compareViews waits until no event waits and all rows are in the tables, then compares
// the views with the oracle's.
func compareViews(t *testing.T, k kafka.Config, codec *event.Codec, wh *clickhouse.Conn) {
	t.Helper()
	clicks, events := readTopics(t, k, codec)
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var at []struct {
			Read    uint64 `ch:"r"`
			Waiting uint64 `ch:"w"`
			Rows    uint64 `ch:"n"`
			Events  uint64 `ch:"e"`
			Clicks  uint64 `ch:"c"`
		}
		err := wh.Select(t.Context(), &at, `
SELECT
	(SELECT toUInt64(sum(read)) FROM conservation) AS r,
	(SELECT toUInt64(sum(waiting)) FROM conservation) AS w,
	(SELECT count() FROM outcomes) AS n,
	(SELECT count() FROM conversions) AS e,
	(SELECT toUInt64(sum(end_offset)) FROM tiled_ends WHERE topic = 'clicks') AS c`)
		n := uint64(len(events))
		if err == nil && at[0].Read == n && at[0].Waiting == 0 && at[0].Rows == n && at[0].Events == n &&
			at[0].Clicks == uint64(len(clicks)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not settled: %+v of %d events, %d clicks; %v", at, n, len(clicks), err)
		}
	}
	cfg := oracle.DefaultConfig()
	cfg.Grace = grace
	truth := oracle.Judge(cfg, clicks, events, event.MillisOf(time.Now().Add(grace)))
	verdicts := map[event.Verdict]int{}
	for i := range truth.Outcomes {
		verdicts[truth.Outcomes[i].Verdict]++
	}
	t.Logf("verdicts: %v", verdicts)
	if len(verdicts) != 5 {
		t.Errorf("the history brings only the verdicts %v", verdicts)
	}
	want := oracle.MakeViews(clicks, events, truth, catalogNow)
	if len(want.Reuse) == 0 {
		t.Error("the history reuses no event id")
	}
	for name, x := range map[string]viewCheck{
		"partner_performance":    {want.Performance, performanceQuery},
		"conversion_rows":        {want.Conversions, conversionQuery},
		"event_id_reuse":         {want.Reuse, reuseQuery},
		"token_coverage":         {want.Coverage, coverageQuery},
		"conservation":           {want.Conservation, conservationQuery},
		"workspace_conservation": {want.WorkspaceConservation, workspaceConservationQuery},
	} {
		var rows []struct {
			Key  string `ch:"key"`
			Line string `ch:"line"`
		}
		if err := wh.Select(t.Context(), &rows, x.query); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := map[string]string{}
		for _, r := range rows {
			if _, twice := got[r.Key]; twice {
				t.Errorf("%s has %s twice", name, r.Key)
			}
			got[r.Key] = r.Line
		}
		wrong := 0
		for _, key := range slices.Sorted(maps.Keys(x.want)) {
			if got[key] != x.want[key] {
				if wrong++; wrong <= 5 {
					t.Errorf("%s %s:\n got %s\nwant %s", name, key, got[key], x.want[key])
				}
			}
			delete(got, key)
		}
		if len(got) > 0 {
			t.Errorf("%s has %d rows too many: %v", name, len(got), slices.Sorted(maps.Keys(got))[:min(3, len(got))])
		}
		t.Logf("%s: %d rows as the oracle has them, %d not", name, len(x.want)-wrong, wrong)
	}
	awaitFreshness(t, wh)
}

// awaitFreshness waits for a watermark of at most half a minute ago: nothing waits and
// the processor runs.
func awaitFreshness(t *testing.T, wh *clickhouse.Conn) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var at []struct {
			Watermark  time.Time `ch:"joined_watermark"`
			Waiting    uint64    `ch:"w"`
			Partitions uint64    `ch:"partitions"`
			Behind     uint64    `ch:"partitions_behind"`
		}
		err := wh.Select(t.Context(), &at, "SELECT joined_watermark, toUInt64(waiting) AS w, partitions, "+
			"partitions_behind FROM freshness")
		if err == nil && at[0].Waiting == 0 && at[0].Partitions == kafkatest.Partitions && at[0].Behind == 0 &&
			time.Since(at[0].Watermark) < 30*time.Second && time.Since(at[0].Watermark) > -time.Second {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("freshness says %+v, %v", at, err)
		}
	}
}

func readTopics(t *testing.T, k kafka.Config, codec *event.Codec) (clicks []oracle.Click, events []oracle.Event) {
	t.Helper()
	for _, name := range []string{topic.Clicks, topic.Conversions} {
		records, err := kafka.ReadAll(t.Context(), k, slog.New(slog.DiscardHandler), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if name == topic.Clicks {
				c := oracle.Click{At: event.MillisOf(r.Timestamp)}
				err = codec.DecodeClick(r.Value, &c.Click)
				clicks = append(clicks, c)
			} else {
				e := oracle.Event{Partition: r.Partition, Offset: r.Offset}
				err = codec.DecodeConversion(r.Value, &e.Conversion)
				events = append(events, e)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return clicks, events
}
