package dispute

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
)

// A batch answers as its claims one by one would.
func TestBatch(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	// long, and full of what could end a parameter
	batch(t, conn, "acme", strings.Repeat("'\\\t", 40))
	batch(t, conn, "zeta", strings.Repeat("\U0001F642", 124)) // 1,500 bytes in a URL
}

// Where a claim may mean two orders that are known, the answer names the one that it
// does not count, whoever wrote the list; a partner hears of their own alone.
func TestChooseKey(t *testing.T) {
	of := func(partner string) []*report.Event {
		e := &report.Event{}
		e.PartnerID = partner
		return []*report.Event{e}
	}
	both := &evidence{judged: map[string][]*report.Event{"=x": of("p"), "'=x": of("q")}}
	check := func(ev *evidence, exported bool, partner, wantKey, wantWords string) {
		t.Helper()
		key, second := ev.chooseKey("'=x", exported)
		var f Finding
		(&Dispute{partner: partner}).warnOfSecond(&f, second, ev)
		if key != wantKey || f.Words != wantWords {
			t.Errorf("exported %t, for %q: %s, %q, want %s, %q", exported, partner, key, f.Words, wantKey, wantWords)
		}
	}
	words := func(second string) string {
		return "; there is also " + second + ", which a CSV of ours writes in the same way"
	}
	check(both, true, "", "=x", words("'=x"))
	check(both, true, "q", "=x", words("'=x"))
	check(both, true, "p", "=x", "")
	check(both, false, "", "'=x", words("=x"))
	check(both, false, "q", "'=x", "")
	waiting := &evidence{judged: map[string][]*report.Event{"=x": of("p")},
		waiting: map[string][]*report.Event{"'=x": of("")}}
	check(waiting, true, "", "=x", words("'=x"))
	check(waiting, true, "q", "=x", "")
	one := &evidence{refused: map[string]report.Refusal{"=x": {}}}
	check(one, false, "", "=x", "")
	check(&evidence{}, false, "", "'=x", "")
	check(&evidence{}, true, "", "=x", "")
}

// Promise: an id is found as programs keep it from spreadsheets, and of one that is not
// found it is said what a spreadsheet or a data frame may have made of it.
func TestIDsOfSpreadsheets(t *testing.T) {
	ev := &evidence{judged: map[string][]*report.Event{"0001": {{}}, `a"b`: {{}}, `="2"`: {{}}, "2": {{}}}}
	for id, want := range map[string]string{`="0001"`: "0001", `'="0001"`: "0001", `="a""b"`: `a"b`, `="2"`: `="2"`,
		`="3"`: `="3"`, `="0001`: `="0001`} {
		for _, exported := range []bool{false, true} {
			if exported && id[0] == '\'' && want[0] == '=' {
				continue
			}
			if key, second := ev.chooseKey(id, exported); key != want || second != "" {
				t.Errorf("%s, exported %t: %q, %q, want %q", id, exported, key, second, want)
			}
		}
	}
	for id, want := range map[string]string{"1001.0": "1001", "1001,00": "1001", "1": "0001", "01": "1", "1001.5": "",
		"A1": "", "1234567890123456": "", "1.0.0": ""} {
		if got := sameNumbers(id); slices.Contains(got, want) != (want != "") || slices.Contains(got, id) {
			t.Errorf("%s is the same number as %q, want %q", id, got, want)
		}
	}
	for id, want := range map[string][2]bool{"1.23E+11": {true, false}, "1E+12": {true, false},
		"1,2e+05": {true, false},
		"1E12":    {}, "123456789012345000": {false, true}, "123456789012345": {}, "123456789012345001": {}} {
		if got := [2]bool{shortenedID.MatchString(id), roundedID.MatchString(id)}; got != want {
			t.Errorf("%s: shortened, rounded: %v, want %v", id, got, want)
		}
	}
}

// é is one character, or e and an accent: an id is looked for in both forms, as it is
// written first.
func TestFormsOfUnicode(t *testing.T) {
	const one, two = "caf\u00e9", "cafe\u0301"
	for id, want := range map[string][]string{
		"1001": {"1001"},
		one:    {one, two},
		two:    {two, one},
		"'=é":  {"'=é", "=é", "'=e\u0301", "=e\u0301"},
	} {
		if got := keysOf(id, false); !slices.Equal(got, want) {
			t.Errorf("%+q may be %+q, want %+q", id, got, want)
		}
	}
	ev := &evidence{judged: map[string][]*report.Event{one: {{}}, two: {{}}}}
	key, second := ev.chooseKey(two, false)
	f := Finding{key: key}
	(&Dispute{}).warnOfSecond(&f, second, ev)
	if key != two || f.Words != "; there is also "+one+", which looks the same and has other characters" {
		t.Errorf("%+q is answered as %+q: %q", two, key, f.Words)
	}
}

func batch(t *testing.T, conn *clickhouse.Conn, workspace, id string) {
	t.Helper()
	const sales = 3 * MaxBatch
	err := conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, src_offset, event_offset, click_token, event_id, order_id, type, verdict, effect, amount_minor, standing_change_minor, currency, exponent, partner_id)
		SELECT {w:String}, number, number, 'T' || toString(number % 7), {id:String} || toString(number), {id:String} || 'o' || toString(intDiv(number, 3)), 'sale', 'attributed', 1, 100 + number, 100 + number, 'EUR', 2, 'p'
		FROM numbers({sales:UInt32})`, clickhouse.Named("id", id), clickhouse.Named("sales", sales), clickhouse.Named("w", workspace))
	if err != nil {
		t.Fatal(err)
	}
	var claims []Claim
	for i := range MaxBatch - 1 {
		claims = append(claims, Claim{Line: i + 2, OrderID: fmt.Sprintf("%so%d", id, i)})
	}
	claims = append(claims, Claim{Line: MaxBatch + 1, OrderID: claims[0].OrderID})
	d := New(report.New(conn), workspace, "p")
	findings, err := d.Answer(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range findings[:MaxBatch-1] {
		if want := ledger.MinorUnits(int64(3*100+9*i+3), 2); f.Verdict != Attributed || f.Confirmed == nil ||
			!f.Confirmed.Equal(want) {
			t.Fatalf("claim %d: %q, confirmed %v, want %s", i, f.Words, f.Confirmed, want)
		}
	}
	if f := findings[MaxBatch-1]; f.Words != "duplicate of line 2" {
		t.Errorf("the first order once more: %q", f.Words)
	}
	if _, err := d.Answer(t.Context(), append(claims, Claim{OrderID: "one more"})); err == nil {
		t.Error("a batch may be as long as it likes")
	}
}
