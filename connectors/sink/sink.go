package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
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

// Sink copies topics into tables.
type Sink struct {
	cfg             Config
	kafka           kafka.Config
	wh              *clickhouse.Conn
	clickHouseWatch *outage.Watch // Kafka's is in kafka
	repairWatch     *outage.Watch // over a repair that holds the tables
	growthWatch     *outage.Watch // over partitions that are being added
	log             *slog.Logger
	registry        prometheus.Registerer // may be nil
	env             Env
	metrics         *metrics
	ledger          *ledgerMetrics
	mappings        map[string]*topicMapping // by topic, without prefix
	ready           chan struct{}            // closed when partitions were claimed for the first time

	// Set when Run begins; maps by topic, without prefix.
	client          *kgo.Client
	warehouse       warehouse
	topicIDs        map[string]string
	partitionCounts map[string]int         // when it began
	install         *kafka.InstallFollower // what the topics must have
	windows         map[string]dedupWindow // the smallest that an insert reaches
	memorySlots     chan struct{}          // one for each batch that holds rows in memory

	mu             sync.Mutex
	owned          map[string]map[int32]*partition // by topic, without prefix
	intentMetadata map[string]map[int32]string     // of the commits of partitions about to be claimed
	spareRows      map[string][]rowBuffer          // by topic: empty buffers for reuse
	unconfirmed    []recordedBatch                 // finished, and to be found again in ClickHouse
	counted        *topic.Install                  // whose added partitions are in table batches
	err            error                           // what stopped the sink
	cancel         context.CancelFunc              // ends Run
}

// Env is what tests replace in a Sink.
type Env struct {
	// AfterStep is called after each step of a batch. If it returns an error, the sink
	// ends at once, as if it were killed.
	AfterStep func(s step, topic string, partition int32) error
	// TopicCheckInterval is how often the topics' ids are compared with those at the
	// start, and how often ClickHouse is asked for the batches that were recorded.
	TopicCheckInterval time.Duration
	// SettleTime is how long after a repeated insert its tables must lack the same
	// before it is added.
	SettleTime time.Duration
	// HeartbeatInterval is how often the group is asked whether it rebalances.
	HeartbeatInterval time.Duration
	// DrainTimeout is how long a running batch may take to finish once the sink ends or
	// the partition is revoked.
	DrainTimeout time.Duration
	// LedgerMetricsInterval is how often the ledger metrics are refreshed; 0 is never.
	// Their views read whole tables.
	LedgerMetricsInterval time.Duration
}

// DefaultEnv is the production environment.
func DefaultEnv(cfg Config) Env {
	return Env{
		AfterStep:             func(step, string, int32) error { return nil },
		TopicCheckInterval:    5 * time.Second,
		SettleTime:            2 * time.Second,
		HeartbeatInterval:     min(cfg.SessionTimeout/3, time.Second),
		DrainTimeout:          10 * time.Second,
		LedgerMetricsInterval: 5 * time.Minute,
	}
}

// New makes a sink. It connects to Kafka when it runs. reg may be nil.
func New(cfg Config, kafka kafka.Config, codec *event.Codec, wh *clickhouse.Conn, log *slog.Logger,
	reg prometheus.Registerer) (*Sink, error) {
	if err := errors.Join(cfg.Validate(), kafka.Validate()); err != nil {
		return nil, err
	}
	if kafka.Watch == nil {
		kafka.Watch = kafka.NewWatch(log)
	}
	s := &Sink{
		cfg:             cfg,
		kafka:           kafka,
		wh:              wh,
		clickHouseWatch: outage.New(log, "ClickHouse"),
		repairWatch:     outage.New(log, repairEnd),
		growthWatch:     outage.New(log, "topics with the recorded partition count"),
		log:             log,
		registry:        reg,
		env:             DefaultEnv(cfg),
		metrics:         newMetrics(reg),
		ledger:          newLedgerMetrics(reg),
		mappings:        map[string]*topicMapping{},
		ready:           make(chan struct{}),
		memorySlots:     make(chan struct{}, max(4, runtime.GOMAXPROCS(0))),
		owned:           map[string]map[int32]*partition{},
		intentMetadata:  map[string]map[int32]string{},
		spareRows:       map[string][]rowBuffer{},
	}
	for _, m := range topicMappings(codec) {
		s.mappings[m.topic] = &m
		// Create the series now: increase() misses the first increment of a series that
		// did not exist before.
		s.metrics.deadLetters.WithLabelValues(m.topic)
		if m.bound {
			s.metrics.misplaced.WithLabelValues(m.topic)
		}
		s.metrics.repairedRows.WithLabelValues(m.topic)
		s.metrics.repairedSums.WithLabelValues(m.topic)
	}
	return s, nil
}

// Ready returns a channel that is closed when the sink has joined its group and claimed
// partitions for the first time.
func (s *Sink) Ready() <-chan struct{} { return s.ready }

// Run inserts until ctx is done, then finishes the running batches, for at most ten
// seconds, and returns nil. It returns an error if something else stops it: see
// NeedsOperator. It must be called only once.
func (s *Sink) Run(ctx context.Context) error {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	if err := s.retryStart(ctx, readingWindows, func(ctx context.Context) error {
		if err := s.readWindows(ctx); err != nil {
			return err
		}
		return s.identify(ctx)
	}); err != nil {
		return ignoreCanceled(ctx, fmt.Errorf("starting the sink: %w", err))
	}
	var err error
	if s.client, err = s.newGroupClient(); err != nil {
		return fmt.Errorf("starting the sink: %w", err)
	}
	defer s.client.CloseAllowingRebalance()
	defer s.closeInstall()
	if err := s.retryStart(ctx, readingTopics, func(ctx context.Context) error {
		if err := s.loadTopics(ctx); err != nil {
			return err
		}
		if s.recorded() == nil {
			s.log.Warn(kafka.NotRecorded)
		}
		if err := s.checkPartitions(ctx); err != nil {
			return err
		}
		return s.countAdded(ctx)
	}); err != nil {
		return ignoreCanceled(ctx, fmt.Errorf("starting the sink: %w", err))
	}
	s.startConsuming()
	var background sync.WaitGroup
	background.Go(func() { s.watchTopics(ctx) })
	background.Go(func() { s.watchRecorded(ctx) })
	background.Go(func() { s.refreshLedgerMetrics(ctx) })
	for ctx.Err() == nil {
		s.pollRecords(ctx)
	}
	s.stopAllPartitions()
	background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("running the sink: %w", s.err)
	}
	return nil
}

// ignoreCanceled returns nil if ctx has ended: err is then only a consequence.
func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newGroupClient makes the client. It is a member of the group, but reads nothing until
// startConsuming.
func (s *Sink) newGroupClient() (*kgo.Client, error) {
	return kafka.NewClient(s.kafka, s.log, s.registry,
		kgo.ConsumerGroup(s.kafka.SinkGroup()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(s.env.HeartbeatInterval),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		// An offset outside the log is an error, never a reason to begin elsewhere.
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
	ids = map[string]string{}
	partitions = map[string]int{}
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
		ids[name] = topicIDText(d.ID)
		partitions[name] = len(d.Partitions)
	}
	return ids, partitions, nil
}

// loadTopics reads the topics, and with what the installation was made. closeInstall ends
// the following of the latter.
func (s *Sink) loadTopics(ctx context.Context) (err error) {
	if s.topicIDs, s.partitionCounts, err = s.readTopics(ctx); err != nil {
		return err
	}
	if s.install == nil {
		if s.install, err = kafka.FollowInstall(s.kafka, s.log); err != nil {
			return err
		}
	}
	if err := s.install.Await(ctx, time.Now()); err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	return nil
}

// recorded is the record of the installation; nil: there is none, or it was not read.
func (s *Sink) recorded() *topic.Install {
	if s.install == nil {
		return nil
	}
	return s.install.Install()
}

func (s *Sink) closeInstall() {
	if s.install != nil {
		s.install.Close()
	}
}

// formerIDs are the ids that a topic had before it was adopted under its id now.
func (s *Sink) formerIDs(name string) []string {
	install := s.recorded()
	if install == nil || install.Topics[name].ID != s.topicIDs[name] {
		return nil
	}
	return install.Topics[name].Former
}

// checkPartitions compares the topics with what the installation was made with, if that
// is recorded.
func (s *Sink) checkPartitions(ctx context.Context) error {
	names := []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Progress} // co-partitioned
	err := s.install.CheckPartitions(ctx, s.client, names...)
	if err != nil && !NeedsOperator(err) && !errors.Is(err, kafka.ErrGrowing) {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	return err
}

func (s *Sink) listTopics(ctx context.Context, names map[string]string) (kadm.TopicDetails, error) {
	full := slices.Collect(maps.Keys(names))
	return kadm.NewClient(s.client).ListTopics(ctx, full...)
}

// watchTopics stops the sink when a topic is deleted and created again while it runs, or
// gets partitions that `ctl topics grow` did not add, and when its group fills another
// warehouse, too. Those that it adds are claimed when the record says so: meanwhile the
// others go on.
func (s *Sink) watchTopics(ctx context.Context) {
	tick := time.NewTicker(s.env.TopicCheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids, _, err := s.readTopics(ctx)
		if err == nil {
			err = s.checkPartitions(ctx)
		}
		if err == nil {
			s.clearFailure(awaitingGrowth)
			err = s.countAdded(ctx)
		}
		if err == nil {
			_, err = s.checkOwner(ctx)
		}
		if err != nil {
			switch {
			case NeedsOperator(err):
				s.stopWithError(err)
			case errors.Is(err, kafka.ErrGrowing):
				s.growthWatch.Failed(awaitingGrowth, s.env.TopicCheckInterval, err)
			}
			continue
		}
		for name, id := range ids {
			if id != s.topicIDs[name] {
				s.stopWithError(fmt.Errorf("%w: %s was %s when the sink began, and is %s",
					ErrTopicChanged, s.kafka.Topic(name), s.topicIDs[name], id))
			}
		}
	}
}

// pollRecords fetches once and queues the records of each partition. Rebalances wait
// until it returns, so that no record is queued for a partition that this sink has
// lost.
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
			// The partition may have emptied the queue between the two calls above:
			// then its request to resume came before the pause.
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

// resumeFetching ends the pause of a partition whose queue was full.
func (s *Sink) resumeFetching(p *partition) {
	s.client.ResumeFetchPartitions(map[string][]int32{s.kafka.Topic(p.mapping.topic): {p.id}})
}

// saveCommitMetadata keeps the metadata of the group's commits: the intents.
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

// claimPartitions is called with partitions that were assigned and their committed
// offsets, and returns where to read on. While ClickHouse is away it waits: heartbeats
// go on, other partitions are served, and a rebalance cancels ctx.
func (s *Sink) claimPartitions(ctx context.Context, committed map[string]map[int32]kgo.Offset) (
	map[string]map[int32]kgo.Offset, error) {
	claims, err := s.newClaims(committed)
	if err == nil {
		err = s.resolveClaimsWithRetry(ctx, claims)
	}
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]kgo.Offset{}
	for _, c := range claims {
		if declared := c.declaredIntent; declared != nil {
			s.log.Info("repeating the batch that was declared last", "topic", c.mapping.topic, "partition", c.partition,
				"start", declared.start, "end", declared.end)
		}
		s.metrics.setTableEnd(c.mapping.topic, c.partition, c.resumeAt)
		full := s.kafka.Topic(c.mapping.topic)
		if out[full] == nil {
			out[full] = map[int32]kgo.Offset{}
		}
		out[full][c.partition] = kgo.NewOffset().At(c.resumeAt)
		if err := s.startPartition(s.newPartition(c.mapping, c.partition, c.resumeAt, c.declaredIntent)); err != nil {
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

// newClaims returns a claim for each partition with its committed offset and intent.
func (s *Sink) newClaims(committed map[string]map[int32]kgo.Offset) (claims []*partitionClaim, err error) {
	for full, offsets := range committed {
		m := s.mappings[strings.TrimPrefix(full, s.kafka.TopicPrefix)]
		if m == nil {
			continue
		}
		for id, offset := range offsets {
			c := &partitionClaim{mapping: m, partition: id, recoveredState: recoveredState{
				topicID:   s.topicIDs[m.topic],
				formerIDs: s.formerIDs(m.topic),
				committed: offset.EpochOffset().Offset,
			}}
			if c.commitNote, err = parseCommitNote(s.savedMetadata(m.topic, id)); err != nil {
				s.stopWithError(fmt.Errorf("claiming %s partition %d: %w", m.topic, id, err))
				return nil, err
			}
			claims = append(claims, c)
		}
	}
	return claims, nil
}

func (s *Sink) savedMetadata(name string, partition int32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intentMetadata[name][partition]
}

// What a Watch reports as being tried.
const (
	readingRecords     = "reading records"
	claimingPartitions = "claiming partitions"
	readingWindows     = "reading deduplication windows"
	readingTopics      = "reading the topics' ids"
	awaitingGrowth     = "claiming the partitions that are being added"
)

// reportFailure reports a failed attempt to the Watch over what err comes from: Kafka,
// ClickHouse or a repair. pause is how long it is until the next attempt.
func (s *Sink) reportFailure(trying string, pause time.Duration, err error) {
	switch {
	case errors.Is(err, errKafka):
		s.kafka.Watch.Failed(trying, pause, err)
	case errors.Is(err, kafka.ErrGrowing):
		s.growthWatch.Failed(trying, pause, err)
	case errors.Is(err, ErrRepairing):
		s.repairWatch.Failed(trying, pause, err)
	default:
		s.clickHouseWatch.Failed(trying, pause, err)
	}
}

// clearFailure reports to all Watches that an attempt succeeded or was given up.
func (s *Sink) clearFailure(trying string) {
	s.kafka.Watch.Clear(trying)
	s.clickHouseWatch.Clear(trying)
	s.repairWatch.Clear(trying)
	s.growthWatch.Clear(trying)
}

// retryStart repeats what has to succeed before the sink can start, while Kafka or
// ClickHouse is away or does not let us in.
func (s *Sink) retryStart(ctx context.Context, trying string, try func(context.Context) error) error {
	defer s.clearFailure(trying)
	pauses := newStartBackoff()
	for {
		err := try(ctx)
		if err == nil || !retryable(err) || ctx.Err() != nil {
			return err
		}
		pause := pauses.Next()
		s.reportFailure(trying, pause, err)
		if !outage.Sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// newStartBackoff spaces the attempts at what has to succeed before batches are formed.
func newStartBackoff() outage.Backoff {
	return outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
}

// resolveClaimsWithRetry repeats resolveClaims until it succeeds or repeating cannot
// help.
func (s *Sink) resolveClaimsWithRetry(ctx context.Context, claims []*partitionClaim) error {
	defer s.clearFailure(claimingPartitions)
	pauses := newStartBackoff()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := s.resolveClaims(attempt, claims)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("claiming partitions: %w", err)
		if !retryable(err) {
			s.stopWithError(err)
			return err
		}
		pause := pauses.Next()
		s.reportFailure(claimingPartitions, pause, err)
		if !outage.Sleep(ctx, pause) {
			return ctx.Err()
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

// releasePartitions is called when partitions are revoked, before another member gets
// them, and when they were lost.
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
		s.resumeFetching(p) // the client would keep the pause if the partition came back
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

// stopWithError stops the sink. Run returns the first error.
func (s *Sink) stopWithError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.cancel()
}

// errKilled ends a sink because Env.AfterStep returned an error.
var errKilled = errors.New("killed")

// afterStep calls Env.AfterStep. If that returns an error, it stops all partitions
// where they are.
func (s *Sink) afterStep(reached step, p *partition) error {
	err := s.env.AfterStep(reached, p.mapping.topic, p.id)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w after %s: %w", errKilled, reached, err)
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

// commitIntent commits the start of a batch, with its intent as metadata.
func (s *Sink) commitIntent(ctx context.Context, p *partition, i intent) error {
	metadata := commitNote{s.warehouse.ID, &i}.encodeMetadata()
	if len(metadata) > maxMetadataBytes {
		return fmt.Errorf("%w: %d bytes of metadata are more than brokers accept", ErrIntent, len(metadata))
	}
	ctx = kgo.PreCommitFnContext(ctx, func(r *kmsg.OffsetCommitRequest) error {
		for t := range r.Topics {
			for n := range r.Topics[t].Partitions {
				r.Topics[t].Partitions[n].Metadata = &metadata
			}
		}
		return nil
	})
	offsets := map[string]map[int32]kgo.EpochOffset{
		s.kafka.Topic(p.mapping.topic): {p.id: {Epoch: -1, Offset: i.start}},
	}
	var failed error
	s.client.CommitOffsetsSync(ctx, offsets,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err == nil {
				failed = commitError(response)
			}
		})
	if failed != nil {
		return fmt.Errorf("%w: declaring batch [%d, %d): %w", errKafka, i.start, i.end, failed)
	}
	return nil
}

// commitError returns the first error in the response to a commit. A nil response is
// that of a commit of nothing.
func commitError(response *kmsg.OffsetCommitResponse) error {
	if response == nil {
		return nil
	}
	answered := false
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			answered = true
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	if !answered {
		return errors.New("the response names no partition")
	}
	return nil
}

// acquireSlot waits for the right to hold a batch's rows in memory. The caller must
// call releaseSlot.
func (s *Sink) acquireSlot(ctx context.Context) error {
	select {
	case s.memorySlots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Sink) releaseSlot() { <-s.memorySlots }

// acquireRows returns an empty buffer for a topic's rows. releaseRows keeps it for the
// next batch. There are at most as many as memory slots.
func (s *Sink) acquireRows(mapping *topicMapping) rowBuffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := s.spareRows[mapping.topic]
	if len(spare) == 0 {
		return mapping.newRows()
	}
	s.spareRows[mapping.topic] = spare[:len(spare)-1]
	return spare[len(spare)-1]
}

func (s *Sink) releaseRows(mapping *topicMapping, buffer rowBuffer) {
	buffer.resetRows()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spareRows[mapping.topic] = append(s.spareRows[mapping.topic], buffer)
}
