package main

import (
	"context"
	"flag"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
)

func migrateCommands() []command {
	return []command{{"migrate", "", "creates the ClickHouse database and brings tables, views and roles up to date",
		func(fs *flag.FlagSet) func(context.Context, *call) error {
			var cfg clickhouse.Config
			daemon.ClickHouseFlag(fs, &cfg)
			engine := fs.String("engine", clickhouse.MergeTree,
				"mergetree, or replicated (then migrate every replica); the same for the life of a database")
			return func(ctx context.Context, c *call) error {
				if err := checkDSN(cfg); err != nil {
					return err
				}
				if *engine != clickhouse.MergeTree && *engine != clickhouse.Replicated {
					return usagef("-engine: %q is neither %s nor %s", *engine, clickhouse.MergeTree,
						clickhouse.Replicated)
				}
				if err := setup.Migrate(ctx, cfg, *engine, c.log); err != nil {
					return err
				}
				c.say("the database is up to date")
				return nil
			}
		}}}
}
