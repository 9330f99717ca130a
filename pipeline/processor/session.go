package processor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// identity names what this session's offsets are offsets of.
type identity struct {
	cluster                        string
	clicks, conversions, changelog [16]byte
}

// session is one membership in the group with one transactional producer.
//
// Its goroutine owns the ready partitions between a poll and AllowRebalance; the
// group's callbacks run only outside of that. mu guards what callbacks and restores
// hand over.
type session struct {
	*Processor
	ids identity
	cl  *kgo.Client // of adm
	adm *kadm.Client
	gts *kgo.GroupTransactSession

	connected context.Context // ends when a connection was lost

	ready   map[int32]*partition // owned by the session's goroutine, and by a revocation
	holding bool                 // after the last poll, conversions waited for a listing

	mu        sync.Mutex
	restoring map[int32]*restoring
	restored  []*partition
	err       error // what a callback or a restore found; ends the session

	// wasRevoked: franz-go will abort the next transaction, and pass on no revocation
	// until then.
	wasRevoked atomic.Bool

	// closing: no offsets are taken any more. franz-go (v1.22.2) would begin to fetch
	// from them although the group was left, as it looks at no context while it waits
	// for its lock; a goroutine of that fetching stayed behind for ever.
	closing atomic.Bool

	// What our transactions write: topics by full name with their partition counts, and
	// the partition of __consumer_offsets that holds the group, -1 if it cannot be
	// seen.
	partitions     map[string]int
	groupPartition int32
	healing        chan struct{} // holds one: a look at hanging transactions is under way
	joining        atomic.Bool   // from here on the transactional id is the group session's

	releasing sync.Mutex
	beat      atomic.Int64 // unix nanoseconds of the last poll, for the watchdog
	lister    *lister
	produce   atomic.Pointer[error] // first failed produce of the running transaction
	buffer    []byte
}

// restoring is a partition on its way to ready.
type restoring struct {
	p      *partition
	start  chan starts // the committed offsets, once the group has fetched them
	cancel context.CancelFunc
	done   chan struct{}
}

// starts are committed offsets of a partition's inputs.
type starts struct {
	Clicks      int64 `json:"clicks"`
	Conversions int64 `json:"conversions"`
}

// newSession initialises the transactional id, so that nobody waits for what the
// process before us left open, and then joins the group.
func (p *Processor) newSession(ctx context.Context) (*session, error) {
	s := &session{
		Processor:      p,
		ready:          make(map[int32]*partition),
		restoring:      make(map[int32]*restoring),
		partitions:     make(map[string]int),
		groupPartition: -1,
		healing:        make(chan struct{}, 1),
	}
	var lost context.CancelCauseFunc
	s.connected, lost = context.WithCancelCause(context.Background())
	watch := kgo.WithHooks(&connections{lost: lost})
	cl, err := kafka.NewClient(p.kafka, p.log, nil, watch)
	if err != nil {
		return nil, err
	}
	s.cl, s.adm = cl, kadm.NewClient(cl)
	if err := s.check(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	if err := s.initTransactionalID(ctx, s.transactionalID()); err != nil {
		cl.Close()
		return nil, fmt.Errorf("initialising the transactional id: %w", err)
	}
	if err := s.freeAll(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	s.lister = newLister(s.adm, s.now, s.kafka.Topic(topic.Clicks), s.kafka.Topic(topic.Conversions))
	opts, err := kafka.Options(p.kafka, p.log, nil)
	if err != nil {
		cl.Close()
		return nil, err
	}
	s.joining.Store(true)
	s.gts, err = kgo.NewGroupTransactSession(append(append(opts, p.extra...),
		kgo.WithContext(s.connected),
		watch,
		kgo.TransactionalID(s.transactionalID()),
		kgo.TransactionTimeout(s.transactionTimeout),
		kgo.ConsumerGroup(p.kafka.Group(topic.ProcessorGroup)),
		kgo.InstanceID(p.cfg.Instance),
		kgo.ConsumeTopics(p.kafka.Topic(topic.Clicks), p.kafka.Topic(topic.Conversions)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtCommitted()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(p.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(p.cfg.SessionTimeout/10, 3*time.Second)),
		kgo.RebalanceTimeout(30*time.Second),
		kgo.BlockRebalanceOnPoll(),
		// so that a position reaches the end that is listed, if somebody writes the
		// inputs in transactions
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.MaxBufferedRecords(1_000_000),
		kgo.BrokerMaxWriteBytes(maxRequest),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, m map[string][]int32) {
			s.assigned(ctx, cl, m)
		}),
		kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, r *kmsg.OffsetFetchResponse) error {
			return s.fetched(r)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { s.revoked(m) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { s.revoked(m) }),
	)...)
	if err != nil {
		s.lister.close()
		cl.Close()
		return nil, fmt.Errorf("joining the group: %w", err)
	}
	p.m.sessions.Inc()
	return s, nil
}

func (p *Processor) transactionalID() string {
	return p.kafka.Group(topic.ProcessorGroup) + "-" + p.cfg.Instance
}

// check reads identities and refuses topics that would give wrong answers.
func (s *session) check(ctx context.Context) error {
	meta, err := s.adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("reading cluster metadata: %w", err)
	}
	s.ids.cluster = meta.Cluster
	names := []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Changelog, topic.Progress,
		topic.DeadLetters}
	partitions := 0
	for i, n := range names {
		name := s.kafka.Topic(n)
		have, err := s.adm.ListTopics(ctx, name)
		if err != nil {
			return fmt.Errorf("reading metadata of %s: %w", name, err)
		}
		d, ok := have[name]
		if !ok || d.Err != nil {
			// or not visible yet
			return fmt.Errorf("topic %s is not there: run `ctl topics apply`: %w", name, errors.Join(d.Err, errSession))
		}
		if i == 0 {
			partitions = len(d.Partitions)
		} else if n != topic.DeadLetters && len(d.Partitions) != partitions {
			return fmt.Errorf("%w: %s has %d partitions, %s has %d; co-partitioned topics must have the same count",
				kafka.ErrPartitions, name, len(d.Partitions), s.kafka.Topic(topic.Clicks), partitions)
		}
		if n != topic.Clicks && n != topic.Conversions {
			s.partitions[name] = len(d.Partitions)
		}
		switch n {
		case topic.Clicks:
			s.ids.clicks = d.ID
		case topic.Conversions:
			s.ids.conversions = d.ID
		case topic.Changelog:
			s.ids.changelog = d.ID
		}
	}
	if n, _, err := s.internalPartitions(ctx, offsetsTopic); err == nil {
		s.groupPartition = javaPartition(s.kafka.Group(topic.ProcessorGroup), n)
	}
	if err := s.checkRetention(ctx); err != nil {
		return err
	}
	if err := kafka.CheckTransactions(ctx, s.cl, s.log); err != nil {
		return err
	}
	for i := range names {
		names[i] = s.kafka.Topic(names[i])
	}
	if err := kafka.CheckElections(ctx, s.adm, s.log, names...); err != nil {
		return err
	}
	return kafka.CheckOffsets(ctx, s.adm, s.kafka.Group(topic.ProcessorGroup), []string{s.kafka.Topic(topic.Clicks),
		s.kafka.Topic(topic.Conversions)})
}

func (s *session) checkRetention(ctx context.Context) error {
	name := s.kafka.Topic(topic.Clicks)
	configs, err := s.adm.DescribeTopicConfigs(ctx, name)
	var have kadm.ResourceConfig
	if err == nil {
		have, err = configs.On(name, nil)
	}
	if err = errors.Join(err, have.Err); err != nil {
		s.log.Warn("the retention of clicks cannot be read, so it is not checked", "topic", name, "error", err)
		return nil
	}
	need := s.cfg.ClickLife + topic.ClickMargin
	for _, c := range have.Configs {
		var ms int64
		if c.Key != "retention.ms" || c.MaybeValue() == "-1" {
			continue
		}
		if _, err := fmt.Sscan(c.MaybeValue(), &ms); err == nil && ms < need.Milliseconds() {
			return fmt.Errorf("%w: topic %s keeps %v, -click-life %v needs %v: run `ctl topics apply -click-life %v`",
				ErrRetention, name, time.Duration(ms)*time.Millisecond, s.cfg.ClickLife, need, s.cfg.ClickLife)
		}
	}
	return nil
}

// assigned pauses what is new and starts its restore.
func (s *session) assigned(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	clicks, conversions := s.kafka.Topic(topic.Clicks), s.kafka.Topic(topic.Conversions)
	a, b := slices.Sorted(slices.Values(m[clicks])), slices.Sorted(slices.Values(m[conversions]))
	if !slices.Equal(a, b) {
		s.fail(fmt.Errorf("assigned clicks %v but conversions %v: the group's leader saw other metadata, or is "+
			"another program in group %s? %w", a, b, s.kafka.Group(topic.ProcessorGroup), errSession))
		return
	}
	cl.PauseFetchPartitions(m)
	s.hook(StepAssigned)
	// Eager: this is the whole assignment. The session passes on only the first of
	// several revocations between two transactions, so what is still open here was
	// revoked too.
	s.releaseAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range a {
		run, cancel := context.WithCancel(ctx)
		r := &restoring{p: newPartition(id), start: make(chan starts, 1), cancel: cancel, done: make(chan struct{})}
		s.restoring[id] = r
		s.owned.Add(1)
		s.m.partitions.WithLabelValues("restoring").Inc()
		go s.runRestore(run, r)
	}
}

func (s *session) runRestore(ctx context.Context, r *restoring) {
	defer close(r.done)
	err := s.awaitOffsets(ctx, r)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.fail(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restoring[r.p.id] == r { // else it was revoked a moment ago
		s.restored = append(s.restored, r.p)
	}
}

// awaitOffsets restores a partition once its committed offsets are there. Where a
// transaction hangs in the group's offsets, they never come (UNSTABLE_OFFSET_COMMIT).
func (s *session) awaitOffsets(ctx context.Context, r *restoring) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case at := <-r.start:
			return s.restore(ctx, r.p, at)
		case <-time.After(lookAgain / 2):
		}
		if err := s.freeAll(ctx); err != nil {
			return err
		}
	}
}

// fetched hands the committed offsets to the restores. They are the very offsets that
// fetching will begin at: another request might be answered from before a transaction
// that was still completing.
func (s *session) fetched(r *kmsg.OffsetFetchResponse) error {
	if s.closing.Load() {
		return errSession
	}
	at := map[string]map[int32]int64{}
	note := func(name string, id [16]byte, partition int32, offset int64) {
		switch id {
		case s.ids.clicks:
			name = s.kafka.Topic(topic.Clicks)
		case s.ids.conversions:
			name = s.kafka.Topic(topic.Conversions)
		}
		if at[name] == nil {
			at[name] = make(map[int32]int64)
		}
		at[name][partition] = offset
	}
	for _, g := range r.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				note(t.Topic, t.TopicID, p.Partition, p.Offset)
			}
		}
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			note(t.Topic, [16]byte{}, p.Partition, p.Offset)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.restoring {
		clicks, ok1 := at[s.kafka.Topic(topic.Clicks)][id]
		conversions, ok2 := at[s.kafka.Topic(topic.Conversions)][id]
		if ok1 && ok2 {
			if clicks < 0 || conversions < 0 {
				s.failLocked(fmt.Errorf("%w: partition %d has no committed offset any more", kafka.ErrOffsets, id))
				continue
			}
			select {
			case r.start <- starts{clicks, conversions}:
			default: // fetched before
			}
		}
	}
	return nil
}

func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *session) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
}

// revoked closes partitions that belong to somebody else from now on. Their state stays
// on disk for the next time.
func (s *session) revoked(m map[string][]int32) {
	ids := append(slices.Clone(m[s.kafka.Topic(topic.Clicks)]), m[s.kafka.Topic(topic.Conversions)]...)
	slices.Sort(ids)
	s.wasRevoked.Store(true)
	s.hook(StepRevoked)
	s.release(slices.Compact(ids))
}

// release closes partitions. A client that was left behind may still call back while
// close releases the rest: releasing keeps them apart.
func (s *session) release(ids []int32) {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.releaseLocked(ids)
}

func (s *session) releaseLocked(ids []int32) {
	for _, id := range ids {
		s.mu.Lock()
		r := s.restoring[id]
		delete(s.restoring, id)
		s.restored = slices.DeleteFunc(s.restored, func(p *partition) bool { return p.id == id })
		s.mu.Unlock()
		p := s.ready[id]
		delete(s.ready, id)
		switch {
		case r != nil:
			r.cancel()
			<-r.done
			p = r.p
			s.m.partitions.WithLabelValues("restoring").Dec()
		case p != nil:
			s.m.partitions.WithLabelValues("running").Dec()
		default:
			continue
		}
		s.owned.Add(-1)
		s.m.forget(id)
		if err := s.closePartition(p); err != nil {
			s.fail(err)
		}
	}
}

// closePartition closes a partition, and wipes it if its files turned out to be
// damaged.
func (s *session) closePartition(p *partition) error {
	err := p.close()
	if !p.broken {
		return err
	}
	s.log.Warn("wiping a partition's damaged state; it is made anew from the log", "partition", p.id)
	return errors.Join(clicklog.Wipe(s.fs, s.dir(p, "clicks")), state.Wipe(s.fs, s.dir(p, "journeys")))
}

// admit makes the partitions ready whose restore has finished, and lets their fetching
// begin.
func (s *session) admit() error {
	s.mu.Lock()
	done, err := s.restored, s.err
	s.restored = nil
	for _, p := range done {
		delete(s.restoring, p.id)
	}
	s.mu.Unlock()
	for _, p := range done {
		s.ready[p.id] = p
		s.m.partitions.WithLabelValues("restoring").Dec()
		s.m.partitions.WithLabelValues("running").Inc()
		s.gts.Client().ResumeFetchPartitions(map[string][]int32{s.kafka.Topic(topic.Clicks): {p.id},
			s.kafka.Topic(topic.Conversions): {p.id}})
	}
	if len(done) > 0 {
		for _, p := range s.ready {
			p.clicks.Resize(s.slabBytes())
		}
	}
	return err
}

// slabBytes is a partition's share of the memory for clicks: one slab gathers while
// another is written.
func (p *Processor) slabBytes() int64 {
	if p.slab > 0 {
		return p.slab
	}
	return max(p.cfg.ClickMemory/2/max(int64(p.owned.Load()), 1), 1<<20)
}

// close leaves the group and closes every partition. It is bounded: a client that does
// not come back is left behind.
func (s *session) close() {
	s.closing.Store(true)
	if s.gts != nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.gts.CloseAllowingRebalance()
		}()
		select {
		case <-done:
		case <-time.After(endTimeout):
			s.log.Warn("leaving a Kafka client behind that does not close")
		}
	}
	s.lister.close()
	s.adm.Close()
	s.releaseAll()
}

func (s *session) releaseAll() {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.restoring))
	s.mu.Unlock()
	s.releaseLocked(append(ids, slices.Collect(maps.Keys(s.ready))...))
}

// settleRevocation ends an empty transaction after a rebalance. The session aborts the
// first transaction after one, whatever it holds (franz-go #754), and swallows further
// revocations until then: better an empty one, at once.
func (s *session) settleRevocation() error {
	if !s.wasRevoked.Swap(false) {
		return nil
	}
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.connected, endTimeout)
	defer cancel()
	if _, err := s.gts.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("ending an empty transaction: %w", err)
	}
	return nil
}

// pollError sorts what a poll reports beside records.
func pollError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		switch {
		case errors.Is(e.Err, context.DeadlineExceeded), errors.Is(e.Err, context.Canceled):
		case errors.Is(e.Err, kerr.FencedInstanceID):
			return fmt.Errorf("%w: the group knows another member of this name", ErrInstance)
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			return fmt.Errorf("%w: %s partition %d: %w", kafka.ErrOffsets, e.Topic, e.Partition, e.Err)
		default:
			return fmt.Errorf("polling %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	return nil
}
