package main

import (
	"context"
	"flag"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
)

func migrateCommands() []command {
	return []command{{"migrate", "", "makes the ClickHouse database and brings tables, views and roles up to date", func(fs *flag.FlagSet) func(context.Context, *call) error {
		var cfg clickhouse.Config
		fs.StringVar(&cfg.DSN, "clickhouse", "", "`DSN`, http://user@host:8123/partners or clickhouse://…; with a password better as environment variable (required)")
		engine := fs.String("engine", clickhouse.MergeTree, "mergetree, or replicated (then migrate every replica); the same for the life of a database")
		return func(ctx context.Context, c *call) error {
			if cfg.DSN == "" {
				return usagef("-clickhouse is required")
			}
			if err := cfg.Validate(); err != nil {
				return usagef("-%w", err) // it begins with the name of the flag
			}
			if *engine != clickhouse.MergeTree && *engine != clickhouse.Replicated {
				return usagef("-engine: %q is neither %s nor %s", *engine, clickhouse.MergeTree, clickhouse.Replicated)
			}
			if err := setup.Migrate(ctx, cfg, *engine, c.log); err != nil {
				return err
			}
			c.say("the database is up to date")
			return nil
		}
	}}}
}
