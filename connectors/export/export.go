package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/statement"
)

// Run writes one export and returns its manifest. A workspace that may not export gets
// ErrNotEntitled before anything is written.
func Run(ctx context.Context, conn *clickhouse.Conn, cfg Config) (m *Manifest, err error) {
	began := time.Now()
	defer func() { cfg.Metrics.recordRun(err, m, time.Since(began)) }()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := checkAccess(ctx, conn, cfg.Workspace); err != nil {
		return nil, err
	}
	cfg.Metrics.recordAccess()
	if cfg.Dir != "-" {
		unlock, err := lockDirectory(cfg.Dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	e := &exporter{conn: conn, cfg: cfg}
	if m, err = e.run(ctx); err != nil {
		return nil, fmt.Errorf("exporting %s, %s to %s: %w", cfg.Workspace, cfg.From, cfg.To, err)
	}
	return m, nil
}

// RunFinal writes one export that is not provisional. It waits until the joined watermark
// has passed the last day, but at most for a time: then it returns ErrWatermarkBehind.
func RunFinal(ctx context.Context, conn *clickhouse.Conn, cfg Config, atMost time.Duration) (*Manifest, error) {
	return runFinal(ctx, cfg, atMost, func(cfg Config) (*Manifest, error) { return Run(ctx, conn, cfg) })
}

func runFinal(ctx context.Context, cfg Config, atMost time.Duration,
	run func(Config) (*Manifest, error)) (*Manifest, error) {
	cfg.finalOnly = true
	until := time.Now().Add(atMost)
	for {
		m, err := run(cfg)
		left := time.Until(until)
		if !errors.Is(err, ErrWatermarkBehind) || left <= 0 {
			return m, err
		}
		cfg.Log.Info("waiting until the joined watermark has passed the last day", "at most", left.Round(time.Second))
		if !outage.Sleep(ctx, min(left, watermarkPoll)) {
			return nil, fmt.Errorf("waiting until the export is complete: %w", ctx.Err())
		}
	}
}

// exporter runs one export.
type exporter struct {
	conn *clickhouse.Conn
	cfg  Config // validated
}

// run decides what to write before it writes anything: the plan follows from the
// configuration and from how far the tables go, and does not change any more.
func (e *exporter) run(ctx context.Context) (*Manifest, error) {
	if err := checkManifests(e.cfg); err != nil {
		return nil, err
	}
	b, err := e.readBounds(ctx)
	if err != nil {
		return nil, err
	}
	zone, err := e.readZone(ctx, b.ends.Catalog)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(e.cfg, b, zone)
	if err != nil {
		return nil, err
	}
	if err := e.checkNotDropped(ctx, p); err != nil {
		return nil, err
	}
	s, err := e.readSummary(ctx, p)
	if err != nil {
		return nil, err
	}
	if s.rows == 0 && e.cfg.AsOf == nil && e.cfg.Since == nil {
		if err := e.checkFiltersExist(ctx, b.ends.Catalog); err != nil {
			return nil, err
		}
	}
	if e.cfg.Dir == "-" {
		w, err := e.writeFile(ctx, p, s, e.cfg.Stdout)
		return p.manifest(s, w), err
	}
	return e.writeFiles(ctx, p, s)
}

// bounds are how far the tables went when an export began.
type bounds struct {
	ends      AsOf
	watermark time.Time // joined; zero in a repeated export, which does not ask
	// of a statement whose month ends at closingOf; zero of all others, and in a repeated
	// export
	closing   statement.Closing
	closingOf time.Time
}

// readBounds reads how far the tables go, and waits until they have all rows below
// those ends. A repeated export has the ends of the export that it repeats.
func (e *exporter) readBounds(ctx context.Context) (b bounds, err error) {
	if e.cfg.AsOf != nil {
		return bounds{ends: e.cfg.AsOf.AsOf}, nil
	}
	// The watermarks come first. If one passed the last day between the two, the file
	// would be called final and lack rows of that day.
	if b.watermark, err = readJoinedWatermark(ctx, e.conn); err != nil {
		return b, err
	}
	if e.cfg.Statement != "" {
		if b.closing, b.closingOf, err = e.readClosing(ctx); err != nil {
			return b, err
		}
	}
	if b.ends, err = e.readEnds(ctx); err != nil {
		return b, err
	}
	return b, e.waitForReplica(ctx, b.ends)
}
