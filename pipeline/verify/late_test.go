package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// lateWorld is one token, and a processor that the test leads by hand, so that records
// can come later than they are dated.
type lateWorld struct {
	testing.TB
	codec   *event.Codec
	raw     token.Raw
	rules   *attribution.Rules
	rows    journeyRows
	decided event.Millis // when the next rows are decided
	known   bool         // the click was read
	click   Record
	events  []Record
	outcome []Record
}

const (
	lateGrace = event.Millis(3600_000)
	lateStart = event.Millis(1_700_000_000_000)
)

func newLateWorld(t testing.TB) *lateWorld {
	w := &lateWorld{TB: t, codec: event.DefaultCodec()}
	binary.BigEndian.PutUint32(w.raw[:], token.SecondsOf(int64(lateStart)))
	w.raw[7] = 1
	cfg := attribution.DefaultConfig()
	cfg.Grace = time.Duration(lateGrace) * time.Millisecond
	var err error
	if w.rules, err = attribution.New(cfg, w.codec); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *lateWorld) emit(o *event.Outcome, click []byte) error {
	c := *o
	c.DecidedAt = w.decided
	value, err := w.codec.AppendOutcome(nil, &c, click)
	w.outcome = append(w.outcome, Record{Offset: int64(len(w.outcome)), Key: []byte(c.ClickToken), Value: value})
	return err
}

func (w *lateWorld) lookUp(*[20]byte) ([]byte, event.Millis, bool, error) {
	return w.click.Value, w.click.At, w.known, nil
}

func (w *lateWorld) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// readClick is a click that is dated at a time and read now.
func (w *lateWorld) readClick(at event.Millis) {
	w.Helper()
	value, err := w.codec.AppendClick(nil, &event.Click{
		ClickToken:  token.Text(&w.raw),
		WorkspaceID: "acme",
		ClickedAt:   lateStart,
		WindowMs:    86400_000,
		TokenStatus: event.TokenAppended,
		Trigger:     event.TriggerLink,
		RewardTerms: "10%",
	})
	w.check(err)
	w.click = Record{At: at, Key: []byte(token.Text(&w.raw)), Value: value, Shown: true}
	w.known = true
	w.check(w.rules.ApplyClick(&w.rows, &w.raw, value, at, w.emit))
}

// readEvent is an event that entered at a time and is read now.
func (w *lateWorld) readEvent(typ event.Type, entered event.Millis, parent string) {
	w.Helper()
	amount := int64(1000)
	ev := event.Conversion{
		WorkspaceID:   "acme",
		EventID:       fmt.Sprint("e", len(w.events)),
		ClickToken:    token.Text(&w.raw),
		Type:          typ,
		OccurredAt:    lateStart + 1000,
		ReceivedAt:    entered,
		EnteredAt:     entered,
		AmountMinor:   &amount,
		Currency:      "EUR",
		Exponent:      2,
		ParentEventID: parent,
		ResolvedBy:    event.ResolvedByToken,
	}
	ev.ContentSHA256 = ev.ContentHash()
	value, err := w.codec.AppendConversion(nil, &ev)
	w.check(err)
	offset := int64(len(w.events))
	w.events = append(w.events, Record{Offset: offset, At: entered, Key: []byte(ev.ClickToken), Value: value})
	w.check(w.rules.JudgeEvent(&w.rows, w.lookUp, &ev, attribution.Source{Offset: offset}, w.emit))
}

// watermark closes the waits that ended before.
func (w *lateWorld) watermark(through event.Millis) {
	w.Helper()
	w.check(w.rules.CloseWaits(&w.rows, w.lookUp, &w.raw, through, through, w.emit))
}

// verify verifies the state in which everything was read.
func (w *lateWorld) verify() *Tally {
	w.Helper()
	records := map[string][]Record{topic.Conversions: w.events, topic.Outcomes: w.outcome}
	if w.known {
		records[topic.Clicks] = []Record{w.click}
	}
	p := Partition{Watermark: forever, Times: []Times{{
		GraceMs:       int64(lateGrace),
		ClickLifeMs:   40 * 86400_000,
		JourneyLifeMs: 400 * 86400_000,
	}}}
	for name, x := range p.extents() {
		x.End = int64(len(records[name]))
	}
	source := &Source{Partitions: []Partition{p},
		Each: func(_ context.Context, name string, _ int32, do func(*Record) error) error {
			for _, r := range records[name] {
				if err := do(&r); err != nil {
					return err
				}
			}
			return nil
		}}
	r, err := Run(w.Context(), Config{Workspace: "acme", TempDir: w.TempDir()}, source, w.codec)
	w.check(err)
	return r.Tallies[0]
}

// wantTally wants so many equal rows, rows that depend on arrival, and differing ones.
func wantTally(t testing.TB, x *Tally, equal, late, differing int64) {
	t.Helper()
	if x.Equal != equal || x.Late != late || x.Differing != differing || x.Unprovable()+x.Missing+x.Surplus != 0 {
		t.Errorf("got %v, want %d equal, %d late, %d differing\n%v", x, equal, late, differing, x.Differences)
	}
}

// A click that reached Kafka after the processor had closed the wait for it, although it
// is dated before the wait's end: the row is what the rules say of such a click, and not
// what they say by the log.
func TestLateClick(t *testing.T) {
	w := newLateWorld(t)
	w.readEvent(event.Sale, lateStart+1000, "")
	end := lateStart + 1000 + lateGrace
	w.decided = end + 70_000
	w.watermark(end + 1)
	w.readClick(end - 1)
	w.decided++
	w.readEvent(event.Sale, end+2, "") // counts: the click is known
	wantTally(t, w.verify(), 1, 1, 0)
}

// The same row, decided before its wait's end, is wrong: no late click explains it.
func TestTooEarlyClose(t *testing.T) {
	w := newLateWorld(t)
	w.readEvent(event.Sale, lateStart+1000, "")
	end := lateStart + 1000 + lateGrace
	w.decided = end - 1
	w.watermark(end + 1)
	w.readClick(end - 1)
	wantTally(t, w.verify(), 0, 0, 1)
}

// Without a click in the log the row is right, however early the watermark says it was
// due; decided before the wait's end it is wrong.
func TestCloseBeforeTheWatermark(t *testing.T) {
	for decided, want := range map[event.Millis][2]int64{lateGrace + 1: {1, 0}, lateGrace - 1: {0, 1}} {
		w := newLateWorld(t)
		w.readEvent(event.Sale, lateStart, "")
		w.decided = lateStart + decided
		w.watermark(lateStart + lateGrace + 1)
		records := map[string][]Record{topic.Conversions: w.events, topic.Outcomes: w.outcome}
		p := Partition{Watermark: lateStart + lateGrace, Times: []Times{{GraceMs: int64(lateGrace),
			ClickLifeMs: 40 * 86400_000, JourneyLifeMs: 400 * 86400_000}}}
		p.Conversions.End, p.Outcomes.End = 1, 1
		r, err := Run(t.Context(), Config{Workspace: "acme"}, &Source{Partitions: []Partition{p},
			Each: func(_ context.Context, name string, _ int32, do func(*Record) error) error {
				for _, r := range records[name] {
					if err := do(&r); err != nil {
						return err
					}
				}
				return nil
			}}, w.codec)
		w.check(err)
		wantTally(t, r.Tallies[0], want[0], 0, want[1])
	}
}

// A sale that reached Kafka after the wait of its refund was closed.
func TestLateParent(t *testing.T) {
	w := newLateWorld(t)
	w.readClick(lateStart + 10)
	w.readEvent(event.Refund, lateStart+1000, "e1")
	end := lateStart + 1000 + lateGrace
	w.decided = end + 70_000
	w.watermark(end + 1)
	w.readEvent(event.Sale, end-5, "")
	w.readEvent(event.Refund, end+70_000, "e1")
	wantTally(t, w.verify(), 1, 2, 0) // the second refund takes what the first would have
}

// A click that came too late explains only the rows that follow from that.
func TestLateClickExplainsNoMore(t *testing.T) {
	w := newLateWorld(t)
	w.readEvent(event.Sale, lateStart+1000, "")
	end := lateStart + 1000 + lateGrace
	w.decided = end + 70_000
	w.watermark(end + 1)
	w.readClick(end - 1)
	w.readEvent(event.Sale, end+2, "")
	var o event.Outcome
	w.check(w.codec.DecodeOutcome(w.outcome[1].Value, &o))
	*o.AmountMinor++
	var err error
	w.outcome[1].Value, err = w.codec.AppendOutcome(nil, &o, nil)
	w.check(err)
	wantTally(t, w.verify(), 0, 0, 2)
}

// An event that waited behind the click's place: the click was read behind a later event
// although it is dated before it.
func TestClickReadBehindLaterEvent(t *testing.T) {
	w := newLateWorld(t)
	w.readEvent(event.Sale, lateStart+1000, "")
	w.readEvent(event.Sale, lateStart+2000, "")
	end := lateStart + 2000 + lateGrace
	w.readEvent(event.Sale, end-1500, "")
	w.decided = end + 70_000
	w.watermark(end + 1)
	w.readClick(end - 2000) // before the third
	wantTally(t, w.verify(), 1, 2, 0)
}

// A click that is dated long before the wait's end cannot have come so late: without
// this, whoever writes the ledger could take every sale from a partner.
func TestTooLateIsNoExplanation(t *testing.T) {
	for lateness, want := range map[event.Millis][2]int64{maxLateness - 1: {1, 0}, maxLateness: {0, 1}} {
		w := newLateWorld(t)
		w.readEvent(event.Sale, lateStart+1000, "")
		end := lateStart + 1000 + lateGrace
		w.decided = end + 2*lateGrace
		w.watermark(end + 1)
		w.readClick(end - lateness)
		wantTally(t, w.verify(), 0, want[0], want[1])
	}
}

// The click was recorded before the sale: a row that says that the wait for it ended in
// vain is wrong.
func TestForgedClickNotFound(t *testing.T) {
	w := newLateWorld(t)
	w.readEvent(event.Sale, lateStart+1000, "")
	w.decided = lateStart + 3*lateGrace
	w.watermark(lateStart + 2*lateGrace)
	w.readClick(lateStart + 500) // before the sale
	wantTally(t, w.verify(), 0, 0, 1)
}
