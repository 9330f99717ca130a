// Command export writes a workspace's events into a CSV with a manifest, once or on a
// schedule.
//
// Exit status: 0 written, 1 failed, 2 wrong command line, 3 the warehouse does not
// answer (try again), 4 another export is running in the same directory, 5 the
// workspace has no exports, by its plan or by access.exports, 6 the days are not complete
// after the time of -wait.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/schemas/event"
)

func main() {
	d := daemon.New("export", "writes a workspace's events into a CSV with a manifest. Exit status: 0 written, 1 "+
		"failed, 2 wrong command line, 3 the warehouse does not answer, 4 another export is running, 5 the workspace "+
		"has no exports, 6 its days are not complete after -wait")
	cfg := export.Config{Stdout: os.Stdout}
	wh := clickhouse.Config{}
	f := d.Flags
	daemon.ClickHouseFlag(f, &wh)
	f.StringVar(&cfg.Workspace, "workspace", "", "`id` (required)")
	f.StringVar(&cfg.From, "from", "", "first `day`, of occurred_at in the workspace's timezone; if both are "+
		"empty, those of -as-of or -since, or yesterday")
	f.StringVar(&cfg.To, "to", "", "last `day`, inclusive")
	f.StringVar(&cfg.Statement, "statement", "", "`month` such as 2026-11: its statement of account, by received_at, "+
		"instead of events; it is provisional until no event of the month can be judged any more")
	f.StringVar(&cfg.Partner, "partner", "", "only this partner `id`")
	f.StringVar(&cfg.Program, "program", "", "only this program `id`")
	f.StringVar(&cfg.Link, "link", "", "only this link `id`")
	types := f.String("type", "", "only these event `types`, with commas: "+
		strings.Join(event.Texts(event.Types()), ", "))
	verdicts := f.String("verdict", strings.Join(export.DefaultVerdicts(), ","),
		"these `verdicts`, with commas, or all")
	reviews := f.String("review", "", "only these `states`: "+strings.Join(event.Texts(event.Reviews()), ", "))
	f.StringVar(&cfg.Dir, "out", "", "`directory` for NAME.csv and NAME.manifest.json, or - for the CSV on "+
		"standard output (required)")
	f.StringVar(&cfg.Format, "format", export.FormatCSV, "`format` of the file: csv, or parquet, with typed columns: "+
		"NAME.parquet and NAME.parquet.manifest.json")
	asOf := f.String("as-of", "", "`manifest` of an earlier run of the same command: writes the same bytes")
	since := f.String("since", "", "`manifest`: only rows that arrived after it")
	schedule := f.String("schedule", "", "cron `expression` in the workspace's timezone: keeps running, exports "+
		"each day once the joined watermark has passed it, makes up missed days. What is received or decided "+
		"after a day's file was written is in no file: -since with the day's manifest writes it")
	f.BoolVar(&cfg.Provisional, "provisional", false, "do not wait for the joined watermark; name and manifest say so")
	var wait time.Duration
	daemon.DaysFlag(f, &wait, "wait", "how long to wait until the joined watermark has passed the last day, such as "+
		"`2h`; without it, and with -provisional, an export of days that are not complete is written at once and "+
		"called provisional")
	f.BoolVar(&cfg.Raw, "raw", false, "do not escape texts: for programs, which join by ids; a spreadsheet may run "+
		"those that begin with = + - @. Name and manifest say so")
	f.BoolVar(&cfg.BOM, "bom", false, "begin the CSV with a byte order mark: Excel needs it to read names such as "+
		"Müller. Name and manifest say so")
	d.Main(func(ctx context.Context) (err error) {
		cfg.Log = d.Log
		cfg.Metrics = export.NewMetrics(d.Registry)
		cfg.Type = splitList(*types)
		cfg.Verdict = splitList(*verdicts)
		cfg.Review = splitList(*reviews)
		if err := daemon.Usage(wh.Validate(), withAnyDays(cfg).Validate(), checkWait(wait, cfg.Provisional,
			*schedule)); err != nil {
			return err
		}
		if *schedule != "" {
			return runSchedule(ctx, d, wh, *schedule, cfg, *asOf+*since != "")
		}
		if err := readManifests(&cfg, *asOf, *since); err != nil {
			return err
		}
		conn, err := clickhouse.Open(ctx, wh, d.Log)
		if err != nil {
			return exitStatus(err)
		}
		defer conn.Close()
		if cfg.From == "" && cfg.To == "" && cfg.Statement == "" {
			if cfg.From, err = yesterday(ctx, conn, cfg.Workspace); err != nil {
				return exitStatus(err)
			}
			cfg.To = cfg.From
		}
		if err := cfg.Validate(); err != nil {
			return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
		}
		cfg.Progress = showProgress(os.Stderr)
		if wait > 0 {
			_, err = export.RunFinal(ctx, conn, cfg, wait)
		} else {
			_, err = export.Run(ctx, conn, cfg)
		}
		return exitStatus(err)
	})
}
