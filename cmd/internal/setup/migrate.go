package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/ddl"
)

// accessDenied is ClickHouse's error code for a user without access management.
const accessDenied = 497

// ErrNeedsKafka says that a migration cannot make sure that no sink inserts.
var ErrNeedsKafka = errors.New("this database has sums of an earlier release: carrying them over needs Kafka")

// Migration says which database Migrate brings up to date.
type Migration struct {
	ClickHouse clickhouse.Config
	Engine     string // clickhouse.MergeTree or clickhouse.Replicated
	// Kafka is where the sinks' group is; without brokers, the sums of an earlier
	// release are ErrNeedsKafka.
	Kafka kafka.Config
}

// Migrate creates the database and brings its tables, views, roles and row policies up
// to date. For a user without access management it creates tables and views only;
// without the roles, only users with grants of their own can read them.
//
// Sums of an earlier release are carried over first. Meanwhile no sink may run and no
// batch of theirs may be unfinished; else the error is sink.ErrBusy or
// sink.ErrUnrecorded. Migrate can be repeated, also after it was interrupted.
func Migrate(ctx context.Context, m Migration, log *slog.Logger) error {
	conn, err := clickhouse.Open(ctx, m.ClickHouse, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg := clickhouse.MigrateConfig{Engine: m.Engine, Log: log}
	pending, err := rollup.Pending(ctx, conn)
	if err != nil {
		return err
	}
	if pending {
		if err := carryOver(ctx, conn, m, cfg); err != nil {
			return fmt.Errorf("migrating database %s: %w", conn.Database(), err)
		}
	}
	if err := conn.Migrate(ctx, ddl.Migrations(), cfg); err != nil {
		return err
	}
	return createRoles(ctx, conn, log)
}

// kafkaTimeout bounds the questions to Kafka. Our clients would retry without end.
const kafkaTimeout = time.Minute

// throwIf is ClickHouse's error code for the function of that name.
const throwIf = 395

// carryOver brings the sums of an earlier release into the tables of this one.
func carryOver(ctx context.Context, conn *clickhouse.Conn, m Migration, cfg clickhouse.MigrateConfig) error {
	if len(m.Kafka.Brokers) == 0 {
		return fmt.Errorf("%w: give -brokers, and -topic-prefix if there is one", ErrNeedsKafka)
	}
	if err := m.Kafka.Validate(); err != nil {
		return err
	}
	settled := func() error {
		ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
		defer cancel()
		return sink.CheckSettled(ctx, m.Kafka, conn, slog.New(slog.DiscardHandler))
	}
	if err := settled(); err != nil {
		return err
	}
	// The migrations stop behind the new table and the views that feed it.
	if err := conn.Migrate(ctx, ddl.Migrations(), cfg); err != nil && clickhouse.Code(err) != throwIf {
		return err
	}
	done, err := rollup.CarryOver(ctx, conn, cfg.Log)
	if err != nil {
		return err
	}
	cfg.Log.Info("carried the rollup over", "months", done.Months, "lines_without_rows", done.CarriedLines,
		"events_of_rules_1", done.Standing, "of_broken_chains", done.Approximated)
	if err := settled(); err != nil {
		return fmt.Errorf("%w; it came while the rollup was carried over: run this command again", err)
	}
	return nil
}

func createRoles(ctx context.Context, conn *clickhouse.Conn, log *slog.Logger) error {
	for _, statement := range ddl.Roles(conn.Database()) {
		err := conn.Exec(ctx, statement)
		if clickhouse.Code(err) == accessDenied {
			log.Info("roles and row policies are not created: this user has no access management, or the server "+
				"is the embedded one, which has none", "database", conn.Database())
			return nil
		}
		if err != nil {
			return fmt.Errorf("creating roles and row policies of database %s: %w", conn.Database(), err)
		}
	}
	return nil
}
