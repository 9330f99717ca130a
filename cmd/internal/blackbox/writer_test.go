//go:build linux

package blackbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// recordWriter writes clicks and conversions to Kafka as redirector and gateway would:
// it sends a conversion after its click was acknowledged, since visitors convert after
// a click. Only journeys about lateness have the reverse order.
type recordWriter struct {
	t         *testing.T
	client    *kgo.Client
	codec     *event.Codec
	perSecond int // records

	records, events atomic.Int64 // acknowledged
	journeys        atomic.Int64

	// sales came after their click, by partition; each list is owned by its partition's
	// goroutine.
	sales [kafkatest.Partitions][]*event.Conversion

	// lateness is held for reading while a journey is written whose click or parent
	// comes late, and for writing during an outage of the broker. In an outage such a
	// click would arrive after the grace with a timestamp from before. Redirector and
	// gateway prevent that by their delivery timeouts and the margin of the watermark,
	// so the test would prove nothing.
	lateness sync.RWMutex
}

func newRecordWriter(t *testing.T, brokers []string, perSecond int) *recordWriter {
	return &recordWriter{
		t:         t,
		client:    kafkatest.Client(t, brokers, kgo.RecordDeliveryTimeout(2*time.Minute)),
		codec:     event.DefaultCodec(),
		perSecond: perSecond,
	}
}

// start writes until stop is called. stop returns when everything is acknowledged. Each
// partition has its own goroutine, so that an unavailable partition does not delay the
// others.
func (w *recordWriter) start() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for p := range int32(kafkatest.Partitions) {
		wg.Go(func() { w.writePartition(ctx, p) })
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// writePartition writes one partition.
func (w *recordWriter) writePartition(ctx context.Context, partition int32) {
	const every = 100 * time.Millisecond
	due, tick := 0.0, time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due += float64(w.perSecond) / kafkatest.Partitions * every.Seconds()
		s := journeyBatch{recordWriter: w, partition: partition, mayBeLate: w.lateness.TryRLock()}
		for float64(s.recordCount()) < due {
			s.addJourney()
		}
		due -= float64(s.recordCount())
		s.writeAll()
		if s.mayBeLate {
			w.lateness.RUnlock()
		}
	}
}

// journeyBatch holds records that are written together: the clicks, then the events,
// then late clicks and late events.
type journeyBatch struct {
	*recordWriter
	partition          int32
	mayBeLate          bool // may add journeys about lateness
	clicks, lateClicks []*kgo.Record
	events, lateEvents []*event.Conversion
	replayed           []*kgo.Record
}

func (s *journeyBatch) recordCount() int {
	return len(s.clicks) + len(s.events) + len(s.lateClicks) + len(s.lateEvents) + len(s.replayed)
}

// maxSales is how many sales of a partition are kept to come back to.
const maxSales = 1000

// addJourney adds one journey. Most are a sale with refunds. The others are a click
// alone, a duplicate and a conflict, a click that a spool sends twice, or a click or
// parent that is late or missing. Some come back to an earlier sale: only these show
// whether a processor still has clicks and sales of transactions before the last kill.
func (s *journeyBatch) addJourney() {
	n := s.journeys.Add(1)
	k, click := s.newClick()
	amount := 1000 + n%9000
	sale := &event.Conversion{
		WorkspaceID: k.WorkspaceID,
		EventID:     fmt.Sprint("e", n),
		ClickToken:  k.ClickToken,
		Type:        event.Sale,
		OccurredAt:  k.ClickedAt,
		AmountMinor: &amount,
		Currency:    "EUR",
		Exponent:    2,
		OrderID:     fmt.Sprint("o", n),
	}
	part := int64(300)
	refund := func(id string) *event.Conversion {
		return &event.Conversion{
			WorkspaceID:   k.WorkspaceID,
			EventID:       fmt.Sprint(id, n),
			ClickToken:    k.ClickToken,
			Type:          event.Refund,
			OccurredAt:    k.ClickedAt,
			AmountMinor:   &part,
			Currency:      "EUR",
			Exponent:      2,
			ParentEventID: sale.EventID,
		}
	}
	kind := rand.IntN(20)
	sales := s.sales[s.partition]
	if !s.mayBeLate && kind < 4 || kind > 16 && len(sales) == 0 {
		kind = 11
	}
	if kind > 1 && kind != 4 && kind < 17 { // these have no click, a late or an old one
		s.clicks = append(s.clicks, click)
	}
	switch kind {
	case 0, 1: // the click comes after its sale and refund
		s.events = append(s.events, sale, refund("r"))
		s.lateClicks = append(s.lateClicks, click)
	case 2, 3: // the refund comes before its sale
		s.events = append(s.events, refund("r"))
		s.lateEvents = append(s.lateEvents, sale)
	case 4: // no click ever
		s.events = append(s.events, sale)
	case 5: // no sale ever
		s.events = append(s.events, refund("r"))
	case 6, 7: // nothing but the click
	case 8, 9:
		again, other := *sale, *sale
		other.OrderID = "another"
		s.events = append(s.events, sale, &again, &other)
	case 10:
		again := *click
		again.Headers = append(slices.Clone(click.Headers), kgo.RecordHeader{Key: topic.HeaderReplay})
		s.events, s.replayed = append(s.events, sale), append(s.replayed, &again)
	case 17, 18, 19: // a refund of an earlier sale, and another sale of its click
		earlier := sales[rand.IntN(len(sales))]
		sale.ClickToken = earlier.ClickToken
		r := refund("r")
		r.ClickToken, r.ParentEventID = earlier.ClickToken, earlier.EventID
		s.events = append(s.events, sale, r)
	default:
		s.events = append(s.events, sale, refund("r"), refund("s"))
	}
	if kind > 7 && kind < 17 {
		s.keepSale(sale)
	}
}

// keepSale keeps a sale that a later journey comes back to.
func (s *journeyBatch) keepSale(sale *event.Conversion) {
	sales := s.sales[s.partition]
	if len(sales) == maxSales {
		sales[rand.IntN(maxSales)] = sale
		return
	}
	s.sales[s.partition] = append(sales, sale)
}

// newClick returns a click whose token belongs to the partition.
func (s *journeyBatch) newClick() (*event.Click, *kgo.Record) {
	now := time.Now()
	epochs := topic.OneEpoch(kafkatest.Partitions)
	var raw token.Raw
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(now.UnixMilli()))
	text := ""
	for text == "" || epochs.Partition(text, now) != s.partition {
		binary.BigEndian.PutUint64(raw[4:], rand.Uint64())
		binary.BigEndian.PutUint64(raw[12:], rand.Uint64())
		text = token.Text(&raw)
	}
	k := &event.Click{
		WorkspaceID:         "acme",
		ClickToken:          text,
		ClickedAt:           event.MillisOf(now),
		WindowMs:            30 * 86400_000,
		TokenStatus:         event.TokenAppended,
		LinkID:              "lnk_nomura",
		Domain:              "go.acme.com",
		Slug:                "nomura",
		Trigger:             event.TriggerLink,
		PartnerID:           "prt_nomura",
		PartnerKey:          "nomura",
		PartnerName:         "Nomura Studio",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_agency",
		ProgramKey:          "agency",
		ProgramName:         "Agency partners",
		ProgramStatus:       "active",
		RewardTerms:         "10%",
		CatalogOffset:       1,
	}
	value, err := s.codec.AppendClick(nil, k)
	if err != nil {
		s.t.Error(err)
	}
	return k, &kgo.Record{
		Topic:     topic.Clicks,
		Partition: s.partition,
		Key:       []byte(text),
		Value:     value,
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	}
}

func (s *journeyBatch) writeAll() {
	s.produceSync(s.clicks)
	s.produceSync(s.replayed)
	s.produceSync(s.conversionRecords(s.events))
	s.produceSync(s.lateClicks)
	s.produceSync(s.conversionRecords(s.lateEvents))
	s.recordWriter.events.Add(int64(len(s.events) + len(s.lateEvents)))
}

// conversionRecords returns the records of events, with the present time as
// received_at.
func (s *journeyBatch) conversionRecords(events []*event.Conversion) (records []*kgo.Record) {
	now := event.MillisOf(time.Now())
	for _, c := range events {
		c.ReceivedAt, c.ContentSHA256 = now, c.ContentHash()
		value, err := s.codec.AppendConversion(nil, c)
		if err != nil {
			s.t.Error(err)
		}
		records = append(records, &kgo.Record{
			Topic:     topic.Conversions,
			Partition: s.partition,
			Key:       []byte(c.ClickToken),
			Value:     value,
			Timestamp: now.Time(),
		})
	}
	return records
}

// produceSync writes records and waits for their acknowledgement.
func (s *journeyBatch) produceSync(records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	if err := s.client.ProduceSync(context.WithoutCancel(s.t.Context()), records...).FirstErr(); err != nil {
		s.t.Errorf("writing partition %d: %v", s.partition, err)
	}
	s.records.Add(int64(len(records)))
}
