package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/adhocore/gronx"
	"github.com/nimriz/partners/connectors/clickhouse"
)

// ErrSchedule is a schedule that cannot be read.
var ErrSchedule = errors.New("-schedule")

const (
	// watermarkEvery is how often a run looks whether its day is complete.
	watermarkEvery = 10 * time.Second
	// maxMissed is how many days are made up: an older gap is an operator's to fill.
	maxMissed = 31
	// firstRetry and longestRetry pace a run that failed.
	firstRetry, longestRetry = 10 * time.Second, 10 * time.Minute
)

// CheckSchedule reports whether a text is a cron expression of five fields: minute, hour, day of month, month, day of week.
func CheckSchedule(expr string) error {
	if !gronx.IsValid(expr) {
		return fmt.Errorf("%w: %q is not a cron expression such as \"0 2 * * *\"", ErrSchedule, expr)
	}
	return nil
}

// Schedule exports, at each time of a cron expression in the workspace's zone, all days up to yesterday that the directory lacks: yesterday, and those of runs that were missed since the last file there is.
// A run waits until the joined watermark has passed its day, unless cfg.Provisional. One runs at a time; one that fails is repeated. It returns when ctx ends.
func Schedule(ctx context.Context, conn *clickhouse.Conn, expr string, cfg Config) error {
	if err := CheckSchedule(expr); err != nil {
		return err
	}
	for {
		zone, err := zoneOf(ctx, conn, cfg)
		if err != nil {
			return err
		}
		next, err := gronx.NextTickAfter(expr, time.Now().In(zone), false)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSchedule, err)
		}
		cfg.Log.Info("waiting for the next run", "at", next.Format(time.RFC3339))
		if !sleep(ctx, time.Until(next)) {
			return nil
		}
		if err := daily(ctx, conn, cfg, next); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func zoneOf(ctx context.Context, conn *clickhouse.Conn, cfg Config) (zone *time.Location, err error) {
	err = again(ctx, cfg, func() error {
		name, err := Zone(ctx, conn, cfg.Workspace, 0)
		if err == nil {
			zone, err = time.LoadLocation(name)
		}
		return err
	})
	return zone, err
}

// again repeats what time can heal.
func again(ctx context.Context, cfg Config, do func() error) error {
	for delay := firstRetry; ; delay = min(2*delay, longestRetry) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !clickhouse.Unreachable(err) && !errors.Is(err, ErrBusy) {
			return err
		}
		cfg.Log.Warn("trying again", "in", delay.String(), "error", err)
		if !sleep(ctx, delay) {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// daily exports the days that are missing at a time.
func daily(ctx context.Context, conn *clickhouse.Conn, cfg Config, at time.Time) error {
	c := cfg
	c.From, c.To = at.Format(time.DateOnly), at.Format(time.DateOnly)
	if err := c.Validate(); err != nil {
		return err
	}
	done, err := exported(cfg.Dir, c.Filters)
	if err != nil {
		return err
	}
	for _, day := range Missing(done, at) {
		c.From, c.To = day, day
		d, _ := time.Parse(time.DateOnly, day)
		end := firstInstant(d.AddDate(0, 0, 1), at.Location())
		for !cfg.Provisional {
			passed := false
			if err := again(ctx, cfg, func() (err error) { passed, err = Joined(ctx, conn, end); return err }); err != nil {
				return err
			}
			if passed {
				break
			}
			cfg.Log.Info("waiting until the joined watermark has passed the day", "day", day, "end", end.Format(time.RFC3339))
			if !sleep(ctx, watermarkEvery) {
				return nil
			}
		}
		if err := again(ctx, cfg, func() error { _, err := Run(ctx, conn, c); return err }); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// Missing are the days to export at a time: those after the newest exported one up to yesterday, at most 31; yesterday alone if none was exported.
func Missing(done map[string]bool, at time.Time) (days []string) {
	yesterday := time.Date(at.Year(), at.Month(), at.Day()-1, 12, 0, 0, 0, time.UTC)
	newest := ""
	for day := range done {
		if day <= yesterday.Format(time.DateOnly) {
			newest = max(newest, day)
		}
	}
	for i := range maxMissed {
		day := yesterday.AddDate(0, 0, -i).Format(time.DateOnly)
		if day <= newest {
			break
		}
		days = append([]string{day}, days...)
		if newest == "" {
			break
		}
	}
	return days
}
