package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
)

// repairFlags are the flags of warehouse repair.
type repairFlags struct {
	kafka      kafka.Config
	clickhouse clickhouse.Config
	schemaIDs  string // file with the registry's schema ids; empty: built-in ids
	takeGroup  bool   // also if the sinks' group fills another warehouse
}

// errNotWhole says that the repair has ended and the ledger is not whole.
var errNotWhole = errors.New("the ledger is not whole")

func repairCommands() []command {
	const summary = "compares all tables with the topics from the log's start: inserts what is missing, leaves one " +
		"of what is there twice, corrects the sums; also fills an empty database; stop the sinks first"
	return []command{{"warehouse repair", "", summary, defineRepairFlags}}
}

func defineRepairFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	r := &repairFlags{kafka: kafka.DefaultConfig()}
	r.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &r.kafka)
	daemon.GroupSuffixFlag(fs, &r.kafka)
	daemon.ClickHouseFlag(fs, &r.clickhouse)
	daemon.SchemaIDsFlag(fs, &r.schemaIDs)
	fs.BoolVar(&r.takeGroup, "take-group", false, "the sinks' group fills this warehouse from now on, whichever it "+
		"filled before; without it a repair refuses a group that fills another one")
	return r.repair
}

func (r *repairFlags) repair(ctx context.Context, c *call) error {
	if err := checkDSN(r.clickhouse); err != nil {
		return err
	}
	codec, err := daemon.Codec(r.schemaIDs)
	if err != nil {
		return usageError{err}
	}
	if err := awaitBrokers(ctx, r.kafka); err != nil {
		return err
	}
	wh, err := clickhouse.Open(ctx, r.clickhouse, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer wh.Close()
	report := func(found sink.RepairedPartition) { c.sayRepaired(found) }
	result, err := sink.Repair(ctx, sink.DefaultConfig(), r.kafka, codec, wh, c.log, r.takeGroup, report)
	if err != nil {
		return r.kafka.Explain(err)
	}
	return c.sayResult(result)
}

// sayRepaired prints what was found in a partition.
func (c *call) sayRepaired(r sink.RepairedPartition) {
	var found []string
	count := func(n uint64, text string) {
		if n > 0 {
			found = append(found, fmt.Sprintf("%d %s", n, text))
		}
	}
	count(uint64(r.Inserted), "rows were missing and are inserted")
	count(uint64(r.Doubled), "rows were there more than once and are there once")
	count(uint64(r.Recorded-r.Lost), "offsets are recorded as finished")
	count(uint64(r.Lost), "offsets are gone from Kafka and recorded as lost")
	count(r.Dropped, "rows were dropped with their months: their sums stay")
	count(r.Gone, "rows are gone from the table and from Kafka: their sums stay")
	count(uint64(r.Unexplained), "rows are at offsets without a record and stay")
	count(r.DoubledBefore, "rows are too many, of records that Kafka no longer has, and stay")
	c.say("%s %d: %d records compared; %s", r.Topic, r.Partition, r.Records, strings.Join(found, "; "))
}

// sayResult prints what became of the sums, and the line of conservation. It returns
// errNotWhole if something is left to find out.
func (c *call) sayResult(r sink.RepairResult) error {
	if r.Standing > 0 {
		c.say("%d events of rules version 1 have their standing changes now", r.Standing)
	}
	c.say("rollup: %d lines are corrected", r.Sums.Lines)
	if r.Sums.Kept > 0 {
		days := r.Sums.KeptDays
		c.say("rollup: %d lines of %d days from %s to %s count more or less than their rows and stay: Kafka no longer "+
			"has all of these rows", r.Sums.Kept, len(days), days[0], days[len(days)-1])
	}
	difference := r.Conservation + r.WorkspaceConservation
	c.say("conservation: difference %d (by partition %d, by event %d)", difference, r.Conservation,
		r.WorkspaceConservation)
	switch {
	case difference > 0:
		return fmt.Errorf("%w: conservation is not 0: see ConservationBroken in the runbook", errNotWhole)
	case r.Sums.Excess > 0:
		return fmt.Errorf("%w: the lines of the rollup that stay count %d clicks or events more than rows are gone: "+
			"compare them with a backup", errNotWhole, r.Sums.Excess)
	}
	return nil
}
