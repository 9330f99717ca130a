package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// deliveryTimeout is after how long a click is given up, to be sent again with a
	// new timestamp.
	deliveryTimeout = topic.DeliveryLimit / 2
	// maxInFlight bounds what is with the Kafka client and not acknowledged. While
	// Kafka is away, this much goes to and fro; the rest stays on disk.
	maxInFlight = 8 << 20
	// cutEvery is how often the cut is stored. What it lags is sent again after a
	// crash.
	cutEvery = 250 * time.Millisecond
	// readAgain is after how long a segment that could not be read is tried again.
	readAgain = 250 * time.Millisecond
	// gather spares reads and wake-ups under load.
	gather = 2 * time.Millisecond
	// settle: after a start, what an earlier process left waits this long. A produce
	// request of that process may still be in the broker's hands: its records have no
	// header replay, so they must come first in the log.
	settle = time.Second
	// drain is how long a stopping shipper goes on, so that a planned restart leaves
	// nothing to replay.
	drain = 5 * time.Second
	// Pauses after a failure.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
)

// ClientOptions are what the shipper's Kafka client needs beyond what all our clients
// share.
//
// A record whose outcome is not known after the delivery timeout comes back to us as
// failed and is sent again with header replay; by default the client would hold it,
// with its old timestamp, until Kafka is back. The client raises its producer epoch
// after such a failure, so a late first attempt is fenced and cannot land behind the
// replay.
func ClientOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(gather),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.UnknownTopicRetries(-1),
		kgo.MaxBufferedRecords(1 << 20), // the bound is maxInFlight
	}
}

// Partitions returns the partition function for the given epochs: by a token's text and
// its mint time.
func Partitions(epochs topic.Epochs) func(clickToken string) int32 {
	return func(clickToken string) int32 {
		raw, err := token.Parse(clickToken)
		if err != nil {
			return 0 // a damaged spool could hold it, a valid frame cannot
		}
		return epochs.Partition(clickToken, token.Time(&raw))
	}
}

// Shipper sends the spool to Kafka in order, and cuts the spool behind what Kafka has
// acknowledged.
//
// A record of this process that is sent for the first time has no header replay: it is
// certain that it is not in the log. Everything else (all of an old segment behind the
// cut, and every second attempt) has it.
type Shipper struct {
	spool     *Spool
	client    *kgo.Client
	topic     string
	partition func(clickToken string) int32
	refusals  *refusals
	watch     *outage.Watch
	log       *slog.Logger
	metrics   *shipperMetrics
	settle    time.Duration // settle and longest: tests shorten them
	longest   time.Duration

	// Owned by Run.
	reader   *reader
	queue    []*shipment // oldest first; the cut moves over its head
	inFlight int         // bytes in queue
	cut      position    // behind the last acknowledged shipment
	stored   position
	storedAt time.Time
	pause    time.Duration
	paused   time.Time // nothing is sent before
	took     int64     // Unix nanoseconds: when Kafka last took a shipment
	readAt   time.Time
	cutFails bool
	unkept   bool

	acked chan struct{} // holds a value when a shipment came to its end
}

// shipment is a batch that is with the Kafka client.
type shipment struct {
	batch
	open atomic.Int32 // records without outcome

	again   []frame // owned by Run: to be sent once the pause is over
	refused int     // owned by Run

	mu       sync.Mutex // guards failed
	failed   []failure
	failedAt atomic.Int64 // Unix nanoseconds of the newest of them
}

type failure struct {
	frame frame
	err   error
}

// NewShipper makes the shipper of a spool. client was made with ClientOptions; topic is
// the full name of `clicks`. codec prints refused records. watch, which may be nil, is
// told when Kafka does not take clicks.
func NewShipper(spool *Spool, client *kgo.Client, topicName string, partition func(clickToken string) int32,
	codec *event.Codec, watch *outage.Watch, log *slog.Logger, reg prometheus.Registerer) (*Shipper, error) {
	r, err := openRefusals(spool.cfg, codec)
	if err != nil {
		return nil, err
	}
	return &Shipper{spool: spool, client: client, topic: topicName, partition: partition, refusals: r, watch: watch,
		log: log, metrics: newShipperMetrics(reg),
		settle: settle, longest: longestPause, reader: newReader(spool), acked: make(chan struct{}, 1)}, nil
}

// Run ships until ctx ends, then until nothing is left or five seconds longer, and
// returns nil. Only a client that was closed under it is an error.
func (s *Shipper) Run(ctx context.Context) error {
	defer s.refusals.close()
	s.cut = s.reader.at
	s.stored = s.cut
	if s.spool.hasOld() {
		s.paused = time.Now().Add(s.settle)
	}
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drain, cancel) })()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		if err := s.collect(last); err != nil {
			return err
		}
		wake := s.fill()
		if stop == nil && len(s.queue) == 0 && !s.more() {
			s.store(true)
			return nil
		}
		if due := s.store(false); !due.IsZero() && (wake.IsZero() || due.Before(wake)) {
			wake = due
		}
		var tick <-chan time.Time
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
			tick = timer.C
		}
		select {
		case <-s.acked:
		case <-s.spool.notify:
		case <-tick:
		case <-stop:
			stop = nil
		case <-last.Done():
			s.log.Warn("shipper: stopping before Kafka has acknowledged everything; the rest is sent after " +
				"the next start")
			s.store(true)
			return nil
		}
	}
}

func (s *Shipper) more() bool {
	seg, _ := s.reader.segment()
	return seg != nil
}

// fill reads and sends while there is room, and returns when to look again; zero: when
// something happens.
func (s *Shipper) fill() (again time.Time) {
	now := time.Now()
	if now.Before(s.paused) {
		return s.paused
	}
	if next := s.readAt.Add(gather); now.Before(next) {
		return next
	}
	for s.inFlight < maxInFlight {
		b, ok, err := s.reader.next()
		if err != nil {
			return now.Add(readAgain)
		}
		if !ok {
			return time.Time{}
		}
		s.readAt = now
		h := &shipment{batch: b}
		s.queue = append(s.queue, h)
		s.inFlight += b.bytes
		s.send(h, b.frames, b.old)
	}
	return time.Time{}
}

var (
	headerToken  = kgo.RecordHeader{Key: topic.HeaderToken, Value: []byte("1")}
	headerReplay = kgo.RecordHeader{Key: topic.HeaderReplay}
)

// headers are shared by all records: the client only reads them.
var headers = [2][2][]kgo.RecordHeader{
	{nil, {headerReplay}},
	{{headerToken}, {headerToken, headerReplay}},
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Shipper) record(f frame, replay bool, now time.Time) kgo.Record {
	return kgo.Record{
		Topic:     s.topic,
		Key:       f.token,
		Value:     f.value,
		Headers:   headers[index(f.shown)][index(replay)],
		Partition: s.partition(string(f.token)),
		Timestamp: now,
	}
}

// send hands frames to the client. Their outcomes arrive on the client's goroutine.
func (s *Shipper) send(h *shipment, frames []frame, replay bool) {
	if len(frames) == 0 {
		s.signal()
		return
	}
	if replay {
		s.metrics.replayed.Add(float64(len(frames)))
	}
	h.open.Store(int32(len(frames)))
	records, now := make([]kgo.Record, len(frames)), time.Now()
	for i, f := range frames {
		records[i] = s.record(f, replay, now)
	}
	for i := range records {
		// No context: a stopping shipper waits for outcomes as long as it may.
		s.client.Produce(context.Background(), &records[i], func(r *kgo.Record, err error) {
			if err != nil {
				h.mu.Lock()
				h.failed = append(h.failed, failure{
					frame{shown: len(r.Headers) > 0 && r.Headers[0].Key == topic.HeaderToken, token: r.Key,
						value: r.Value},
					err,
				})
				h.mu.Unlock()
				h.failedAt.Store(time.Now().UnixNano())
			}
			if h.open.Add(-1) == 0 {
				s.signal()
			}
		})
	}
}

func (s *Shipper) signal() {
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// collect takes finished shipments from the head of the queue. The head's failures are
// sent again before anything behind it counts, so while Kafka is away one shipment
// probes for all.
func (s *Shipper) collect(ctx context.Context) error {
	defer s.observe()
	for len(s.queue) > 0 {
		h := s.queue[0]
		if h.open.Load() > 0 {
			return nil
		}
		failed := h.failed // no outcome is open, so nobody else looks
		h.failed = nil
		if len(failed) > 0 {
			again, err := s.judge(ctx, h, failed)
			if err != nil {
				return err
			}
			// What failed before Kafka last took something says nothing about now:
			// after an outage all shipments of it have failed, and go one after another
			// without a pause each.
			if len(again) > 0 && h.failedAt.Load() > s.took {
				s.backOff(failed[0].err)
			}
			h.again = again
		}
		if len(h.again) > 0 {
			if time.Now().Before(s.paused) {
				return nil
			}
			frames := h.again
			h.again = nil
			s.send(h, frames, true)
			return nil
		}
		s.recovered(h)
		s.metrics.shipped.Add(float64(len(h.frames) - h.refused))
		s.cut = h.end
		s.inFlight -= h.bytes
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
	return nil
}

// judge sorts failures: what Kafka refuses for good goes to refused/, the rest is to be
// sent again.
func (s *Shipper) judge(ctx context.Context, h *shipment, failed []failure) (again []frame, err error) {
	s.metrics.failed.Add(float64(len(failed)))
	reachable := true
	var refused []frame
	for _, f := range failed {
		if errors.Is(f.err, kgo.ErrClientClosed) {
			return nil, fmt.Errorf("shipping the spool: %w", f.err)
		}
		refusal := refusalOf(f.err)
		if refusal == refusesBatch && reachable {
			// Kafka answers for a batch: find out whether it means this record.
			r := s.record(f.frame, true, time.Now())
			s.metrics.replayed.Inc()
			if f.err = s.client.ProduceSync(ctx, &r).FirstErr(); f.err == nil {
				continue
			}
			s.metrics.failed.Inc()
			refusal = refusalOf(f.err)
			reachable = refusal != refusesNothing
		}
		if refusal == refusesNothing || !reachable || !s.keep(f) {
			again = append(again, f.frame)
			continue
		}
		refused = append(refused, f.frame)
	}
	if len(refused) == 0 {
		return again, nil
	}
	if err := s.refusals.sync(); err != nil {
		s.log.Error("shipper: syncing refused clicks; they stay in the spool", "error", err)
		return append(again, refused...), nil
	}
	h.refused += len(refused)
	s.log.Error("shipper: Kafka refused clicks for good", "clicks", len(refused), "error", failed[0].err,
		"kept", s.refusals.dir)
	return again, nil
}

// keep puts a refused record into refused/. While that cannot be, the record stays in
// the spool, and holds up what is behind it: its click was acknowledged.
func (s *Shipper) keep(f failure) bool {
	code := errorCode(f.err)
	if err := s.refusals.keep(f, code, s.partition(string(f.frame.token)), time.Now()); err != nil {
		if s.metrics.unkept.Inc(); !s.unkept {
			s.log.Error("shipper: clicks that Kafka refused cannot be kept in refused/; nothing more is shipped "+
				"until they can", "refusal", code, "error", err)
		}
		s.unkept = true
		return false
	}
	s.unkept = false
	s.metrics.refused.WithLabelValues(code).Inc()
	return true
}

// shipping is what a Watch is told of.
const shipping = "shipping clicks, which stay in the spool"

// backOff postpones the next attempt, longer each time.
func (s *Shipper) backOff(err error) {
	s.pause = min(max(2*s.pause, firstPause), s.longest)
	s.paused = time.Now().Add(s.pause)
	s.watch.Failed(shipping, s.pause, err)
}

func (s *Shipper) recovered(h *shipment) {
	if len(h.frames) == h.refused {
		return // says nothing about Kafka
	}
	s.pause, s.took = 0, time.Now().UnixNano()
	s.watch.Clear(shipping)
}

func (s *Shipper) observe() {
	oldest := int64(0)
	for _, h := range s.queue {
		if len(h.frames) == 0 {
			continue
		}
		if raw, err := token.Parse(string(h.frames[0].token)); err == nil {
			oldest = token.Time(&raw).Unix()
		}
		break
	}
	s.metrics.oldest.Store(oldest)
}

// store makes the cut durable, at most every cutEvery unless forced, and returns when
// that is due; zero: there is nothing to store.
func (s *Shipper) store(force bool) (due time.Time) {
	if s.cut == s.stored {
		return time.Time{}
	}
	if due := s.storedAt.Add(cutEvery); !force && time.Now().Before(due) {
		return due
	}
	s.storedAt = time.Now()
	if err := s.spool.advance(s.cut); err != nil {
		if !s.cutFails {
			s.log.Error("shipper: the cut cannot be stored; after a restart more is sent again", "error", err)
		}
		s.cutFails = true
		return s.storedAt.Add(cutEvery)
	}
	s.cutFails = false
	s.stored = s.cut
	return time.Time{}
}
