package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errKafka is a request to Kafka that failed and is repeated.
var errKafka = errors.New("kafka")

// retryable tells errors that time can heal.
func retryable(err error) bool {
	return !NeedsOperator(err) && (errors.Is(err, errKafka) || clickhouse.Unreachable(err))
}

// Sink copies topics into tables.
type Sink struct {
	cfg             Config
	kafka           kafka.Config
	wh              *clickhouse.Conn
	clickHouseWatch *outage.Watch // over ClickHouse; Kafka's is in kafka
	log             *slog.Logger
	registry        prometheus.Registerer
	metrics         *metrics
	ledger          *ledgerMetrics
	mappings        map[string]*topicMapping // by topic, without prefix
	ready           chan struct{}

	// hook is called after each step; an error of it ends the sink as if it were
	// killed.
	hook func(step, topic string, partition int32) error
	// topicCheck is how often the topics' ids are compared with those of the start.
	topicCheck time.Duration
	// heartbeat is how often the group is asked whether it rebalances.
	heartbeat time.Duration

	// Set when Run begins.
	client          *kgo.Client
	topicIDs        map[string]string
	partitionCounts map[string]int
	windows         map[string]dedupWindow // by topic: the smallest of its chain
	memorySlots     chan struct{}

	mu             sync.Mutex
	owned          map[string]map[int32]*partition // by topic, without prefix
	intentMetadata map[string]map[int32]string     // of the commits of partitions about to be taken up
	spareRows      map[string][]rowBuffer
	err            error
	cancel         context.CancelFunc
}

// dedupWindow is what a deduplication window holds: so many blocks and, if age is not zero,
// nothing older.
type dedupWindow struct {
	blocks uint64
	age    time.Duration
}

// New makes a sink. It connects to Kafka when it runs. reg may be nil.
func New(cfg Config, kafka kafka.Config, codec *event.Codec, wh *clickhouse.Conn, log *slog.Logger,
	reg prometheus.Registerer) (*Sink, error) {
	if err := errors.Join(cfg.Validate(), kafka.Validate()); err != nil {
		return nil, err
	}
	if kafka.Watch == nil {
		kafka.Watch = outage.New(log, "Kafka")
	}
	s := &Sink{cfg: cfg, kafka: kafka, wh: wh, clickHouseWatch: outage.New(log, "ClickHouse"), log: log, registry: reg,
		metrics: newMetrics(reg), ledger: newLedgerMetrics(reg), mappings: map[string]*topicMapping{}, ready: make(
			chan struct{}), topicCheck: 5 * time.Second, heartbeat: min(cfg.SessionTimeout/3, time.Second),
		memorySlots: make(chan struct{}, max(4, runtime.GOMAXPROCS(0))), owned: map[string]map[int32]*partition{},
		intentMetadata: map[string]map[int32]string{}, spareRows: map[string][]rowBuffer{}}
	for _, f := range topicMappings(codec) {
		s.mappings[f.topic] = &f
		// a counter that begins at its first count has no increase
		s.metrics.deadLetters.WithLabelValues(f.topic)
	}
	return s, nil
}

// Ready is closed when the sink has joined its group and been given partitions for the
// first time.
func (s *Sink) Ready() <-chan struct{} { return s.ready }

// Run inserts until ctx is done, and then finishes the running batches, for at most ten
// seconds. It returns nil then, and an error if something stops it: see NeedsOperator.
// It runs once.
func (s *Sink) Run(ctx context.Context) error {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	if err := s.checkWindows(ctx); err != nil {
		return ignoreCanceled(ctx, fmt.Errorf("starting the sink: %w", err))
	}
	var err error
	if s.client, err = s.newGroupClient(); err != nil {
		return fmt.Errorf("starting the sink: %w", err)
	}
	defer s.client.CloseAllowingRebalance()
	if s.topicIDs, s.partitionCounts, err = s.readTopics(ctx); err != nil {
		return ignoreCanceled(ctx, fmt.Errorf("starting the sink: %w", err))
	}
	s.startConsuming()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchTopics(ctx)
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.refreshLedgerMetrics(ctx)
	}()
	for ctx.Err() == nil {
		s.pollRecords(ctx)
	}
	s.stopAllPartitions()
	<-watched
	<-read
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("running the sink: %w", s.err)
	}
	return nil
}

// ignoreCanceled hides an error that is only the end of ctx.
func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newGroupClient makes the client, which belongs to the group but reads nothing until join.
func (s *Sink) newGroupClient() (*kgo.Client, error) {
	return kafka.NewClient(s.kafka, s.log, s.registry,
		kgo.ConsumerGroup(s.kafka.Group(topic.SinkGroup)),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(s.heartbeat),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		// An offset outside of the log is an error, never a reason to begin elsewhere.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.FetchMaxPartitionBytes(4<<20),
		kgo.OnOffsetsFetched(s.saveCommitMetadata),
		kgo.AdjustFetchOffsetsFn(s.claimPartitions),
		kgo.OnPartitionsRevoked(s.releasePartitions),
		kgo.OnPartitionsLost(s.releasePartitions),
	)
}

// startConsuming begins to consume: the ids of the topics are known now.
func (s *Sink) startConsuming() {
	for name := range s.mappings {
		s.client.AddConsumeTopics(s.kafka.Topic(name))
	}
}

// readTopics reads the topics' ids and partition counts.
func (s *Sink) readTopics(ctx context.Context) (ids map[string]string, partitions map[string]int, err error) {
	ids, partitions = map[string]string{}, map[string]int{}
	names := map[string]string{}
	for name := range s.mappings {
		names[s.kafka.Topic(name)] = name
	}
	details, err := s.listTopics(ctx, names)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: listing the topics: %w", errKafka, err)
	}
	for full, name := range names {
		d, ok := details[full]
		if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return nil, nil, fmt.Errorf("%w: %s: run `ctl topics apply`", ErrNoTopic, full)
		}
		if d.Err != nil {
			return nil, nil, fmt.Errorf("%w: listing topic %s: %w", errKafka, full, d.Err)
		}
		ids[name], partitions[name] = topicIDText(d.ID), len(d.Partitions)
	}
	return ids, partitions, nil
}

func (s *Sink) listTopics(ctx context.Context, names map[string]string) (kadm.TopicDetails, error) {
	full := make([]string, 0, len(names))
	for name := range maps.Keys(names) {
		full = append(full, name)
	}
	return kadm.NewClient(s.client).ListTopics(ctx, full...)
}

// firstError returns the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// watchTopics stops the sink when a topic is deleted and created again while it runs.
func (s *Sink) watchTopics(ctx context.Context) {
	tick := time.NewTicker(s.topicCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids, _, err := s.readTopics(ctx)
		if err != nil {
			if NeedsOperator(err) {
				s.stopWithError(err)
			}
			continue
		}
		for name, id := range ids {
			if id != s.topicIDs[name] {
				s.stopWithError(fmt.Errorf("%w: %s was %s when the sink began, and is %s", ErrTopicChanged, s.kafka.Topic(name),
					s.topicIDs[name], id))
			}
		}
	}
}

// pollRecords hands what was fetched to the partitions. Rebalances wait meanwhile, so nothing
// is handed to a partition that is no longer ours.
func (s *Sink) pollRecords(ctx context.Context) {
	fetches := s.client.PollFetches(ctx)
	defer s.client.AllowRebalance()
	fetches.EachError(func(name string, id int32, err error) {
		if ctx.Err() != nil {
			return
		}
		var loss *kgo.ErrDataLoss
		if errors.Is(err, kerr.OffsetOutOfRange) || errors.As(err, &loss) {
			s.stopWithError(fmt.Errorf("%w: %s partition %d while reading: %w", ErrLostRange, name, id, err))
			return
		}
		s.kafka.Watch.Failed(readingRecords, 0, err)
	})
	fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
		name := strings.TrimPrefix(fetched.Topic, s.kafka.TopicPrefix)
		if fetched.Err == nil {
			s.kafka.Watch.Clear(readingRecords)
		}
		s.metrics.setLogEnd(name, fetched.Partition, fetched.HighWatermark)
		p := s.ownedPartition(name, fetched.Partition)
		if p == nil || len(fetched.Records) == 0 {
			return
		}
		if p.queue.pushRecords(fetched.Records) {
			s.client.PauseFetchPartitions(map[string][]int32{fetched.Topic: {fetched.Partition}})
			// The worker may have drained the queue between the two: then its resume
			// came too early.
			if records, full := p.queue.fillLevel(); records == 0 || !full {
				s.resumeFetching(p)
			}
		}
	})
}

func (s *Sink) ownedPartition(name string, id int32) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[name][id]
}

// resumeFetching fetches a partition again.
func (s *Sink) resumeFetching(p *partition) {
	s.client.ResumeFetchPartitions(map[string][]int32{s.kafka.Topic(p.mapping.topic): {p.id}})
}

// saveCommitMetadata notes the metadata of commits: the intents.
func (s *Sink) saveCommitMetadata(_ context.Context, client *kgo.Client, response *kmsg.OffsetFetchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range response.Groups {
		for _, t := range group.Topics {
			name := t.Topic
			if name == "" {
				// A newer broker names topics by their ids.
				for known, id := range s.topicIDs {
					if id == topicIDText(t.TopicID) {
						name = s.kafka.Topic(known)
					}
				}
			}
			name = strings.TrimPrefix(name, s.kafka.TopicPrefix)
			if s.intentMetadata[name] == nil {
				s.intentMetadata[name] = map[int32]string{}
			}
			for _, p := range t.Partitions {
				s.intentMetadata[name][p.Partition] = ""
				if p.Metadata != nil {
					s.intentMetadata[name][p.Partition] = *p.Metadata
				}
			}
		}
	}
	return nil
}

// claimPartitions is called with partitions that were assigned and their committed offsets, and
// returns where to read on. While ClickHouse is away it waits: heartbeats go on, other
// partitions are served, and a rebalance cancels ctx.
func (s *Sink) claimPartitions(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset,
	error) {
	var partitions []*partitionClaim
	for full, committed := range offsets {
		f := s.mappings[strings.TrimPrefix(full, s.kafka.TopicPrefix)]
		if f == nil {
			continue
		}
		for id, offset := range committed {
			t := &partitionClaim{mapping: f, partition: id, recoveredState: recoveredState{topicID: s.topicIDs[f.topic],
				committed: offset.EpochOffset().Offset}}
			var err error
			if t.intent, err = parseIntent(s.commitMetadata(f.topic, id)); err != nil {
				s.stopWithError(fmt.Errorf("taking up %s partition %d: %w", f.topic, id, err))
				return nil, err
			}
			partitions = append(partitions, t)
		}
	}
	if err := s.resolveClaimsWithRetry(ctx, partitions); err != nil {
		return nil, err
	}
	out := map[string]map[int32]kgo.Offset{}
	for _, t := range partitions {
		if t.declaredIntent != nil {
			s.log.Info("repeating the batch that was declared last", "topic", t.mapping.topic, "partition", t.partition,
				"start", t.declaredIntent.start, "end", t.declaredIntent.end)
		}
		s.metrics.setTableEnd(t.mapping.topic, t.partition, t.resumeAt)
		full := s.kafka.Topic(t.mapping.topic)
		if out[full] == nil {
			out[full] = map[int32]kgo.Offset{}
		}
		out[full][t.partition] = kgo.NewOffset().At(t.resumeAt)
		if err := s.startPartition(s.newPartition(t.mapping, t.partition, t.resumeAt, t.declaredIntent)); err != nil {
			return nil, err
		}
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	return out, nil
}

func (s *Sink) commitMetadata(name string, partition int32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intentMetadata[name][partition]
}

// What a Watch is told of.
const (
	readingRecords     = "reading records"
	claimingPartitions = "taking up partitions"
	readingWindows     = "reading deduplication windows"
)

// reportFailure tells the Watch whose an error is, and cleared both.
func (s *Sink) reportFailure(trying string, again time.Duration, err error) {
	if errors.Is(err, errKafka) {
		s.kafka.Watch.Failed(trying, again, err)
	} else {
		s.clickHouseWatch.Failed(trying, again, err)
	}
}

func (s *Sink) clearFailure(trying string) {
	s.kafka.Watch.Clear(trying)
	s.clickHouseWatch.Clear(trying)
}

// resolveClaimsWithRetry is place, repeated until it succeeds or can be known not to.
func (s *Sink) resolveClaimsWithRetry(ctx context.Context, partitions []*partitionClaim) error {
	defer s.clearFailure(claimingPartitions)
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := s.resolveClaims(attempt, partitions)
		cancel()
		if err == nil || ctx.Err() != nil {
			return firstError(ctx.Err(), err)
		}
		err = fmt.Errorf("taking up partitions: %w", err)
		if !retryable(err) {
			s.stopWithError(err)
			return err
		}
		s.reportFailure(claimingPartitions, delay, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// startPartition starts a partition's goroutine.
func (s *Sink) startPartition(p *partition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owned[p.mapping.topic] == nil {
		s.owned[p.mapping.topic] = map[int32]*partition{}
	}
	if old := s.owned[p.mapping.topic][p.id]; old != nil {
		return fmt.Errorf("%s partition %d was assigned twice", p.mapping.topic, p.id)
	}
	s.owned[p.mapping.topic][p.id] = p
	go p.run()
	return nil
}

// releasePartitions is called when partitions go elsewhere, before they are there.
func (s *Sink) releasePartitions(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	var gone []*partition
	s.mu.Lock()
	for full, ids := range lost {
		name := strings.TrimPrefix(full, s.kafka.TopicPrefix)
		for _, id := range ids {
			if p := s.owned[name][id]; p != nil {
				gone = append(gone, p)
				delete(s.owned[name], id)
			}
		}
	}
	s.mu.Unlock()
	stopPartitions(gone)
	for _, p := range gone {
		s.resumeFetching(p) // whoever takes it up here again must not find it paused
		s.metrics.forgetPartition(p.mapping.topic, p.id)
	}
}

func (s *Sink) stopAllPartitions() {
	var all []*partition
	s.mu.Lock()
	for _, partitions := range s.owned {
		for _, p := range partitions {
			all = append(all, p)
		}
	}
	clear(s.owned)
	s.mu.Unlock()
	stopPartitions(all)
}

func stopPartitions(partitions []*partition) {
	var wait sync.WaitGroup
	for _, p := range partitions {
		wait.Go(p.stopAndWait)
	}
	wait.Wait()
}

// stopWithError stops the sink with its first error.
func (s *Sink) stopWithError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.cancel()
}

// errKilled is the end that a hook asked for.
var errKilled = errors.New("killed")

// afterStep calls the hook. If that returns an error, everything ends where it stands.
func (s *Sink) afterStep(name string, p *partition) error {
	if s.hook == nil {
		return nil
	}
	err := s.hook(name, p.mapping.topic, p.id)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w after %s: %w", errKilled, name, err)
	s.stopWithError(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partitions := range s.owned {
		for _, p := range partitions {
			p.kill()
		}
	}
	return err
}

// commitIntent commits the start of a batch with its intent.
func (s *Sink) commitIntent(ctx context.Context, p *partition, i intent) error {
	metadata := i.encodeMetadata()
	if len(metadata) > maxMetadataBytes {
		return fmt.Errorf("%w: %d bytes of metadata are more than brokers take", ErrIntent, len(metadata))
	}
	ctx = kgo.PreCommitFnContext(ctx, func(r *kmsg.OffsetCommitRequest) error {
		for t := range r.Topics {
			for n := range r.Topics[t].Partitions {
				r.Topics[t].Partitions[n].Metadata = &metadata
			}
		}
		return nil
	})
	var failed error
	name := s.kafka.Topic(p.mapping.topic)
	s.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{name: {p.id: {Epoch: -1, Offset: i.start}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			failed = err
			if err != nil || response == nil {
				return
			}
			answered := false
			for _, t := range response.Topics {
				for _, n := range t.Partitions {
					answered = true
					failed = firstError(failed, kerr.ErrorForCode(n.ErrorCode))
				}
			}
			if !answered && failed == nil {
				failed = errors.New("the answer names no partition")
			}
		})
	if failed != nil {
		return fmt.Errorf("%w: declaring batch [%d, %d): %w", errKafka, i.start, i.end, failed)
	}
	return nil
}

// acquireSlot waits for the right to hold a batch's rows in memory; release gives it back.
func (s *Sink) acquireSlot(ctx context.Context) error {
	select {
	case s.memorySlots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Sink) releaseSlot() { <-s.memorySlots }

// acquireRows returns an empty collector of a topic's rows; giveRows keeps it for the next
// batch. There are at most as many as slots.
func (s *Sink) acquireRows(f *topicMapping) rowBuffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := s.spareRows[f.topic]
	if len(spare) == 0 {
		return f.newRows()
	}
	s.spareRows[f.topic] = spare[:len(spare)-1]
	return spare[len(spare)-1]
}

func (s *Sink) releaseRows(f *topicMapping, set rowBuffer) {
	set.resetRows()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spareRows[f.topic] = append(s.spareRows[f.topic], set)
}
