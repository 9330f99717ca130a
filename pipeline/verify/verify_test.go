package verify_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/topic"
)

// The ledger that the real processor made of journeys of every kind is what the rules
// say, and what waits is no difference.
func TestTheProcessorsLedgerIsEqual(t *testing.T) {
	w := judgedWorld(t)
	rows := w.rows(t, "acme")
	verdicts := map[event.Verdict]int{}
	for i := range rows {
		verdicts[rows[i].Verdict]++
	}
	if len(verdicts) != 5 || len(rows) < 500 {
		t.Fatalf("the world has %d rows with the verdicts %v", len(rows), verdicts)
	}
	var steps []string
	r := run(t, w, verify.Config{Progress: func(step string, _, _ int64) { steps = append(steps, step) }})
	got := tally(t, r, "outcomes")
	if !r.OK() || got.Equal != int64(len(rows)) || got.Rows != got.Equal {
		t.Errorf("%d rows of acme: %v\n%v", len(rows), got, got.Differences)
	}
	if r.Waiting == 0 || r.Events != got.Rows+r.Waiting {
		t.Errorf("%d events, %d rows, %d wait", r.Events, got.Rows, r.Waiting)
	}
	if len(steps) == 0 {
		t.Error("no progress")
	}
}

// In any random history the processor's ledger is equal.
func TestRandomLedgersAreEqual(t *testing.T) {
	seed := rand.Uint64()
	w := makeWorld(t, rand.New(rand.NewPCG(seed, 1)), 120)
	for _, workspace := range []string{"acme", "globex"} {
		r := run(t, w, verify.Config{Workspace: workspace})
		if got := tally(t, r, "outcomes"); !r.OK() || got.Equal != got.Rows || got.Rows == 0 && workspace == "acme" {
			t.Errorf("seed %d: %s: %v\n%v", seed, workspace, got, got.Differences)
		}
	}
}

// wantOne wants exactly one difference: of a kind, about a row, in fields.
func wantOne(t *testing.T, what string, x *verify.Tally, kind verify.Kind, event, row *verify.Place, fields ...string) {
	t.Helper()
	if x.OK() || len(x.Differences) != 1 {
		t.Errorf("%s: %v\n%v", what, x, x.Differences)
		return
	}
	d := x.Differences[0]
	var got []string
	for _, f := range d.Fields {
		got = append(got, f.Field)
	}
	if d.Kind != kind || !reflect.DeepEqual(d.Event, event) || !reflect.DeepEqual(d.Row, row) ||
		!slices.Equal(got, fields) {
		t.Errorf("%s: got %s of event %v, row %v, fields %v; want %s, %v, %v, %v",
			what, d.Kind, d.Event, d.Row, d.Fields, kind, event, row, fields)
	}
}

// One changed amount, one missing row, one doubled row, one row of another rules
// version, one row for nothing, each at a random place, are found with their offset.
func TestOneWrongRowIsFound(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	for range 10 {
		i := 1 + rand.IntN(len(rows)-2)
		r := rows[i]
		place, ofEvent := r.Place, verify.Place{Partition: r.EventPartition, Offset: r.EventOffset}
		change := func(what string, do func(w *world)) *verify.Tally {
			t.Helper()
			w := original.clone()
			do(w)
			return tally(t, run(t, w, verify.Config{}), "outcomes")
		}
		rewrite := func(what string, change1 func(o *event.Outcome)) *verify.Tally {
			return change(what, func(w *world) {
				o := r.Outcome
				change1(&o)
				w.replaceRow(t, place, &o)
			})
		}
		amount := int64(17)
		if r.AmountMinor != nil {
			amount += *r.AmountMinor
		}
		wantOne(t, "amount", rewrite("amount", func(o *event.Outcome) { o.AmountMinor = &amount }),
			verify.Differs, &ofEvent, &place, "amount_minor")
		for _, version := range []int32{event.RulesVersion - 1, event.RulesVersion + 1} {
			if isFirstOrLast(original, place) {
				continue // it looks like an upgrade
			}
			wantOne(t, "version", rewrite("version", func(o *event.Outcome) { o.RulesVersion = version }),
				verify.Differs, &ofEvent, &place, "rules_version")
		}
		wantOne(t, "missing", change("missing", func(w *world) {
			list := w.records[topic.Outcomes][place.Partition]
			w.records[topic.Outcomes][place.Partition] = slices.DeleteFunc(list,
				func(x verify.Record) bool { return x.Offset == place.Offset })
		}), verify.Missing, &ofEvent, nil)
		end := original.partitions[slices.IndexFunc(original.partitions,
			func(p verify.Partition) bool { return p.ID == place.Partition })].Outcomes.End
		second := verify.Place{Partition: place.Partition, Offset: end}
		wantOne(t, "doubled", change("doubled", func(w *world) { w.appendRow(t, second, r.Outcome) }),
			verify.Doubled, &ofEvent, &second)
		nothing := verify.Place{Partition: place.Partition, Offset: 1 << 40}
		wantOne(t, "surplus", change("surplus", func(w *world) {
			o := r.Outcome
			o.EventOffset = nothing.Offset
			w.appendRow(t, second, o)
		}), verify.Surplus, &nothing, &second)
	}
}

// isFirstOrLast reports whether a row is at an end of its partition.
func isFirstOrLast(w *world, at verify.Place) bool {
	list := w.records[topic.Outcomes][at.Partition]
	return list[0].Offset == at.Offset || list[len(list)-1].Offset == at.Offset
}

// appendRow adds a row behind the others, as if the state that is verified had it.
func (w *world) appendRow(t testing.TB, at verify.Place, o event.Outcome) {
	t.Helper()
	value, err := codec.AppendOutcome(nil, &o, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.records[topic.Outcomes][at.Partition] = append(w.records[topic.Outcomes][at.Partition],
		verify.Record{Offset: at.Offset, Key: []byte(o.ClickToken), Value: value})
	for i := range w.partitions {
		if w.partitions[i].ID == at.Partition {
			w.partitions[i].Outcomes.End = at.Offset + 1
		}
	}
}

// changeField gives a field another value.
func changeField(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		v.Set(reflect.New(v.Type().Elem()))
	case v.Kind() == reflect.Pointer:
		n := reflect.New(v.Type().Elem())
		n.Elem().SetInt(v.Elem().Int() + 1)
		v.Set(n)
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.ValueOf(append(slices.Clone(v.Interface().([]string)), "x")))
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": "y"}))
	case v.Kind() == reflect.Array:
		v.Index(0).SetUint(v.Index(0).Uint() ^ 1)
	default:
		v.SetInt(v.Int() + 1)
	}
}

// enums are fields of which Avro refuses other values, and one that it has.
var enums = map[string]string{"verdict": "conflict", "review": "review", "type": "lead", "resolved_by": "none",
	"token_status": "off", "trigger": "qr"}

// A change of any field but decided_at is found, and named.
func TestEveryFieldIsCompared(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	i := slices.IndexFunc(rows, func(r row) bool {
		return r.Verdict == event.Attributed && r.Type == event.Sale && r.Review == event.ReviewClear &&
			!isFirstOrLast(original, r.Place)
	})
	r := rows[i]
	for _, f := range ledger.OutcomeFields() {
		o := r.Outcome
		click := *r.Click
		o.Click = &click
		if value, isEnum := enums[f.Name]; isEnum {
			f.Value(&o).SetString(value)
		} else {
			changeField(f.Value(&o))
		}
		w := original.clone()
		switch f.Name {
		case "event_partition", "event_offset", "workspace_id", "click_token":
			continue // these say which row it is: below
		}
		w.replaceRow(t, r.Place, &o)
		x := tally(t, run(t, w, verify.Config{}), "outcomes")
		if f.Name == "decided_at" {
			if !x.OK() {
				t.Errorf("decided_at is compared: %v", x.Differences)
			}
			continue
		}
		ofEvent := verify.Place{Partition: r.EventPartition, Offset: r.EventOffset}
		wantOne(t, f.Name, x, verify.Differs, &ofEvent, &r.Place, f.Name)
	}
	for name, change := range map[string]func(o *event.Outcome){
		"event_partition": func(o *event.Outcome) { o.EventPartition++ },
		"event_offset":    func(o *event.Outcome) { o.EventOffset = 1 << 40 },
		"workspace_id":    func(o *event.Outcome) { o.WorkspaceID = "globex" },
		"click":           func(o *event.Outcome) { o.Click = nil },
	} {
		w := original.clone()
		o := r.Outcome
		change(&o)
		w.replaceRow(t, r.Place, &o)
		if x := tally(t, run(t, w, verify.Config{}), "outcomes"); x.OK() {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

// Where the beginning of a log is deleted, rows whose token may have lost records are
// counted by reason: never as equal, and never as wrong.
func TestTruncatedLogs(t *testing.T) {
	original := judgedWorld(t)
	for name, want := range map[string]verify.Reason{
		topic.Clicks:      verify.ClickExpired,
		topic.Conversions: verify.EventsExpired,
		topic.Outcomes:    verify.RowExpired,
	} {
		w := original.clone()
		var deleted int64
		for i := range w.partitions {
			p := &w.partitions[i]
			list := w.records[name][p.ID]
			n := len(list) / 2
			w.records[name][p.ID] = list[n:]
			deleted += int64(n)
			x := map[string]*verify.Extent{topic.Clicks: &p.Clicks, topic.Conversions: &p.Conversions,
				topic.Outcomes: &p.Outcomes}[name]
			x.Start = list[n].Offset
			x.FirstAt = list[n].At
		}
		x := tally(t, run(t, w, verify.Config{}), "outcomes")
		// All tokens of the world were minted within minutes.
		if !x.OK() || x.NotDerivable[want] == 0 || name != topic.Outcomes && x.Equal > 0 {
			t.Errorf("%d records of %s are deleted: %v %v\n%v", deleted, name, x, x.NotDerivable, x.Differences)
		}
	}
	// A token that was minted after the first record that is left lacks nothing.
	w := original.clone()
	for i := range w.partitions {
		p := &w.partitions[i]
		p.Clicks.Start, p.Conversions.Start, p.Outcomes.Start = 1, 1, 1
		for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes} {
			w.records[name][p.ID] = slices.DeleteFunc(w.records[name][p.ID],
				func(r verify.Record) bool { return r.Offset < 1 })
		}
		p.Clicks.FirstAt = 1
		p.Conversions.FirstAt = 1
		p.Outcomes.FirstAt = 1
	}
	x := tally(t, run(t, w, verify.Config{}), "outcomes")
	if x.Equal < x.Rows/2 {
		t.Errorf("old logs: %v %v", x, x.NotDerivable)
	}
}

// Rows of an earlier version of the rules at the beginning of a partition, and of a newer
// one at its end, are an upgrade.
func TestUpgradesOfTheRules(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	for version, reason := range map[int32]verify.Reason{
		event.RulesVersion - 1: verify.OlderRules,
		event.RulesVersion + 1: verify.NewerRules,
	} {
		w := original.clone()
		changed := map[string]bool{}
		for _, p := range w.partitions {
			list := w.records[topic.Outcomes][p.ID]
			for i, r := range list {
				var o event.Outcome
				if err := codec.DecodeOutcome(r.Value, &o); err != nil {
					t.Fatal(err)
				}
				if (i < len(list)/3) == (version < event.RulesVersion) {
					o.RulesVersion = version
					w.replaceRow(t, verify.Place{Partition: p.ID, Offset: r.Offset}, &o)
					changed[o.ClickToken] = true
				}
			}
		}
		x := tally(t, run(t, w, verify.Config{}), "outcomes")
		if !x.OK() || x.NotDerivable[reason] == 0 || x.Equal == 0 ||
			x.Equal+x.NotDerivable[reason] != int64(len(rows)) || len(x.Unproved) == 0 {
			t.Errorf("version %d: %v %v\n%v", version, x, x.NotDerivable, x.Differences)
		}
	}
}

// Rows of tokens that were not judged under one set of times are no proof.
func TestChangesOfTheTimes(t *testing.T) {
	original := judgedWorld(t)
	rows := int64(len(original.rows(t, "acme")))
	// spans are the first and last event of each token in the state that is verified.
	spans := make(map[string][2]int64)
	for _, p := range original.partitions {
		for _, r := range original.records[topic.Conversions][p.ID] {
			var c event.Conversion
			if r.Offset >= p.Conversions.End || codec.DecodeConversion(r.Value, &c) != nil {
				continue
			}
			span, seen := spans[string(r.Key)]
			if !seen {
				span[0] = r.Offset
			}
			spans[string(r.Key)] = [2]int64{span[0], r.Offset}
		}
	}
	// check changes the times of each partition, and wants the rows that were judged
	// under one set of them.
	check := func(t *testing.T, change func(p *verify.Partition), isOne func(p *verify.Partition, r *row) bool) {
		w := original.clone()
		var want int64
		for i := range w.partitions {
			change(&w.partitions[i])
		}
		for _, r := range original.rows(t, "acme") {
			i := slices.IndexFunc(w.partitions, func(p verify.Partition) bool { return p.ID == r.Partition })
			if isOne(&w.partitions[i], &r) {
				want++
			}
		}
		x := tally(t, run(t, w, verify.Config{}), "outcomes")
		if want == 0 || want == rows || !x.OK() || x.Equal != want || x.NotDerivable[verify.TimesChanged] != rows-want {
			t.Errorf("want %d of %d: %+v", want, rows, x)
		}
	}
	t.Run("changed once", func(t *testing.T) {
		middle := func(p *verify.Partition) int64 { return p.Conversions.End / 2 }
		check(t, func(p *verify.Partition) {
			before := p.Times[0]
			after := before
			before.First, before.Last, before.LastOutcomes = 0, middle(p), p.Outcomes.End/4
			after.First, after.GraceMs = middle(p)+3, before.GraceMs+1
			p.Times = nil
			p.AddTimes(0, before)
			p.AddTimes(0, after)
		}, func(p *verify.Partition, r *row) bool {
			span := spans[r.ClickToken]
			return span[1] < middle(p) && r.Offset < p.Outcomes.End/4 || span[0] >= middle(p)+3
		})
	})
	t.Run("changed and changed back", func(t *testing.T) {
		from := func(p *verify.Partition) int64 { return p.Conversions.End / 3 }
		check(t, func(p *verify.Partition) {
			p.Times[0].First = 0 // whenever the first Progress came
			p.AddTimes(0, verify.Times{GraceMs: 1, ClickLifeMs: 1, JourneyLifeMs: 1, First: from(p), Last: from(p) + 9})
		}, func(p *verify.Partition, r *row) bool {
			span := spans[r.ClickToken]
			return span[1] < from(p) || span[0] >= from(p)+9
		})
	})
	t.Run("unknown", func(t *testing.T) {
		w := original.clone()
		for i := range w.partitions {
			w.partitions[i].Times[0].ClickLifeMs = 0
		}
		x := tally(t, run(t, w, verify.Config{}), "outcomes")
		if !x.OK() || x.NotDerivable[verify.TimesUnknown] != rows {
			t.Errorf("%v %v", x, x.NotDerivable)
		}
	})
	t.Run("another grace is not believed", func(t *testing.T) {
		w := original.clone()
		for i := range w.partitions {
			w.partitions[i].Times[0].ClickLifeMs = 1
		}
		if x := tally(t, run(t, w, verify.Config{}), "outcomes"); x.OK() {
			t.Errorf("%v", x)
		}
	})
}

// Only events of the days are compared, and others are no difference.
func TestDays(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	times := make([]event.Millis, len(rows))
	for i := range rows {
		times[i] = rows[i].OccurredAt
	}
	slices.Sort(times)
	from, to := times[len(times)/4], times[len(times)/2]
	var want int64
	for i := range rows {
		if rows[i].OccurredAt >= from && rows[i].OccurredAt < to {
			want++
		}
	}
	cfg := verify.Config{From: from.Time(), To: to.Time()}
	x := tally(t, run(t, original, cfg), "outcomes")
	if want == 0 || !x.OK() || x.Equal != want || x.Rows != want {
		t.Errorf("want %d rows: %v\n%v", want, x, x.Differences)
	}
}

func TestValidate(t *testing.T) {
	now := time.Now()
	for text, cfg := range map[string]verify.Config{
		"-workspace is required": {},
		"-from: it is after -to": {Workspace: "w", From: now, To: now.Add(-time.Hour)},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// A row that says of another day's event that it occurred within the days would count
// there: it is found, in the topic and in the warehouse.
func TestRowOfAnotherDay(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	// Of one token an event occurred within the days, and another one before them.
	first, last := -1, -1
	for i := range rows {
		for j := range rows {
			if rows[i].ClickToken == rows[j].ClickToken && rows[i].OccurredAt < rows[j].OccurredAt {
				first, last = i, j
			}
		}
	}
	if first < 0 {
		t.Fatal("no token has two rows")
	}
	cfg := verify.Config{From: rows[last].OccurredAt.Time()}
	w := original.clone()
	forged := slices.Clone(rows)
	forged[first].OccurredAt = rows[last].OccurredAt
	ofEvent := verify.Place{Partition: rows[first].EventPartition, Offset: rows[first].EventOffset}
	cfg.Table = tableOf(w, forged)
	wantOne(t, "ClickHouse", tally(t, run(t, w, cfg), "ClickHouse"), verify.Surplus, &ofEvent, &rows[first].Place)
	w.replaceRow(t, rows[first].Place, &forged[first].Outcome)
	cfg.Table = nil
	wantOne(t, "outcomes", tally(t, run(t, w, cfg), "outcomes"), verify.Surplus, &ofEvent, &rows[first].Place)
}

// waitingEvent is an event of a workspace that has no row yet.
func (w *world) waitingEvent(t testing.TB, workspace string) (at verify.Place, ev event.Conversion) {
	t.Helper()
	judged := make(map[verify.Place]bool)
	for _, r := range w.rows(t, workspace) {
		judged[verify.Place{Partition: r.EventPartition, Offset: r.EventOffset}] = true
	}
	for _, p := range w.partitions {
		for _, r := range w.records[topic.Conversions][p.ID] {
			at = verify.Place{Partition: p.ID, Offset: r.Offset}
			if codec.DecodeConversion(r.Value, &ev) == nil && ev.WorkspaceID == workspace && !judged[at] &&
				string(r.Key) == ev.ClickToken && p.Outcomes.End > 0 {
				return at, ev
			}
		}
	}
	t.Fatal("no event waits")
	return at, ev
}

// Rows that outcomes does not have: one about an event that waits is surplus, one behind
// the state that is verified is counted as not compared.
func TestTableHasMore(t *testing.T) {
	w := judgedWorld(t)
	rows := w.rows(t, "acme")
	at, ev := w.waitingEvent(t, "acme")
	forged := row{Place: verify.Place{Partition: at.Partition}}
	forged.Outcome = rows[0].Outcome
	forged.EventID, forged.ClickToken, forged.OccurredAt = ev.EventID, ev.ClickToken, ev.OccurredAt
	forged.EventPartition, forged.EventOffset = at.Partition, at.Offset
	x := tally(t, run(t, w, verify.Config{Table: tableOf(w, append(slices.Clone(rows), forged))}), "ClickHouse")
	wantOne(t, "waits", x, verify.Surplus, &at, &forged.Place)
	for _, p := range w.partitions {
		if p.ID == at.Partition {
			forged.Place.Offset = p.Outcomes.End
		}
	}
	x = tally(t, run(t, w, verify.Config{Table: tableOf(w, append(slices.Clone(rows), forged))}), "ClickHouse")
	if !x.OK() || x.Pending != 1 || x.Equal != int64(len(rows)) {
		t.Errorf("%+v", x)
	}
	// A value that no record can have is a difference, and ends nothing.
	wrong := slices.Clone(rows)
	wrong[0].Verdict = "approved"
	x = tally(t, run(t, w, verify.Config{Table: tableOf(w, wrong)}), "ClickHouse")
	ofEvent := verify.Place{Partition: rows[0].EventPartition, Offset: rows[0].EventOffset}
	wantOne(t, "verdict", x, verify.Differs, &ofEvent, &rows[0].Place, "verdict")
}

// The warehouse's rows are compared like those of the topic.
func TestTable(t *testing.T) {
	original := judgedWorld(t)
	rows := original.rows(t, "acme")
	i := 1 + rand.IntN(len(rows)-2)
	chosen := rows[i]
	ofEvent := verify.Place{Partition: chosen.EventPartition, Offset: chosen.EventOffset}
	for name, c := range map[string]struct {
		change func(rows []row) []row
		kind   verify.Kind
		row    verify.Place
		fields []string
	}{
		"nothing": {change: func(rows []row) []row { return rows }},
		"amount": {func(rows []row) []row {
			amount := int64(1 << 40)
			rows[i].AmountMinor = &amount
			return rows
		}, verify.Differs, chosen.Place, []string{"amount_minor"}},
		"place": {func(rows []row) []row {
			rows[i].Place.Offset--
			return rows
		}, verify.Differs, verify.Place{Partition: chosen.Partition, Offset: chosen.Offset - 1},
			[]string{"src_offset"}},
		"missing": {func(rows []row) []row { return slices.Delete(rows, i, i+1) }, verify.Missing, chosen.Place, nil},
		"doubled": {func(rows []row) []row { return append(rows, rows[i]) }, verify.Doubled, chosen.Place, nil},
	} {
		t.Run(name, func(t *testing.T) {
			table := tableOf(original, c.change(slices.Clone(rows)))
			r := run(t, original, verify.Config{Table: table})
			x := tally(t, r, "ClickHouse")
			if !tally(t, r, "outcomes").OK() {
				t.Error("the topic is not OK")
			}
			if c.kind == "" {
				if !x.OK() || x.Equal != int64(len(rows)) {
					t.Errorf("%+v\n%+v", x, x.Differences)
				}
				return
			}
			wantOne(t, name, x, c.kind, &ofEvent, &c.row, c.fields...)
		})
	}
	t.Run("missing, of a token that cannot be derived", func(t *testing.T) {
		w := original.clone()
		for i := range w.partitions {
			w.partitions[i].OlderRules = w.partitions[i].Conversions.End
		}
		r := run(t, w, verify.Config{Table: tableOf(w, slices.Delete(slices.Clone(rows), i, i+1))})
		wantOne(t, "missing", tally(t, r, "ClickHouse"), verify.Missing, &ofEvent, &chosen.Place)
	})
	t.Run("dropped with its month", func(t *testing.T) {
		table := tableOf(original, nil)
		table.Dropped = map[int32]verify.DroppedEnds{}
		for p, end := range table.Ends {
			table.Dropped[p] = verify.DroppedEnds{Rows: end, Events: end}
		}
		x := tally(t, run(t, original, verify.Config{Table: table}), "ClickHouse")
		if !x.OK() || x.Dropped != int64(len(rows)) {
			t.Errorf("%v, %d dropped", x, x.Dropped)
		}
	})
	t.Run("not inserted yet", func(t *testing.T) {
		table := tableOf(original, nil)
		for p := range table.Ends {
			table.Ends[p] = 0
		}
		x := tally(t, run(t, original, verify.Config{Table: table}), "ClickHouse")
		if !x.OK() || x.Pending != int64(len(rows)) {
			t.Errorf("%v, %d pending", x, x.Pending)
		}
	})
}
