package clickhousetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
)

// object is a table or a view of a migrated database.
type object struct {
	Name   string `ch:"name"`
	Engine string `ch:"engine"`
	Create string `ch:"create_table_query"`
	Rows   uint64 `ch:"rows"`
}

// template is a migrated database of the process's server, of which others are copies.
type template struct {
	database string
	objects  []object // tables first
}

// migrated is the template, once a test needs it.
var migrated = sync.OnceValues(func() (template, error) {
	running, err := shared()
	if err != nil {
		return template{}, err
	}
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	made := template{database: "template"}
	if err := post(running, "CREATE DATABASE "+made.database); err != nil {
		return template{}, err
	}
	conn, err := clickhouse.Open(ctx, clickhouse.Config{DSN: running.DSN(made.database)}, quiet)
	if err != nil {
		return template{}, err
	}
	defer conn.Close()
	if err := conn.Migrate(ctx, ddl.Migrations(), clickhouse.MigrateConfig{Log: quiet}); err != nil {
		return template{}, err
	}
	err = conn.Select(ctx, &made.objects, `SELECT name, engine, create_table_query, ifNull(total_rows, 0) AS rows
		FROM system.tables WHERE database = currentDatabase() ORDER BY engine LIKE '%View', name`)
	return made, err
})

// copyMigrated makes in a database of the process's server what all migrations leave in
// an empty one. The migrations themselves cost several times as much. It reports false,
// and does nothing, if the database is on another server or not empty.
func copyMigrated(ctx context.Context, dsn string, conn *clickhouse.Conn) (bool, error) {
	at, err := url.Parse(dsn)
	if err != nil {
		return false, err
	}
	running, err := shared()
	if err != nil || at.Host != running.Addr() {
		return false, err
	}
	var found []object
	if err := conn.Select(ctx, &found, `SELECT name, engine, create_table_query, toUInt64(0) AS rows
		FROM system.tables WHERE database = currentDatabase() LIMIT 1`); err != nil || len(found) > 0 {
		return false, err
	}
	from, err := migrated()
	if err != nil {
		return false, err
	}
	for _, o := range from.objects {
		if err := post(running, from.creating(o, conn.Database())); err != nil {
			return false, err
		}
		if o.Rows > 0 {
			err := post(running, fmt.Sprintf("INSERT INTO %s.%s SELECT * FROM %s.%[2]s", conn.Database(), o.Name,
				from.database))
			if err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// creating is the statement that makes the same in another database. Views are attached,
// which asks nothing of their queries, also not that what they read is there; those with
// a parameter have no columns and cannot be.
func (from template) creating(o object, database string) string {
	text := strings.ReplaceAll(o.Create, from.database+".", database+".")
	head, body, typed := strings.Cut(text, "(")
	if !strings.HasSuffix(o.Engine, "View") || !typed || strings.Contains(head, " AS ") {
		return text
	}
	words := strings.Fields(head)
	// ATTACH [MATERIALIZED] VIEW name UUID 'id' [TO table] (columns) AS …
	words[0] = "ATTACH"
	for i, word := range words {
		if word == "VIEW" {
			words[i+1] += " UUID '" + newUUID() + "'"
			break
		}
	}
	return strings.Join(words, " ") + " (" + body
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Migrate runs all migrations of the project in a database, which conn is connected to:
// in an empty one of [ForTest] it makes what they leave.
func Migrate(t testing.TB, dsn string, conn *clickhouse.Conn) {
	t.Helper()
	copied, err := copyMigrated(t.Context(), dsn, conn)
	if err == nil && !copied {
		err = conn.Migrate(t.Context(), ddl.Migrations(),
			clickhouse.MigrateConfig{Log: slog.New(slog.DiscardHandler)})
	}
	if err != nil {
		t.Fatal(err)
	}
}
