// Command export writes a workspace's events into a CSV with a manifest, once or on a
// schedule.
//
// Exit status: 0 written, 1 failed, 2 wrong command line, 3 the warehouse does not
// answer (try again), 4 another export is running in the directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // the workspace's timezone, where the system knows none

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
)

func main() {
	d := daemon.New("export", "writes a workspace's events into a CSV with a manifest. Exit status: 0 written, 1 "+
		"failed, 2 wrong command line, 3 the warehouse does not answer, 4 another export is running")
	cfg, wh := export.Config{Stdout: os.Stdout}, clickhouse.Config{}
	f := d.Flags
	daemon.ClickHouseFlag(f, &wh)
	f.StringVar(&cfg.Workspace, "workspace", "", "`id` (required)")
	f.StringVar(&cfg.From, "from", "", "first `day`, of occurred_at in the workspace's timezone; if both are "+
		"empty, those of -as-of or -since, or yesterday")
	f.StringVar(&cfg.To, "to", "", "last `day`, inclusive")
	f.StringVar(&cfg.Partner, "partner", "", "only this partner `id`")
	f.StringVar(&cfg.Program, "program", "", "only this program `id`")
	f.StringVar(&cfg.Link, "link", "", "only this link `id`")
	types := f.String("type", "", "only these event `types`, with commas: "+strings.Join(export.Types, ", "))
	verdicts := f.String("verdict", strings.Join(export.DefaultVerdicts(), ","),
		"these `verdicts`, with commas, or all")
	reviews := f.String("review", "", "only these `states`: clear, review")
	f.StringVar(&cfg.Dir, "out", "", "`directory` for NAME.csv and NAME.manifest.json, or - for the CSV on "+
		"standard output (required)")
	asOf := f.String("as-of", "", "`manifest` of an earlier run of the same command: writes the same bytes")
	since := f.String("since", "", "`manifest`: only rows that arrived after it")
	schedule := f.String("schedule", "", "cron `expression` in the workspace's timezone: keeps running, exports "+
		"each day once the joined watermark has passed it, makes up missed days. What is received or decided "+
		"after a day's file is in none of them: -since with its manifest writes it")
	f.BoolVar(&cfg.Provisional, "provisional", false, "do not wait for the joined watermark; name and manifest say so")
	f.BoolVar(&cfg.Raw, "raw", false, "leave texts as they came: a spreadsheet may run those that begin with = + - @")
	d.Main(func(ctx context.Context) (err error) {
		cfg.Log, cfg.Metrics = d.Log, export.NewMetrics(d.Registry)
		cfg.Type, cfg.Verdict, cfg.Review = split(*types), split(*verdicts), split(*reviews)
		if err := daemon.Usage(wh.Validate(), anyDays(cfg).Validate()); err != nil {
			return err
		}
		if *schedule != "" {
			return scheduled(ctx, d, wh, *schedule, cfg, *asOf+*since != "")
		}
		for _, m := range []struct {
			file string
			into **export.Manifest
		}{{*asOf, &cfg.AsOf}, {*since, &cfg.Since}} {
			if m.file == "" {
				continue
			}
			if *m.into, err = export.ReadManifest(m.file); err != nil {
				return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
			}
			if cfg.From == "" && cfg.To == "" {
				cfg.From, cfg.To = (*m.into).Filters.From, (*m.into).Filters.To
			}
		}
		conn, err := clickhouse.Open(ctx, wh, d.Log)
		if err != nil {
			return status(err)
		}
		defer conn.Close()
		if cfg.From == "" && cfg.To == "" {
			zone, err := export.Zone(ctx, conn, cfg.Workspace, export.WholeCatalog)
			if errors.Is(err, export.ErrUnknown) {
				zone, err = "UTC", nil // whether there is such a workspace all the same, Run finds out
			}
			if err != nil {
				return status(err)
			}
			loc, err := time.LoadLocation(zone)
			if err != nil {
				return fmt.Errorf("the workspace's timezone: %w", err)
			}
			cfg.From = time.Now().In(loc).AddDate(0, 0, -1).Format(time.DateOnly)
			cfg.To = cfg.From
		}
		if err := cfg.Validate(); err != nil {
			return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
		}
		cfg.Progress = progress(os.Stderr)
		_, err = export.Run(ctx, conn, cfg)
		return status(err)
	})
}
