package sheet

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/text/transform"
)

// Excel's "CSV (Macintosh)" ends lines with CR alone, and says nothing of it.
func TestCarriageReturns(t *testing.T) {
	check := func(list, want string, assumed ...string) {
		t.Helper()
		rows, said := lines(list, Options{})
		if strings.Join(rows, " / ") != want || !slices.Equal(said, assumed) {
			t.Errorf("%q\n\tis   %q, assumed %q\n\twant %q, assumed %q", list, rows, said, want, assumed)
		}
	}
	const said = "a CR alone ends a line, as line 1"
	check("order_id,amount\r1,10.00\r2,11.00\r", "1 10.00 / 2 11.00", said)
	check("order_id,amount\r1,10.00\r2,11.00", "1 10.00 / 2 11.00", said)
	check("sep=;\rorder_id;amount\r1;10.00\r", "1 10.00", "cells are separated by ;, as the line sep= says", said)
	check("order_id,amount\r\n1,10.00\r2,11.00\n", "1 10.00 / 2 11.00", "a CR alone ends a line, as line 2")
	check("order_id,amount\r1,10.00\r,11.00\r", "1 10.00 / x.csv:3:1: order_id: order_id or event_id is required", said)
	// a cell keeps its own
	check("order_id,note\n1,\"a\r\"\"b\rc\"\r\n2,x\n", "1 – / 2 –")
}

// A quote that nobody closes is found where it began, before it fills the memory.
func TestUnclosedQuotes(t *testing.T) {
	check := func(list, want string) {
		t.Helper()
		if rows, _ := lines(list, Options{}); rows[len(rows)-1] != want {
			t.Errorf("%.60q: %.200q, want %q", list, rows, want)
		}
	}
	long := strings.Repeat("3,10.00\n", 20_000)
	const where = "x.csv:3:4: the quote that begins here "
	for _, start := range []string{"order_id,amount\n1,10.00\n2x,\"", "sep=,\norder_id,amount\n2x,\""} {
		check(start+"10.00\n3,10.00\n", where+"is never closed")
		check(start+long, where+"is not closed within 64 KiB")
		check(start+strings.Repeat(`""`, maxQuoted/2)+long, where+"is not closed within 64 KiB")
	}
	check("order_id,amount\n1,10.00\n"+long+"2x,\""+long,
		"x.csv:20003:4: the quote that begins here is not closed within 64 KiB")
	check("\"order_id,amount\n"+long, "x.csv:1:1: the quote that begins here is not closed within 64 KiB")
	check("order_id,note\n1,x\n2,"+strings.Repeat("x", maxLine), "x.csv:3:1: a line of more than 1024 KiB")
	check("order_id,note\n1,\""+strings.Repeat("\r", maxQuoted-10)+"\"\n", "1 –")
	check("order_id,note\n1,x\n2,\"x\"x\n3,\"", `x.csv:3:5: extraneous or missing " in quoted-field`)
	check("order_id,note\n1,x\n2,x\"x\n", `x.csv:3:4: bare " in non-quoted-field: a cell with quotes stands in `+
		`quotes, and ="0001" is written as 0001`)

	// No more of the list is read than the bound.
	read := &countingReader{from: strings.NewReader("order_id,note\n1,\"" + strings.Repeat("x", 1<<24))}
	if _, err := csv.NewReader(transform.NewReader(read, &lineEnds{})).ReadAll(); !errors.As(err, new(*BadList)) ||
		read.bytes > 2*maxQuoted {
		t.Errorf("%v after %d bytes", err, read.bytes)
	}
}

type countingReader struct {
	from  io.Reader
	bytes int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += n
	return n, err
}

// However a list comes, in pieces, what encoding/csv reads of it is the same as without
// us, if no CR ends a line.
func FuzzLineEnds(f *testing.F) {
	for _, seed := range []string{"a,b\r\n1,\"x\ry\"\r\n", "a\r1\r", "a,\"b\n\"\"c\"\n", "\"", "a\"b\n",
		"\r\r\n", "\"a\"\"\r\n\"\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		read := func(from io.Reader) ([]byte, error) { return io.ReadAll(transform.NewReader(from, &lineEnds{})) }
		out, err := read(strings.NewReader(list))
		slow, slowly := read(bufio.NewReader(iotest.OneByteReader(strings.NewReader(list))))
		if string(out) != string(slow) || (err == nil) != (slowly == nil) {
			t.Fatalf("%q: %q, %v; a byte at a time %q, %v", list, out, err, slow, slowly)
		}
		if err == nil && !strings.Contains(strings.ReplaceAll(list, "\r\n", ""), "\r") && string(out) != list {
			t.Fatalf("%q became %q", list, out)
		}
	})
}
