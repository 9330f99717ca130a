package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/adhocore/gronx"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/calendar"
)

// ErrSchedule means that a schedule cannot be read.
var ErrSchedule = errors.New("-schedule")

const (
	// watermarkPoll is how often a run looks whether its day is complete.
	watermarkPoll = 10 * time.Second
	// maxMissed is how many days are made up. An older gap is an operator's to fill.
	maxMissed = 31
	// firstRetry is the delay before a failed run is repeated; each delay is twice the
	// one before, up to longestRetry.
	firstRetry   = 10 * time.Second
	longestRetry = 10 * time.Minute
)

// CheckSchedule reports whether a text is a cron expression of five fields: minute,
// hour, day of month, month, day of week.
func CheckSchedule(expr string) error {
	if !gronx.IsValid(expr) {
		return fmt.Errorf("%w: %q is not a cron expression such as \"0 2 * * *\"", ErrSchedule, expr)
	}
	return nil
}

// Schedule exports, at each time of a cron expression, all days up to yesterday that
// the directory lacks: yesterday, and of the last 31 days those after the first that
// was exported. Days that were missed while no process ran are made up at once. A time
// that the clocks skip comes when it would have come had they not changed. Times and
// days are those of the workspace's zone when the series began, whatever its zone is
// now. A run waits until the joined watermark has passed its day, unless
// cfg.Provisional. Runs follow one another; a run that fails is repeated. While the
// workspace may not export, runs are skipped; their days are missed ones. Schedule
// returns when ctx ends.
func Schedule(ctx context.Context, conn *clickhouse.Conn, expr string, cfg Config) error {
	return newSchedule(conn, expr, cfg).run(ctx)
}

// schedule is a series of exports, one for each day.
type schedule struct {
	expr string // cron expression
	cfg  Config // of each export, without days
	// readZone returns the workspace's zone now.
	readZone func(context.Context) (*time.Location, error)
	// checkAccess is of the workspace, as it is now.
	checkAccess func(context.Context) error
	// isJoined reports whether everything before an instant is joined.
	isJoined func(context.Context, time.Time) (bool, error)
	// export writes one day.
	export func(context.Context, Config) error
}

func newSchedule(conn *clickhouse.Conn, expr string, cfg Config) *schedule {
	cfg.watch = outage.New(cfg.Log, "ClickHouse")
	return &schedule{
		expr: expr,
		cfg:  cfg,
		readZone: func(ctx context.Context) (*time.Location, error) {
			name, err := Zone(ctx, conn, cfg.Workspace, WholeCatalog)
			if err != nil {
				return nil, err
			}
			return time.LoadLocation(name)
		},
		checkAccess: func(ctx context.Context) error {
			began := time.Now()
			err := checkAccess(ctx, conn, cfg.Workspace)
			if errors.Is(err, ErrNotEntitled) { // nothing runs that would record it
				cfg.Metrics.recordRun(err, nil, time.Since(began))
			}
			return err
		},
		isJoined: func(ctx context.Context, end time.Time) (bool, error) { return Joined(ctx, conn, end) },
		export:   func(ctx context.Context, c Config) error { _, err := Run(ctx, conn, c); return err },
	}
}

func (s *schedule) run(ctx context.Context) error {
	if err := CheckSchedule(s.expr); err != nil {
		return err
	}
	var at time.Time // the tick that is served
	for {
		var zone *time.Location
		if err := retryRun(ctx, s.cfg, func() (err error) {
			zone, err = s.seriesZone(ctx)
			return err
		}); err != nil || ctx.Err() != nil {
			return err
		}
		if at.IsZero() {
			at = lastTick(s.expr, time.Now().In(zone))
			if err := s.exportMissing(ctx, at, true); err != nil || ctx.Err() != nil {
				return err
			}
		}
		next, err := nextTick(s.expr, at.In(zone))
		if err != nil {
			return err
		}
		s.cfg.Log.Info("waiting for the next run", "at", next.Format(time.RFC3339))
		// It does not sleep at all if the run before took longer than to the next tick.
		if !outage.Sleep(ctx, time.Until(next)) {
			return nil
		}
		at = next
		if err := s.exportMissing(ctx, at, false); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// seriesZone returns the zone of the series: that of its newest file, or the
// workspace's. Days of two zones would lose or double the hours between them.
func (s *schedule) seriesZone(ctx context.Context) (*time.Location, error) {
	now, err := s.readZone(ctx)
	if err != nil {
		return nil, err
	}
	c := s.cfg
	c.From, c.To = "2000-01-01", "2000-01-01" // any
	if err := c.Validate(); err != nil {
		return nil, err
	}
	have, err := readSeries(c)
	if err != nil || have.zone == "" || have.zone == now.String() {
		return now, err
	}
	s.cfg.Log.Warn("the workspace has another timezone than the files in this directory, whose days go on as they "+
		"are: begin a series in another directory for days of the new one",
		"workspace", now.String(), "files", have.zone)
	loc, err := time.LoadLocation(have.zone)
	if err != nil {
		return nil, fmt.Errorf("the timezone of the files in -out: %w", err)
	}
	return loc, nil
}

// nextTick returns the first time of a cron expression after a time, in that time's
// zone.
func nextTick(expr string, after time.Time) (time.Time, error) {
	next, err := gronx.NextTickAfter(expr, after, false)
	for _, t := range skippedTicks(expr, after) {
		if t.After(after) && (err != nil || t.Before(next)) {
			next, err = t, nil
		}
	}
	if err != nil {
		return next, fmt.Errorf("%w: %w", ErrSchedule, err)
	}
	return next, nil
}

// lastTick returns the newest time of a cron expression up to now, or now itself if
// there is none within reach.
func lastTick(expr string, now time.Time) time.Time {
	last, err := gronx.PrevTickBefore(expr, now, true)
	for _, t := range skippedTicks(expr, now) {
		if !t.After(now) && (err != nil || t.After(last)) {
			last, err = t, nil
		}
	}
	if err != nil {
		return now
	}
	return last
}

// skippedTicks returns times of a cron expression that do not exist, because clocks go
// forward over them at the last or the next change of a time's zone: the first of each
// change, on the clock before the change.
func skippedTicks(expr string, near time.Time) (times []time.Time) {
	last, next := near.ZoneBounds()
	for _, change := range []time.Time{last, next} {
		if change.IsZero() {
			continue
		}
		_, before := change.Add(-time.Second).Zone()
		_, after := change.Zone()
		t, err := gronx.NextTickAfter(expr, change.Add(-time.Second).In(time.FixedZone("", before)), false)
		if err == nil && t.Before(change.Add(time.Duration(after-before)*time.Second)) {
			times = append(times, t.In(near.Location()))
		}
	}
	return times
}

// retryable reports whether repeating a run can succeed without an operator.
func retryable(err error) bool {
	return clickhouse.Unreachable(err) || errors.Is(err, ErrBusy) || errors.Is(err, ErrUnknown) ||
		errors.Is(err, ErrRowsMissing) || errors.Is(err, ErrStandingPending)
}

// retryRun calls do until it succeeds or fails for good. It returns nil when ctx ends.
func retryRun(ctx context.Context, cfg Config, do func() error) error {
	const asking = "asking for what is to be exported"
	defer cfg.watch.Clear(asking)
	pauses := outage.Backoff{Min: firstRetry, Max: longestRetry}
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !retryable(err) {
			return err
		}
		delay := pauses.Next()
		if clickhouse.Unreachable(err) {
			cfg.watch.Failed(asking, delay, err)
		} else {
			cfg.watch.Clear(asking)
			cfg.Log.Warn("trying again", "in", delay.String(), "error", err)
		}
		if !outage.Sleep(ctx, delay) {
			return nil
		}
	}
}

// exportMissing exports the days that are missing at a time, in its zone. At the start of
// a process it does so only if the series has begun: a new series has missed nothing.
func (s *schedule) exportMissing(ctx context.Context, at time.Time, atStart bool) error {
	c := s.cfg
	c.From = at.Format(time.DateOnly)
	c.To = c.From
	c.Timezone = at.Location().String()
	if err := c.Validate(); err != nil {
		return err
	}
	have, err := readSeries(c)
	if err != nil {
		return err
	}
	if atStart {
		s.cfg.Metrics.recordStart(have.newest)
		if len(have.days) == 0 {
			return nil
		}
	}
	zone, err := calendar.LoadZone(c.Timezone)
	if err != nil {
		return err
	}
	for _, day := range Missing(have.days, at) {
		c.From, c.To = day, day
		d, err := time.Parse(time.DateOnly, day)
		if err != nil {
			return err
		}
		err = s.exportWhenJoined(ctx, c, zone.DayStart(d.AddDate(0, 0, 1)))
		if errors.Is(err, ErrNotEntitled) {
			s.cfg.Log.Warn("skipping the exports that are due; a series that has a file makes them up if the "+
				"workspace gets exports again", "from", day, "error", err)
			return nil
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// exportWhenJoined exports a day that ends at an instant as soon as the joined
// watermark has passed the end; a provisional day at once.
func (s *schedule) exportWhenJoined(ctx context.Context, c Config, end time.Time) error {
	c.finalOnly = !c.Provisional
	for {
		// A workspace without exports does not wait for the watermark, which may be days.
		if err := retryRun(ctx, c, func() error { return s.checkAccess(ctx) }); err != nil || ctx.Err() != nil {
			return err
		}
		passed := c.Provisional
		if !passed {
			if err := retryRun(ctx, c, func() (err error) {
				passed, err = s.isJoined(ctx, end)
				return err
			}); err != nil {
				return err
			}
		}
		if passed {
			err := retryRun(ctx, c, func() error { return s.export(ctx, c) })
			// The watermark can fall back meanwhile: a partition reports again, and is
			// behind.
			if !errors.Is(err, ErrWatermarkBehind) {
				return err
			}
		}
		c.Log.Info("waiting until the joined watermark has passed the day",
			"day", c.From, "end", end.Format(time.RFC3339))
		if !outage.Sleep(ctx, watermarkPoll) {
			return nil
		}
	}
}

// Missing returns the days to export at a time: of the 31 up to yesterday those after
// the first exported one that have no file; yesterday alone if none was exported.
func Missing(done map[string]bool, at time.Time) (days []string) {
	yesterday := time.Date(at.Year(), at.Month(), at.Day()-1, 12, 0, 0, 0, time.UTC)
	first := yesterday.Format(time.DateOnly)
	for day := range done {
		first = min(first, day)
	}
	for i := maxMissed - 1; i >= 0; i-- {
		if day := yesterday.AddDate(0, 0, -i).Format(time.DateOnly); day >= first && !done[day] {
			days = append(days, day)
		}
	}
	return days
}
