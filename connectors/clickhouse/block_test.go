package clickhouse_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// blockRow is a row of every type that a Block has.
type blockRow struct {
	K        uint64            `ch:"k"`
	At       int64             `ch:"at"`
	Small    int8              `ch:"small"`
	Short    uint16            `ch:"short"`
	Word     uint32            `ch:"word"`
	Flag     bool              `ch:"flag"`
	Maybe    *int64            `ch:"maybe"`
	Text     string            `ch:"text"`
	Low      string            `ch:"low"`
	Fixed    string            `ch:"fixed"`
	Many     []string          `ch:"many"`
	Metadata map[string]string `ch:"metadata"`
	Picked   string            `ch:"picked"`
	PickedN  *int64            `ch:"picked_n"`
	PickedK  uint16            `ch:"picked_k"`
}

// newTestBlock makes rows, and the block with them. distinct is how many texts low has.
func newTestBlock(rows, distinct int) (want []blockRow, b *clickhouse.Block) {
	k, at := clickhouse.NewNumbers(clickhouse.UInt64), clickhouse.NewNumbers(clickhouse.Millis)
	small, short := clickhouse.NewNumbers(clickhouse.Int8), clickhouse.NewNumbers(clickhouse.UInt16)
	word, flag := clickhouse.NewNumbers(clickhouse.UInt32), clickhouse.NewNumbers(clickhouse.Bool)
	maybe, text, low := clickhouse.NewMaybeNumbers(clickhouse.Int64), new(clickhouse.Strings), clickhouse.NewTexts()
	fixed, many, metadata := clickhouse.NewFixedStrings(4), clickhouse.NewLists(), clickhouse.NewPairs()
	picked, pickedN := clickhouse.NewTexts(), clickhouse.NewMaybeNumbers(clickhouse.Int64)
	pickedK := clickhouse.NewNumbers(clickhouse.UInt16)
	picks := new([]uint32)
	for n := range 3 {
		picked.Add(fmt.Sprint("picked", n))
		pickedN.Add(int64(n))
		pickedK.Add(int64(n))
	}
	pickedN.AddNull()
	for i := range rows {
		n, pick := int64(i-5), int64(i*i%3)
		r := blockRow{
			K:        uint64(i),
			At:       1_700_000_000_123 + n,
			Small:    int8(n),
			Short:    uint16(n),
			Word:     uint32(n),
			Flag:     i%2 == 0,
			Text:     strings.Repeat("é", i%150),
			Low:      fmt.Sprint("low", i%distinct),
			Fixed:    fmt.Sprintf("%4d", i%1000),
			Many:     []string{"a", "", "tab\t"}[:i%4],
			Metadata: map[string]string{},
			Picked:   fmt.Sprint("picked", pick),
			PickedN:  &pick,
			PickedK:  uint16(pick),
		}
		for _, item := range r.Many {
			many.AddItem([]byte(item))
			r.Metadata["k"+item] = item
			metadata.AddPair([]byte("k"+item), []byte(item))
		}
		many.EndRow()
		metadata.EndRow()
		if i%3 == 0 {
			maybe.AddNull()
		} else {
			r.Maybe = &n
			maybe.Add(n)
		}
		*picks = append(*picks, uint32(pick))
		k.Add(int64(i))
		at.Add(r.At)
		for _, c := range []*clickhouse.Numbers{small, short, word} {
			c.Add(n)
		}
		flag.Add(int64(1 - i%2))
		text.AddBytes([]byte(r.Text))
		low.AddBytes([]byte(r.Low))
		fixed.AddBytes([]byte(r.Fixed))
		want = append(want, r)
	}
	b = new(clickhouse.Block)
	for _, c := range []struct {
		name string
		clickhouse.Column
	}{{"k", k}, {"at", at}, {"small", small}, {"short", short}, {"word", word}, {"flag", flag}, {"maybe", maybe},
		{"text", text}, {"low", low}, {"fixed", fixed}, {"many", many}, {"metadata", metadata}} {
		b.Add(c.name, c.Column)
	}
	b.AddPicked("picked", picked, picks)
	b.AddPicked("picked_n", pickedN, picks)
	b.AddPicked("picked_k", pickedK, picks)
	return want, b
}

func noStep() error { return nil }

// A Block of every type arrives as it is, whatever the transport does with it, also in a
// table that has other types than its own, and once under one token.
func TestBlockRoundTrip(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	want, block := newTestBlock(700, 300)
	for _, option := range []string{"", "?compress=lz4", "?compress=zstd", "?compress=gzip"} {
		for _, texts := range []string{"String", "LowCardinality(String)"} {
			conn := openTestDSN(t, dsn+option)
			execAll(t, conn, `CREATE OR REPLACE TABLE blocks (
					k UInt64, at DateTime64(3, 'UTC'), small Int8, short UInt16, word UInt32, flag Bool,
					maybe Nullable(Int64), text `+texts+`, low LowCardinality(String), fixed FixedString(4),
					many Array(`+texts+`), metadata Map(`+texts+`, String), picked LowCardinality(String),
					picked_n Nullable(Int64), picked_k UInt16
				) ENGINE = MergeTree ORDER BY k`+windowSetting)
			for range 2 {
				steps := 0
				into := clickhouse.Insert{Table: "blocks", Token: "t"}
				err := conn.InsertBlock(t.Context(), into, block, func() error {
					steps++
					return nil
				})
				if err != nil || steps != 1 {
					t.Fatalf("%s, %s: %v, %d steps", option, texts, err, steps)
				}
			}
			var got []blockRow
			if err := conn.Select(t.Context(), &got,
				"SELECT * REPLACE (toUnixTimestamp64Milli(at) AS at) FROM blocks ORDER BY k"); err != nil {
				t.Errorf("%s, %s: %v", option, texts, err)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: (-want +got)\n%s", option, texts, diff)
			}
		}
	}
}

// The numbers of texts are wide enough, picked or not.
func TestBlockTexts(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE low (k UInt64, s LowCardinality(String), p LowCardinality(String)) "+
		"ENGINE = MergeTree ORDER BY k")
	const rows = 70_000
	k, texts, picks := clickhouse.NewNumbers(clickhouse.UInt64), clickhouse.NewTexts(), new([]uint32)
	var b clickhouse.Block
	b.Add("k", k)
	b.Add("s", texts)
	b.AddPicked("p", texts, picks)
	for _, distinct := range []int{1, 256, 257, 65_536, 65_537, rows} {
		k.Reset()
		texts.Reset()
		*picks = (*picks)[:0]
		for i := range rows {
			k.Add(int64(i))
			texts.AddBytes([]byte(fmt.Sprint(i % distinct)))
			*picks = append(*picks, uint32(rows-1-i))
		}
		execAll(t, conn, "TRUNCATE TABLE low")
		if err := conn.InsertBlock(t.Context(), clickhouse.Insert{Table: "low"}, &b, noStep); err != nil {
			t.Fatal(err)
		}
		n := queryNumber(t, conn, fmt.Sprintf("SELECT countIf(s = toString(k %% %d) AND "+
			"p = toString((%d - k) %% %[1]d)) AS n FROM low", distinct, rows-1))
		if n != rows {
			t.Errorf("%d texts: %d of %d rows are right", distinct, n, rows)
		}
	}
}

// What must not be sent is not, and a refusal says why.
func TestBlockRefused(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE refused (k UInt64, s String) ENGINE = MergeTree ORDER BY k")
	k, s := clickhouse.NewNumbers(clickhouse.UInt64), new(clickhouse.Strings)
	insert := func(table string, sending func() error, names ...string) error {
		var b clickhouse.Block
		for i, name := range names {
			b.Add(name, []clickhouse.Column{k, s}[i])
		}
		return conn.InsertBlock(t.Context(), clickhouse.Insert{Table: table}, &b, sending)
	}
	if err := insert("refused", noStep, "k", "s"); err != nil {
		t.Errorf("no row: %v", err)
	}
	k.Add(1)
	refuse := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || clickhouse.Unreachable(err) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refuse(insert("refused", noStep, "k", "s"), "column s has 0 rows, column k has 1")
	s.Add("x")
	refuse(insert("refused", noStep, "k", "z"), "the table has no column z")
	refuse(insert("nowhere", noStep, "k", "s"), "has no table nowhere: run ctl migrate")
	refuse(insert("refused", noStep, "s", "k"), "inserting 1 rows into refused")
	refuse(insert("refused", func() error { return errors.New("stopped") }, "k", "s"), "stopped")
	for range clickhouse.MaxInsertRows {
		k.Add(1)
		s.Add("")
	}
	refuse(insert("refused", noStep, "k", "s"), "would not stay one block")
	if n := queryNumber(t, conn, "SELECT count() AS n FROM refused"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// net/http may go on reading when an insert has failed and its memory is used again: it
// gets an error, and no byte of the next insert.
func TestPartsReader(t *testing.T) {
	newReader := func() *clickhouse.PartsReader {
		return clickhouse.NewPartsReader([]byte("abc"), nil, []byte("de"))
	}
	if err := iotest.TestReader(newReader(), []byte("abcde")); err != nil {
		t.Error(err)
	}
	r := newReader()
	buf := make([]byte, 4)
	if n, err := r.Read(buf); n != 4 || err != nil || string(buf) != "abcd" {
		t.Errorf("%d bytes, %v: %q", n, err, buf)
	}
	r.Detach()
	if n, err := r.Read(buf); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after its end: %d bytes, %v", n, err)
	}
}
