package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/schemas/calendar"
)

// withAnyDays returns a configuration that has days, so that everything else can be
// validated before the warehouse is queried.
func withAnyDays(cfg export.Config) *export.Config {
	if cfg.From == "" && cfg.To == "" && cfg.Statement == "" {
		cfg.From, cfg.To = "2000-01-01", "2000-01-01"
	}
	return &cfg
}

// readManifests reads the files of -as-of and -since. An export without days takes
// those of the first manifest.
func readManifests(cfg *export.Config, asOf, since string) (err error) {
	if cfg.AsOf, err = readManifest(cfg, asOf); err != nil {
		return err
	}
	cfg.Since, err = readManifest(cfg, since)
	return err
}

func readManifest(cfg *export.Config, file string) (*export.Manifest, error) {
	if file == "" {
		return nil, nil
	}
	m, err := export.ReadManifest(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", daemon.ErrUsage, err)
	}
	if cfg.From == "" && cfg.To == "" && cfg.Statement == "" {
		cfg.From, cfg.To = m.Filters.From, m.Filters.To
	}
	return m, nil
}

// yesterday returns the day before today in the workspace's timezone. It takes UTC for
// a workspace that is not in the catalog; export.Run checks whether that has events.
func yesterday(ctx context.Context, conn *clickhouse.Conn, workspace string) (string, error) {
	zone, err := export.Zone(ctx, conn, workspace, export.WholeCatalog)
	if errors.Is(err, export.ErrUnknown) {
		zone, err = "UTC", nil
	}
	if err != nil {
		return "", err
	}
	days, err := calendar.LoadZone(zone)
	if err != nil {
		return "", fmt.Errorf("the workspace's timezone: %w", err)
	}
	return days.DayOf(time.Now()).AddDate(0, 0, -1).Format(time.DateOnly), nil
}
