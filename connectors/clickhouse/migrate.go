package clickhouse

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"strings"
	"text/template"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"
)

// The engines of MigrateConfig.
const (
	// MergeTree keeps the tables on one server.
	MergeTree = "mergetree"
	// Replicated keeps the tables on every replica. Migrate each replica; each needs
	// the macros {shard} and {replica}.
	Replicated = "replicated"
)

// MigrateConfig selects the kind of tables.
type MigrateConfig struct {
	// Engine is MergeTree or Replicated, from -engine; empty is MergeTree. It is the
	// same for the life of a database.
	Engine string
	// Log gets a line for every migration that was applied.
	Log *slog.Logger
}

// Migrate creates the database if it is missing, and applies the migrations in fsys
// that it does not have yet: files NUMBER_name.sql for goose (its table
// goose_db_version records what was applied), with unqualified table names. The files
// are text/templates with two functions:
//
//	{{engine "ReplacingMergeTree" "version"}}  ReplacingMergeTree(version), or Replicated…
//	{{database}}                                 the quoted name of the database
//
// Migrate renders all files before it runs the first. ClickHouse has no transactions: a
// file that failed in the middle is run again from its start, so every statement must
// be repeatable (IF NOT EXISTS). Run one Migrate at a time.
func (c *Conn) Migrate(ctx context.Context, fsys fs.FS, cfg MigrateConfig) error {
	if err := c.applyMigrations(ctx, fsys, cfg); err != nil {
		return fmt.Errorf("migrating database %s: %w", c.Database(), err)
	}
	return nil
}

func (c *Conn) applyMigrations(ctx context.Context, fsys fs.FS, cfg MigrateConfig) error {
	rendered, err := renderMigrations(fsys, c.Database(), cfg.Engine)
	if err != nil {
		return err
	}
	if err := c.createDatabase(ctx); err != nil {
		return err
	}
	if err := c.checkEngines(ctx, rendered, cfg.Engine); err != nil {
		return err
	}
	db := driver.OpenDB(c.migrationOptions())
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, rendered,
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
	}
	for _, result := range results {
		cfg.Log.Info("applied migration", "database", c.Database(), "file", path.Base(result.Source.Path),
			"took", result.Duration)
	}
	if partial != nil {
		return fmt.Errorf("applying %s: %w", path.Base(partial.Failed.Source.Path), wrapError(partial.Err))
	}
	if err == nil && len(results) == 0 {
		cfg.Log.Info("nothing to migrate", "database", c.Database())
	}
	return wrapError(err)
}

// migrationOptions returns the options of the connection that goose uses.
func (c *Conn) migrationOptions() *driver.Options {
	opts := *c.opts
	opts.Settings = driver.Settings{}
	for name, value := range c.opts.Settings {
		opts.Settings[name] = value
	}
	// goose records each file in a row, which must be there when the next file begins.
	opts.Settings["async_insert"] = 0
	if opts.Protocol == driver.HTTP {
		opts.Settings["wait_end_of_query"] = 1
	}
	// clickhouse.OpenDB leaves these limits to database/sql, and refuses them.
	opts.MaxOpenConns = 0
	opts.MaxIdleConns = 0
	opts.ConnMaxLifetime = 0
	return &opts
}

// createDatabase uses a connection that selects no database, because ours may be
// missing.
func (c *Conn) createDatabase(ctx context.Context) error {
	opts := *c.opts
	opts.Auth.Database = ""
	pool, err := driver.Open(&opts)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.Exec(c.waitForEnd(ctx), "CREATE DATABASE IF NOT EXISTS "+quoteIdentifier(c.Database())); err != nil {
		return fmt.Errorf("creating it: %w", err)
	}
	return nil
}

var createdTable = regexp.MustCompile(`CREATE TABLE IF NOT EXISTS ([A-Za-z_][A-Za-z0-9_]*)`)

// checkEngines refuses an engine that differs from that of the existing tables. Applied
// migrations do not run again, so without this check the wrong -engine would go
// unnoticed.
func (c *Conn) checkEngines(ctx context.Context, rendered renderedFiles, engine string) error {
	var tables []struct {
		Name   string `ch:"name"`
		Engine string `ch:"engine"`
	}
	err := c.Select(ctx, &tables,
		`SELECT name, engine FROM system.tables
		WHERE database = {database:String} AND engine LIKE '%MergeTree'
		ORDER BY name`,
		Named("database", c.Database()))
	if err != nil {
		return fmt.Errorf("reading the tables' engines: %w", err)
	}
	ours := map[string]bool{}
	for _, text := range rendered.content {
		for _, created := range createdTable.FindAllSubmatch(text, -1) {
			ours[string(created[1])] = true
		}
	}
	engine = cmp.Or(engine, MergeTree)
	for _, t := range tables {
		if ours[t.Name] && !engineMatches(t.Engine, engine) {
			return fmt.Errorf("-engine: it is %s, but table %s is %s: the engine is the same for the life of a "+
				"database", engine, t.Name, t.Engine)
		}
	}
	return nil
}

// engineMatches reports whether a table can have been created with our engine.
// ClickHouse Cloud turns either of them into SharedMergeTree.
func engineMatches(table, engine string) bool {
	return strings.HasPrefix(table, "Shared") || strings.HasPrefix(table, "Replicated") == (engine == Replicated)
}

func quoteIdentifier(identifier string) string { return "`" + identifier + "`" }

// renderMigrations executes every SQL file of fsys as a template.
func renderMigrations(fsys fs.FS, database, engine string) (renderedFiles, error) {
	functions := template.FuncMap{"database": func() string { return quoteIdentifier(database) }}
	switch engine {
	case MergeTree, "":
		functions["engine"] = func(name string, args ...string) string {
			return name + "(" + strings.Join(args, ", ") + ")"
		}
	case Replicated:
		functions["engine"] = func(name string, args ...string) string {
			// The path in Keeper names the database and the table, so replicas of a
			// shard find each other even if they are migrated one by one.
			args = append([]string{"'/clickhouse/tables/{shard}/{database}/{table}'", "'{replica}'"}, args...)
			return "Replicated" + name + "(" + strings.Join(args, ", ") + ")"
		}
	default:
		return renderedFiles{}, fmt.Errorf("-engine: %q is neither %s nor %s", engine, MergeTree, Replicated)
	}
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return renderedFiles{}, fmt.Errorf("listing the migrations: %w", err)
	}
	out := renderedFiles{FS: fsys, content: map[string][]byte{}}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return renderedFiles{}, fmt.Errorf("reading a migration: %w", err)
		}
		parsed, err := template.New(name).Funcs(functions).Parse(string(text))
		if err != nil {
			return renderedFiles{}, fmt.Errorf("parsing a migration: %w", err)
		}
		var sql bytes.Buffer
		if err := parsed.Execute(&sql, nil); err != nil {
			return renderedFiles{}, fmt.Errorf("rendering a migration: %w", err)
		}
		out.content[name] = sql.Bytes()
	}
	return out, nil
}

// renderedFiles is a file system in which the content of some files is replaced.
type renderedFiles struct {
	fs.FS
	content map[string][]byte
}

// Open implements fs.FS.
func (f renderedFiles) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	content, replaced := f.content[name]
	if err != nil || !replaced {
		return file, err
	}
	return renderedFile{file, bytes.NewReader(content)}, nil
}

// renderedFile is a file with other content.
type renderedFile struct {
	fs.File
	content *bytes.Reader
}

// Read implements fs.File.
func (f renderedFile) Read(p []byte) (int, error) { return f.content.Read(p) }
