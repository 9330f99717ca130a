package ledger

import (
	"encoding/csv"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Version 1 keeps its bytes, whatever is known today.
func TestEscapeFormulaOfVersion1(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		if got := EscapeFormula(1, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, start := range "=+-@\t\r\n" {
		check(string(start)+"1", "'"+string(start)+"1")
	}
	for _, kept := range []string{"", "a=1", "'=1", " =1", "x;=1", "＝1"} {
		check(kept, kept)
	}
}

func TestEscapeFormula(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		if got := EscapeFormula(Version, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, start := range "=+-@＝＋－＠﹦﹢﹣﹫−\t\r\n" {
		check(string(start)+"1", "'"+string(start)+"1")
	}
	for _, skipped := range "\x01\b\x0e\x1b\x1f\x7f\u0080\u009f\u00a0\u00ad\u061c\u1680\u180e\u2000\u2003\u200a\u200b" +
		"\u200c\u200e\u202a\u202e\u202f\u205f\u2060\u2069\u206f\u3000\ufeff\ufff9\U000e0001\U000e007f" {
		check(string(skipped)+"=1", "'"+string(skipped)+"=1")
		check("x;"+string(skipped)+"=1", "x;'"+string(skipped)+"=1")
		check(string(skipped)+"1", string(skipped)+"1")
	}
	for _, separator := range ",;|\t\r\n\v\f\u0085\u2028\u2029" {
		for _, start := range "=+-@＝＋－＠﹦﹢﹣﹫−" {
			check("x"+string(separator)+string(start)+"1", "x"+string(separator)+"'"+string(start)+"1")
		}
	}
	check("x;=cmd|' /C calc'!A0", "x;'=cmd|' /C calc'!A0")
	check("line1\n=1+1;\r\n@x", "line1\n'=1+1;'\r\n'@x")
	check(`x;"=1"`, `x;'"=1"`)
	check("x; =1", "x;' =1")
	check("x;\t=1", "x;'\t'=1")
	check("x\t\t=1", "x\t\t'=1")
	check("＝1;－1", "'＝1;'－1")
	check("'=1", "''=1") // or it could not be told from =1
	for _, kept := range []string{"", "a=1", "'q", "0001", "a;b", "a; b", "x\r\n\r\ny", "a - b", "a-b|c",
		"1,5", "5 -3", "x =1+1", "a: =b",
		"1\u2009\u2212\u20092"} {
		check(kept, kept)
	}
}

// What is skipped is all that Unicode has of it. A text that another release of Unicode
// adds is for another version of the columns.
func TestSkippedStarts(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		want := strings.ContainsRune(`"'`, r) || unicode.In(r, unicode.Zs, unicode.Cf, unicode.Cc) &&
			!strings.ContainsRune("\x00\t\r\n\v\f\x1c\x1d\x1e\u0085", r)
		if got := isSkipped(r); got != want {
			t.Errorf("%U is skipped: %t, want %t", r, got, want)
		}
	}
}

// sharesOf are the cells of a text that stands in a line of ours, as programs with
// another separator find them: with and without an understanding of quotes.
func sharesOf(t *testing.T, cell string, separator rune) (cells []string) {
	t.Helper()
	quoted := cell
	if strings.ContainsAny(cell, "\",\n\r") {
		quoted = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
	}
	line := "x," + quoted + ",y"
	r := csv.NewReader(strings.NewReader(line))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = separator, true, -1
	for {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		cells = append(cells, record...)
	}
	return append(cells, strings.FieldsFunc(line, func(r rune) bool {
		return r == separator || strings.ContainsRune(lineBreaks, r)
	})...)
}

// No reader finds a formula, and the text can be had back.
func FuzzEscapeFormula(f *testing.F) {
	for _, text := range []string{"=1", "x;=1", "''=1", "x;\"\"=1", "\r\n=1", "a\t\t-1", "\u3000＠", ";\xff=",
		"';'=", "|\r=", "\x01=", ";\u2060\u202f﹦", "\u00ad\U000e0041−",
		"\ufeff;+", "x;\"\n=1", "\x85=", "a,;b;\"=\""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cell := EscapeFormula(Version, text)
		if back := UnescapeFormula(cell); back != text {
			t.Fatalf("%q is escaped as %q, and comes back as %q", text, cell, back)
		}
		if again := EscapeFormula(Version, UnescapeFormula(cell)); again != cell {
			t.Errorf("%q is escaped as %q, then as %q", text, cell, again)
		}
		if CleanText(cell) != EscapeFormula(Version, CleanText(text)) {
			t.Errorf("%q: it matters whether a text is cleaned before or after", text)
		}
		for _, separator := range ",;|\t" {
			for _, share := range sharesOf(t, cell, separator) {
				first, size := utf8.DecodeRuneInString(strings.TrimLeftFunc(share, func(r rune) bool {
					return r != '\'' && isSkipped(r)
				}))
				if size > 0 && strings.ContainsRune("=+-@＝＋－＠﹦﹢﹣﹫−", first) {
					t.Errorf("%q is escaped as %q, and has the cell %q behind %q", text, cell, share, separator)
				}
			}
		}
	})
}

// A text appended to a line is escaped, quoted and cleaned: a look at its bytes leaves out
// only what changes nothing.
func TestAppendText(t *testing.T) {
	pieces := []string{"", "a", "=", "＝", ";", ",", "\t", "\r", "\n", "\"", "'", " ", "\u2028", "\xe2", "\ufeff",
		"\xff", "\x00", "é", "\u0085", "\xc2", "1"}
	for i := range len(pieces) * len(pieces) * len(pieces) {
		text := pieces[i%len(pieces)] + pieces[i/len(pieces)%len(pieces)] + pieces[i/len(pieces)/len(pieces)]
		for escape := range Version + 1 {
			want := text
			if escape > 0 {
				want = EscapeFormula(escape, text)
			}
			if strings.ContainsAny(want, "\",\r\n") {
				want = `"` + strings.ReplaceAll(want, `"`, `""`) + `"`
			}
			want = "x," + CleanText(want)
			if got := string(AppendText([]byte("x,"), text, escape)); got != want {
				t.Fatalf("%q, version %d: %q, want %q", text, escape, got, want)
			}
		}
	}
}
