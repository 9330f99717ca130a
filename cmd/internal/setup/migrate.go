package setup

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
)

// accessDenied is ClickHouse's code for a user who may not manage access.
const accessDenied = 497

// Migrate makes the database and brings its tables, views, roles and row policies up to
// date. engine is [clickhouse.MergeTree] or [clickhouse.Replicated]. A user without
// access management gets tables and views: without the roles nobody but such users can
// read them.
func Migrate(ctx context.Context, cfg clickhouse.Config, engine string, log *slog.Logger) error {
	conn, err := clickhouse.Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Migrate(ctx, ddl.Migrations(), clickhouse.MigrateConfig{Engine: engine, Log: log}); err != nil {
		return err
	}
	for _, statement := range ddl.Roles(conn.Database()) {
		err := conn.Exec(ctx, statement)
		if clickhouse.Code(err) == accessDenied {
			log.Info("roles and row policies are not made: this user has no access management, or the server is "+
				"the embedded one, which has none", "database", conn.Database())
			return nil
		}
		if err != nil {
			return fmt.Errorf("making roles and row policies of database %s: %w", conn.Database(), err)
		}
	}
	return nil
}
