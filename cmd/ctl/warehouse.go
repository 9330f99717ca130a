package main

import (
	"context"
	"flag"
	"log/slog"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/report"
)

// warehouse holds the flags of a command that queries the warehouse for one workspace.
type warehouse struct {
	clickhouse clickhouse.Config
	workspace  string
}

func defineWarehouse(fs *flag.FlagSet) *warehouse {
	var w warehouse
	daemon.ClickHouseFlag(fs, &w.clickhouse)
	fs.StringVar(&w.workspace, "workspace", "", "`id` (required)")
	return &w
}

// checkDSN validates -clickhouse, which is required.
func checkDSN(cfg clickhouse.Config) error {
	if cfg.DSN == "" {
		return usagef("-clickhouse is required")
	}
	if err := cfg.Validate(); err != nil {
		return usagef("%w", err)
	}
	return nil
}

// withReader checks the flags, connects, and calls do.
func (w *warehouse) withReader(ctx context.Context, do func(*report.Reader) error) error {
	if err := checkDSN(w.clickhouse); err != nil {
		return err
	}
	if w.workspace == "" {
		return usagef("-workspace is required")
	}
	conn, err := clickhouse.Open(ctx, w.clickhouse, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(report.New(conn))
}
