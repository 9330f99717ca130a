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

// Phases of a run, as progress hears them.
const (
	PhaseScenarios = "stories"
	PhaseVolume    = "traffic"
	PhaseLate      = "late events"
)

// Config says what to drive, and how much.
type Config struct {
	Seed       uint64
	Clicks     int    // visits of the volume; the stories add a few dozen
	Redirector string // base URL
	Gateway    string // base URL
	// Grace is the processor's. If it is at most MaxGrace, the run ends with events
	// that come after it.
	Grace   time.Duration
	Workers int // connections to each server, in the volume
	// Secrets returns the signing secret ("whsec_…") of a workspace, "" if it has none:
	// then it posts no events.
	Secrets func(workspace string) string
	// Keys mints tokens of clicks that never happened or are long gone. nil leaves out
	// the stories that need them.
	Keys *token.Keyring
	Now  func() time.Time
}

// MaxGrace is the longest grace that a run waits for.
const MaxGrace = 30 * time.Second

// DefaultConfig is what the demo starts from. Redirector, Gateway and Secrets are to be
// filled in.
func DefaultConfig() Config {
	return Config{Seed: 1, Clicks: 2000, Grace: 5 * time.Second, Workers: 48, Now: time.Now}
}

// Validate reports every setting that cannot work.
func (c *Config) Validate() error {
	var errs []error
	for _, base := range []struct{ field, text string }{{"redirector", c.Redirector}, {"gateway", c.Gateway}} {
		if u, err := url.Parse(base.text); err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" {
			errs = append(errs, fmt.Errorf("%s: want http://host:port, not %q", base.field, base.text))
		}
	}
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

// generator is one call of Run.
type generator struct {
	cfg           Config
	client        *client
	targets       []target
	workspaces    map[string]*catalog.Workspace
	ledger        *Ledger
	eventIDPrefix string // of event ids: two runs over the same data do not meet in them
	templates     []journeyTemplate

	progress   func(done, total int, phase string)
	progressMu sync.Mutex
	visitsDone atomic.Int64
}

// Run drives the traffic and returns what it did; with an error, what it did until
// then. progress may be nil; its calls do not overlap.
func Run(ctx context.Context, cfg Config, workspaces []catalog.Workspace, progress func(done, total int,
	phase string)) (*Ledger, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("driving traffic: %w", err)
	}
	shapes, err := loadTemplates()
	if err != nil {
		return nil, err
	}
	stories, err := loadScenarios()
	if err != nil {
		return nil, err
	}
	r := &generator{cfg: cfg, ledger: newLedger(), workspaces: make(map[string]*catalog.Workspace), templates: shapes,
		progress:      progress,
		eventIDPrefix: "evt-" + strconv.FormatInt(cfg.Now().Unix(), 36)}
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

	late, err := r.playScenarios(ctx, stories)
	if err != nil {
		return r.ledger, fmt.Errorf("telling stories: %w", err)
	}
	if err := r.sendRefused(ctx); err != nil {
		return r.ledger, fmt.Errorf("making requests that must be refused: %w", err)
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

// chunkVisits is how many visits are drawn from one random source and made one after the
// other.
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
