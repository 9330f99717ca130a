package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/report"
)

func TestBadParameters(t *testing.T) {
	r := newRig(t)
	for path, field := range map[string]string{
		"performance?from=yesterday": "from", "performance?to=2026-13-01": "to",
		"performance?from=2026-03-02&to=2026-03-01": "to", "outcomes?type=purchase": "type",
		"outcomes?verdict=all": "verdict", "outcomes?review=maybe": "review",
		"outcomes?limit=0": "limit", "outcomes?limit=1001": "limit", "outcomes?limit=ten": "limit",
		"outcomes?cursor=x": "cursor", "outcomes?cursor=WyJhIl0": "cursor", "performance?cursor=WyJhIl0": "cursor",
		"performance?colour=red":  "colour",
		"performance?partner=%00": "partner", "performance?partner=a&partner=b": "partner",
		"performance?basis=month": "basis", "events": "event_id", "events?event_id=": "event_id",
		"events?event_id=a&x=1": "x", "events?event_id=a&order_id=b": "order_id",
		"events?order_id=a&order_id=b": "order_id", "events?order_id=" + strings.Repeat("a", 129): "order_id",
		"conservation?partner=p0": "partner", "coverage?type=sale": "type", "outcomes.csv?limit=3": "limit",
		"coverage?cursor=WyJhIiwiYiJd": "cursor", "conservation?cursor=WyJhIl0": "cursor",
		"coverage?sort=sales": "sort", "coverage?basis=click": "basis", "outcomes?sort=link_id": "sort",
		// a cursor of the list by its ids
		"coverage?sort=clicks&cursor=" + encodeCursor([]string{"link_id", "0", "l0"}): "cursor",
	} {
		code, h, body := r.get("acme", "/v1/workspaces/acme/"+path)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); code != 400 ||
			h.Get("Content-Type") != "application/problem+json" || err != nil || p.Field != field ||
			!strings.HasPrefix(p.Detail, field) {
			t.Errorf("%s: %d %s, want field %s", path, code, body, field)
		}
	}
	if code, _, body := r.get("acme", "/?from=x"); code != 400 || !strings.Contains(body, "is not a day") ||
		!strings.Contains(body, "Partner performance") {
		t.Errorf("the page with a bad day: %d", code)
	}
}

// Pages of any size are together the whole list, once, in its order.
func TestPages(t *testing.T) {
	r := newRig(t)
	for _, list := range []string{"performance", "outcomes", "conservation", "performance?type=sale,lead",
		"performance?basis=click"} {
		sep := "?"
		if strings.Contains(list, "?") {
			sep = "&"
		}
		whole := rowsOf[json.RawMessage](r, list+sep+"limit=1000")
		if whole.Next != "" || len(whole.Rows) < 3 {
			t.Errorf("%s: %d rows, next %q", list, len(whole.Rows), whole.Next)
		}
		var paged []json.RawMessage
		for next := ""; ; {
			a := rowsOf[json.RawMessage](r, list+sep+"limit=7&cursor="+next)
			paged = append(paged, a.Rows...)
			if next = a.Next; next == "" {
				break
			}
		}
		if !slices.EqualFunc(whole.Rows, paged, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s: %d rows in pages, %d at once", list, len(paged), len(whole.Rows))
		}
	}
}

// Coverage is that of the clicks that the filter selects, with its reasons, in each order
// and in pages of any size; without a filter it is the view.
func TestCoverage(t *testing.T) {
	r := newRig(t)
	list := func(query string) (rows []report.Coverage) {
		for next := ""; ; {
			a := rowsOf[report.Coverage](r, "coverage?limit=2&cursor="+next+"&"+query)
			rows = append(rows, a.Rows...)
			if next = a.Next; next == "" {
				return rows
			}
		}
	}
	var view []report.Coverage
	if err := r.conn.Select(t.Context(), &view,
		"SELECT * FROM token_coverage WHERE workspace_id = 'acme' ORDER BY link_id"); err != nil {
		t.Fatal(err)
	}
	if got := list(""); len(view) != 3 || !reflect.DeepEqual(got, view) {
		t.Errorf("without a filter:\n got %+v\nwant %+v", got, view)
	}
	// Click n is in hour n, on link n % 3; every seventh is withheld, n % 5 = 0 is globex's.
	for query, selects := range map[string]func(n int) bool{
		"from=2026-03-04&to=2026-03-05":         func(n int) bool { return n >= 60 && n < 108 },
		"from=2026-03-04&to=2026-03-05&tz=UTC":  func(n int) bool { return n >= 60 && n < 108 },
		"partner=p1&to=2026-03-05":              func(n int) bool { return n < 108 && n%2 == 1 },
		"program=g0":                            func(n int) bool { return n%2 == 0 },
		"clicks=human":                          func(n int) bool { return n%10 != 2 },
		"q=GO.ACME.com/S1":                      func(n int) bool { return n%3 == 1 },
		"q=l2":                                  func(n int) bool { return n%3 == 2 },
		"link=l0&from=2026-03-10&to=2026-03-10": func(n int) bool { return n%3 == 0 && n >= 204 && n < 228 },
		"q=nowhere&from=2026-03-01&sort=clicks": func(int) bool { return false },
		"from=2027-01-01&sort=coverage&q=acme":  func(int) bool { return false },
	} {
		want := map[string]report.Coverage{}
		for n := range 300 {
			if n%5 == 0 || !selects(n) {
				continue
			}
			c := want[fmt.Sprint("l", n%3)]
			c.Clicks++
			if n%7 == 0 {
				c.Withheld++
			}
			want[fmt.Sprint("l", n%3)] = c
		}
		got := list(query)
		for _, c := range got {
			w := want[c.LinkID]
			if c.Clicks != w.Clicks || c.Withheld != w.Withheld || c.Tokened != w.Clicks-w.Withheld ||
				c.Reasons["signed_url"] != w.Withheld {
				t.Errorf("%s: %+v, want %d clicks, %d withheld", query, c, w.Clicks, w.Withheld)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d links, want %d", query, len(got), len(want))
		}
	}
	for sort, value := range map[string]func(report.Coverage) float64{ // the smallest first
		"link_id":         func(report.Coverage) float64 { return 0 },
		"clicks":          func(c report.Coverage) float64 { return -float64(c.Clicks) },
		"coverage":        func(c report.Coverage) float64 { return c.Coverage },
		"withheld_clicks": func(c report.Coverage) float64 { return -float64(c.Withheld) },
	} {
		rows := list("from=2026-03-02&to=2026-03-03&sort=" + sort)
		if len(rows) != 3 || !slices.IsSortedFunc(rows, func(a, b report.Coverage) int {
			return cmp.Or(cmp.Compare(value(a), value(b)), cmp.Compare(a.LinkID, b.LinkID))
		}) {
			t.Errorf("sort=%s: %+v", sort, rows)
		}
	}
}

// With clicks=human the clicks are those of people: in the rows, in rows that are added
// up, and on the page. Nothing else changes.
func checkPeople(t *testing.T, r *rig, all []report.Performance) {
	t.Helper()
	var clicks, people uint64
	for _, row := range all {
		clicks += row.Clicks
		people += row.HumanClicks
	}
	if people == 0 || people >= clicks {
		t.Fatalf("%d clicks, %d of people: nothing is shown", clicks, people)
	}
	for _, query := range []string{"", "&type=sale"} {
		var got, sales, want uint64
		for _, row := range rowsOf[report.Performance](r, "performance?limit=1000&clicks=human"+query).Rows {
			got, sales = got+row.Clicks, sales+row.Sales
		}
		for _, row := range rowsOf[report.Performance](r, "performance?limit=1000"+query).Rows {
			want += row.Sales
		}
		if got != people || sales != want {
			t.Errorf("%s: %d clicks and %d sales, want %d and %d", query, got, sales, people, want)
		}
	}
	if code, _, body := r.get("acme", "/?clicks=human&from=2026-03-01&to=2026-03-31"); code != 200 ||
		!strings.Contains(body, fmt.Sprintf("<dd>%d<small>%[1]d by people", people)) ||
		strings.Contains(body, "outcomes.csv?bom=1&amp;clicks") {
		t.Errorf("the page: %d, without %d clicks", code, people)
	}
}

// The rows, added up as the report does for filters, are what the rollup says; and each
// filter selects what its name says.
func TestFiltersAgree(t *testing.T) {
	r := newRig(t)
	rollup := rowsOf[report.Performance](r, "performance?limit=1000")
	rows := rowsOf[report.Performance](r, "performance?limit=1000&type=lead,sale,refund,cancellation,reversal")
	if a, b := fmt.Sprint(texts(rollup.Rows)), fmt.Sprint(texts(rows.Rows)); a != b {
		t.Errorf("the rollup and the rows differ:\n%s\n%s", a, b)
	}
	checkPeople(t, r, rollup.Rows)
	all := rowsOf[conversion](r, "outcomes?limit=1000").Rows
	count := func(keep func(*conversion) bool) (n int) {
		for i := range all {
			if keep(&all[i]) {
				n++
			}
		}
		return n
	}
	for query, keep := range map[string]func(*conversion) bool{
		"partner=p1": func(c *conversion) bool {
			return c.PartnerID == "p1"
		}, "program=g0": func(c *conversion) bool {
			return c.ProgramID == "g0"
		}, "link=l2": func(c *conversion) bool { return c.LinkID == "l2" },
		"type=refund,reversal": func(c *conversion) bool {
			return c.Type == "refund" || c.Type == "reversal"
		}, "verdict=unattributed": func(c *conversion) bool {
			return c.Verdict == "unattributed"
		}, "review=review": func(c *conversion) bool { return c.Review == "review" },
		"from=2026-03-05&to=2026-03-06": func(c *conversion) bool {
			d := c.OccurredAt.UTC().Format(time.DateOnly)
			return d >= "2026-03-05" && d <= "2026-03-06"
		}, "partner=nobody": func(*conversion) bool { return false },
	} {
		if got, want := len(rowsOf[conversion](r, "outcomes?limit=1000&"+query).Rows), count(keep); got != want ||
			want == 0 && query != "partner=nobody" {
			t.Errorf("%s selects %d, want %d", query, got, want)
		}
	}
	sales := uint64(0)
	for _, p := range rowsOf[report.Performance](r,
		"performance?limit=1000&type=sale&verdict=attributed&review=review").Rows {
		sales += p.Sales
		if p.Leads+p.Refunds+p.Cancellations+p.Reversals > 0 {
			t.Errorf("other types: %+v", p)
		}
	}
	if want := count(func(c *conversion) bool {
		return c.Type == "sale" && c.Verdict == "attributed" && c.Review == "review"
	}); sales != uint64(want) || want == 0 {
		t.Errorf("%d sales in review, want %d", sales, want)
	}
	byClick := uint64(0)
	for _, p := range rowsOf[report.Performance](r,
		"performance?limit=1000&basis=click&from=2026-03-02&to=2026-03-02").Rows {
		byClick += p.Sales
	}
	if want := count(func(c *conversion) bool {
		return c.Type == "sale" && c.Verdict == "attributed" && c.ClickedAt.UTC().Format(time.DateOnly) == "2026-03-02"
	}); byClick != uint64(want) || want == 0 {
		t.Errorf("%d sales of the clicks of a day, want %d", byClick, want)
	}
	if a := rowsOf[eventRow](r, "events?event_id=e7"); len(a.Rows) != 1 || a.Rows[0].Verdict != "reversed" ||
		a.Rows[0].Why == "" {
		t.Errorf("events: %+v", a.Rows)
	}
}

func texts(rows []report.Performance) (out []string) {
	for _, p := range rows {
		b, _ := json.Marshal(p)
		out = append(out, string(b))
	}
	return out
}
