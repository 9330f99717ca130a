package main

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/parts"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
)

// anyDays gives a command line days where it has none yet, so that everything else can
// be checked before anybody is asked.
func anyDays(cfg export.Config) *export.Config {
	if cfg.From == "" && cfg.To == "" {
		cfg.From, cfg.To = "2000-01-01", "2000-01-01"
	}
	return &cfg
}

// scheduled keeps running, as a daemon.
func scheduled(ctx context.Context, d *daemon.Daemon, wh clickhouse.Config, schedule string, cfg export.Config,
	manifests bool) error {
	if cfg.From+cfg.To != "" || manifests || cfg.Dir == "-" {
		return fmt.Errorf("%w: -schedule exports whole days into the directory -out: it goes with neither -from, "+
			"-to, -as-of nor -since", daemon.ErrUsage)
	}
	if err := export.CheckSchedule(schedule); err != nil {
		return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
	}
	return d.Serve(ctx, &parts.Export{
		Deps:       parts.Deps{Log: d.Log, Registry: d.Registry},
		ClickHouse: wh,
		Schedule:   schedule,
		Config:     cfg,
	})
}
