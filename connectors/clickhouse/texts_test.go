package clickhouse_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Texts arrive as they were added, whatever the width of their numbers, and a reused
// column keeps nothing from before.
func TestTexts(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE low (k UInt64, distinct UInt64, s LowCardinality(String)) ENGINE = MergeTree "+
		"ORDER BY (distinct, k)")
	const rows = 140_000
	texts := clickhouse.NewTexts()
	k, all := make([]uint64, rows), make([]uint64, rows)
	for _, distinct := range []uint64{1, 2, 256, 257, 65_536, 65_537, rows} {
		texts.Reset()
		for i := range rows {
			k[i], all[i] = uint64(i), distinct
			n := uint64(i) % distinct
			texts.Add(strings.Repeat("é", int(n%200)) + fmt.Sprint(n))
		}
		if texts.Len() != rows {
			t.Fatal(texts.Len())
		}
		err := conn.Insert(t.Context(), clickhouse.Insert{Table: "low", Columns: []string{"k", "distinct", "s"}},
			func(b *clickhouse.Batch) error {
				for i, values := range []any{k, all, texts} {
					if err := b.Column(i, values); err != nil {
						return err
					}
				}
				return nil
			})
		if err != nil {
			t.Fatalf("%d texts: %v", distinct, err)
		}
	}
	if n := queryNumber(t, conn, "SELECT countIf(s = concat(repeat('é', k % distinct % 200), toString(k % distinct))) "+
		"AS n FROM low"); n != 7*rows {
		t.Errorf("%d of %d rows are right", n, 7*rows)
	}
	// A slice works too, with any text: empty, invalid UTF-8, with a zero byte, long.
	odd := []string{"", "\xff\x00", strings.Repeat("x", 1_000_000), "", "a"}
	err := conn.Insert(t.Context(), clickhouse.Insert{Table: "low", Columns: []string{"s"}},
		func(b *clickhouse.Batch) error {
			return b.Column(0, odd)
		})
	if err != nil {
		t.Fatal(err)
	}
	arrived := queryNumber(t, conn, `SELECT toUInt64(
			countIf(s = '') = 2
			AND countIf(s = '\xff\0') = 1
			AND countIf(s = repeat('x', 1000000)) = 1
			AND countIf(s = 'a') = 1
		) AS n
		FROM low WHERE distinct = 0`)
	if arrived != 1 {
		t.Error("odd texts did not arrive")
	}
}

// A column of another type, or one that has rows already, refuses Texts, and nothing is
// inserted.
func TestTextsRefused(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE mixed (s LowCardinality(String), p String, n LowCardinality(Nullable(String))) "+
		"ENGINE = MergeTree ORDER BY p")
	texts := clickhouse.NewTexts()
	texts.Add("a")
	for want, fill := range map[string]func(b *clickhouse.Batch) error{
		"column p: texts are for LowCardinality(String), the column is String": func(b *clickhouse.Batch) error {
			return b.Column(1, texts)
		},
		"column n: texts are for LowCardinality(String)": func(b *clickhouse.Batch) error { return b.Column(2, texts) },
		"column s: texts after 1 rows": func(b *clickhouse.Batch) error {
			if err := b.Column(0, texts); err != nil {
				t.Error(err)
			}
			return b.Column(0, texts)
		},
		"column p has 2 rows, column s has 1": func(b *clickhouse.Batch) error {
			if err := b.Column(0, texts); err != nil {
				t.Error(err)
			}
			return b.Column(1, []string{"x", "y"})
		},
	} {
		err := conn.Insert(t.Context(), clickhouse.Insert{Table: "mixed", Columns: []string{"s", "p", "n"}}, fill)
		if err == nil || !strings.Contains(err.Error(), want) || clickhouse.Unreachable(err) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if n := queryNumber(t, conn, "SELECT count() AS n FROM mixed"); n != 0 {
		t.Errorf("%d rows", n)
	}
}
