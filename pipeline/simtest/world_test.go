package simtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/internal/scenario"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	partitions   = 3 // of a new installation, see growths
	faultsOfSeed = 20
	// staleness is how old the last stable offset may be that is listed.
	staleness = 500 * time.Millisecond
)

// codec is made once: with one for each start of a process, that alone took a twentieth
// of a seed's time.
var codec = event.DefaultCodec()

// world is one seed: a broker, two machines, and what is told into them.
type world struct {
	seed     uint64
	grace    time.Duration
	cluster  *kfake.Cluster
	network  kfake.VirtualNetwork
	client   *kgo.Client // of those who write clicks and events
	placer   *kafka.InstallFollower
	teller   *scenario.Generator
	machines [2]*machine

	mu       sync.Mutex
	rand     *rand.Rand
	err      error
	lives    []*life // that were killed
	armed    *arming
	hits     matrix
	refused  map[string]int // requests, by refusal
	stable   []stable
	restarts atomic.Int64
	begins   []time.Time   // of the epochs that were added
	near     int           // tokens minted within two seconds of such a time
	restored chan struct{} // told of each partition that is restored
	closed   atomic.Bool   // nothing is started any more

	telling sync.WaitGroup // journeys under way
	timers  sync.WaitGroup // what after was called with
}

// arming is a fault that waits for its step.
type arming struct {
	cell
	do    func(*world, *life, string)
	skip  int // times that the step may pass before
	fired chan struct{}
}

// stable is what the last stable offsets were at a time.
type stable struct {
	at   time.Time
	ends map[string][]int64
}

func newWorld(ctx context.Context, seed uint64) (*world, error) {
	w := &world{
		seed:    seed,
		grace:   shortGrace,
		rand:    rand.New(rand.NewPCG(seed, 1)),
		hits:    make(matrix),
		refused: make(map[string]int),
	}
	if seed%3 == 0 {
		w.grace = longGrace
	}
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		return nil, fmt.Errorf("starting kfake: %w", err)
	}
	if w.client, err = kafka.NewClient(w.config(), w.log("teller"), nil); err != nil {
		return nil, err
	}
	want := kafka.DefaultTopicsConfig()
	want.Partitions, want.Replication = partitions, 1
	if _, err := kafka.ApplyTopics(ctx, w.client, w.config(), want, w.log("teller")); err != nil {
		return nil, fmt.Errorf("making topics: %w", err)
	}
	if w.placer, err = kafka.FollowInstall(w.config(), w.log("teller")); err != nil {
		return nil, err
	}
	w.cluster.ControlKey(int16(kmsg.ListOffsets), w.listStable)
	w.teller = scenario.New(partitions, rand.New(rand.NewPCG(seed, 2)), time.Now)
	for i := range w.machines {
		w.machines[i] = &machine{w: w, name: fmt.Sprintf("slot-%d", i), disk: vfs.NewCrashableMem()}
	}
	return w, nil
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

func (w *world) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *world) below(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.below(int(d))) }

// dice are for one crash.
func (w *world) dice() *rand.Rand { return rand.New(rand.NewPCG(uint64(w.below(1<<62)), w.seed)) }

// after runs do in a while; the end of the seed waits for it.
func (w *world) after(d time.Duration, do func()) {
	w.timers.Add(1)
	time.AfterFunc(d, func() {
		defer w.timers.Done()
		do()
	})
}

// mourn keeps a process that is gone until its goroutines are.
func (w *world) mourn(l *life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lives = append(w.lives, l)
}

func (w *world) startAll() {
	for _, m := range w.machines {
		w.after(0, m.start)
	}
}

// visit injects the armed fault if its step has come and there is something to lose.
func (w *world) visit(l *life, step string) {
	w.mu.Lock()
	if w.restored != nil && step == processor.StepRestored {
		select {
		case w.restored <- struct{}{}:
		default: // restored more than once: whoever waits knows enough
		}
	}
	a := w.armed
	if a == nil || a.step != step {
		w.mu.Unlock()
		return
	}
	if a.skip > 0 {
		a.skip--
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	if !w.inFlight() {
		return
	}
	w.mu.Lock()
	if w.armed != a { // the other machine was faster
		w.mu.Unlock()
		return
	}
	w.armed = nil
	w.hits[a.cell]++
	w.mu.Unlock()
	close(a.fired)
	a.do(w, l, step)
}

// inFlight reports whether records lie in Kafka that no transaction has dealt with.
func (w *world) inFlight() bool {
	g := w.cluster.GroupInfo(topic.ProcessorGroup)
	if g == nil {
		return false
	}
	for _, name := range []string{topic.Clicks, topic.Conversions} {
		for _, p := range w.cluster.PartitionInfos(name) {
			if g.Commits[name][p.Partition].Offset < p.HighWatermark {
				return true
			}
		}
	}
	return false
}

// inject arms a fault, leads the machines to its step, and waits until it has happened.
// It returns false if the step did not come.
func (w *world) inject(c cell) bool {
	a := &arming{cell: c, do: c.injector(), skip: w.below(3), fired: make(chan struct{})}
	switch c.step {
	case processor.StepEndFailed:
		a.skip = 0
	case stepDisk:
		a.skip = w.below(60)
	}
	w.mu.Lock()
	w.armed = a
	w.mu.Unlock()
	for range 15 {
		w.lead(c.step)
		select {
		case <-a.fired:
			return true
		case <-time.After(4 * time.Second):
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	missed := w.armed == a
	w.armed = nil
	return !missed
}

// lead does what makes a step happen that does not come by itself.
func (w *world) lead(step string) {
	m := w.machines[w.below(2)]
	l := m.running()
	switch step {
	case processor.StepAssigned, processor.StepOpened, processor.StepRestored, processor.StepRevoked, stepDisk:
		if l == nil {
			m.start()
			return
		}
		if w.below(2) == 0 {
			m.crash(l, w.below(101), func(d *vfs.MemFS) *vfs.MemFS { return d })
		} else if err := m.stop(); err != nil && !selfEnded(err) {
			w.fail(err)
		}
		w.after(w.upTo(500*time.Millisecond), m.start)
	case processor.StepEndFailed:
		for _, m := range w.machines {
			if l := m.running(); l != nil {
				l.cable.requests.Store(w.below(2) == 0)
				l.cable.losing.Store(1 << 30)
				w.after(7*time.Second, func() { l.cable.losing.Store(0) })
			}
		}
	}
}

// selfEnded reports whether a process ended for a reason that its supervisor answers by
// starting it again.
func selfEnded(err error) bool {
	return errors.Is(err, processor.ErrInstance) || errors.Is(err, processor.ErrStuck)
}

// tell writes journeys until ctx is done, each line in its time, and takes notes of the
// last stable offsets.
func (w *world) tell(ctx context.Context) {
	for ctx.Err() == nil {
		w.note()
		for range 1 + w.teller.Rand.IntN(3) {
			w.teller.Behind = 0
			if w.teller.Rand.IntN(8) == 0 {
				w.teller.Behind = 30 * time.Second
			}
			w.journey(w.teller.Journey())
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(w.teller.Rand.IntN(int(600 * time.Millisecond)))):
		}
	}
}

func (w *world) journey(lines []scenario.Step) {
	delays := make([]time.Duration, len(lines))
	for i, l := range lines {
		if l.Late {
			delays[i] = time.Duration(w.teller.Rand.IntN(int(2 * shortGrace)))
		}
	}
	w.telling.Go(func() {
		for i, l := range lines {
			time.Sleep(delays[i])
			partition := w.place(l.Token())
			r, err := w.teller.Record(l)
			if err == nil {
				r.Partition = partition
				err = w.client.ProduceSync(context.Background(), r).FirstErr()
			}
			if err != nil {
				w.fail(fmt.Errorf("telling: %w", err))
				return
			}
		}
	})
}

// note remembers the last stable offsets of now.
func (w *world) note() {
	s := stable{at: time.Now(), ends: make(map[string][]int64)}
	for _, name := range []string{topic.Outcomes, topic.Changelog, topic.Progress} {
		infos := w.cluster.PartitionInfos(name)
		ends := make([]int64, len(infos))
		for _, p := range infos {
			ends[p.Partition] = p.LastStableOffset
		}
		s.ends[name] = ends
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stable = append(w.stable, s)
	for len(w.stable) > 1 && time.Since(w.stable[1].at) > staleness {
		w.stable = w.stable[1:]
	}
}

// listStable answers listings of last stable offsets as a broker may that has not yet
// written the markers of transactions that are committed.
func (w *world) listStable(r kmsg.Request) (kmsg.Response, error, bool) {
	w.cluster.KeepControl()
	req := r.(*kmsg.ListOffsetsRequest)
	if req.IsolationLevel != 1 {
		return nil, nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.stable) == 0 || time.Since(w.stable[0].at) > 2*staleness { // nobody takes notes any more
		return nil, nil, false
	}
	ends := w.stable[0].ends
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	for _, t := range req.Topics {
		if ends[t.Topic] == nil {
			return nil, nil, false
		}
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			if p.Timestamp != -1 || int(p.Partition) >= len(ends[t.Topic]) {
				return nil, nil, false
			}
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Offset = p.Partition, ends[t.Topic][p.Partition]
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil, true
}

// close ends everything that was started and waits for it: a bubble ends when its
// goroutines do.
func (w *world) close() error {
	w.timers.Wait()
	w.telling.Wait()
	w.closed.Store(true)
	var errs []error
	for _, m := range w.machines {
		if err := m.stop(); err != nil && !selfEnded(err) {
			errs = append(errs, fmt.Errorf("stopping %s: %w", m.name, err))
		}
	}
	for _, l := range w.lives {
		<-l.ended
	}
	w.placer.Close()
	w.client.Close()
	w.cluster.Close()
	return errors.Join(errs...)
}
