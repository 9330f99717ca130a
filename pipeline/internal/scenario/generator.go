package scenario

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

// Generator makes clicks, events about them, and their Kafka records. Its output
// depends only on Rand and Now.
type Generator struct {
	Now    func() time.Time
	Rand   *rand.Rand
	Behind time.Duration // how far the clock is behind that dates and mints clicks
	epochs topic.Epochs  // chooses the partition of a token
	codec  *event.Codec
	events int // made so far; numbers their ids
}

// New returns a generator for topics with the given number of partitions.
func New(partitions int32, rand *rand.Rand, now func() time.Time) *Generator {
	return &Generator{Now: now, Rand: rand, epochs: topic.OneEpoch(partitions), codec: event.DefaultCodec()}
}

// Click makes a click to which events can be attributed.
func (g *Generator) Click() *event.Click { return g.clickMintedAt(g.Now().Add(-g.Behind)) }

func (g *Generator) clickMintedAt(at time.Time) *event.Click {
	var raw token.Raw
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
	for i := 4; i < 20; i += 8 {
		binary.BigEndian.PutUint64(raw[i:], g.Rand.Uint64())
	}
	return &event.Click{
		WorkspaceID:         "acme",
		ClickToken:          token.Text(&raw),
		ClickedAt:           event.MillisOf(at),
		WindowMs:            30 * 86400_000,
		TokenStatus:         event.TokenAppended,
		LinkID:              "lnk_1",
		Domain:              "go.acme.com",
		Slug:                "a",
		Trigger:             event.TriggerLink,
		PartnerID:           "prt_1",
		PartnerKey:          "one",
		PartnerName:         "One",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_1",
		ProgramKey:          "p",
		ProgramName:         "P",
		ProgramStatus:       "active",
		RewardTerms:         "10%",
		CatalogOffset:       1,
	}
}

// Sale makes a sale for the click. minor is its amount in cents.
func (g *Generator) Sale(k *event.Click, minor int64) *event.Conversion {
	c := g.newEvent(event.Sale, k.ClickToken, k.ClickedAt+5000, minor)
	c.OrderID = fmt.Sprint("o", g.events)
	c.ContentSHA256 = c.ContentHash()
	return c
}

// Refund makes a refund of the event. minor is its amount in cents.
func (g *Generator) Refund(of *event.Conversion, minor int64) *event.Conversion {
	c := g.newEvent(event.Refund, of.ClickToken, of.OccurredAt+1000, minor)
	c.ParentEventID = of.EventID
	c.ContentSHA256 = c.ContentHash()
	return c
}

// newEvent makes an event with an id of its own; its content has no hash yet.
func (g *Generator) newEvent(kind event.Type, tok string, occurredAt event.Millis, minor int64) *event.Conversion {
	g.events++
	return &event.Conversion{
		WorkspaceID: "acme",
		EventID:     fmt.Sprint("e", g.events),
		ClickToken:  tok,
		Type:        kind,
		OccurredAt:  occurredAt,
		ReceivedAt:  event.MillisOf(g.Now()),
		EnteredAt:   event.MillisOf(g.Now()),
		ResolvedBy:  event.ResolvedByToken,
		AmountMinor: &minor,
		Currency:    "EUR",
		Exponent:    2,
	}
}

// Partition returns the partition of a token's records.
func (g *Generator) Partition(tok string) (int32, error) {
	raw, err := token.Parse(tok)
	if err != nil {
		return 0, fmt.Errorf("choosing the partition of token %q: %w", tok, err)
	}
	return g.epochs.Partition(tok, token.Time(&raw)), nil
}

// ClickRecord encodes a click as the redirector writes it. headers are names of headers
// without a value, as a replay has one.
func (g *Generator) ClickRecord(k *event.Click, headers ...string) (*kgo.Record, error) {
	partition, err := g.Partition(k.ClickToken)
	if err != nil {
		return nil, err
	}
	value, err := g.codec.AppendClick(nil, k)
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{
		Topic:     topic.Clicks,
		Partition: partition,
		Key:       []byte(k.ClickToken),
		Value:     value,
		Timestamp: g.Now(),
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h})
	}
	return r, nil
}

// EventRecord encodes an event as the gateway writes it.
func (g *Generator) EventRecord(c *event.Conversion) (*kgo.Record, error) {
	partition, err := g.Partition(c.ClickToken)
	if err != nil {
		return nil, err
	}
	value, err := g.codec.AppendConversion(nil, c)
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

// Step is one record of a journey: a click or an event.
type Step struct {
	Late      bool              // the record is written some time after the step before
	Click     *event.Click      // nil for an event
	Replay    bool              // of a click: it has the header of a replay
	Event     *event.Conversion // nil for a click
	Truncated bool              // of an event: the record is cut in half and unreadable
}

// Token is the text of the token that a step is of.
func (s Step) Token() string {
	if s.Click != nil {
		return s.Click.ClickToken
	}
	return s.Event.ClickToken
}

// Record encodes a step as of now.
func (g *Generator) Record(s Step) (*kgo.Record, error) {
	switch {
	case s.Click != nil && s.Replay:
		return g.ClickRecord(s.Click, topic.HeaderReplay)
	case s.Click != nil:
		return g.ClickRecord(s.Click)
	}
	c := *s.Event
	c.ReceivedAt = event.MillisOf(g.Now())
	c.EnteredAt = c.ReceivedAt
	r, err := g.EventRecord(&c)
	if err == nil && s.Truncated {
		r.Value = r.Value[:len(r.Value)/2]
	}
	return r, err
}

// Journey makes the steps of one journey: every second time a plain one, else one of
// the stories in which the rules have to choose.
func (g *Generator) Journey() []Step {
	if g.Rand.IntN(2) == 0 {
		return g.plainJourney()
	}
	s := g.newStory()
	stories[g.Rand.IntN(len(stories))](s)
	return s.steps()
}

// plainJourney makes the steps of one journey: sales and refunds, duplicates, conflicts,
// clicks that are missing, late or sent twice, refunds before their sale or without one,
// and unreadable records.
func (g *Generator) plainJourney() []Step {
	k := g.Click()
	s := g.Sale(k, 1000+g.Rand.Int64N(9000))
	click, sale := Step{Click: k}, Step{Event: s}
	refund := func(minor int64) Step { return Step{Event: g.Refund(s, minor)} }
	late := func(s Step) Step {
		s.Late = true
		return s
	}
	switch g.Rand.IntN(14) {
	case 0:
		return []Step{click}
	case 1:
		return []Step{sale}
	case 2:
		return []Step{sale, refund(100), late(click)}
	case 3:
		return []Step{click, refund(100), late(sale)}
	case 4:
		other := *s
		other.OrderID = "other"
		other.ContentSHA256 = other.ContentHash()
		return []Step{click, sale, sale, {Event: &other}}
	case 5:
		return []Step{click, late(Step{Click: k, Replay: true}), sale}
	case 6:
		return []Step{click, refund(100)}
	case 7:
		return []Step{click, {Event: s, Truncated: true}, sale}
	case 8:
		return []Step{late(sale), late(Step{Click: k, Replay: true}), late(refund(50))}
	case 9: // a click that waited in a spool for hours
		k = g.clickMintedAt(g.Now().Add(-5 * time.Hour))
		s = g.Sale(k, 1000)
		return []Step{{Click: k, Replay: true}, {Event: s}, refund(300)}
	default:
		return []Step{click, sale, refund(300), late(refund(300))}
	}
}
