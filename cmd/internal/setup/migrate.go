package setup

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
)

// accessDenied is ClickHouse's error code for a user without access management.
const accessDenied = 497

// Migrate creates the database and brings its tables, views, roles and row policies up
// to date. engine is [clickhouse.MergeTree] or [clickhouse.Replicated]. For a user
// without access management it creates tables and views only; without the roles, only
// users with grants of their own can read them.
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
