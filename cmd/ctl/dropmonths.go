package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
)

func dropMonthsCommands() []command {
	const about = "drops the oldest months of clicks, events, verdicts, refusals and progress in ClickHouse; sums, " +
		"statements and conservation stay what they are; changes nothing without -yes"
	return []command{{"warehouse drop-months", "", about, defineDropMonthsFlags}}
}

func defineDropMonthsFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	var cfg clickhouse.Config
	daemon.ClickHouseFlag(fs, &cfg)
	before := fs.String("before", "", "first `month` that stays, such as 2026-01: all before it are dropped, by the "+
		"UTC time at which their records reached Kafka (required)")
	yes := fs.Bool("yes", false, "drop them; without it they are only listed")
	return func(ctx context.Context, c *call) error {
		if err := checkDSN(cfg); err != nil {
			return err
		}
		month, err := time.Parse("2006-01", *before)
		if err != nil {
			return usagef("-before: %q is not a month such as 2026-01", *before)
		}
		wh, err := clickhouse.Open(ctx, cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer wh.Close()
		d, err := sink.NewMonthDropper(wh, month, c.log)
		if err != nil {
			return fmt.Errorf("-before: %w", err)
		}
		found, err := d.List(ctx)
		if err != nil {
			return err
		}
		for _, f := range found {
			c.say("%s-%s %s: %d rows, %d MB", f.Month[:4], f.Month[4:], f.Table, f.Rows, f.Bytes>>20)
		}
		if !*yes && len(found) > 0 {
			return errors.New("nothing is dropped yet: give -yes to drop these rows; Kafka may still have some, " +
				"nothing else has")
		}
		if err := d.Drop(ctx); err != nil {
			return err
		}
		if len(found) == 0 {
			c.say("nothing to drop")
			return nil
		}
		c.say("rows before %s are dropped; what is left of them are sums", *before)
		return nil
	}
}
