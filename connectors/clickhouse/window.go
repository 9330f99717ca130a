package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Window is the deduplication window of a table: how many inserts it can recognize as
// repetitions.
type Window struct {
	// Table is the name, with the database if it is not the connection's
	// ("other.table").
	Table string
	// Engine is the table engine.
	Engine string
	// Blocks is the number of blocks whose tokens the table keeps: one block for each
	// insert and each partition key in it. 0 means that the table ignores tokens.
	Blocks uint64
	// Age is how long the table keeps a token; 0 means as long as Blocks allows. Only
	// replicated engines have it.
	Age time.Duration
}

// Window reads the deduplication window of a table.
func (c *Conn) Window(ctx context.Context, table string) (Window, error) {
	windows, err := c.readWindows(ctx, table, false)
	if err != nil {
		return Window{}, fmt.Errorf("reading the deduplication window of %s: %w", table, err)
	}
	return windows[0], nil
}

// Windows reads the current deduplication windows of a table, which comes first, and of
// every table that an insert into it reaches through materialized views. A repeated
// insert changes nothing only if each of them still holds its token.
func (c *Conn) Windows(ctx context.Context, table string) ([]Window, error) {
	windows, err := c.readWindows(ctx, table, true)
	if err != nil {
		return nil, fmt.Errorf("reading the deduplication windows behind %s: %w", table, err)
	}
	return windows, nil
}

// tableName is a table with its database.
type tableName struct{ database, table string }

// readWindows reads the window of a table and, with behind, of all tables that views
// feed from it.
func (c *Conn) readWindows(ctx context.Context, table string, behind bool) ([]Window, error) {
	var found []Window
	// Follow each table once: two views may have one target, and views may form a loop.
	queue := []tableName{{c.Database(), table}}
	seen := map[tableName]bool{queue[0]: true}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		window, next, err := c.readWindow(ctx, at)
		if err != nil {
			return nil, err
		}
		if window != nil {
			found = append(found, *window)
		}
		for _, target := range next {
			if behind && !seen[target] {
				seen[target] = true
				queue = append(queue, target)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s keeps no rows", table)
	}
	return found, nil
}

// tableRow is a row of system.tables.
type tableRow struct {
	Engine    string   `ch:"engine"`                // without arguments
	Full      string   `ch:"engine_full"`           // with arguments and settings
	Create    string   `ch:"create_table_query"`    // as ClickHouse formats it
	ID        string   `ch:"id"`                    // UUID of the table
	Databases []string `ch:"dependencies_database"` // of the views that read the table
	Tables    []string `ch:"dependencies_table"`    // those views
}

// readWindow returns the window of a table, nil for a view, and the tables that an
// insert into it reaches next.
func (c *Conn) readWindow(ctx context.Context, at tableName) (*Window, []tableName, error) {
	var rows []tableRow
	err := c.Select(ctx, &rows,
		`SELECT engine, engine_full, create_table_query, toString(uuid) AS id,
			dependencies_database, dependencies_table
		FROM system.tables
		WHERE database = {database:String} AND name = {table:String}`,
		Named("database", at.database), Named("table", at.table))
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == 0 {
		return nil, nil, fmt.Errorf("database %s has no table %s: run ctl migrate", at.database, at.table)
	}
	row := rows[0]
	if row.Engine == "MaterializedView" {
		target, err := parseViewTarget(at, row)
		return nil, []tableName{target}, err
	}
	var next []tableName
	for i, view := range row.Tables {
		next = append(next, tableName{row.Databases[i], view})
	}
	window, err := c.readTableWindow(ctx, row)
	if at.database != c.Database() {
		window.Table = at.database + "."
	}
	window.Table += at.table
	return &window, next, err
}

// readTableWindow reads the settings in the table's definition, or else the server's
// defaults for its engine.
func (c *Conn) readTableWindow(ctx context.Context, row tableRow) (Window, error) {
	window := Window{Engine: row.Engine}
	setting := "non_replicated_deduplication_window"
	defaults := "system.merge_tree_settings"
	if strings.HasPrefix(row.Engine, "Replicated") || strings.HasPrefix(row.Engine, "Shared") {
		setting = "replicated_deduplication_window"
		defaults = "system.replicated_merge_tree_settings"
	}
	var err error
	if window.Blocks, err = c.readTableSetting(ctx, row.Full, setting, defaults); err != nil {
		return window, err
	}
	if setting == "replicated_deduplication_window" {
		seconds, err := c.readTableSetting(ctx, row.Full, "replicated_deduplication_window_seconds", defaults)
		window.Age = time.Duration(seconds) * time.Second
		return window, err
	}
	return window, nil
}

var tableSettings = regexp.MustCompile(`(?:SETTINGS|,) *([a-z_]+) = ([0-9]+)`)

// readTableSetting returns a setting from the definition of a table, or else from the
// system table of defaults.
func (c *Conn) readTableSetting(ctx context.Context, definition, name, defaults string) (uint64, error) {
	for _, match := range tableSettings.FindAllStringSubmatch(definition, -1) {
		if match[1] == name {
			return strconv.ParseUint(match[2], 10, 64)
		}
	}
	var rows []struct {
		Value string `ch:"value"`
	}
	if err := c.Select(ctx, &rows, "SELECT value FROM "+defaults+" WHERE name = {name:String}",
		Named("name", name)); err != nil {
		return 0, err
	}
	if len(rows) == 0 {
		return 0, fmt.Errorf("the server has no table setting %s", name)
	}
	return strconv.ParseUint(rows[0].Value, 10, 64)
}

// viewTarget finds the target in "CREATE MATERIALIZED VIEW db.view TO db.target (…", as
// ClickHouse formats it.
var viewTarget = regexp.MustCompile("^CREATE MATERIALIZED VIEW \\S+ TO (`[^`]+`|[^.` ]+)\\.(`[^`]+`|[^.` ]+) ")

// parseViewTarget returns the table that a materialized view writes to.
func parseViewTarget(view tableName, row tableRow) (tableName, error) {
	if match := viewTarget.FindStringSubmatch(row.Create); match != nil {
		return tableName{strings.Trim(match[1], "`"), strings.Trim(match[2], "`")}, nil
	}
	if strings.Contains(row.Create, " TO ") && !strings.Contains(row.Create, " ENGINE = ") {
		return tableName{}, fmt.Errorf("finding the target of %s: cannot read %q", view.table, row.Create)
	}
	return tableName{view.database, ".inner_id." + row.ID}, nil
}
