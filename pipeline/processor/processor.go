package processor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Processor joins clicks and conversions for as long as Run runs.
type Processor struct {
	cfg   Config
	kafka kafka.Config
	codec *event.Codec
	rules *attribution.Rules
	// journeyLife is how long after its last event a journey answers.
	journeyLife time.Duration
	cache       *state.Cache
	log         *slog.Logger
	m           *metrics

	fs    vfs.FS
	lock  func(path string) (io.Closer, error)
	now   func() time.Time
	hook  func(step string)
	extra []kgo.Opt // for the session's client
	// judge conversions without holding them for their clicks: nothing but speed may
	// depend on that
	hasty      bool
	flushEvery time.Duration
	stuckAfter time.Duration
	slab       int64        // 0: a share of ClickMemory
	owned      atomic.Int64 // partitions, restoring ones included

	transactionTimeout time.Duration

	ended   txnOutcomes
	fenced  int // sessions in a row that ended because somebody took our transactional id
	running atomic.Bool
}

// New makes a processor on this machine; Run starts it.
func New(cfg Config, kafkaConfig kafka.Config, codec *event.Codec, log *slog.Logger,
	reg prometheus.Registerer) (*Processor, error) {
	return NewIn(DefaultEnv(), cfg, kafkaConfig, codec, log, reg)
}

// NewIn makes a processor in an environment of its own.
func NewIn(env Env, cfg Config, kafkaConfig kafka.Config, codec *event.Codec, log *slog.Logger,
	reg prometheus.Registerer) (*Processor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := kafkaConfig.Validate(); err != nil {
		return nil, err
	}
	rules := attribution.DefaultConfig()
	rules.Grace, rules.ClickLife = cfg.Grace, cfg.ClickLife
	r, err := attribution.New(rules, codec)
	if err != nil {
		return nil, err
	}
	return &Processor{
		cfg:                cfg,
		kafka:              kafkaConfig,
		codec:              codec,
		rules:              r,
		journeyLife:        rules.JourneyLife,
		log:                log,
		m:                  newMetrics(reg),
		fs:                 env.FS,
		lock:               env.Lock,
		now:                env.Now,
		flushEvery:         env.FlushEvery,
		stuckAfter:         stuckAfter,
		slab:               env.SlabBytes,
		hook:               env.Step,
		transactionTimeout: env.TransactionTimeout,
	}, nil
}

// Run processes until ctx is done, then ends the running transaction, closes the state
// and returns nil. Any other return is a condition that a person, or a new process, has
// to end (Fatal); everything else is retried in a new session.
func (p *Processor) Run(ctx context.Context) error {
	if err := p.fs.MkdirAll(p.cfg.StateDir, 0o755); err != nil {
		return fmt.Errorf("making -state-dir %s: %w", p.cfg.StateDir, err)
	}
	lock, err := p.lock(p.fs.PathJoin(p.cfg.StateDir, "LOCK"))
	if err != nil {
		return err
	}
	defer lock.Close()
	p.cache = state.NewCache(p.cfg.JourneyCache)
	defer p.cache.Close()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		began := time.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fencedBy(err) {
			if p.fenced++; p.fenced >= 2 {
				err = fmt.Errorf("%w %q: %w", ErrInstance, p.cfg.Instance, err)
			}
		}
		if Fatal(err) {
			return err
		}
		if time.Since(began) > 10*time.Second {
			wait = 50 * time.Millisecond
		}
		level := slog.LevelWarn
		if errors.Is(err, errSession) {
			level = slog.LevelInfo
		}
		p.log.Log(ctx, level, "session ended; starting over from the committed offsets", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (p *Processor) session(ctx context.Context) error {
	s, err := p.newSession(ctx)
	if err != nil {
		return err
	}
	p.running.Store(true)
	defer p.running.Store(false)
	s.beat.Store(time.Now().UnixNano())
	done := make(chan error, 1)
	go func() {
		err := s.run(ctx)
		p.running.Store(false)
		s.beat.Store(time.Now().UnixNano())
		s.close() // on a full disk, Pebble repeats a flush for ever
		done <- err
	}()
	stuck := time.Duration(0) // for how long it has been seen
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Second):
			if time.Since(time.Unix(0, s.beat.Load())) <= p.stuckAfter {
				stuck = 0
			} else if stuck += time.Second; stuck > awake {
				return fmt.Errorf("%w: for %v, no poll and no end of closing", ErrStuck, p.stuckAfter)
			}
		}
	}
}

// Ready reports whether a session runs: the answer of a readiness probe.
func (p *Processor) Ready() error {
	if !p.running.Load() {
		return errors.New("no session with the consumer group")
	}
	return nil
}
