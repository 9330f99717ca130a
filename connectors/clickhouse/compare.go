package clickhouse

import (
	"context"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
)

// Comparison selects the lines of a table of sums that are compared with the tables
// from which its views compute them.
type Comparison struct {
	// Table is fed by materialized views only. Outside of its sorting key it has sums:
	// UInt64, which wrap around, or Int128.
	Table string
	// Within is an SQL condition on columns of the sorting key, with placeholders.
	Within string
	// Args are the values of the placeholders.
	Args []any
}

// SumDifferences are the lines whose sums differ from those of the base tables.
type SumDifferences struct {
	table   string
	columns sumColumns
	lines   []differentLine
}

type differentLine struct {
	key  []any      // values of the key's columns
	sums []*big.Int // of the base tables minus those of the table
}

// Lines returns the number of lines that differ.
func (d *SumDifferences) Lines() int { return len(d.lines) }

// Key returns the value of a column of the key in a line; nil: there is no such column.
func (d *SumDifferences) Key(line int, column string) any {
	if i := slices.Index(d.columns.keys, column); i >= 0 {
		return d.lines[line].key[i]
	}
	return nil
}

// Missing returns what a line lacks of a column, negative if it has too much. It is
// zero if there is no such column.
func (d *SumDifferences) Missing(line int, column string) *big.Int {
	if i := slices.Index(d.columns.sums, column); i >= 0 {
		return d.lines[line].sums[i]
	}
	return new(big.Int)
}

// Filter returns the lines for which keep returns true.
func (d *SumDifferences) Filter(keep func(line int) bool) *SumDifferences {
	kept := &SumDifferences{table: d.table, columns: d.columns}
	for i := range d.lines {
		if keep(i) {
			kept.lines = append(kept.lines, d.lines[i])
		}
	}
	return kept
}

// String is equal for equal differences only.
func (d *SumDifferences) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, d.table, d.columns.keys, d.columns.sums)
	for _, line := range d.lines {
		fmt.Fprintf(&b, "%q %v\n", line.key, line.sums)
	}
	return b.String()
}

// CompareSums compares a table of sums with what its views make of their tables now.
// Lines that are missing on either side count as zeros there.
func (c *Conn) CompareSums(ctx context.Context, compare Comparison) (*SumDifferences, error) {
	out, err := c.compareSums(ctx, compare)
	if err != nil {
		return nil, fmt.Errorf("comparing the sums of %s: %w", compare.Table, wrapError(err))
	}
	return out, nil
}

// GroupDifferences groups the lines that CompareSums would return by some columns, and
// reads the groups into dest, as Select does, in order. columns is a list for a SELECT of
// columns of the key and aggregates.
func (c *Conn) GroupDifferences(ctx context.Context, dest any, compare Comparison, columns string) error {
	_, query, err := c.prepareComparison(ctx, compare)
	if err == nil {
		err = c.pool.Select(ctx, dest, "SELECT "+columns+" FROM ("+query+") GROUP BY ALL ORDER BY ALL", compare.Args...)
	}
	if err != nil {
		return fmt.Errorf("comparing the sums of %s: %w", compare.Table, wrapError(err))
	}
	return nil
}

func (c *Conn) compareSums(ctx context.Context, compare Comparison) (*SumDifferences, error) {
	columns, query, err := c.prepareComparison(ctx, compare)
	if err != nil {
		return nil, err
	}
	out := &SumDifferences{table: compare.Table, columns: columns}
	out.lines, err = c.readDifferentLines(ctx, columns, query, compare.Args)
	return out, err
}

// prepareComparison returns the columns of the table, and the query for the lines that
// differ.
func (c *Conn) prepareComparison(ctx context.Context, compare Comparison) (columns sumColumns, query string,
	err error) {
	if !identifier.MatchString(compare.Table) {
		return columns, "", fmt.Errorf("%q is not an identifier", compare.Table)
	}
	views, err := c.readFeedingViews(ctx, compare.Table)
	if err != nil {
		return columns, "", err
	}
	if columns, err = c.readSumColumns(ctx, compare.Table); err != nil {
		return columns, "", err
	}
	return columns, columns.differencesSQL(compare, views), nil
}

// sumColumns are the columns of a table of sums.
type sumColumns struct {
	keys, keyTypes []string // of the sorting key
	sums           []string // all others
	unsigned       []bool   // of sums: they are UInt64
}

// readSumColumns reads the columns of a table of sums.
func (c *Conn) readSumColumns(ctx context.Context, table string) (out sumColumns, err error) {
	var found []struct {
		Name  string `ch:"name"`
		Type  string `ch:"type"`
		IsKey uint8  `ch:"is_in_sorting_key"`
	}
	err = c.Select(ctx, &found,
		`SELECT name, type, is_in_sorting_key FROM system.columns
		WHERE database = {database:String} AND table = {table:String}
		ORDER BY position`,
		Named("database", c.Database()), Named("table", table))
	if err != nil {
		return out, err
	}
	for _, column := range found {
		switch {
		case column.IsKey == 1:
			out.keys = append(out.keys, column.Name)
			out.keyTypes = append(out.keyTypes, column.Type)
		case column.Type == "SimpleAggregateFunction(sum, UInt64)",
			column.Type == "SimpleAggregateFunction(sum, Int128)":
			out.sums = append(out.sums, column.Name)
			out.unsigned = append(out.unsigned, strings.Contains(column.Type, "UInt64"))
		default:
			return out, fmt.Errorf("column %s is neither in the sorting key nor a sum of UInt64 or Int128, but %s",
				column.Name, column.Type)
		}
	}
	return out, nil
}

// differencesSQL returns the query for the lines that differ: the key, and the sums of
// the views minus those of the table, as Int128.
func (s sumColumns) differencesSQL(compare Comparison, views []feedingView) string {
	keys := quoteIdentifiers(s.keys)
	sums := quoteIdentifiers(s.sums)
	keyList := strings.Join(keys, ", ")
	join := func(format string) string {
		var parts []string
		for _, sum := range sums {
			parts = append(parts, strings.ReplaceAll(format, "?", sum))
		}
		return strings.Join(parts, ", ")
	}
	// Sum before the conversion: a row of differences may have wrapped around.
	sides := []string{"SELECT " + keyList + ", " + join("-toInt128(?) AS ?") +
		" FROM (SELECT " + keyList + ", " + join("sum(?) AS ?") + " FROM " + compare.Table +
		" WHERE " + compare.Within + " GROUP BY " + keyList + ")"}
	for _, view := range views {
		var columns []string
		for i, key := range keys {
			if !slices.Contains(view.columns, key) {
				key = "defaultValueOfTypeName('" + s.keyTypes[i] + "') AS " + key
			}
			columns = append(columns, key)
		}
		for _, sum := range sums {
			value := "0"
			if slices.Contains(view.columns, sum) {
				value = sum
			}
			columns = append(columns, "toInt128("+value+") AS "+sum)
		}
		sides = append(sides, "SELECT "+strings.Join(columns, ", ")+" FROM ("+view.query+") WHERE "+compare.Within)
	}
	isDifferent := strings.ReplaceAll(join("? != 0"), ", ", " OR ")
	return "SELECT " + keyList + ", " + join("sum(?) AS ?") + " FROM (" + strings.Join(sides, " UNION ALL ") +
		") GROUP BY " + keyList + " HAVING " + isDifferent + " ORDER BY " + keyList +
		" SETTINGS select_sequential_consistency = 1"
}

func quoteIdentifiers(names []string) []string {
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, quoteIdentifier(name))
	}
	return quoted
}

func (c *Conn) readDifferentLines(ctx context.Context, columns sumColumns, query string, args []any) (
	lines []differentLine, err error) {
	rows, err := c.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types := rows.ColumnTypes()
	for rows.Next() {
		line := differentLine{sums: make([]*big.Int, len(columns.sums))}
		var to []any
		for i := range columns.keys {
			to = append(to, reflect.New(types[i].ScanType()).Interface())
		}
		for i := range columns.sums {
			line.sums[i] = new(big.Int)
			to = append(to, line.sums[i])
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		for i := range columns.keys {
			line.key = append(line.key, reflect.ValueOf(to[i]).Elem().Interface())
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}

// InsertDifferences adds a row of differences to each line, so that its sums become
// those that CompareSums computed. A second call with a token that the table's window
// still holds changes nothing.
func (c *Conn) InsertDifferences(ctx context.Context, differences *SumDifferences, token string) error {
	columns := differences.columns
	into := Insert{
		Table:   differences.table,
		Columns: append(slices.Clone(columns.keys), columns.sums...),
		Token:   token,
	}
	return c.Insert(ctx, into, func(b *Batch) error {
		for _, line := range differences.lines {
			row := slices.Clone(line.key)
			for i, sum := range line.sums {
				if columns.unsigned[i] {
					row = append(row, wrapUint64(sum))
				} else {
					row = append(row, sum)
				}
			}
			if err := b.Append(row...); err != nil {
				return err
			}
		}
		return nil
	})
}

// wrapUint64 returns v modulo 2^64: added to a UInt64, it subtracts if v is negative.
func wrapUint64(v *big.Int) uint64 {
	modulus := new(big.Int).Lsh(big.NewInt(1), 64)
	return new(big.Int).Mod(v, modulus).Uint64()
}
