package main

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
)

// runSchedule exports on a schedule, as a daemon: export.Schedule in
// connectors/export decides which days are due. hasManifests reports whether -as-of or
// -since is set.
func runSchedule(ctx context.Context, d *daemon.Daemon, wh clickhouse.Config, schedule string, cfg export.Config,
	hasManifests bool) error {
	if cfg.From+cfg.To+cfg.Statement != "" || hasManifests || cfg.Dir == "-" {
		return fmt.Errorf("%w: -schedule exports whole days into the directory -out: it cannot be combined with "+
			"-from, -to, -statement, -as-of or -since", daemon.ErrUsage)
	}
	if err := export.CheckSchedule(schedule); err != nil {
		return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
	}
	return d.Serve(ctx, &components.Export{
		Deps:       components.Deps{Log: d.Log, Registry: d.Registry},
		ClickHouse: wh,
		Schedule:   schedule,
		Config:     cfg,
	})
}
