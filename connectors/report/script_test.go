package report_test

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/shopspring/decimal"
)

// eventScript puts events into a warehouse, one a line, in the order of record:
//
//	TOKEN ID TYPE [AMOUNT] [KEY=VALUE]… FATE
//
// KEY is order, parent, name, reason, ref, meta (an entry KEY:VALUE), happened (a
// duration after receipt), and of a judged one change, flags. A value may be
// percent-encoded. FATE is waiting; attributed; reversed(PARENT); unattributed(REASON);
// conflict, with the first event of the id under the token; refused(CODE,FIELD). Events
// are received minute by minute, in US dollars. T1 to T4 are tokens of the partner
// nomura, T5 to T8 of the partner other; of T9 no click is known.
type eventScript struct {
	conn   *clickhouse.Conn
	events []*scriptEvent
}

type scriptEvent struct {
	token, id, kind, fate string
	fields                map[string]string
	amount                *int64
	offset                uint64
	received              time.Time
}

var scriptFate = regexp.MustCompile(`^(waiting|attributed|reversed|unattributed|conflict|refused)(?:\(([^)]*)\))?$`)

func (s *eventScript) add(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	e := &scriptEvent{
		token:    words[0],
		id:       words[1],
		kind:     words[2],
		fate:     words[len(words)-1],
		fields:   map[string]string{},
		offset:   uint64(len(s.events)),
		received: time.Date(2026, 3, 2, 10, len(s.events), 0, 0, time.UTC),
	}
	for _, word := range words[3 : len(words)-1] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			minor := decimal.RequireFromString(word).Shift(2).IntPart()
			e.amount = &minor
			continue
		}
		var err error
		if e.fields[key], err = url.QueryUnescape(value); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	s.events = append(s.events, e)
	if strings.HasPrefix(e.fate, "refused") {
		s.refuse(t, e)
		return
	}
	s.receive(t, e)
	if e.fate != "waiting" {
		s.judge(t, e)
	}
}

// settle gives events that wait their fates: TOKEN ID FATE.
func (s *eventScript) settle(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	for _, e := range s.events {
		if e.token == words[0] && e.id == words[1] && e.fate == "waiting" {
			e.fate = words[2]
			s.judge(t, e)
			return
		}
	}
	t.Fatalf("nothing waits: %s", line)
}

func (s *eventScript) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if err := s.conn.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%v in %s", err, query)
	}
}

// values are the arguments of an insert.
func (e *scriptEvent) values(t *testing.T) []any {
	t.Helper()
	happened := e.received
	if e.fields["happened"] != "" {
		d, err := time.ParseDuration(e.fields["happened"])
		if err != nil {
			t.Fatal(err)
		}
		happened = happened.Add(d)
	}
	currency, amount := "", int64(-1)
	if e.amount != nil {
		currency, amount = "USD", *e.amount
	}
	key, value, _ := strings.Cut(e.fields["meta"], ":")
	return []any{
		clickhouse.Named("offset", e.offset), clickhouse.Named("id", e.id), clickhouse.Named("token", e.token),
		clickhouse.Named("type", e.kind), clickhouse.Named("happened", happened.Format(time.DateTime)),
		clickhouse.Named("received", e.received.Format(time.DateTime)), clickhouse.Named("amount", amount),
		clickhouse.Named("currency", currency), clickhouse.Named("ord", e.fields["order"]),
		clickhouse.Named("parent", e.fields["parent"]), clickhouse.Named("name", e.fields["name"]),
		clickhouse.Named("reason", e.fields["reason"]), clickhouse.Named("ref", e.fields["ref"]),
		clickhouse.Named("key", key), clickhouse.Named("value", value),
	}
}

func (s *eventScript) receive(t *testing.T, e *scriptEvent) {
	t.Helper()
	s.exec(t, `
INSERT INTO conversions (workspace_id, src_partition, src_offset, event_id, click_token, type, occurred_at, received_at,
	entered_at, amount_minor, currency, exponent, order_id, parent_event_id, event_name, reason_text, customer_ref, metadata)
SELECT 'acme', 0, {offset:UInt64}, {id:String}, {token:String}, {type:String}, toDateTime64({happened:String}, 3, 'UTC'),
	toDateTime64({received:String}, 3, 'UTC') AS at, at, nullIf({amount:Int64}, -1), {currency:String}, 2, {ord:String},
	{parent:String}, {name:String}, {reason:String}, {ref:String}, if({key:String} = '', map(), map({key:String}, {value:String}))`,
		e.values(t)...)
}

func (s *eventScript) refuse(t *testing.T, e *scriptEvent) {
	t.Helper()
	code, field, _ := strings.Cut(scriptFate.FindStringSubmatch(e.fate)[2], ",")
	s.exec(t, `
INSERT INTO rejections (workspace_id, src_offset, event_id, click_token, type, received_at, status, code, field, order_id, parent_event_id)
SELECT 'acme', {offset:UInt64}, {id:String}, {token:String}, {type:String}, toDateTime64({received:String}, 3, 'UTC'), 422,
	{code:String}, {field:String}, {ord:String}, {parent:String}`,
		append(e.values(t), clickhouse.Named("code", code), clickhouse.Named("field", field))...)
}

func (s *eventScript) judge(t *testing.T, e *scriptEvent) {
	t.Helper()
	parts := scriptFate.FindStringSubmatch(e.fate)
	if parts == nil {
		t.Fatalf("%s: no such fate", e.fate)
	}
	verdict, reason, parent, effect, first := parts[1], "", e.fields["parent"], 0, int64(-1)
	partner := map[bool]string{true: "nomura", false: "other"}[e.token < "T5"]
	switch event.Verdict(verdict) {
	case event.Attributed:
		effect = 1
	case event.Reversed:
		effect, parent = -1, parts[2]
	case event.Unattributed:
		reason = parts[2]
	case event.Conflict:
		for _, before := range s.events[:e.offset] {
			if before.token == e.token && before.id == e.id && before.fate != "conflict" {
				first = int64(before.offset)
			}
		}
	}
	if reason == event.ReasonClickNotFound {
		partner = ""
	}
	change := int64(0)
	if e.amount != nil {
		change = int64(effect) * *e.amount
	}
	if e.fields["change"] != "" {
		change = decimal.RequireFromString(e.fields["change"]).Shift(2).IntPart()
	}
	s.exec(t, `
INSERT INTO outcomes (workspace_id, src_offset, event_offset, event_id, click_token, type, occurred_at, received_at, amount_minor,
	currency, exponent, order_id, parent_event_id, event_name, reason_text, verdict, reason, effect, first_offset,
	standing_change_minor, flags, clicked_at, window_ms, partner_id, partner_name)
SELECT 'acme', {offset:UInt64}, {offset:UInt64}, {id:String}, {token:String}, {type:String}, toDateTime64({happened:String}, 3, 'UTC'),
	toDateTime64({received:String}, 3, 'UTC'), nullIf({amount:Int64}, -1), {currency:String}, 2, {ord:String}, {found:String},
	{name:String}, {reason:String}, {verdict:String}, {why:String}, {effect:Int8}, nullIf({first:Int64}, -1),
	if({effect:Int8} = 0 OR {amount:Int64} < 0, NULL, {change:Int64}), {flags:Array(String)},
	if({partner:String} = '', NULL, toDateTime64('2026-03-01 10:00:00', 3, 'UTC')), 2592000000, {partner:String}, {partner:String}`,
		append(e.values(t), clickhouse.Named("verdict", verdict), clickhouse.Named("why", reason),
			clickhouse.Named("found", parent), clickhouse.Named("effect", effect), clickhouse.Named("first", first),
			clickhouse.Named("change", change), clickhouse.Named("partner", partner),
			clickhouse.Named("flags", strings.FieldsFunc(e.fields["flags"], func(r rune) bool { return r == ',' })))...)
}

// prepare puts the clicks of the tokens and the processor's Progress into the warehouse:
// it has read everything, and nothing is overdue yet.
func (s *eventScript) prepare(t *testing.T) {
	t.Helper()
	s.exec(t, `
INSERT INTO clicks (workspace_id, src_offset, clicked_at, click_token, link_id, token_status, partner_id, partner_name, window_ms)
SELECT 'acme', number, toDateTime64('2026-03-01 10:00:00', 3, 'UTC'), concat('T', toString(number)), 'lnk', 'appended',
	if(number < 5, 'nomura', 'other') AS partner, partner, 2592000000
FROM numbers(1, 8)`)
	s.exec(t, `
INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES
	('A', 'conversions', 0, 0, 1000, 1000), ('B', 'outcomes', 0, 0, 1000, 1000)`)
	s.progress(t, 0, "2026-03-02 20:00:00")
}

// progress is a Progress that has read up to a time.
func (s *eventScript) progress(t *testing.T, offset int, watermark string) {
	t.Helper()
	s.exec(t, fmt.Sprintf(`
INSERT INTO progress (src_partition, src_offset, partition, at, watermark, conversions_position, outcomes_end, grace_ms) VALUES
	(0, %d, 0, '%s', '%s', 1000, 1000, 259200000)`, offset, watermark, watermark))
}
