package clickhouse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// ErrRowCount says that a copy of a month has not as many rows as the month.
var ErrRowCount = errors.New("the copy has another number of rows")

// Shadow is a table beside another one, in which the new rows of its months are made.
// A month is then replaced at once: a reader sees the old rows or the new ones. The
// shadow is on this server alone, also where the table is replicated.
type Shadow struct {
	// Name is the shadow's.
	Name string

	conn       *Conn
	table      string
	timeColumn string
}

// NewShadow creates an empty shadow of a table that is partitioned by
// toYYYYMM(timeColumn). engine is the table's without "Replicated", such as
// AggregatingMergeTree. No two shadows have one name, so that runs at the same time do
// not empty each other's; one that a killed run left behind can be dropped by hand.
//
// The connection must be to one server: another one would not know the shadow.
func (c *Conn) NewShadow(ctx context.Context, table, timeColumn, engine string) (*Shadow, error) {
	if n := len(c.opts.Addr); n > 1 {
		return nil, fmt.Errorf("creating a shadow of %s: -clickhouse: %d servers are named, needed is one", table, n)
	}
	name := table + "_rebuilt_" + strings.ToLower(rand.Text()[:8])
	s := &Shadow{Name: name, conn: c, table: table, timeColumn: timeColumn}
	if err := s.create(ctx, engine); err != nil {
		return nil, fmt.Errorf("creating a shadow of %s: %w", table, wrapError(err))
	}
	return s, nil
}

func (s *Shadow) create(ctx context.Context, engine string) error {
	var shape []struct {
		Engine    string `ch:"engine"`
		Partition string `ch:"partition_key"`
		Sorting   string `ch:"sorting_key"`
	}
	err := s.conn.Select(ctx, &shape,
		`SELECT engine, partition_key, sorting_key
		FROM system.tables
		WHERE database = {database:String} AND name = {table:String}`,
		Named("database", s.conn.Database()), Named("table", s.table))
	if err != nil {
		return err
	}
	if len(shape) != 1 {
		return fmt.Errorf("database %s has no such table: run ctl migrate", s.conn.Database())
	}
	got := shape[0]
	want := "toYYYYMM(" + s.timeColumn + ")"
	plain := strings.TrimPrefix(strings.TrimPrefix(got.Engine, "Replicated"), "Shared")
	if plain != engine || got.Partition != want {
		return fmt.Errorf("its engine is %s, partitioned by %q; needed is %s partitioned by %s",
			got.Engine, got.Partition, engine, want)
	}
	return s.conn.Exec(ctx, "CREATE TABLE "+s.Name+" AS "+s.table+
		" ENGINE = "+engine+" PARTITION BY "+got.Partition+" ORDER BY ("+got.Sorting+")")
}

// FillFromViews adds what the materialized views that feed the table make of the rows
// that they read, as far as it meets a condition on the table's columns.
func (s *Shadow) FillFromViews(ctx context.Context, condition string, args ...any) error {
	return s.conn.fillFromViews(ctx, s.Name, s.table, "", condition, args)
}

// ReplaceMonth replaces a month (YYYYMM) of a table of sums with the shadow's. A month
// of which the shadow has no rows is dropped. Rows that are nowhere else are replaced
// by ReplaceCopiedMonth.
func (s *Shadow) ReplaceMonth(ctx context.Context, month string) error {
	var parts []struct {
		N uint64 `ch:"n"`
	}
	err := s.conn.Select(ctx, &parts,
		`SELECT count() AS n
		FROM system.parts
		WHERE active AND database = {database:String} AND table = {table:String} AND partition_id = {month:String}`,
		Named("database", s.conn.Database()), Named("table", s.Name), Named("month", month))
	if err != nil {
		return fmt.Errorf("month %s: %w", month, err)
	}
	change := "DROP PARTITION ID {month:String}"
	if parts[0].N > 0 {
		change = "REPLACE PARTITION ID {month:String} FROM " + s.Name
	}
	if err := s.conn.Exec(ctx, "ALTER TABLE "+s.table+" "+change, Named("month", month)); err != nil {
		return fmt.Errorf("month %s: %w", month, err)
	}
	return nil
}

// ReplaceCopiedMonth replaces a month (YYYYMM) of the table with the shadow's copy of
// it. It never drops a month: unless the copy has as many rows, the error is
// ErrRowCount.
func (s *Shadow) ReplaceCopiedMonth(ctx context.Context, month string) error {
	var found []struct {
		Rows   uint64 `ch:"rows"`
		Copied uint64 `ch:"copied"`
	}
	ofMonth := " WHERE toYYYYMM(" + s.timeColumn + ") = {month:UInt32}"
	err := s.conn.Select(ctx, &found,
		"SELECT (SELECT count() FROM "+s.table+ofMonth+") AS rows, (SELECT count() FROM "+s.Name+ofMonth+") AS copied",
		Named("month", month))
	if err != nil {
		return fmt.Errorf("month %s: %w", month, err)
	}
	if n := found[0]; n.Copied == 0 || n.Copied != n.Rows {
		return fmt.Errorf("month %s: %w: %s has %d rows, %s has %d; nothing was replaced", month, ErrRowCount, s.table,
			n.Rows, s.Name, n.Copied)
	}
	change := "ALTER TABLE " + s.table + " REPLACE PARTITION ID {month:String} FROM " + s.Name
	if err := s.conn.Exec(ctx, change, Named("month", month)); err != nil {
		return fmt.Errorf("month %s: %w", month, err)
	}
	return nil
}

// Drop drops the shadow.
func (s *Shadow) Drop(ctx context.Context) error {
	return s.conn.Exec(ctx, "DROP TABLE IF EXISTS "+s.Name+" SYNC")
}
