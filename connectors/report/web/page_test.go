package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/calendar"
)

// The page says what the lists say, escapes what people wrote, and explains itself when
// there is nothing.
func TestPage(t *testing.T) {
	r := newRig(t)
	code, h, body := r.get("acme", "/?from=2026-03-01&to=2026-03-20")
	if code != 200 || strings.Contains(h.Get("Content-Security-Policy"), "script") ||
		strings.Contains(body, "<script") || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Errorf("%d, policy %s", code, h.Get("Content-Security-Policy"))
	}
	sales := uint64(0)
	for _, p := range rowsOf[report.Performance](r, "performance?limit=1000").Rows {
		sales += p.Sales
	}
	for _, want := range []string{"Nomura &amp; &lt;Studio&gt;", "Creator Collective",
		">Approved<", ">Review<", ">Paused<", "Agency partners", fmt.Sprintf("<dt>Attributed sales</dt><dd>%d<",
			sales), "does not approve or pay commissions", "outcomes.csv?bom=1&amp;from=2026-03-01", "go.acme.com/s0",
		"EUR", "JPY", `<tr class="under">`, "difference 0", `aria-current="page"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
	_, _, body = r.get("acme", "/?from=2026-01-01&to=2026-01-02")
	for _, want := range []string{"Nothing in this selection", "No clicks in these days; 240 at other times",
		"No events received"} {
		if !strings.Contains(body, want) {
			t.Errorf("the empty page does not say %s", want)
		}
	}
	if _, _, body = r.get("acme", "/?from=2026-03-01&to=2026-03-20&link=l0&verdict=conflict"); !strings.Contains(body,
		"No conversions in this selection") || !strings.Contains(body, "whose token was withheld") {
		t.Error("a page without conversions does not explain itself")
	}
	if code, _, body := r.get("initech", "/"); code != 403 || !strings.Contains(body, "stored all the same") {
		t.Errorf("without the plan: %d", code)
	}
	if _, _, body = r.get("noexport", "/"); strings.Contains(body, ".csv") ||
		strings.Contains(body, "Conversion rows") {
		t.Error("a workspace without exports sees them")
	}
	if code, _, body := r.get("acme", "/why?event_id=e7"); code != 200 || !strings.Contains(body, "tok6") ||
		!strings.Contains(body, "outcomes 0/7") {
		t.Errorf("why: %d", code)
	}
	if _, _, body := r.get("acme", "/why?event_id=%3Cb%3E"); !strings.Contains(body, "never received") ||
		strings.Contains(body, "<b>") {
		t.Error("why of an event that there is not")
	}
}

// A chain has no end by the rules: a chargeback, won, and again. Every row of it is on
// the page, below its parent.
func TestDeepChain(t *testing.T) {
	r := newOwnRig(t)
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, review, type, effect, occurred_at, received_at, decided_at, amount_minor, currency, exponent, parent_event_id,
			event_partition, event_offset, clicked_at, link_id, partner_id, src_partition, src_offset)
		SELECT 'acme', concat('deep', toString(number)), 'tokdeep', if(number = 0, 'attributed', 'reversed'), 'clear', multiIf(number = 0, 'sale', number = 1, 'refund', 'reversal'), if(number % 2 = 0, 1, -1),
			toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, 1000, 'EUR', 2,
			if(number = 0, '', concat('deep', toString(number - 1))), 1, number, toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 'l0', 'p0', 1, number FROM numbers(8)`); err != nil {
		t.Fatal(err)
	}
	_, _, body := r.get("acme", "/?from=2026-03-19&to=2026-03-19")
	for i, last := 0, -1; i < 8; i++ {
		at := strings.Index(body, fmt.Sprintf(`event_id=deep%d"`, i))
		if at <= last {
			t.Errorf("deep%d is missing, or above its parent", i)
		}
		last = at
	}
}

// section is the part of a page under the heading with an id.
func section(page, id string) string {
	_, after, _ := strings.Cut(page, `aria-labelledby="`+id+`"`)
	inner, _, _ := strings.Cut(after, "</section>")
	return inner
}

// The column Net is standing_change: nothing of what does not count.
func TestNetOfWhatDoesNotCount(t *testing.T) {
	r := newRig(t)
	_, _, body := r.get("acme", "/?from=2026-03-03&to=2026-03-03&verdict=unattributed") // e14, of 10.14 EUR
	if rows := section(body, "events"); !strings.Contains(rows, ">–<") || strings.Contains(rows, "10.14") {
		t.Error(rows)
	}
	_, _, csv := r.get("acme", "/v1/workspaces/acme/outcomes.csv?from=2026-03-03&to=2026-03-03&verdict=unattributed")
	if !strings.Contains(csv, ",0,10.14,0.00,,EUR,") {
		t.Error(csv)
	}
}

func TestDisputePage(t *testing.T) {
	r := newOwnRig(t)
	send := func(list string) (int, string) { return r.dispute("acme", "p0", list, "") }
	if code, body := send("order_id,amount,currency\no4,10.04,EUR\nnone,5.00,EUR\n"); code != 200 ||
		!strings.Contains(body, "attributed here") || !strings.Contains(body, "never received") ||
		!strings.Contains(body, "15.04") {
		t.Errorf("%d %s", code, body)
	}
	if _, body := send("order_id\no4\n"); !strings.Contains(section(body, "totals"), "beyond the amounts claimed") ||
		!strings.Contains(section(body, "totals"), ">10.04<") {
		t.Errorf("a list without amounts: %s", section(body, "totals"))
	}
	for list, want := range map[string]string{"": "Choose a CSV file",
		"colour\nred\n": "neither order_id nor event_id", "order_id,amount\no4,ten\n": "is not a number"} {
		if code, body := send(list); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%q: %d, want %s", list, code, want)
		}
	}
	// A sender that has one order_id for everything: a line with it is refused, and
	// does not bring a workspace's events into memory.
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, order_id, occurred_at, event_partition, event_offset, src_partition, src_offset)
		SELECT 'acme', toString(number), 't', 'attributed', 'sale', 1, 'N/A', toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 2, number, 2, number FROM numbers(100001)`); err != nil {
		t.Fatal(err)
	}
	if code, body := send("order_id\no4\nN/A\n"); code != 400 ||
		!strings.Contains(body, "more than 100000 events have an order_id of this list") {
		t.Errorf("one order_id for everything: %d %.300s", code, body)
	}
}

// Net revenue is what stands. What was taken back beyond that, and given back beyond what
// was taken, are two figures beside it, also where they would cancel out; on the whole
// page, in each selection of events, and in the list.
func TestNetIsWhatStands(t *testing.T) {
	r := newRig(t)
	// In dollars, on 19 March: a sale of 100, refunds of 60 and 60, of which the second is
	// undone, and one more refund of 60.
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, review, type, effect, occurred_at, received_at, decided_at, amount_minor, standing_change_minor, rules_version, currency, exponent,
			parent_event_id, event_partition, event_offset, clicked_at, link_id, partner_id, src_partition, src_offset)
		SELECT 'acme', c1, 'tokusd', if(c2 = 'sale', 'attributed', 'reversed'), 'clear', c2, c3, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + c6, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + c6, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + c6, c4, c5, 2, 'USD', 2,
			c7, 1, c6, toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 'l0', 'p0', 1, c6
		FROM VALUES(('s', 'sale', 1, 10000, 10000, 0, ''), ('r1', 'refund', -1, 6000, -6000, 1, 's'), ('r2', 'refund', -1, 6000, -4000, 2, 's'), ('v', 'reversal', 1, 6000, 4000, 3, 'r2'), ('r3', 'refund', -1, 6000, -4000, 4, 's'))`); err != nil {
		t.Fatal(err)
	}
	const day = "from=2026-03-19&to=2026-03-19"
	for _, query := range []string{day, day + "&verdict=attributed,reversed",
		"from=2026-03-18&to=2026-03-18&basis=click"} {
		_, _, body := r.get("acme", "/?"+query)
		for _, want := range []string{
			`>0.00<span class="cur">USD</span><small>100.00 gross, −180.00 taken back, +60.00 given back</small>` +
				`<small>40.00 taken back beyond what stood</small><small>20.00 given back beyond what was taken</small>`,
			`>0.00 USD</div><span class="sub">40.00 USD taken back beyond what stood</span>` +
				`<span class="sub">20.00 USD given back beyond what was taken</span>`,
			`<dt>Taken back</dt><dd>3<small>3 refunds, 0 cancellations, 0 reversals</small>`,
			`<dt>Given back</dt><dd>1<`,
			`−180.00 USD</div><span class="sub">+60.00 USD given back</span>`,
			`−40.00 USD</span><span class="sub">20.00 USD taken back beyond what stood</span>`,
			`40.00 USD</span><span class="sub">20.00 USD given back beyond what was taken</span>`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page does not say %s in\n%s", query, want, body)
			}
		}
		found := false
		for _, p := range rowsOf[report.Performance](r, "performance?limit=1000&"+query).Rows {
			if p.Currency == "USD" && p.Sales == 1 {
				found = true
				if got := fmt.Sprint(p.NetMinor, p.StandingMinor, p.TakenBeyondMinor, p.GivenBeyondMinor); got !=
					"-2000 0 4000 2000" {
					t.Errorf("%s: net, standing, and what is beyond are %s", query, got)
				}
				if got := fmt.Sprint(p.TakenBack, p.GivenBack, p.TakenBackMinor, p.GivenBackMinor); got !=
					"3 1 18000 6000" {
					t.Errorf("%s: taken back and given back are %s", query, got)
				}
			}
		}
		if !found {
			t.Errorf("%s: the list has no dollars", query)
		}
	}
}

// What follows a sale takes nothing back, so it does not stand below it.
func TestFollowersAreNotBelow(t *testing.T) {
	lines, err := arrangeEvents([]*report.RecentEvent{
		{EventID: "next", Type: "sale", Effect: 1, ParentEventID: "first"},
		{EventID: "back", Type: "refund", Effect: -1, ParentEventID: "first"},
		{EventID: "first", Type: "sale", Effect: 1},
	}, calendar.Zone{})
	if err != nil || len(lines) != 2 || lines[0].EventID != "next" || lines[0].Under != "" ||
		len(lines[1].Below) != 1 || lines[1].Below[0].EventID != "back" {
		t.Errorf("%+v, %v", lines, err)
	}
}
