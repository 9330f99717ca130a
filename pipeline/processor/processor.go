package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

// Processor joins clicks and conversions for as long as Run runs.
type Processor struct {
	cfg   Config
	kafka kafka.Config
	codec *event.Codec
	rules *attribution.Rules
	// journeyLife is how long after its last event a journey answers.
	journeyLife time.Duration
	env         Env
	log         *slog.Logger
	reg         prometheus.Registerer
	m           *metrics
	// engine is set when Run begins.
	engine atomic.Pointer[engine.Engine]
}

// New makes a processor on this machine; Run starts it.
func New(cfg Config, kafkaConfig kafka.Config, codec *event.Codec, log *slog.Logger,
	reg prometheus.Registerer) (*Processor, error) {
	return NewIn(DefaultEnv(), cfg, kafkaConfig, codec, log, reg)
}

// NewIn makes a processor in an environment of its own.
func NewIn(env Env, cfg Config, kafkaConfig kafka.Config, codec *event.Codec, log *slog.Logger,
	reg prometheus.Registerer) (*Processor, error) {
	if err := errors.Join(cfg.Validate(), kafkaConfig.Validate()); err != nil {
		return nil, err
	}
	if kafkaConfig.Watch == nil {
		kafkaConfig.Watch = kafkaConfig.NewWatch(log)
	}
	times := attribution.DefaultConfig()
	times.Grace, times.ClickLife = cfg.Grace, cfg.ClickLife
	rules, err := attribution.New(times, codec)
	if err != nil {
		return nil, err
	}
	return &Processor{
		cfg:         cfg,
		kafka:       kafkaConfig,
		codec:       codec,
		rules:       rules,
		journeyLife: times.JourneyLife,
		env:         env,
		log:         log,
		reg:         reg,
		m:           newMetrics(reg),
	}, nil
}

// Run judges until ctx is done, then ends the running transaction, closes the state and
// returns nil. Any other return is a condition that a person, or a new process, has to
// end (Fatal). It runs once. The loop is the engine's: loop.go.
func (p *Processor) Run(ctx context.Context) error {
	e, err := engine.New(p.env.Env, p.cfg.engine(), p.topology(), p.kafka, p.log, p.reg)
	if err != nil {
		return err
	}
	p.engine.Store(e)
	return e.Run(ctx)
}

// Ready reports whether a session runs: the answer of a readiness probe.
func (p *Processor) Ready() error {
	if e := p.engine.Load(); e != nil {
		return e.Ready()
	}
	return errors.New("not started yet")
}

// Rows are scanned within one journey, and within the deadlines.
var (
	journeyPrefix  = event.JourneyPrefix(new([20]byte))
	deadlinePrefix = event.DeadlineKey(0, new([20]byte), 0)[:1]
)

// topology is what the engine runs: clicks lead, conversions follow.
func (p *Processor) topology() engine.Topology {
	retention := p.cfg.ClickLife + topic.ClickMargin
	return engine.Topology{
		Name:  "processor",
		Group: topic.ProcessorGroup,
		Leading: engine.Input{
			Topic:     topic.Clicks,
			Retention: retention,
			RetentionHint: fmt.Sprintf("-click-life %v needs %v: run `ctl topics apply -click-life %v`",
				p.cfg.ClickLife, retention, p.cfg.ClickLife),
		},
		Following:   engine.Input{Topic: topic.Conversions},
		Owned:       []string{topic.Outcomes, topic.Progress},
		Shared:      []string{topic.DeadLetters},
		Changelog:   topic.Changelog,
		Margin:      p.cfg.watermarkMargin(),
		Tables:      map[byte]int{journeyPrefix[0]: len(journeyPrefix), deadlinePrefix[0]: 1},
		Index:       indexExpiry,
		Open:        p.openTask,
		WipeSideLog: func(fs vfs.FS, dir string) error { return clicklog.Wipe(fs, clickDir(fs, dir)) },
	}
}

// clickDir is the click log's directory below a partition's.
func clickDir(fs vfs.FS, dir string) string { return fs.PathJoin(dir, "clicks") }
