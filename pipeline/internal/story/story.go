// Package story makes up journeys of every kind, right and wrong, early and late, for
// tests that run a processor and then hold what it wrote against the oracle.
package story

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Teller makes clicks, events about them, and their records. Its words depend on Rand
// and Now alone.
type Teller struct {
	Now    func() time.Time
	Rand   *rand.Rand
	epochs topic.Epochs
	codec  *event.Codec
	events int
}

// New makes a teller for topics of so many partitions.
func New(partitions int32, rand *rand.Rand, now func() time.Time) *Teller {
	return &Teller{Now: now, Rand: rand, epochs: topic.OneEpoch(partitions), codec: event.DefaultCodec()}
}

// Click makes a click that can bring conversions.
func (t *Teller) Click() *event.Click { return t.clickAt(t.Now()) }

func (t *Teller) clickAt(at time.Time) *event.Click {
	var raw token.Raw
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
	for i := 4; i < 20; i += 8 {
		binary.BigEndian.PutUint64(raw[i:], t.Rand.Uint64())
	}
	return &event.Click{WorkspaceID: "acme", ClickToken: token.Text(&raw), ClickedAt: event.MillisOf(at),
		WindowMs: 30 * 86400_000, TokenStatus: event.TokenAppended, LinkID: "lnk_1",
		Domain: "go.acme.com", Slug: "a", Trigger: event.TriggerLink, PartnerID: "prt_1", PartnerKey: "one", PartnerName: "One", PartnerRelationship: "approved", PartnerLifecycle: "active",
		ProgramID: "prg_1", ProgramKey: "p", ProgramName: "P", ProgramStatus: "active", RewardTerms: "10%",
		CatalogOffset: 1}
}

// Sale makes a sale of so many cents.
func (t *Teller) Sale(k *event.Click, minor int64) *event.Conversion {
	t.events++
	c := &event.Conversion{WorkspaceID: "acme", EventID: fmt.Sprint("e", t.events), ClickToken: k.ClickToken,
		Type: event.Sale, OccurredAt: k.ClickedAt + 5000, ReceivedAt: event.MillisOf(t.Now()),
		AmountMinor: &minor, Currency: "EUR", Exponent: 2, OrderID: fmt.Sprint("o", t.events)}
	c.ContentSHA256 = c.Content()
	return c
}

// Refund takes so many cents of an event back.
func (t *Teller) Refund(of *event.Conversion, minor int64) *event.Conversion {
	t.events++
	c := &event.Conversion{WorkspaceID: "acme", EventID: fmt.Sprint("e", t.events), ClickToken: of.ClickToken,
		Type: event.Refund, OccurredAt: of.OccurredAt + 1000, ReceivedAt: event.MillisOf(t.Now()),
		AmountMinor: &minor, Currency: "EUR", Exponent: 2, ParentEventID: of.EventID}
	c.ContentSHA256 = c.Content()
	return c
}

// Partition is where the records of a token go.
func (t *Teller) Partition(tok string) (int32, error) {
	raw, err := token.Parse(tok)
	if err != nil {
		return 0, fmt.Errorf("partition of token %q: %w", tok, err)
	}
	return t.epochs.Partition(tok, token.Time(&raw)), nil
}

// ClickRecord is a click as the redirector writes it: a replay has a header that is
// there without a value.
func (t *Teller) ClickRecord(k *event.Click, headers ...string) (*kgo.Record, error) {
	partition, err := t.Partition(k.ClickToken)
	if err != nil {
		return nil, err
	}
	value, err := t.codec.AppendClick(nil, k)
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{
		Topic:     topic.Clicks,
		Partition: partition,
		Key:       []byte(k.ClickToken),
		Value:     value,
		Timestamp: t.Now(),
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h})
	}
	return r, nil
}

// EventRecord is an event as the gateway writes it.
func (t *Teller) EventRecord(c *event.Conversion) (*kgo.Record, error) {
	partition, err := t.Partition(c.ClickToken)
	if err != nil {
		return nil, err
	}
	value, err := t.codec.AppendConversion(nil, c)
	if err != nil {
		return nil, err
	}
	return &kgo.Record{
		Topic:     topic.Conversions,
		Partition: partition,
		Key:       []byte(c.ClickToken),
		Value:     value,
		Timestamp: c.ReceivedAt.Time(),
	}, nil
}

// Line is one record of a journey: a click or an event.
type Line struct {
	Late    bool // it comes some time after the line before it
	Click   *event.Click
	Replay  bool // of a click: a spool sends it
	Event   *event.Conversion
	Garbage bool // of an event: the record cannot be read
}

// Record writes a line as of now.
func (t *Teller) Record(l Line) (*kgo.Record, error) {
	switch {
	case l.Click != nil && l.Replay:
		return t.ClickRecord(l.Click, topic.HeaderReplay)
	case l.Click != nil:
		return t.ClickRecord(l.Click)
	}
	c := *l.Event
	c.ReceivedAt = event.MillisOf(t.Now())
	r, err := t.EventRecord(&c)
	if err == nil && l.Garbage {
		r.Value = r.Value[:len(r.Value)/2]
	}
	return r, err
}

// Journey tells one journey: sales and refunds, duplicates, conflicts, clicks that
// never come, come late or are sent twice, refunds before their sale or without one,
// and records that cannot be read.
func (t *Teller) Journey() []Line {
	k := t.Click()
	s := t.Sale(k, 1000+t.Rand.Int64N(9000))
	click, sale := Line{Click: k}, Line{Event: s}
	refund := func(minor int64) Line { return Line{Event: t.Refund(s, minor)} }
	late := func(l Line) Line {
		l.Late = true
		return l
	}
	switch t.Rand.IntN(14) {
	case 0:
		return []Line{click}
	case 1:
		return []Line{sale}
	case 2:
		return []Line{sale, refund(100), late(click)}
	case 3:
		return []Line{click, refund(100), late(sale)}
	case 4:
		other := *s
		other.OrderID = "other"
		other.ContentSHA256 = other.Content()
		return []Line{click, sale, sale, {Event: &other}}
	case 5:
		return []Line{click, late(Line{Click: k, Replay: true}), sale}
	case 6:
		return []Line{click, refund(100)}
	case 7:
		return []Line{click, {Event: s, Garbage: true}, sale}
	case 8:
		return []Line{late(sale), late(Line{Click: k, Replay: true}), late(refund(50))}
	case 9: // a spool that was away for hours sends it
		k = t.clickAt(t.Now().Add(-5 * time.Hour))
		s = t.Sale(k, 1000)
		return []Line{{Click: k, Replay: true}, {Event: s}, refund(300)}
	default:
		return []Line{click, sale, refund(300), late(refund(300))}
	}
}
