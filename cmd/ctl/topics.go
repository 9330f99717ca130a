package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
)

// topicsFlags are the flags of apply and check.
type topicsFlags struct {
	kafka      kafka.Config
	want       kafka.TopicsConfig // what the topics are compared with
	registry   string             // URL of a schema registry; empty: none
	schemaIDs  string             // file with its schema ids; empty: built-in ids
	clickhouse clickhouse.Config  // check only; empty: not checked
}

func defineTopicsFlags(fs *flag.FlagSet) *topicsFlags {
	t := &topicsFlags{kafka: kafka.DefaultConfig(), want: kafka.DefaultTopicsConfig()}
	t.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &t.kafka)
	daemon.GroupSuffixFlag(fs, &t.kafka)
	intVar(fs, &t.want.Replication, 16, "replication", "`replicas` of a topic that is created; all but one must "+
		"acknowledge. 1 for a laptop")
	intVar(fs, &t.want.Partitions, 32, "partitions", "`count` of the co-partitioned topics; tokens are bound to "+
		"it, so only topics grow changes it later")
	daemon.DaysFlag(fs, &t.want.ClickLife, "click-life", "how long a click can bring conversions, such as `40d` "+
		"or 36h; the same as for the processors")
	fs.StringVar(&t.registry, "schema-registry", "", "`URL` of a schema registry that is to know our schemas, "+
		"each under TOPIC-value")
	fs.StringVar(&t.schemaIDs, "schema-ids", "", "`file` with the registry's schema ids: apply writes it, check "+
		"and all daemons read it; built-in ids if empty")
	return t
}

func topicsCommands() []command {
	return []command{
		{"topics apply", "", "creates topics that are missing, sets what differs, commits the start of both " +
			"groups on a fresh install", func(fs *flag.FlagSet) func(context.Context, *call) error {
			return defineTopicsFlags(fs).applyTopics
		}},
		{"topics check", "", "says what differs, and which consumer groups have lost their offsets; changes nothing",
			func(fs *flag.FlagSet) func(context.Context, *call) error {
				t := defineTopicsFlags(fs)
				fs.StringVar(&t.clickhouse.DSN,
					"clickhouse", "", "`DSN` of the warehouse, whose deduplication windows are checked too if "+
						"it is given")
				daemon.ClickHouseCAFlag(fs, &t.clickhouse)
				return t.checkTopics
			}},
		{"topics adopt", "", "takes over topics that were restored or recreated under new ids, if their partitions " +
			"and the groups' offsets are right; changes nothing without -yes", defineAdoptFlags},
		{"topics grow", "", "adds partitions to a live installation: tokens minted before -at keep their partition; " +
			"can be repeated wherever it was broken off", defineGrowFlags},
		{"topics bind", "", "the last step of an upgrade: from now on records in another partition than their " +
			"token's go to the dead letters; all processors and sinks must look at places, so it needs -yes",
			defineBindFlags},
		{"topics acls", "", "prints, or gives, the least rights on Kafka of each program", defineACLFlags},
	}
}

func (t *topicsFlags) validateFlags() error {
	if err := t.want.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

func (t *topicsFlags) applyTopics(ctx context.Context, c *call) error {
	if err := t.validateFlags(); err != nil {
		return err
	}
	return withBrokers(ctx, t.kafka, func(ctx context.Context) error {
		var plan []subjectSchema
		var reg *registry
		if t.registry != "" {
			var err error
			if reg, err = newRegistry(t.registry); err != nil {
				return err
			}
			if plan, err = reg.planRegistration(ctx, t.kafka); err != nil { // before anything changes
				return err
			}
		}
		lines, err := setup.Topics(ctx, t.kafka, t.want, c.log)
		if err == nil && reg != nil {
			var published []string
			published, err = t.publishSchemas(ctx, reg, plan)
			lines = append(lines, published...)
		}
		for _, line := range lines { // also those before an error
			c.say("%s", line)
		}
		if err == nil && len(lines) == 0 {
			c.say("nothing to change")
		}
		return err
	})
}

func (t *topicsFlags) publishSchemas(
	ctx context.Context, reg *registry, plan []subjectSchema) (lines []string, err error) {
	cl, err := kafka.NewClient(t.kafka, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	used, err := haveHeldRecords(ctx, cl, t.kafka)
	if err != nil {
		return nil, err
	}
	return reg.registerMissing(ctx, plan, t.schemaIDs, used)
}

func defineAdoptFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	cfg := kafka.DefaultConfig()
	cfg.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &cfg)
	daemon.GroupSuffixFlag(fs, &cfg)
	yes := fs.Bool("yes", false, "adopt the topics; without it they are only listed")
	return func(ctx context.Context, c *call) error {
		return withBrokers(ctx, cfg, func(ctx context.Context) error {
			lines, err := setup.AdoptTopics(ctx, cfg, c.log, *yes)
			for _, line := range lines {
				c.say("%s", line)
			}
			switch {
			case err != nil:
				return err
			case len(lines) == 0:
				c.say("nothing to adopt: the topics are those that the installation was made with")
			case !*yes:
				return errors.New("nothing is changed yet: give -yes to adopt these topics")
			}
			return nil
		})
	}
}

func defineBindFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	cfg := kafka.DefaultConfig()
	cfg.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &cfg)
	yes := fs.Bool("yes", false, "all processors and sinks are of this release or a later one")
	return func(ctx context.Context, c *call) error {
		if !*yes {
			return errors.New("nothing is changed: give -yes once all processors and sinks are of this release or " +
				"a later one; what an older one judges would be missing in the ledger")
		}
		return withBrokers(ctx, cfg, func(ctx context.Context) error {
			since, written, err := setup.BindPlaces(ctx, cfg, c.log)
			if err != nil {
				return err
			}
			when := since.Format(time.RFC3339)
			if !written {
				c.say("nothing to change: records can be misplaced since %s", when)
				return nil
			}
			c.say("records can be misplaced since %s", when)
			return nil
		})
	}
}

func (t *topicsFlags) checkTopics(ctx context.Context, c *call) error {
	if err := t.validateFlags(); err != nil {
		return err
	}
	return withBrokers(ctx, t.kafka, func(ctx context.Context) error {
		err := setup.CheckTopics(ctx, t.kafka, t.want, c.log)
		if err == nil { // the topics are there
			err = checkCarriedIDs(ctx, c, t.kafka, t.schemaIDs)
		}
		if t.registry != "" {
			err = errors.Join(err, checkRegistry(ctx, t.registry, t.kafka, t.schemaIDs))
		}
		if t.clickhouse.DSN != "" {
			err = errors.Join(err, t.checkWarehouse(ctx))
		}
		if err == nil {
			c.say("topics are as they should be")
		}
		return err
	})
}

func (t *topicsFlags) checkWarehouse(ctx context.Context) error {
	if err := checkDSN(t.clickhouse); err != nil {
		return err
	}
	wh, err := clickhouse.Open(ctx, t.clickhouse, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer wh.Close()
	return sink.CheckWindows(ctx, wh)
}

// intVar declares a flag for an integer of so many bits.
func intVar[T int16 | int32](fs *flag.FlagSet, p *T, bits int, name, usage string) {
	fs.Func(name, fmt.Sprintf("%s (default %d)", usage, *p), func(s string) error {
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			return errors.New("want a whole number")
		}
		*p = T(n)
		return nil
	})
}
