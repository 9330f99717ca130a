package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"golang.org/x/sync/errgroup"
)

// Phases of a run, as passed to progress.
const (
	PhaseScenarios = "scenarios"
	PhaseVolume    = "traffic"
	PhaseLate      = "late events"
)

// Config says what to drive, and how much.
type Config struct {
	Seed       uint64 // decides everything but the tokens
	Clicks     int    // visits of the volume; the scenarios add a few dozen
	Redirector string // base URL
	Gateway    string // base URL
	// Grace is the processor's. If it is at most MaxGrace, the run waits for it and
	// ends with late events.
	Grace   time.Duration
	Workers int // connections to each server, in the volume
	// Secrets returns the signing secret ("whsec_…") of a workspace. Workspaces without
	// one ("") post no events.
	Secrets func(workspace string) string
	// Keys mints tokens of clicks that never happened or are long gone. nil leaves out
	// the scenarios that need them.
	Keys *token.Keyring
	Now  func() time.Time // the clock
}

// MaxGrace is the longest grace for which a run sends late events.
const MaxGrace = 30 * time.Second

// DefaultConfig returns the settings of the demo. The caller fills in Redirector,
// Gateway and Secrets.
func DefaultConfig() Config {
	return Config{Seed: 1, Clicks: 2000, Grace: 5 * time.Second, Workers: 48, Now: time.Now}
}

// Validate reports every setting that cannot work.
func (c *Config) Validate() error {
	var errs []error
	errs = append(errs, checkBaseURL("redirector", c.Redirector), checkBaseURL("gateway", c.Gateway))
	if c.Clicks < 0 {
		errs = append(errs, fmt.Errorf("clicks: %d is negative", c.Clicks))
	}
	if c.Workers < 1 {
		errs = append(errs, fmt.Errorf("workers: want at least 1, not %d", c.Workers))
	}
	if c.Grace < 0 {
		errs = append(errs, fmt.Errorf("grace: %v is negative", c.Grace))
	}
	if c.Secrets == nil {
		errs = append(errs, errors.New("secrets: none given"))
	}
	if c.Now == nil {
		errs = append(errs, errors.New("now: none given"))
	}
	return errors.Join(errs...)
}

func checkBaseURL(field, text string) error {
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" {
		return fmt.Errorf("%s: want http://host:port, not %q", field, text)
	}
	return nil
}

// generator is one call of Run.
type generator struct {
	cfg           Config
	client        *client
	targets       []target                      // the active links
	workspaces    map[string]*catalog.Workspace // by id
	ledger        *Ledger
	eventIDPrefix string // unique to this run, so that runs over the same data do not share ids
	templates     []journeyTemplate

	progress   func(done, total int, phase string) // may be nil
	progressMu sync.Mutex                          // held during a call of progress
	visitsDone atomic.Int64                        // of the volume
}

// Run generates the traffic and returns what was answered, also together with an error.
// progress may be nil; its calls do not overlap.
func Run(ctx context.Context, cfg Config, workspaces []catalog.Workspace,
	progress func(done, total int, phase string)) (*Ledger, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("driving traffic: %w", err)
	}
	templates, err := loadTemplates()
	if err != nil {
		return nil, err
	}
	scenarios, err := loadScenarios()
	if err != nil {
		return nil, err
	}
	r := &generator{
		cfg:           cfg,
		ledger:        newLedger(),
		workspaces:    make(map[string]*catalog.Workspace),
		templates:     templates,
		progress:      progress,
		eventIDPrefix: "evt-" + strconv.FormatInt(cfg.Now().Unix(), 36),
	}
	if r.client, err = newClient(cfg, workspaces, r.ledger); err != nil {
		return nil, fmt.Errorf("driving traffic: %w", err)
	}
	defer r.client.closeConnections()
	for i := range workspaces {
		r.workspaces[workspaces[i].ID] = &workspaces[i]
	}
	if r.targets = activeTargets(workspaces); len(r.targets) == 0 {
		return nil, errors.New("driving traffic: the catalog has no active link")
	}

	late, err := r.playScenarios(ctx, scenarios)
	if err != nil {
		return r.ledger, fmt.Errorf("playing scenarios: %w", err)
	}
	if err := r.sendRefused(ctx); err != nil {
		return r.ledger, fmt.Errorf("sending requests that must be refused: %w", err)
	}
	if err := r.driveVolume(ctx); err != nil {
		return r.ledger, fmt.Errorf("driving volume: %w", err)
	}
	if err := r.playLateSteps(ctx, late); err != nil {
		return r.ledger, fmt.Errorf("sending late events: %w", err)
	}
	return r.ledger, nil
}

func (r *generator) reportProgress(done, total int, phase string) {
	if r.progress == nil {
		return
	}
	r.progressMu.Lock()
	defer r.progressMu.Unlock()
	r.progress(done, total, phase)
}

// chunkVisits is how many visits share one random source. They are made one after
// another.
const chunkVisits = 500

func (r *generator) driveVolume(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.cfg.Workers)
	r.reportProgress(0, r.cfg.Clicks, PhaseVolume)
	for n := 0; n*chunkVisits < r.cfg.Clicks && ctx.Err() == nil; n++ {
		g.Go(func() error { return r.driveChunk(ctx, n, min(chunkVisits, r.cfg.Clicks-n*chunkVisits)) })
	}
	return g.Wait()
}

func (r *generator) countVisit() {
	if done := int(r.visitsDone.Add(1)); done%250 == 0 || done == r.cfg.Clicks {
		r.reportProgress(done, r.cfg.Clicks, PhaseVolume)
	}
}
