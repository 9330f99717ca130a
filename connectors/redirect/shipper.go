package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// deliveryTimeout is how long the client tries to deliver a click. Then the click
	// is sent again with a new timestamp.
	deliveryTimeout = topic.DeliveryLimit / 2
	// maxInFlight bounds the bytes that the Kafka client has and Kafka has not
	// acknowledged. During an outage this much is sent again and again; the rest stays
	// on disk.
	maxInFlight = 8 << 20
	// checkpointInterval is how often the acknowledged position is stored. After a
	// crash, what was acknowledged since then is sent again.
	checkpointInterval = 250 * time.Millisecond
	// minPlacePause and maxPlacePause bound how often a shipper asks for the place of what
	// it has read: often at first, as mostly topic catalog is being listed.
	minPlacePause = 2 * time.Millisecond
	maxPlacePause = 250 * time.Millisecond
	// readRetryPause is the pause between two attempts to read a segment.
	readRetryPause = 250 * time.Millisecond
	// linger delays reads and produce requests under load, so that each has more
	// records.
	linger = 2 * time.Millisecond
	// replayDelay is how long a starting shipper waits before it sends what an earlier
	// process left. The broker may still hold a produce request of that process. Its
	// records have no header replay, so they must come first in the log.
	replayDelay = time.Second
	// drainTimeout is how long a stopping shipper goes on, so that a planned restart
	// leaves nothing to replay.
	drainTimeout = 5 * time.Second
	// minPause and maxPause bound the pause after a failed attempt.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

// ClientOptions returns what the shipper's Kafka client needs beyond the options that
// all our clients share.
//
// By default, after the delivery timeout the client would keep a record whose outcome
// is unknown, with its old timestamp, until Kafka is back. With these options it
// returns the record as failed, and the shipper sends it again with header replay.
// After such a failure the client raises its producer epoch, which fences a late first
// attempt: it cannot land in the log after the replay.
func ClientOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.UnknownTopicRetries(-1),
		kgo.MaxBufferedRecords(1 << 20), // maxInFlight is the bound that counts
	}
}

// Placer knows the partitions of click tokens. A click is placed when it is shipped, never
// when it is spooled: until then the record of the installation may not be known that says
// where a token of its time belongs.
type Placer interface {
	// TryPlace returns the partition of a token. minted is its time, and met when the
	// shipper came to hold it. ok is false while that is not known, or nothing may be sent.
	TryPlace(clickToken string, minted, met time.Time) (partition int32, ok bool)
}

// Shipper sends the spool to Kafka in order and moves the spool's acknowledged position
// after what Kafka has acknowledged.
//
// A record that this process wrote and sends for the first time has no header replay:
// it is certain not to be in the log. All others have it: those that an earlier process
// left unacknowledged, and every further attempt.
type Shipper struct {
	spool       *Spool
	client      *kgo.Client
	topic       string // full name of `clicks`
	placer      Placer
	refused     *refusedStore
	log         *slog.Logger
	metrics     *shipperMetrics
	replayDelay time.Duration // tests shorten it
	maxPause    time.Duration // tests shorten it

	// Owned by Run.
	reader       *spoolReader
	unplaced     *chunk      // was read, and cannot be sent yet; nil: none
	unplacedAt   time.Time   // when it was read
	queue        []*shipment // oldest first; only its head is ever acknowledged
	inFlight     int         // bytes in queue
	acknowledged position    // the end of the last acknowledged shipment
	stored       position    // the acknowledged position in the checkpoint
	storedAt     time.Time   // last attempt to write the checkpoint
	pause        time.Duration
	pausedUntil  time.Time // nothing is sent before
	lastSuccess  int64     // when Kafka last acknowledged a shipment, in Unix nanoseconds
	readAt       time.Time // last read of the spool

	// What was already logged, so that an outage is logged once.
	watch             *outage.Watch // over Kafka; may be nil
	checkpointFailing bool          // the checkpoint cannot be written
	refusedFailing    bool          // refused/ cannot be written

	finished chan struct{} // holds a value after a shipment got all its outcomes
}

// shipment is a chunk that the Kafka client has.
type shipment struct {
	chunk
	pending atomic.Int32 // records without outcome

	resend  []frame // owned by Run: to be sent again after the pause
	refused int     // owned by Run: records that are in refused/

	mu       sync.Mutex // guards failed
	failed   []failure
	failedAt atomic.Int64 // time of the newest failure, in Unix nanoseconds
}

type failure struct {
	frame frame
	err   error
}

// NewShipper returns the shipper of a spool. client must have been made with
// ClientOptions. topicName is the full name of `clicks`. codec decodes refused clicks
// for the files in refused/. While placer does not place them, clicks stay in the spool.
func NewShipper(spool *Spool, client *kgo.Client, topicName string, placer Placer, codec *event.Codec,
	watch *outage.Watch, log *slog.Logger, reg prometheus.Registerer) (*Shipper, error) {
	refused, err := openRefusedStore(spool.cfg, codec)
	if err != nil {
		return nil, err
	}
	return &Shipper{
		spool:       spool,
		client:      client,
		topic:       topicName,
		placer:      placer,
		refused:     refused,
		watch:       watch,
		log:         log,
		metrics:     newShipperMetrics(reg),
		replayDelay: replayDelay,
		maxPause:    maxPause,
		reader:      newReader(spool),
		finished:    make(chan struct{}, 1),
	}, nil
}

// Run ships until ctx ends, and then until nothing is left, for at most five seconds.
// It returns an error only if the client was closed while it ran.
func (s *Shipper) Run(ctx context.Context) error {
	defer s.refused.closeFile()
	s.acknowledged = s.reader.next
	s.stored = s.acknowledged
	if s.spool.hasRecoveredSegment() {
		s.pausedUntil = time.Now().Add(s.replayDelay)
	}
	draining, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainTimeout, cancel) })()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done() // nil once it was seen
	for {
		if err := s.collectOutcomes(draining); err != nil {
			return err
		}
		wake := s.readAndSend()
		if stop == nil && len(s.queue) == 0 && !s.hasUnread() {
			s.storeAcknowledged(true)
			return nil
		}
		if due := s.storeAcknowledged(false); !due.IsZero() && (wake.IsZero() || due.Before(wake)) {
			wake = due
		}
		var tick <-chan time.Time
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
			tick = timer.C
		}
		select {
		case <-s.finished:
		case <-s.spool.notify:
		case <-tick:
		case <-stop:
			stop = nil
		case <-draining.Done():
			s.log.Warn("shipper: stopping before Kafka has acknowledged everything; the rest is sent after " +
				"the next start")
			s.storeAcknowledged(true)
			return nil
		}
	}
}

func (s *Shipper) hasUnread() bool {
	seg, _ := s.reader.findSegment()
	return seg != nil || s.unplaced != nil
}

// readAndSend reads and sends while there is room. It returns when to call it again;
// zero: when something happens.
func (s *Shipper) readAndSend() (wake time.Time) {
	now := time.Now()
	if now.Before(s.pausedUntil) {
		return s.pausedUntil
	}
	if next := s.readAt.Add(linger); now.Before(next) {
		return next
	}
	for s.inFlight < maxInFlight {
		c, ok, err := s.nextPlaced(now)
		if err != nil {
			return now.Add(readRetryPause) // the reader has logged it
		}
		if s.unplaced != nil {
			return now.Add(min(max(now.Sub(s.unplacedAt), minPlacePause), maxPlacePause))
		}
		if !ok {
			return time.Time{}
		}
		s.readAt = now
		h := &shipment{chunk: c}
		s.queue = append(s.queue, h)
		s.inFlight += c.bytes
		s.produceFrames(h, c.frames, c.recovered)
	}
	return time.Time{}
}

// nextPlaced returns the next frames with their partitions. Frames that were read and that
// cannot be placed yet are in s.unplaced then.
func (s *Shipper) nextPlaced(now time.Time) (c chunk, ok bool, err error) {
	if s.unplaced == nil {
		read, ok, err := s.reader.nextChunk()
		if err != nil || !ok {
			return chunk{}, false, err
		}
		s.unplaced, s.unplacedAt = &read, now
	}
	for i := range s.unplaced.frames {
		f := &s.unplaced.frames[i]
		raw, err := token.Parse(string(f.token))
		if err != nil {
			continue // unreachable: a valid frame holds a valid token
		}
		var placed bool
		if f.partition, placed = s.placer.TryPlace(string(f.token), token.Time(&raw), s.unplacedAt); !placed {
			return chunk{}, false, nil
		}
	}
	c, s.unplaced = *s.unplaced, nil
	return c, true, nil
}

var (
	headerToken  = kgo.RecordHeader{Key: topic.HeaderToken, Value: []byte("1")}
	headerReplay = kgo.RecordHeader{Key: topic.HeaderReplay}
)

// The headers of a record, shared by all records. The client only reads them.
var (
	headersReplay      = []kgo.RecordHeader{headerReplay}
	headersToken       = []kgo.RecordHeader{headerToken}
	headersTokenReplay = []kgo.RecordHeader{headerToken, headerReplay}
)

func recordHeaders(shown, replay bool) []kgo.RecordHeader {
	switch {
	case shown && replay:
		return headersTokenReplay
	case shown:
		return headersToken
	case replay:
		return headersReplay
	}
	return nil
}

func (s *Shipper) newRecord(f frame, replay bool, now time.Time) kgo.Record {
	return kgo.Record{
		Topic:     s.topic,
		Key:       f.token,
		Value:     f.value,
		Headers:   recordHeaders(f.shown, replay),
		Partition: f.partition,
		Timestamp: now,
	}
}

// produceFrames hands frames to the client. Their outcomes arrive on the client's
// goroutine.
func (s *Shipper) produceFrames(h *shipment, frames []frame, replay bool) {
	if len(frames) == 0 {
		s.wakeRun()
		return
	}
	if replay {
		s.metrics.replayed.Add(float64(len(frames)))
	}
	h.pending.Store(int32(len(frames)))
	now := time.Now()
	records := make([]kgo.Record, len(frames))
	for i, f := range frames {
		records[i] = s.newRecord(f, replay, now)
	}
	note := func(r *kgo.Record, err error) { s.noteOutcome(h, r, err) }
	for i := range records {
		// Not Run's context: a stopping shipper waits for outcomes for drainTimeout.
		s.client.Produce(context.Background(), &records[i], note)
	}
}

// noteOutcome is the client's callback for each record.
func (s *Shipper) noteOutcome(h *shipment, r *kgo.Record, err error) {
	if err != nil {
		shown := len(r.Headers) > 0 && r.Headers[0].Key == topic.HeaderToken
		h.mu.Lock()
		f := frame{shown: shown, token: r.Key, value: r.Value, partition: r.Partition}
		h.failed = append(h.failed, failure{f, err})
		h.mu.Unlock()
		h.failedAt.Store(time.Now().UnixNano())
	}
	if h.pending.Add(-1) == 0 {
		s.wakeRun()
	}
}

func (s *Shipper) wakeRun() {
	select {
	case s.finished <- struct{}{}:
	default:
	}
}

// collectOutcomes removes finished shipments from the head of the queue. The head's
// failures are sent again before anything after it counts, so during an outage only the
// head probes whether Kafka is back.
func (s *Shipper) collectOutcomes(ctx context.Context) error {
	defer s.updateLag()
	for len(s.queue) > 0 {
		h := s.queue[0]
		if h.pending.Load() > 0 {
			return nil
		}
		failed := h.failed // every outcome is known, so the callback does not run any more
		h.failed = nil
		if len(failed) > 0 {
			resend, err := s.sortFailures(ctx, h, failed)
			if err != nil {
				return err
			}
			// A failure from before Kafka's last acknowledgement says nothing about
			// now. After an outage all its shipments have failed; they are sent one
			// after another, without a pause for each.
			if len(resend) > 0 && h.failedAt.Load() > s.lastSuccess {
				s.backOff(failed[0].err)
			}
			h.resend = resend
		}
		if len(h.resend) > 0 {
			if time.Now().Before(s.pausedUntil) {
				return nil
			}
			frames := h.resend
			h.resend = nil
			s.produceFrames(h, frames, true)
			return nil
		}
		s.noteSuccess(h)
		s.metrics.shipped.Add(float64(len(h.frames) - h.refused))
		s.acknowledged = h.end
		s.inFlight -= h.bytes
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
	return nil
}

// sortFailures stores what Kafka refuses for good in refused/ and returns what has to
// be sent again.
func (s *Shipper) sortFailures(ctx context.Context, h *shipment, failed []failure) (resend []frame, err error) {
	s.metrics.sendFailures.Add(float64(len(failed)))
	reachable := true
	var refused []frame
	for _, f := range failed {
		if errors.Is(f.err, kgo.ErrClientClosed) {
			return nil, fmt.Errorf("shipping the spool: %w", f.err)
		}
		class := classifyRefusal(f.err)
		if class == refusedBatch && reachable {
			// Kafka refused the batch: send the record alone to learn whether it is the
			// cause.
			r := s.newRecord(f.frame, true, time.Now())
			s.metrics.replayed.Inc()
			if f.err = s.client.ProduceSync(ctx, &r).FirstErr(); f.err == nil {
				continue
			}
			s.metrics.sendFailures.Inc()
			class = classifyRefusal(f.err)
			reachable = class != retryable
		}
		if class == retryable || !reachable || !s.storeRefused(f) {
			resend = append(resend, f.frame)
			continue
		}
		refused = append(refused, f.frame)
	}
	if len(refused) == 0 {
		return resend, nil
	}
	if err := s.refused.syncFile(); err != nil {
		s.log.Error("shipper: cannot sync refused clicks; they stay in the spool", "error", err)
		return append(resend, refused...), nil
	}
	h.refused += len(refused)
	s.log.Error("shipper: Kafka refused clicks for good", "clicks", len(refused), "error", failed[0].err,
		"kept", s.refused.dir)
	return resend, nil
}

// storeRefused writes a refused record to refused/ and reports whether that succeeded.
// Otherwise the record stays in the spool and blocks those after it, because its click
// was acknowledged to the visitor.
func (s *Shipper) storeRefused(f failure) bool {
	code := errorCode(f.err)
	if err := s.refused.storeRecord(f, code, f.frame.partition, time.Now()); err != nil {
		if s.metrics.storeFailures.Inc(); !s.refusedFailing {
			s.log.Error("shipper: clicks that Kafka refused cannot be kept in refused/; nothing more is shipped "+
				"until they can", "refusal", code, "error", err)
		}
		s.refusedFailing = true
		return false
	}
	s.refusedFailing = false
	s.metrics.refused.WithLabelValues(code).Inc()
	return true
}

// shipping is the reason under which the Watch over Kafka keeps failures to ship.
const shipping = "shipping clicks, which stay in the spool"

// backOff postpones the next attempt, longer each time.
func (s *Shipper) backOff(err error) {
	s.pause = min(max(2*s.pause, minPause), s.maxPause)
	s.pausedUntil = time.Now().Add(s.pause)
	s.watch.Failed(shipping, s.pause, kafka.NameRecreated(err))
}

// noteSuccess ends the back-off after Kafka has acknowledged something of h.
func (s *Shipper) noteSuccess(h *shipment) {
	if len(h.frames) == h.refused {
		return // says nothing about Kafka
	}
	s.pause = 0
	s.lastSuccess = time.Now().UnixNano()
	s.watch.Clear(shipping)
}

// updateLag publishes the mint time of the oldest click in the queue.
func (s *Shipper) updateLag() {
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
	s.metrics.oldestMintedAt.Store(oldest)
}

// storeAcknowledged makes the acknowledged position durable, at most once per
// checkpointInterval unless forced. It returns when the next attempt is due; zero:
// there is nothing to store.
func (s *Shipper) storeAcknowledged(force bool) (due time.Time) {
	if s.acknowledged == s.stored {
		return time.Time{}
	}
	if due := s.storedAt.Add(checkpointInterval); !force && time.Now().Before(due) {
		return due
	}
	s.storedAt = time.Now()
	if err := s.spool.acknowledgeUpTo(s.acknowledged); err != nil {
		if !s.checkpointFailing {
			s.log.Error("shipper: cannot store the acknowledged position; a restart would send more again",
				"error", err)
		}
		s.checkpointFailing = true
		return s.storedAt.Add(checkpointInterval)
	}
	s.checkpointFailing = false
	s.stored = s.acknowledged
	return time.Time{}
}
