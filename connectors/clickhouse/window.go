package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Window is how many inserts a table can tell from a repetition.
type Window struct {
	// Table is its name; it may be in another database than the connection's
	// ("other.table").
	Table string
	// Engine is its table engine.
	Engine string
	// Blocks is the number of blocks whose tokens are kept: one for each insert and
	// partition key in it. 0 means that tokens are ignored.
	Blocks uint64
	// Age is how long they are kept; 0 means as long as Blocks lasts. Only replicated
	// engines have it.
	Age time.Duration
}

// Window reads back the deduplication window of a table.
func (c *Conn) Window(ctx context.Context, table string) (Window, error) {
	windows, err := c.windows(ctx, table, false)
	if err != nil {
		return Window{}, fmt.Errorf("reading the deduplication window of %s: %w", table, err)
	}
	return windows[0], nil
}

// Windows reads back the deduplication windows of a table and of every table that an
// insert into it reaches through materialized views, as they are on the server now, the
// table's own first. A repeated insert changes nothing only if each of them still holds
// its token.
func (c *Conn) Windows(ctx context.Context, table string) ([]Window, error) {
	windows, err := c.windows(ctx, table, true)
	if err != nil {
		return nil, fmt.Errorf("reading the deduplication windows behind %s: %w", table, err)
	}
	return windows, nil
}

// place names a table.
type place struct{ database, table string }

func (c *Conn) windows(ctx context.Context, table string, behind bool) ([]Window, error) {
	var found []Window
	// Views seen twice (two views into one target) are followed once; a loop would be
	// followed for ever.
	queue := []place{{c.Database(), table}}
	seen := map[place]bool{queue[0]: true}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		window, next, err := c.window(ctx, at)
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

type tableRow struct {
	Engine    string   `ch:"engine"`
	Full      string   `ch:"engine_full"`
	Create    string   `ch:"create_table_query"`
	ID        string   `ch:"id"`
	Databases []string `ch:"dependencies_database"`
	Tables    []string `ch:"dependencies_table"`
}

// window returns the window of a table, nil for a view, and what an insert into it
// reaches next.
func (c *Conn) window(ctx context.Context, at place) (*Window, []place, error) {
	var rows []tableRow
	err := c.Select(ctx, &rows, `SELECT engine, engine_full, create_table_query, toString(uuid) AS id, dependencies_database, dependencies_table
		FROM system.tables WHERE database = {database:String} AND name = {table:String}`, Named("database", at.database), Named("table", at.table))
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == 0 {
		return nil, nil, fmt.Errorf("database %s has no table %s: run ctl migrate", at.database, at.table)
	}
	row := rows[0]
	if row.Engine == "MaterializedView" {
		target, err := targetOf(at, row)
		return nil, []place{target}, err
	}
	var next []place
	for i, view := range row.Tables {
		next = append(next, place{row.Databases[i], view})
	}
	window, err := c.windowOf(ctx, row)
	if at.database != c.Database() {
		window.Table = at.database + "."
	}
	window.Table += at.table
	return &window, next, err
}

// windowOf reads the settings in the table's definition, else the server's defaults for
// its engine.
func (c *Conn) windowOf(ctx context.Context, row tableRow) (Window, error) {
	window := Window{Engine: row.Engine}
	setting, defaults := "non_replicated_deduplication_window", "system.merge_tree_settings"
	if strings.HasPrefix(row.Engine, "Replicated") || strings.HasPrefix(row.Engine, "Shared") {
		setting, defaults = "replicated_deduplication_window", "system.replicated_merge_tree_settings"
	}
	var err error
	if window.Blocks, err = c.tableSetting(ctx, row.Full, setting, defaults); err != nil {
		return window, err
	}
	if setting == "replicated_deduplication_window" {
		seconds, err := c.tableSetting(ctx, row.Full, "replicated_deduplication_window_seconds", defaults)
		window.Age = time.Duration(seconds) * time.Second
		return window, err
	}
	return window, nil
}

var tableSettings = regexp.MustCompile(`(?:SETTINGS|,) *([a-z_]+) = ([0-9]+)`)

func (c *Conn) tableSetting(ctx context.Context, definition, name, defaults string) (uint64, error) {
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

func targetOf(view place, row tableRow) (place, error) {
	if match := viewTarget.FindStringSubmatch(row.Create); match != nil {
		return place{strings.Trim(match[1], "`"), strings.Trim(match[2], "`")}, nil
	}
	if strings.Contains(row.Create, " TO ") && !strings.Contains(row.Create, " ENGINE = ") {
		return place{}, fmt.Errorf("finding the target of %s: cannot read %q", view.table, row.Create)
	}
	return place{view.database, ".inner_id." + row.ID}, nil
}
