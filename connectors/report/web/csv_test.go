package web

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/ledger"
)

// A text becomes a cell that a CSV reader gives back as it was, but for the guard and
// what is no UTF-8.
func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=1", "a,b", "\"", "\r\n", "\xff", "a\x00b", "-", "'", "é", "\x00=1", "\\.", " a",
		"\u00a0=1", "\ufeff=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		w.Write([]string{"x", ledger.EscapeFormula(ledger.CleanText(s))})
		w.Flush()
		if !utf8.Valid(out.Bytes()) || bytes.ContainsRune(out.Bytes(), 0) {
			t.Fatalf("%q: %q is not text", s, out.String())
		}
		records, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(records) != 1 || len(records[0]) != 2 {
			t.Fatalf("%q: %v %q", s, err, records)
		}
		got := records[0][1]
		if got != "" && strings.ContainsRune("=+-@\t\r\n", rune(got[0])) {
			t.Errorf("%q begins as a formula: %q", s, got)
		}
		if want := strings.TrimPrefix(got, "'"); utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\r") &&
			got != s && want != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
