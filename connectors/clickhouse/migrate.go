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
	// Replicated keeps them on every replica. Migrate each of them; the replicas need
	// the macros {shard} and {replica}.
	Replicated = "replicated"
)

// MigrateConfig says what tables to make.
type MigrateConfig struct {
	// Engine is MergeTree or Replicated; empty is MergeTree. It is the same for the
	// life of a database.
	Engine string
	// Log is told every migration that was applied.
	Log *slog.Logger
}

// Migrate makes the database if need be and applies the migrations in fsys that it does
// not have yet: files NUMBER_name.sql for goose (its table goose_db_version says what
// was applied), with unqualified table names. They are text/templates with two
// functions:
//
//	ENGINE = {{engine "ReplacingMergeTree" "version"}}    ReplacingMergeTree(version), or its Replicated form
//	{{database}}                                          the quoted name of the database
//
// All are rendered before the first one runs. ClickHouse has no transactions: after a
// failure in the middle of a file it is run again from its start, so every statement
// must be repeatable (IF NOT EXISTS). Run one Migrate at a time.
func (c *Conn) Migrate(ctx context.Context, fsys fs.FS, cfg MigrateConfig) error {
	if err := c.migrate(ctx, fsys, cfg); err != nil {
		return fmt.Errorf("migrating database %s: %w", c.Database(), err)
	}
	return nil
}

func (c *Conn) migrate(ctx context.Context, fsys fs.FS, cfg MigrateConfig) error {
	rendered, err := render(fsys, c.Database(), cfg.Engine)
	if err != nil {
		return err
	}
	if err := c.createDatabase(ctx); err != nil {
		return err
	}
	if err := c.checkEngines(ctx, rendered, cfg.Engine); err != nil {
		return err
	}
	opts := *c.opts
	opts.Settings = driver.Settings{}
	for name, value := range c.opts.Settings {
		opts.Settings[name] = value
	}
	// goose's own inserts: the row must be there when the next file begins.
	opts.Settings["async_insert"] = 0
	if opts.Protocol == driver.HTTP {
		opts.Settings["wait_end_of_query"] = 1
	}
	// clickhouse.OpenDB leaves limits to database/sql and complains about these.
	opts.MaxOpenConns, opts.MaxIdleConns, opts.ConnMaxLifetime = 0, 0, 0
	db := driver.OpenDB(&opts)
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
		return fmt.Errorf("applying %s: %w", path.Base(partial.Failed.Source.Path), wrap(partial.Err))
	}
	if err == nil && len(results) == 0 {
		cfg.Log.Info("nothing to migrate", "database", c.Database())
	}
	return wrap(err)
}

// createDatabase works without selecting the database: it may be what is missing.
func (c *Conn) createDatabase(ctx context.Context) error {
	opts := *c.opts
	opts.Auth.Database = ""
	pool, err := driver.Open(&opts)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.Exec(c.waiting(ctx), "CREATE DATABASE IF NOT EXISTS "+quoted(c.Database())); err != nil {
		return fmt.Errorf("creating it: %w", err)
	}
	return nil
}

var createdTable = regexp.MustCompile(`CREATE TABLE IF NOT EXISTS ([A-Za-z_][A-Za-z0-9_]*)`)

// checkEngines refuses the other engine than that of the tables that are there: what
// was applied is not applied again, so nobody else would notice.
func (c *Conn) checkEngines(ctx context.Context, rendered files, engine string) error {
	var tables []struct {
		Name   string `ch:"name"`
		Engine string `ch:"engine"`
	}
	if err := c.Select(ctx, &tables, "SELECT name, engine FROM system.tables WHERE database = {database:String} "+
		"AND engine LIKE '%MergeTree' ORDER BY name", Named("database", c.Database())); err != nil {
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
		if ours[t.Name] && !suits(t.Engine, engine) {
			return fmt.Errorf("engine: %s was asked for, but table %s is %s: the engine is the same for the life "+
				"of a database", engine, t.Name, t.Engine)
		}
	}
	return nil
}

// suits reports whether a table can have come from our engine. ClickHouse Cloud makes
// SharedMergeTree of either.
func suits(table, engine string) bool {
	return strings.HasPrefix(table, "Shared") || strings.HasPrefix(table, "Replicated") == (engine == Replicated)
}

func quoted(identifier string) string { return "`" + identifier + "`" }

// render executes every SQL file of fsys as a template.
func render(fsys fs.FS, database, engine string) (files, error) {
	functions := template.FuncMap{"database": func() string { return quoted(database) }}
	switch engine {
	case MergeTree, "":
		functions["engine"] = func(name string, args ...string) string {
			return name + "(" + strings.Join(args, ", ") + ")"
		}
	case Replicated:
		functions["engine"] = func(name string, args ...string) string {
			// The path names the database and the table: migrated one by one, the
			// replicas of a shard find each other.
			args = append([]string{"'/clickhouse/tables/{shard}/{database}/{table}'", "'{replica}'"}, args...)
			return "Replicated" + name + "(" + strings.Join(args, ", ") + ")"
		}
	default:
		return files{}, fmt.Errorf("engine: %q is neither %s nor %s", engine, MergeTree, Replicated)
	}
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return files{}, fmt.Errorf("listing the migrations: %w", err)
	}
	out := files{FS: fsys, content: map[string][]byte{}}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return files{}, fmt.Errorf("reading a migration: %w", err)
		}
		parsed, err := template.New(name).Funcs(functions).Parse(string(text))
		if err != nil {
			return files{}, fmt.Errorf("parsing a migration: %w", err)
		}
		var sql bytes.Buffer
		if err := parsed.Execute(&sql, nil); err != nil {
			return files{}, fmt.Errorf("rendering a migration: %w", err)
		}
		out.content[name] = sql.Bytes()
	}
	return out, nil
}

// files is a file system with the content of some files replaced.
type files struct {
	fs.FS
	content map[string][]byte
}

func (f files) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	content, replaced := f.content[name]
	if err != nil || !replaced {
		return file, err
	}
	return renderedFile{file, bytes.NewReader(content)}, nil
}

// renderedFile is a file whose content is read from elsewhere.
type renderedFile struct {
	fs.File
	content *bytes.Reader
}

func (f renderedFile) Read(p []byte) (int, error) { return f.content.Read(p) }
