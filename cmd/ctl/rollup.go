package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
)

// rollupFlags are the flags of the one repair that the sink leaves to an operator.
type rollupFlags struct {
	kafka       kafka.Config
	clickhouse  clickhouse.Config
	schemaIDs   string // file with the registry's schema ids; empty: built-in ids
	from        string // first day, 2006-01-02; empty: from the beginning
	to          string // last day; empty: to the end
	dropMissing bool   // drop the sums of days whose rows are gone
}

func rollupCommands() []command {
	const summary = "inserts rows that a sink could not safely insert again, rebuilds the rollup from the base " +
		"tables and fills the tables that find events by their ids; stop the sinks first"
	return []command{{"rollup rebuild", "", summary, defineRollupFlags}}
}

func defineRollupFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	r := &rollupFlags{kafka: kafka.DefaultConfig()}
	r.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &r.kafka)
	daemon.GroupSuffixFlag(fs, &r.kafka)
	daemon.ClickHouseFlag(fs, &r.clickhouse)
	daemon.SchemaIDsFlag(fs, &r.schemaIDs)
	fs.StringVar(&r.from, "from", "",
		"first `day` of the rollup to compute, in UTC; all days before too if empty")
	fs.StringVar(&r.to, "to", "",
		"last `day` of the rollup to compute, in UTC; all days after too if empty")
	fs.BoolVar(&r.dropMissing, "drop-missing", false,
		"drop the sums of days that have no rows in the base tables; kept and refused otherwise: the rows may "+
			"have been dropped as too old")
	return r.rebuildRollup
}

func (r *rollupFlags) rebuildRollup(ctx context.Context, c *call) (err error) {
	work, err := r.parseDays()
	if err != nil {
		return err
	}
	codec, err := daemon.Codec(r.schemaIDs)
	if err != nil {
		return usageError{err}
	}
	quiet := slog.New(slog.DiscardHandler)
	idle := func(ctx context.Context) error { return sink.CheckIdle(ctx, r.kafka, quiet) }
	if err := withBrokers(ctx, r.kafka, idle); err != nil {
		return err
	}
	wh, err := clickhouse.Open(ctx, r.clickhouse, quiet)
	if err != nil {
		return err
	}
	defer wh.Close()
	old, err := rollup.Pending(ctx, wh)
	if err != nil {
		return err
	}
	if old {
		return errors.New("the rollup is that of an earlier release: run `ctl migrate`")
	}
	repaired, err := r.completeRows(ctx, c, codec, wh)
	if err != nil {
		return err
	}
	if repaired && (r.from != "" || r.to != "") {
		c.say("rows of any day may have been among them: all days are computed, not only those of -from and -to")
		work.From, work.To = time.Time{}, time.Time{}
	}
	// A month that is dropped meanwhile would lose its sums with its rows.
	ctx, release, err := sink.HoldTables(ctx, wh)
	if err != nil {
		return fmt.Errorf("rebuilding the rollup: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := r.keepDropped(ctx, c, wh, &work); err != nil {
		return err
	}
	work.Progress = func(step string) { c.log.Info(step) }
	found, err := wh.Rebuild(ctx, work)
	if errors.Is(err, clickhouse.ErrMissing) {
		err = fmt.Errorf("%w; nothing was replaced: give the days that are to be computed with -from and -to, or "+
			"drop these sums with -drop-missing", err)
		if repaired {
			err = fmt.Errorf("%w; what is said above is complete now, so choose days that contain all of it", err)
		}
	}
	if err != nil {
		return err
	}
	if err := sink.FillLookups(ctx, wh, work.Progress); err != nil {
		return err
	}
	months := "no months"
	if len(found.Months) > 0 {
		months = "months " + strings.Join(found.Months, ", ")
	}
	c.say("rollup: %s; %d lines were wrong or too many, %d are new or corrected", months, found.Wrong, found.Missing)
	if err := idle(ctx); err != nil {
		return fmt.Errorf("%w; it joined while the rollup was rebuilt, so rows that it inserted may be missing there: "+
			"stop it and run this command again", err)
	}
	return nil
}

// keepDropped leaves out the days of which rows were dropped with their months: computed
// anew, their sums would be those of what is left.
func (r *rollupFlags) keepDropped(ctx context.Context, c *call, wh *clickhouse.Conn, work *clickhouse.Rebuild) error {
	from, err := sink.SumsFrom(ctx, wh)
	if err != nil || from.IsZero() || !work.From.Before(from) {
		return err
	}
	day := from.Format(time.DateOnly)
	switch {
	case r.from != "" && !work.From.IsZero():
		return usagef("-from: %s is before %s: rows were dropped with their months, so earlier sums cannot be computed",
			r.from, day)
	case !work.To.IsZero() && !from.Before(work.To):
		return usagef("-to: %s is before %s: rows were dropped with their months, so earlier sums cannot be computed",
			r.to, day)
	}
	c.say("sums of before %s stay as they are: rows were dropped with their months", day)
	work.From = from
	return nil
}

// completeRows brings the base tables into the state that the rollup is computed from,
// and reports whether that changed a row.
func (r *rollupFlags) completeRows(ctx context.Context, c *call, codec *event.Codec,
	wh *clickhouse.Conn) (bool, error) {
	quiet := slog.New(slog.DiscardHandler)
	ranges := 0
	if err := sink.Complete(ctx, sink.DefaultConfig(), r.kafka, codec, wh, quiet, func(d sink.Completed) {
		ranges++
		if d.Lost > 0 {
			c.say("%s %d: [%d, %d) is gone from Kafka: recorded as lost; %d of its rows are in the table",
				d.Topic, d.Partition, d.Start, d.End, d.Had)
			return
		}
		c.say("%s %d: [%d, %d) is complete: %d rows were there, %d inserted",
			d.Topic, d.Partition, d.Start, d.End, d.Had, d.Inserted)
	}); err != nil {
		return false, err
	}
	judged, err := rollup.CompleteStanding(ctx, wh, c.log)
	if err != nil {
		return false, err
	}
	if judged > 0 {
		c.say("%d events of rules version 1 have their standing changes now", judged)
	}
	return ranges+int(judged) > 0, nil
}

// parseDays turns the flags into the days to rebuild.
func (r *rollupFlags) parseDays() (work clickhouse.Rebuild, err error) {
	work = rollup.Rebuild()
	work.DropMissing = r.dropMissing
	if err := checkDSN(r.clickhouse); err != nil {
		return work, err
	}
	day := func(flag, text string, at *time.Time) error {
		if text == "" {
			return nil
		}
		if *at, err = time.Parse(time.DateOnly, text); err != nil {
			return usagef("-%s: %q is not a day such as 2026-03-14", flag, text)
		}
		return nil
	}
	if err := day("from", r.from, &work.From); err != nil {
		return work, err
	}
	if err := day("to", r.to, &work.To); err != nil {
		return work, err
	}
	if r.to != "" {
		work.To = work.To.AddDate(0, 0, 1)
	}
	if r.from != "" && r.to != "" && !work.From.Before(work.To) {
		return work, usagef("-from: %s is after -to, %s", r.from, r.to)
	}
	return work, nil
}
