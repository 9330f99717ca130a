package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	rowsdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// MaxInsertRows is the most rows that one Insert takes: the settings of Insert keep
// that many in one block.
const MaxInsertRows = 1_000_000

// Limits of a block that Insert sets on the server.
const (
	blockRows  = 1 << 20
	blockBytes = 1 << 32
)

// Insert says where rows go.
type Insert struct {
	// Table is in the connection's database.
	Table string
	// Columns are the columns of the rows, in this order; all other columns take their
	// defaults.
	Columns []string
	// Token names exactly these rows, in this order. The sink's is made in
	// connectors/sink, deduplication.go. A second Insert with a token that the table's
	// deduplication window still holds changes nothing, whatever its rows are, neither
	// in the table nor in anything that its materialized views feed. With an empty
	// token every call inserts.
	Token string
}

// insertSQL returns the statement that precedes the rows.
func (i Insert) insertSQL() (string, error) {
	for _, name := range append([]string{i.Table}, i.Columns...) {
		if !identifier.MatchString(name) {
			return "", fmt.Errorf("%q is not an identifier", name)
		}
	}
	if len(i.Columns) == 0 {
		return "", errors.New("no columns")
	}
	return "INSERT INTO " + i.Table + " (" + strings.Join(i.Columns, ", ") + ")", nil
}

// Insert calls fill for the rows and sends them as one block: all of them arrive, or
// none does. Without a row it inserts nothing. It sends a value for every setting that
// affects deduplication, because the defaults differ between versions of ClickHouse.
// After an error for which Unreachable is true it is unknown whether the rows arrived.
func (c *Conn) Insert(ctx context.Context, into Insert, fill func(*Batch) error) error {
	rows, err := c.insertBatch(ctx, into, fill)
	if err != nil {
		c.forgetColumns(into.Table)
		return fmt.Errorf("inserting %d rows into %s: %w", rows, into.Table, wrapError(err))
	}
	return nil
}

func (c *Conn) insertBatch(ctx context.Context, into Insert, fill func(*Batch) error) (rows int, err error) {
	statement, err := into.insertSQL()
	if err != nil {
		return 0, err
	}
	settings, err := c.insertSettings(ctx, into.Token)
	if err != nil {
		return 0, err
	}
	options := []driver.QueryOption{driver.WithSettings(settings)}
	if c.opts.Protocol == driver.HTTP {
		types, err := c.columnTypes(ctx, into)
		if err != nil {
			return 0, err
		}
		options = append(options, driver.WithColumnNamesAndTypes(types))
	}
	prepared, err := c.pool.PrepareBatch(driver.Context(ctx, options...), statement)
	if err != nil {
		return 0, err
	}
	defer prepared.Close()
	batch := &Batch{batch: prepared, names: into.Columns, columns: prepared.Columns()}
	if err := fill(batch); err != nil {
		return batch.Rows(), err
	}
	if err := batch.checkColumns(); err != nil {
		return batch.Rows(), err
	}
	return batch.Rows(), prepared.Send()
}

// Batch collects the rows of one Insert, by rows (Append) or by columns (Column).
type Batch struct {
	batch   rowsdriver.Batch
	names   []string           // of the columns
	columns []column.Interface // as clickhouse-go holds them
	scratch []byte             // reused by Column for Texts
}

// Append adds a row: one value per column of the Insert.
func (b *Batch) Append(row ...any) error { return b.batch.Append(row...) }

// Column adds values, a slice or *Texts, to the i-th column of the Insert, at a
// fraction of the cost of Append. In the end all columns must be equally long. Column
// copies values. A LowCardinality(String) takes Texts, all its rows at once; Column
// makes them from a slice of strings.
func (b *Batch) Column(i int, values any) error {
	if i < 0 || i >= len(b.names) {
		return fmt.Errorf("column %d of %d", i, len(b.names))
	}
	var err error
	switch v := values.(type) {
	case *Texts:
		b.scratch, err = v.loadInto(b.columns[i], b.scratch)
	case []string:
		if b.columns[i].Type() != lowCardinality {
			err = b.batch.Column(i).Append(v)
			break
		}
		texts := NewTexts()
		for _, s := range v {
			texts.Add(s)
		}
		b.scratch, err = texts.loadInto(b.columns[i], b.scratch)
	default:
		err = b.batch.Column(i).Append(values)
	}
	if err != nil {
		return fmt.Errorf("column %s: %w", b.names[i], err)
	}
	return nil
}

// Rows returns the number of rows so far, by the first column.
func (b *Batch) Rows() int { return b.batch.Rows() }

// checkColumns refuses a batch that must not be sent. The worst case is columns of
// different lengths: over HTTP clickhouse-go v2.50 drops that error and sends an empty
// body, and the server inserts nothing, successfully.
func (b *Batch) checkColumns() error {
	rows := b.Rows()
	for i, c := range b.columns {
		if c.Rows() != rows {
			return fmt.Errorf("column %s has %d rows, column %s has %d", b.names[i], c.Rows(), b.names[0], rows)
		}
	}
	if rows > MaxInsertRows {
		return fmt.Errorf("more than %d rows would not stay one block", MaxInsertRows)
	}
	return nil
}

// insertSettings returns the settings of an insert with this token. A token
// deduplicates blocks, not inserts, so the settings must keep all rows of an insert in
// one block, in the table and behind every materialized view.
func (c *Conn) insertSettings(ctx context.Context, token string) (driver.Settings, error) {
	known, err := c.knownSettings(ctx)
	if err != nil {
		return nil, err
	}
	settings := driver.Settings{}
	set := func(name string, value any) {
		if known[name] {
			settings[name] = value
		}
	}
	set("async_insert", 0)
	set("max_insert_threads", 1)
	set("parallel_view_processing", 0)
	set("materialized_views_ignore_errors", 0)
	// Up to 26.6 the block size has the first of these names, since then the others.
	set("max_insert_block_size", blockRows)
	set("max_insert_block_size_rows", blockRows)
	set("max_insert_block_size_bytes", 0)
	set("min_insert_block_size_rows", blockRows)
	set("min_insert_block_size_bytes", blockBytes)
	set("min_insert_block_size_rows_for_materialized_views", blockRows)
	set("min_insert_block_size_bytes_for_materialized_views", blockBytes)
	set("deduplicate_blocks_in_dependent_materialized_views", 1)
	if token == "" {
		set("insert_deduplicate", 0)
		set("deduplicate_insert", "disable")
		return settings, nil
	}
	for _, name := range []string{"insert_deduplication_token", "deduplicate_blocks_in_dependent_materialized_views"} {
		if !known[name] {
			return nil, fmt.Errorf("this ClickHouse has no setting %s: it is too old", name)
		}
	}
	set("insert_deduplicate", 1)
	set("deduplicate_insert", "enable")
	set("insert_deduplication_token", token)
	return settings, nil
}

// knownSettings asks the server once which settings it has.
func (c *Conn) knownSettings(ctx context.Context) (map[string]bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.insertSettingNames != nil {
		return c.insertSettingNames, nil
	}
	var names []struct {
		Name string `ch:"name"`
	}
	err := c.pool.Select(ctx, &names,
		`SELECT name FROM system.settings
		WHERE name LIKE '%dedup%' OR name LIKE '%insert%' OR name LIKE '%view%'`)
	if err != nil {
		return nil, fmt.Errorf("reading the server's settings: %w", err)
	}
	known := map[string]bool{}
	for _, setting := range names {
		known[setting.Name] = true
	}
	c.insertSettingNames = known
	return known, nil
}

// columnTypes returns the types of the insert's columns. They are cached, because
// clickhouse-go would otherwise describe the table before every insert over HTTP.
func (c *Conn) columnTypes(ctx context.Context, into Insert) ([]driver.ColumnNameAndType, error) {
	c.mu.Lock()
	types := c.typeCache[into.Table]
	c.mu.Unlock()
	if types == nil {
		var columns []struct {
			Name string `ch:"name"`
			Type string `ch:"type"`
		}
		err := c.pool.Select(ctx, &columns,
			`SELECT name, type FROM system.columns
			WHERE database = {database:String} AND table = {table:String}`,
			Named("database", c.Database()), Named("table", into.Table))
		if err != nil {
			return nil, fmt.Errorf("reading the table's columns: %w", err)
		}
		if len(columns) == 0 {
			return nil, fmt.Errorf("database %s has no table %s: run ctl migrate", c.Database(), into.Table)
		}
		types = map[string]string{}
		for _, column := range columns {
			// Inside of arrays and maps the server finds equal strings. clickhouse-go
			// would do it with reflection and a map of any, which costs more than the
			// rest of an insert.
			if types[column.Name] = column.Type; column.Type != lowCardinality {
				types[column.Name] = strings.ReplaceAll(column.Type, lowCardinality, "String")
			}
		}
		c.mu.Lock()
		c.typeCache[into.Table] = types
		c.mu.Unlock()
	}
	wanted := make([]driver.ColumnNameAndType, len(into.Columns))
	for i, name := range into.Columns {
		if types[name] == "" {
			return nil, fmt.Errorf("the table has no column %s", name)
		}
		wanted[i] = driver.ColumnNameAndType{Name: name, Type: types[name]}
	}
	return wanted, nil
}

// forgetColumns drops the cached column types of a table, which may have been altered.
func (c *Conn) forgetColumns(table string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.typeCache, table)
}
