package report

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// condition is the WHERE clause of a query with its arguments. Its clauses are
// constants of this package: nothing of a request is ever in them.
type condition struct {
	clauses []string
	args    []any // named, and bound by the server
}

// and adds a clause without arguments.
func (c *condition) and(clause string) { c.clauses = append(c.clauses, clause) }

// andArg adds a clause with an argument.
func (c *condition) andArg(clause, name string, value any) {
	c.and(clause)
	c.args = append(c.args, clickhouse.Named(name, value))
}

func (c *condition) sql() string { return strings.Join(c.clauses, "\n\tAND ") }

// inWorkspace begins every condition: no query is without a workspace.
func inWorkspace(workspace string) *condition {
	c := &condition{}
	c.andArg("workspace_id = {w:String}", "w", workspace)
	return c
}

// ColumnNames are the columns that a row type is scanned from, in the order of its
// fields.
func ColumnNames[T any]() []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if name := f.Tag.Get("ch"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// scanRows calls each for the rows of a query, one by one. subject is what the query
// reads, for errors.
func scanRows[T any](ctx context.Context, conn *clickhouse.Conn, subject, query string, args []any,
	each func(*T) error) error {
	return readRows(ctx, conn, subject, query, args, func(rows *clickhouse.Rows) error {
		var row T
		if err := rows.ScanStruct(&row); err != nil {
			return fmt.Errorf("reading %s: %w", subject, err)
		}
		return each(&row)
	})
}

// readRows calls each at every row of a query.
func readRows(ctx context.Context, conn *clickhouse.Conn, subject, query string, args []any,
	each func(*clickhouse.Rows) error) error {
	rows, err := conn.Rows(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("reading %s: %w", subject, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", subject, err)
	}
	return nil
}

// joinColumns lists the columns of a row type for a SELECT.
func joinColumns[T any]() string { return strings.Join(ColumnNames[T](), ", ") }
