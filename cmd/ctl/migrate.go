package main

import (
	"context"
	"flag"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
)

func migrateCommands() []command {
	return []command{{"migrate", "", "creates the ClickHouse database and brings tables, views and roles up to date",
		func(fs *flag.FlagSet) func(context.Context, *call) error {
			m := setup.Migration{Kafka: kafka.DefaultConfig()}
			m.Kafka.ClientID = "partners-ctl"
			daemon.KafkaFlags(fs, &m.Kafka)
			daemon.GroupSuffixFlag(fs, &m.Kafka)
			fs.Lookup("brokers").Usage = "seed brokers, `host:port,…` (required to carry over the sums of an earlier " +
				"release: the sinks' group must be empty)"
			daemon.ClickHouseFlag(fs, &m.ClickHouse)
			engine := fs.String("engine", clickhouse.MergeTree,
				"mergetree, or replicated (then migrate every replica); the same for the life of a database")
			return func(ctx context.Context, c *call) error {
				if err := checkDSN(m.ClickHouse); err != nil {
					return err
				}
				if *engine != clickhouse.MergeTree && *engine != clickhouse.Replicated {
					return usagef("-engine: %q is neither %s nor %s", *engine, clickhouse.MergeTree,
						clickhouse.Replicated)
				}
				m.Engine = *engine
				if err := setup.Migrate(ctx, m, c.log); err != nil {
					return err
				}
				c.say("the database is up to date")
				return nil
			}
		}}}
}
