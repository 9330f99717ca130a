package web

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
)

// A CSV has the rows of the list, money as bare numbers, and no text that a spreadsheet
// would run.
func TestCSV(t *testing.T) {
	r := newRig(t)
	code, h, body := r.get("acme", "/v1/workspaces/acme/outcomes.csv")
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if code != 200 || err != nil || !strings.HasPrefix(h.Get("Content-Type"), "text/csv") || len(records) != 1+160 ||
		!slices.Equal(records[0], ledger.Names()) {
		t.Fatalf("%d %v %d records", code, err, len(records))
	}
	at := func(name string) int { return slices.Index(records[0], name) }
	net := map[string]*big.Rat{"net_amount": {}, "standing_change": {}}
	for _, rec := range records[1:] {
		if rec[at("event_id")] == "e0" {
			t.Error("a row of globex")
		}
		for column, sum := range net {
			if rec[at("currency")] != "JPY" || rec[at(column)] == "" {
				continue
			}
			v, ok := new(big.Rat).SetString(rec[at(column)])
			if !ok {
				t.Fatalf("%s %q", column, rec[at(column)])
			}
			sum.Add(sum, v)
		}
	}
	want := map[string]*big.Int{"net_amount": {}, "standing_change": {}}
	for _, p := range rowsOf[report.Performance](r, "performance?limit=1000").Rows {
		if p.Currency == "JPY" {
			want["net_amount"].Add(want["net_amount"], p.NetMinor)
			want["standing_change"].Add(want["standing_change"], p.StandingMinor)
		}
	}
	for column, sum := range net {
		if sum.Cmp(new(big.Rat).SetInt(want[column])) != 0 {
			t.Errorf("%s: the CSV has %v, the rollup %v", column, sum, want[column])
		}
	}
	if net["net_amount"].Cmp(net["standing_change"]) == 0 {
		t.Error("nothing was taken back beyond what stood")
	}
	_, _, body = r.get("globex", "/v1/workspaces/globex/outcomes.csv")
	if !strings.Contains(body, ",'=cmd(),") {
		t.Error("a formula got through")
	}
	for _, name := range []string{"outcomes", "performance", "statement"} {
		path := "/v1/workspaces/acme/" + name + ".csv?" + map[bool]string{true: "month=2026-03&"}[name == "statement"]
		_, _, plain := r.get("acme", path)
		if _, _, marked := r.get("acme", path+"bom=1"); marked != ledger.ByteOrderMark+plain {
			t.Errorf("%s with a byte order mark: %.20q, without: %.20q", name, marked, plain)
		}
	}
	if code, _, body := r.get("acme", "/v1/workspaces/acme/outcomes.csv?bom=yes"); code != 400 ||
		!strings.Contains(body, `"bom"`) {
		t.Errorf("bom=yes: %d %s", code, body)
	}
	checkPerformanceCSV(r)
}

// checkPerformanceCSV holds performance.csv against the list: the same rows, amounts as
// decimals with the digits of their currency.
func checkPerformanceCSV(r *rig) {
	r.Helper()
	_, _, body := r.get("acme", "/v1/workspaces/acme/performance.csv")
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	rows := rowsOf[report.Performance](r, "performance?limit=1000").Rows
	if err != nil || len(records) != 1+len(rows) || !slices.Equal(records[0], performanceColumns()) ||
		slices.Contains(records[0], "exponent") || !slices.Contains(records[0], "standing_amount") {
		r.Fatalf("performance.csv: %v, %d records of %v", err, len(records), records[0])
	}
	digits := map[string]int{"EUR": 2, "USD": 2, "JPY": 0, "": 0}
	at := func(name string) int { return slices.Index(records[0], name) }
	for i, p := range rows {
		rec := records[1+i]
		for column, minor := range map[string]*big.Int{"gross_amount": p.GrossMinor, "standing_amount": p.StandingMinor,
			"taken_back_amount": p.TakenBackMinor, "net_amount": p.NetMinor, "reward_amount": p.RewardMinor} {
			_, fraction, _ := strings.Cut(rec[at(column)], ".")
			got, ok := new(big.Rat).SetString(rec[at(column)])
			scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(p.Exponent)), nil)
			if !ok || got.Cmp(new(big.Rat).SetFrac(minor, scale)) != 0 || len(fraction) != digits[p.Currency] {
				r.Errorf("%s of %s on %s: %q, want %v / %v", column, p.LinkID, p.Day, rec[at(column)], minor, scale)
			}
		}
		if rec[at("currency")] != p.Currency || rec[at("taken_back")] != fmt.Sprint(p.TakenBack) {
			r.Errorf("%v is not the row of %+v", rec, p)
		}
	}
}

// A text becomes a cell that a CSV reader gives back as it was, but for what escapes a
// formula, which has a way back, and for what is no UTF-8.
func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=1", "a,b", "\"", "\r\n", "\xff", "a\x00b", "-", "'", "é", "\x00=1", "\\.", " a",
		"\u00a0=1", "\ufeff=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		w.Write([]string{"x", ledger.EscapeFormula(ledger.Version, ledger.CleanText(s))})
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
		if utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\r") && ledger.UnescapeFormula(got) != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
