package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Engine runs a topology for as long as Run runs.
type Engine struct {
	cfg   Config
	topo  Topology
	kafka kafka.Config
	env   Env
	log   *slog.Logger
	m     *metrics

	// cache holds blocks of state, shared by all partitions. Set by Run.
	cache *state.Cache
	// ended remembers how transactions ended, across sessions.
	ended txnOutcomes
	// owned counts partitions, restoring ones included.
	owned atomic.Int64
	// partitions is how many there are.
	partitions atomic.Int64
	// standby follows what is not owned; nil without -standby. Set by Run.
	standby *standby
	// fenced counts sessions in a row that ended because another process took our
	// transactional id.
	fenced int
	// joined is true while a session runs.
	joined atomic.Bool
	// install says how many partitions the topics must have. Set by Run.
	install *kafka.InstallFollower
	// growth is told of waits for partitions that are being added.
	growth *outage.Watch
}

// New makes an engine in an environment; Run starts it. Errors name the flag to blame.
func New(env Env, cfg Config, topo Topology, kafkaConfig kafka.Config, log *slog.Logger,
	reg prometheus.Registerer) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := kafkaConfig.Validate(); err != nil {
		return nil, err
	}
	return &Engine{
		cfg:    cfg,
		topo:   topo,
		kafka:  kafkaConfig,
		env:    env,
		log:    log,
		m:      newMetrics(reg, topo.Name),
		growth: outage.New(log, "topics with the recorded partition count"),
	}, nil
}

const (
	minRestartPause = 50 * time.Millisecond
	maxRestartPause = 2 * time.Second
	// stableSession is how long a session must have lasted for the next pause to be the
	// shortest again.
	stableSession = 10 * time.Second
)

// Run works until ctx is done, then ends the running transaction, closes the state and
// returns nil. Any other return is a condition that a person, or a new process, has to
// end (Fatal); everything else is retried in a new session.
func (e *Engine) Run(ctx context.Context) (err error) {
	if err := e.env.FS.MkdirAll(e.cfg.StateDir, 0o755); err != nil {
		return fmt.Errorf("making -state-dir %s: %w", e.cfg.StateDir, err)
	}
	lock, err := e.env.Lock(e.env.FS.PathJoin(e.cfg.StateDir, "LOCK"))
	if err != nil {
		return err
	}
	defer lock.Close()
	e.cache = state.NewCache(e.cfg.StateCache)
	defer e.cache.Close()
	if e.install, err = kafka.FollowInstall(e.kafka, e.log); err != nil {
		return err
	}
	defer e.install.Close()
	if e.cfg.Standby {
		following, stop := context.WithCancel(ctx)
		e.standby = newStandby(e)
		go e.standby.run(following)
		defer func() {
			stop()
			err = errors.Join(err, e.standby.close())
		}()
	}
	pauses := outage.Backoff{Min: minRestartPause, Max: maxRestartPause}
	for {
		began := time.Now()
		err := e.runSession(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, kerr.ProducerFenced) {
			if e.fenced++; e.fenced >= 2 {
				err = fmt.Errorf("%w %q: %w", ErrInstance, e.cfg.Instance, err)
			}
		}
		if Fatal(err) {
			return err
		}
		if time.Since(began) > stableSession {
			pauses.Reset()
		}
		pause := pauses.Next()
		e.logEndOfSession(err, pause)
		if !outage.Sleep(ctx, pause) {
			return nil
		}
	}
}

// joining is the reason under which the Watch over Kafka keeps failures to join: it
// works when a partition runs.
const joining = "a session with the consumer group"

// logEndOfSession logs why a session ended. During an outage the Watch logs once and
// then once a minute.
func (e *Engine) logEndOfSession(err error, pause time.Duration) {
	const ended = "session ended; starting over from the committed offsets"
	switch {
	case errors.Is(err, kafka.ErrGrowing):
		e.growth.Failed(joining, pause, err)
	case errors.Is(err, errSession):
		e.log.Info(ended, "error", err, "in", pause)
	case kafka.Retryable(err):
		e.kafka.Watch.Failed(joining, pause, err)
	default:
		e.log.Warn(ended, "error", err, "in", pause)
	}
}

// runSession runs one session to its end, and watches that it does not get stuck.
func (e *Engine) runSession(ctx context.Context) error {
	s, err := e.newSession(ctx)
	if err != nil {
		return err
	}
	e.growth.Clear(joining)
	e.joined.Store(true)
	defer e.joined.Store(false)
	s.lastPoll.Store(time.Now().UnixNano())
	done := make(chan error, 1)
	go func() {
		err := s.runTransactions(ctx)
		e.joined.Store(false)
		s.lastPoll.Store(time.Now().UnixNano())
		s.closeSession() // on a full disk, Pebble repeats a flush without end
		done <- err
	}()
	var stuckFor time.Duration
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Second):
			if time.Since(time.Unix(0, s.lastPoll.Load())) <= e.env.StuckAfter {
				stuckFor = 0
			} else if stuckFor += time.Second; stuckFor > stuckGrace {
				return fmt.Errorf("%w: for %v, no poll and no end of closing", ErrStuck, e.env.StuckAfter)
			}
		}
	}
}

// Ready reports whether a session runs: the answer of a readiness probe.
func (e *Engine) Ready() error {
	if !e.joined.Load() {
		return errors.New("not joined to the consumer group yet")
	}
	return nil
}

// transactionalID is that of this slot.
func (e *Engine) transactionalID() string {
	return e.kafka.Group(e.topo.Group) + "-" + e.cfg.Instance
}

// HangingTransactions is in how many partitions this engine wrote a marker that Kafka
// had lost.
func (e *Engine) HangingTransactions() prometheus.Counter { return e.m.hanging }

// HeldBack is how many partitions and starts of sessions wait for another transaction.
func (e *Engine) HeldBack() prometheus.Gauge { return e.m.heldBack }
