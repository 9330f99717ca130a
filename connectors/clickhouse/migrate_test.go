package clickhouse_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

func migrationFiles(content map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range content {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestMigrate(t *testing.T) {
	dsn := clickhousetest.ForTest(t) + "_new"
	conn := openTestDSN(t, dsn)
	if err := conn.Exec(t.Context(), "SELECT 1"); !errors.Is(err, clickhouse.ErrNoDatabase) ||
		!strings.Contains(err.Error(), "run ctl migrate") {
		t.Errorf("before: %v", err)
	}
	var logged bytes.Buffer
	cfg := clickhouse.MigrateConfig{Log: slog.New(slog.NewTextHandler(&logged, nil))}
	fsys := migrationFiles(map[string]string{
		"0001_tables.sql": "-- +goose Up\nCREATE TABLE IF NOT EXISTS a (k UInt64, v String) ENGINE = {{engine " +
			"\"ReplacingMergeTree\" \"k\"}} ORDER BY k;\n" +
			"CREATE VIEW IF NOT EXISTS b AS SELECT k FROM {{database}}.a;\n",
		"0002_broken.sql": "-- +goose Up\nCREATE TABLE IF NOT EXISTS c (k UInt64) ENGINE = {{engine " +
			"\"MergeTree\"}} ORDER BY k;\nCREATE TABLE d (k Nosuch) ENGINE = MergeTree ORDER BY k;\n",
		"README.md": "{{not a template",
	})
	err := conn.Migrate(t.Context(), fsys, cfg)
	if err == nil || !strings.Contains(err.Error(), "applying 0002_broken.sql") || clickhouse.Code(err) != 50 {
		t.Fatalf("a broken file: %v", err)
	}
	if !strings.Contains(logged.String(), "file=0001_tables.sql") || strings.Contains(logged.String(), "0002") {
		t.Errorf("logged %s", logged.String())
	}
	fsys["0002_broken.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE IF NOT EXISTS c (k UInt64) " +
		"ENGINE = {{engine \"MergeTree\"}} ORDER BY k;\n")}
	for _, want := range []string{"0002_broken.sql", "nothing to migrate"} {
		logged.Reset()
		if err := conn.Migrate(t.Context(), fsys, cfg); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(logged.String(), want) || strings.Contains(logged.String(), "0001") {
			t.Errorf("logged %s, want %s", logged.String(), want)
		}
	}
	tables := queryNumber(t, conn, `SELECT count() AS n FROM system.tables
		WHERE database = currentDatabase() AND name IN ('a', 'b', 'c')`)
	if tables != 3 {
		t.Errorf("%d of 3 tables", tables)
	}
	replacing := queryNumber(t, conn, `SELECT count() AS n FROM system.tables
		WHERE database = currentDatabase() AND name = 'a' AND engine_full LIKE 'ReplacingMergeTree(k) %'`)
	if replacing != 1 {
		t.Error("the engine was not rendered")
	}
	execAll(t, conn, "DROP DATABASE "+conn.Database())
}

func TestMigrateRefuses(t *testing.T) {
	conn := openTestDB(t)
	good := "-- +goose Up\nCREATE TABLE IF NOT EXISTS a (k UInt64) ENGINE = MergeTree ORDER BY k;\n"
	for name, test := range map[string]struct {
		files  map[string]string
		engine string
		want   string
	}{
		"an unknown engine": {
			map[string]string{"1_a.sql": good},
			"memory",
			`-engine: "memory" is neither mergetree nor replicated`,
		},
		"a template with an error": {map[string]string{"1_a.sql": good, "2_b.sql": "{{engine}}"}, "", "2_b.sql"},
		"an unknown function": {
			map[string]string{"1_a.sql": good, "2_b.sql": "{{nosuch}}"},
			"",
			`function "nosuch" not defined`,
		},
		"no files":          {nil, "", "no migrations found"},
		"two of one number": {map[string]string{"1_a.sql": good, "01_b.sql": good}, "", "duplicate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := conn.Migrate(t.Context(), migrationFiles(test.files), clickhouse.MigrateConfig{Engine: test.engine,
				Log: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := queryNumber(t, conn, "SELECT count() AS n FROM system.tables WHERE database = currentDatabase() "+
				"AND name = 'a'"); got != 0 {
				t.Error("something was applied")
			}
		})
	}
}
