package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicIDs names what this session's offsets are offsets of.
type topicIDs struct {
	cluster   string
	leading   [16]byte
	following [16]byte
	changelog [16]byte
}

// session is one membership in the group with one transactional producer.
//
// Its goroutine owns the running partitions between a poll and AllowRebalance; the
// group's callbacks run only outside of that. mu guards what callbacks and restores
// hand over.
type session struct {
	engine *Engine
	cfg    Config
	topo   Topology
	kafka  kafka.Config
	env    Env
	log    *slog.Logger
	m      *metrics
	ended  *txnOutcomes // the engine's

	ids       topicIDs
	leading   string      // full topic names
	following string      //
	cl        *kgo.Client // of adm
	adm       *kadm.Client
	gts       *kgo.GroupTransactSession

	// connected ends when a connection of gts was lost.
	connected context.Context

	// running is owned by the session's goroutine, and by a revocation.
	running map[int32]*Partition
	// buffering: after the last poll, records waited for an end-offset snapshot or for the
	// task.
	buffering bool

	mu        sync.Mutex
	restoring map[int32]*restore
	restored  []*Partition
	starting  map[int32]bool // partitions that were added and have no commit yet: they begin at offset 0
	err       error          // found by a callback or a restore; ends the session

	// wasRevoked: franz-go will abort the next transaction, and pass on no revocation
	// until then.
	wasRevoked atomic.Bool

	// closing: no offsets are accepted any more. franz-go (v1.22.2) would begin to
	// fetch from them although the group was left, as it looks at no context while it
	// waits for its lock; a goroutine of that fetching stayed behind.
	closing atomic.Bool

	// outputs are the topics that our transactions write, by full name, with their
	// partition counts.
	outputs map[string]int
	// groupPartition is the partition of __consumer_offsets that holds the group, −1 if
	// it cannot be seen.
	groupPartition int32
	// healing holds one: a look at hanging transactions is under way.
	healing chan struct{}
	// joining: from here on the transactional id is the group session's.
	joining atomic.Bool

	stopWatching context.CancelFunc // of the partition counts
	watching     sync.WaitGroup

	releasing  sync.Mutex
	lastPoll   atomic.Int64 // unix nanoseconds, for the watchdog
	endOffsets *endOffsetPoller
}

// restore is a partition on its way to running.
type restore struct {
	id     int32
	p      *Partition        // nil if it was cancelled before it began; to be read after done
	start  chan groupOffsets // the committed offsets, once the group has fetched them
	cancel context.CancelFunc
	done   chan struct{}
}

// groupOffsets are where the group is in a partition.
type groupOffsets struct {
	inputOffsets
	starts bool // the partition was added, and nothing of it is committed: it begins at offset 0
}

// newSession initialises the transactional id, so that nothing waits for what the
// process before us left open, and then joins the group.
func (e *Engine) newSession(ctx context.Context) (*session, error) {
	s := &session{
		engine:         e,
		cfg:            e.cfg,
		topo:           e.topo,
		kafka:          e.kafka,
		env:            e.env,
		log:            e.log,
		m:              e.m,
		ended:          &e.ended,
		leading:        e.kafka.Topic(e.topo.Leading.Topic),
		following:      e.kafka.Topic(e.topo.Following.Topic),
		running:        make(map[int32]*Partition),
		restoring:      make(map[int32]*restore),
		starting:       make(map[int32]bool),
		outputs:        make(map[string]int),
		groupPartition: -1,
		healing:        make(chan struct{}, 1),
	}
	var lost context.CancelCauseFunc
	s.connected, lost = context.WithCancelCause(context.Background())
	watch := kgo.WithHooks(&connectionWatch{lost: lost})
	cl, err := kafka.NewClient(s.kafka, s.log, nil, watch)
	if err != nil {
		return nil, err
	}
	s.cl, s.adm = cl, kadm.NewClient(cl)
	if err := s.prepareTransactions(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	s.endOffsets = newEndOffsetPoller(s.adm, s.env.Now, s.leading, s.following)
	if err := s.joinGroup(ctx, watch); err != nil {
		s.endOffsets.closePoller()
		cl.Close()
		return nil, err
	}
	s.m.sessions.Inc()
	watching, stop := context.WithCancel(ctx)
	s.stopWatching = stop
	s.watching.Go(func() { s.watchPartitions(watching) })
	return s, nil
}

// prepareTransactions checks the topics and ends what others left open in them.
func (s *session) prepareTransactions(ctx context.Context) error {
	if err := s.checkTopics(ctx); err != nil {
		return err
	}
	s.engine.partitions.Store(int64(s.outputs[s.kafka.Topic(s.topo.Changelog)]))
	if err := s.initTransactionalID(ctx, s.engine.transactionalID()); err != nil {
		return fmt.Errorf("initialising the transactional id: %w", err)
	}
	return s.endAllBlockers(ctx)
}

// joinGroup makes the client that is a member of the group and has its transactions.
func (s *session) joinGroup(ctx context.Context, watch kgo.Opt) error {
	opts, err := kafka.Options(s.kafka, s.log, nil)
	if err != nil {
		return err
	}
	s.joining.Store(true)
	opts = append(append(opts, s.env.ClientOptions...), watch)
	s.gts, err = kgo.NewGroupTransactSession(append(opts, s.groupOptions(ctx)...)...)
	if err != nil {
		return fmt.Errorf("joining the group: %w", err)
	}
	return nil
}

func (s *session) groupOptions(ctx context.Context) []kgo.Opt {
	return []kgo.Opt{
		kgo.WithContext(s.connected),
		kgo.TransactionalID(s.engine.transactionalID()),
		kgo.TransactionTimeout(s.env.TransactionTimeout),
		kgo.ConsumerGroup(s.kafka.Group(s.topo.Group)),
		kgo.InstanceID(s.cfg.Instance),
		kgo.ConsumeTopics(s.leading, s.following),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtCommitted()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(s.cfg.SessionTimeout/10, 3*time.Second)),
		kgo.RebalanceTimeout(30 * time.Second),
		kgo.BlockRebalanceOnPoll(),
		// so that an offset reaches the listed end even if a program writes the inputs
		// in transactions
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.MaxBufferedRecords(1_000_000),
		kgo.BrokerMaxWriteBytes(maxRequest),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, m map[string][]int32) {
			s.partitionsAssigned(ctx, cl, m)
		}),
		kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, r *kmsg.OffsetFetchResponse) error {
			return s.offsetsFetched(r)
		}),
		kgo.AdjustFetchOffsetsFn(s.startAdded),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			s.partitionsRevoked(m)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { s.partitionsRevoked(m) }),
	}
}

// topics are the names of all topics that the topology uses, co-partitioned ones first.
func (t Topology) topics() (names []string, coPartitioned int) {
	names = append([]string{t.Leading.Topic, t.Following.Topic, t.Changelog}, t.Owned...)
	return append(names, t.Shared...), len(names)
}

// checkTopics reads identities and refuses topics that would give wrong answers.
func (s *session) checkTopics(ctx context.Context) error {
	meta, err := s.adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("reading cluster metadata: %w", err)
	}
	s.ids.cluster = meta.Cluster
	names, coPartitioned := s.topo.topics()
	if err := s.checkPartitions(ctx, names[:coPartitioned]); err != nil {
		return err
	}
	full := make([]string, 0, len(names))
	partitions := 0
	for i, name := range names {
		d, err := s.describeTopic(ctx, s.kafka.Topic(name))
		if err != nil {
			return err
		}
		full = append(full, d.Topic)
		if i == 0 {
			partitions = len(d.Partitions)
		} else if i < coPartitioned && len(d.Partitions) != partitions {
			return s.siblingsError(ctx, names[:coPartitioned], fmt.Sprintf("%s has %d partitions, %s has %d; "+
				"co-partitioned topics must have the same count", d.Topic, len(d.Partitions), s.leading, partitions))
		}
		s.noteTopic(name, d)
	}
	if n, _, err := s.internalPartitions(ctx, offsetsTopic); err == nil {
		s.groupPartition = GroupPartition(s.groupName(), n)
	}
	for _, in := range []Input{s.topo.Leading, s.topo.Following} {
		if err := s.checkRetention(ctx, in); err != nil {
			return err
		}
	}
	if err := kafka.CheckTransactions(ctx, s.cl, s.log); err != nil {
		return err
	}
	if err := kafka.CheckElections(ctx, s.adm, s.log, full...); err != nil {
		return err
	}
	return s.checkOffsets(ctx)
}

// siblingsError is why co-partitioned topics were seen with different counts. Where these
// are recorded, the topics grew between two looks.
func (s *session) siblingsError(ctx context.Context, names []string, differ string) error {
	if s.engine.install.Install() == nil {
		return fmt.Errorf("%w: %s", kafka.ErrPartitions, differ)
	}
	if err := s.checkPartitions(ctx, names); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", differ, errSession)
}

// checkPartitions compares the topics with what the installation was made with, as topic
// catalog says now.
func (s *session) checkPartitions(ctx context.Context, names []string) error {
	if err := s.engine.install.Await(ctx, time.Now()); err != nil {
		return err
	}
	if s.engine.install.Install() == nil {
		s.log.Warn(kafka.NotRecorded)
		return nil
	}
	return s.engine.install.CheckPartitions(ctx, s.cl, names...)
}

// watchPartitions ends the session when the topics no longer have the partitions that the
// installation was made with: what is written from then on may be looked for elsewhere.
// It also ends it while partitions are being added, as the next one waits for their end.
// Afterwards it sees to it that the group gives them to somebody.
func (s *session) watchPartitions(ctx context.Context) {
	names, coPartitioned := s.topo.topics()
	known := s.engine.install.Recorded()
	due := time.NewTicker(s.env.PartitionCheckInterval) // whatever is written to the catalog meanwhile
	defer due.Stop()
	for {
		changed := s.engine.install.Changed() // first, so that no change comes in between
		if s.engine.install.Recorded() == known {
			select {
			case <-ctx.Done():
				return
			case <-due.C:
			case <-changed:
				continue
			}
		}
		if known = s.engine.install.Recorded(); known.Install == nil {
			continue
		}
		err := s.engine.install.CheckPartitions(ctx, s.cl, names[:coPartitioned]...)
		if errors.Is(err, kafka.ErrPartitions) || errors.Is(err, kafka.ErrGrowing) {
			s.failSession(err)
			return
		}
		if len(known.Install.Epochs) > 1 {
			s.assignAdded(ctx, known.Install.Epochs.Now())
		}
	}
}

// assignAdded asks the group to rebalance if it has given fewer partitions to its members
// than there are. Members with a name come back to what they had, and a leader who gets the
// same share of more does not look at the others'. Only its leader's wish counts.
func (s *session) assignAdded(ctx context.Context, partitions int32) {
	described, err := s.adm.DescribeGroups(ctx, s.groupName())
	if err != nil || described.Error() != nil || described[s.groupName()].State != "Stable" {
		return // asked again soon
	}
	assigned := described.AssignedPartitions()
	if n := len(assigned[s.leading]); n > 0 && int32(n) < partitions {
		s.log.Info("the group has not given out all partitions; asking it to rebalance", "given", n, "of", partitions)
		s.gts.Client().ForceRebalance()
	}
}

// groupName is the full name of the consumer group.
func (s *session) groupName() string { return s.kafka.Group(s.topo.Group) }

func (s *session) describeTopic(ctx context.Context, name string) (kadm.TopicDetail, error) {
	have, err := s.adm.ListTopics(ctx, name)
	if err != nil {
		return kadm.TopicDetail{}, fmt.Errorf("reading metadata of %s: %w", name, err)
	}
	d, ok := have[name]
	if !ok || d.Err != nil { // or not visible yet
		return d, fmt.Errorf("topic %s is not there: run `ctl topics apply`: %w", name, errors.Join(d.Err, errSession))
	}
	return d, nil
}

// noteTopic keeps the id of an input or the changelog, and the partition count of an
// output.
func (s *session) noteTopic(name string, d kadm.TopicDetail) {
	switch name {
	case s.topo.Leading.Topic:
		s.ids.leading = d.ID
		return
	case s.topo.Following.Topic:
		s.ids.following = d.ID
		return
	case s.topo.Changelog:
		s.ids.changelog = d.ID
	}
	s.outputs[d.Topic] = len(d.Partitions)
}

// checkRetention refuses an input that is deleted too early. Where its configuration
// cannot be read, that is logged and nothing is checked.
func (s *session) checkRetention(ctx context.Context, in Input) error {
	if in.Retention == 0 {
		return nil
	}
	name := s.kafka.Topic(in.Topic)
	configs, err := s.adm.DescribeTopicConfigs(ctx, name)
	var have kadm.ResourceConfig
	if err == nil {
		have, err = configs.On(name, nil)
	}
	if err = errors.Join(err, have.Err); err != nil {
		s.log.Warn("the topic's retention cannot be read, so it is not checked", "topic", name, "error", err)
		return nil
	}
	for _, c := range have.Configs {
		var ms int64
		if c.Key != "retention.ms" || c.MaybeValue() == "-1" {
			continue
		}
		if _, err := fmt.Sscan(c.MaybeValue(), &ms); err == nil && ms < in.Retention.Milliseconds() {
			return fmt.Errorf("%w: topic %s keeps %v, %s",
				ErrRetention, name, time.Duration(ms)*time.Millisecond, in.RetentionHint)
		}
	}
	return nil
}

// partitionsAssigned pauses what is new and starts its restore. A session that closes
// takes nothing more: nobody would release it.
func (s *session) partitionsAssigned(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	if s.closing.Load() {
		return
	}
	leading := slices.Sorted(slices.Values(m[s.leading]))
	following := slices.Sorted(slices.Values(m[s.following]))
	if !slices.Equal(leading, following) {
		s.failSession(fmt.Errorf("assigned %s %v but %s %v: the group's leader saw other metadata, or is "+
			"another program "+
			"in group %s? %w", s.leading, leading, s.following, following, s.groupName(), errSession))
		return
	}
	cl.PauseFetchPartitions(m)
	s.env.Step(StepAssigned)
	// Eager: this is the whole assignment. The session passes on only the first of
	// several revocations between two transactions, so what is still open here was
	// revoked too.
	s.releaseAll()
	s.engine.standby.followOthers(leading)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() { // since: under the lock, so that closing releases what is started before it
		return
	}
	for _, id := range leading {
		run, cancel := context.WithCancel(ctx)
		r := &restore{id: id, start: make(chan groupOffsets, 1), cancel: cancel, done: make(chan struct{})}
		s.restoring[id] = r
		s.engine.owned.Add(1)
		go s.runRestore(run, r)
	}
}

func (s *session) runRestore(ctx context.Context, r *restore) {
	defer close(r.done)
	p, err := s.engine.takePartition(ctx, r.id)
	if err == nil {
		r.p = p
		err = s.awaitOffsets(ctx, r)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failSession(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restoring[r.id] == r { // else it was revoked a moment ago
		s.restored = append(s.restored, r.p)
	}
}

// awaitOffsets restores a partition once its committed offsets are there. Where a
// transaction hangs in the group's offsets, they never come (UNSTABLE_OFFSET_COMMIT).
func (s *session) awaitOffsets(ctx context.Context, r *restore) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case at := <-r.start:
			return s.restorePartition(ctx, r.p, at)
		case <-time.After(lookPause / 2):
		}
		if err := s.endAllBlockers(ctx); err != nil {
			return err
		}
	}
}

// offsetsFetched hands the committed offsets to the restores. Fetching begins at
// exactly these. A request of their own could return older ones, from before a
// transaction that was still completing. A partition with an error has none: franz-go asks
// for it again, or ends a poll with the error.
func (s *session) offsetsFetched(r *kmsg.OffsetFetchResponse) error {
	if s.closing.Load() {
		return errSession
	}
	at := map[string]map[int32]int64{}
	note := func(name string, id [16]byte, partition int32, offset int64, code int16) {
		if code != 0 {
			return
		}
		switch id {
		case s.ids.leading:
			name = s.leading
		case s.ids.following:
			name = s.following
		}
		if at[name] == nil {
			at[name] = make(map[int32]int64)
		}
		at[name][partition] = offset
	}
	for _, g := range r.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				note(t.Topic, t.TopicID, p.Partition, p.Offset, p.ErrorCode)
			}
		}
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			note(t.Topic, [16]byte{}, p.Partition, p.Offset, p.ErrorCode)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.restoring {
		leading, ok1 := at[s.leading][id]
		following, ok2 := at[s.following][id]
		if ok1 && ok2 {
			install := s.engine.install.Install()
			// Whether it has lost its commit, the restore finds out.
			starts := leading < 0 && following < 0 && install != nil && install.Epochs.IsAdded(id)
			if starts {
				s.starting[id] = true
				leading, following = 0, 0
			}
			if leading < 0 || following < 0 {
				s.failSessionLocked(fmt.Errorf("%w: partition %d has no committed offset any more",
					kafka.ErrOffsets, id))
				continue
			}
			select {
			case r.start <- groupOffsets{inputOffsets{leading, following}, starts}:
			default: // fetched before
			}
		}
	}
	return nil
}

// startAdded returns the offsets to fetch from. Partitions that were added and have no
// commit begin at their start.
func (s *session) startAdded(_ context.Context, at map[string]map[int32]kgo.Offset) (
	map[string]map[int32]kgo.Offset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partitions := range at {
		for id := range partitions {
			if s.starting[id] {
				partitions[id] = kgo.NewOffset().At(0)
			}
		}
	}
	clear(s.starting)
	return at, nil
}

func (s *session) failSession(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failSessionLocked(err)
}

func (s *session) failSessionLocked(err error) {
	if s.err == nil {
		s.err = err
	}
}

// partitionsRevoked closes partitions that another process owns from now on. Their
// state stays on disk for the next time.
func (s *session) partitionsRevoked(m map[string][]int32) {
	ids := append(slices.Clone(m[s.leading]), m[s.following]...)
	slices.Sort(ids)
	s.wasRevoked.Store(true)
	s.env.Step(StepRevoked)
	s.releasePartitions(slices.Compact(ids))
}

// releasePartitions closes partitions. A client that was left behind may still call
// back while close releases the rest: releasing keeps them apart.
func (s *session) releasePartitions(ids []int32) {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.releasePartitionsLocked(ids)
}

func (s *session) releasePartitionsLocked(ids []int32) {
	for _, id := range ids {
		s.mu.Lock()
		r := s.restoring[id]
		delete(s.restoring, id)
		s.restored = slices.DeleteFunc(s.restored, func(p *Partition) bool { return p.ID == id })
		s.mu.Unlock()
		p := s.running[id]
		delete(s.running, id)
		switch {
		case r != nil:
			r.cancel()
			<-r.done
			p = r.p
		case p == nil:
			continue
		}
		s.engine.owned.Add(-1)
		if p == nil { // a standby has kept it
			continue
		}
		p.transition(givenBack)
		s.m.forgetPartition(id)
		if err := p.closePartition(); err != nil {
			s.failSession(err)
		}
	}
}

// promoteRestored lets the partitions run whose restore has finished: their fetching
// begins.
func (s *session) promoteRestored() error {
	s.mu.Lock()
	done, err := s.restored, s.err
	s.restored = nil
	for _, p := range done {
		delete(s.restoring, p.ID)
	}
	s.mu.Unlock()
	for _, p := range done {
		s.running[p.ID] = p
		p.transition(running)
		s.gts.Client().ResumeFetchPartitions(map[string][]int32{s.leading: {p.ID},
			s.following: {p.ID}})
	}
	if len(done) > 0 {
		s.kafka.Watch.Clear(joining)
	}
	return err
}

// closeSession leaves the group and closes every partition. It is bounded: a client
// that does not come back is left behind.
func (s *session) closeSession() {
	s.closing.Store(true)
	if s.gts != nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.gts.CloseAllowingRebalance()
		}()
		select {
		case <-done:
		case <-time.After(EndTimeout):
			s.log.Warn("leaving a Kafka client behind that does not close")
		}
	}
	s.stopWatching()
	s.watching.Wait()
	s.endOffsets.closePoller()
	s.adm.Close()
	s.releaseAll()
}

func (s *session) releaseAll() {
	s.releasing.Lock()
	defer s.releasing.Unlock()
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.restoring))
	s.mu.Unlock()
	s.releasePartitionsLocked(append(ids, slices.Collect(maps.Keys(s.running))...))
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
	ctx, cancel := context.WithTimeout(s.connected, EndTimeout)
	defer cancel()
	if _, err := s.gts.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("ending an empty transaction: %w", err)
	}
	return nil
}
