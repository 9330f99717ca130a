package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/event"
)

// eachNegative calls each with a negative for every way to have no effect.
func eachNegative(each func(*Negative)) {
	amount := int64(1250)
	build := func(verdict event.Verdict, reason string) *Negative {
		return &Negative{Event: &Event{
			EventID: "ID", ClickToken: "TOKEN", Type: "refund", OrderID: "ORDER", ParentEventID: "PARENT",
			AmountMinor: &amount, Currency: "EUR", Exponent: 2, Verdict: string(verdict), Reason: reason,
		}}
	}
	other := []*Event{{EventID: "PARENT", ClickToken: "OTHER", Type: "sale"}}
	for _, reason := range event.Reasons() {
		each(build(event.Unattributed, reason))
		n := build(event.Unattributed, reason)
		n.Elsewhere = other
		each(n)
	}
	n := build(event.Conflict, "")
	n.Differs = []Difference{{"order_id", "ORDER2", "ORDER"}}
	each(n)
	n = build(event.Conflict, "")
	n.Repetition = true
	each(n)
	for _, status := range []uint16{401, 422} {
		n = build(verdictRefused, "")
		n.Refusal = &Refusal{Status: status, Code: "code", Field: "amount", Detail: "TOKEN"}
		each(n)
	}
	for _, wait := range []Wait{
		{For: WaitsForClick}, {For: WaitsForClick, Withheld: true, TokenReason: "oauth"}, {For: WaitsForProcessor},
		{For: WaitsForParent, Parent: "PARENT"}, {For: WaitsForParent, Parent: "PARENT", ParentWaits: true},
		{For: WaitsForParent, Parent: "PARENT", Elsewhere: other}, {For: WaitsForParent, Order: "ORDER"},
		{For: WaitsForParent, Overdue: true},
	} {
		n = build("", "")
		n.Wait = &wait
		n.Elsewhere = wait.Elsewhere
		each(n)
	}
}

// Whatever became of a negative: that it has no effect, why, and what would cure it is
// said, in full to the workspace and without an id or token to a partner.
func TestNegativeWords(t *testing.T) {
	said := map[string]bool{}
	eachNegative(func(n *Negative) {
		for _, words := range []string{n.Words(), n.WordsForPartner()} {
			why, cure, ok := strings.Cut(strings.TrimPrefix(words, "received, without effect: "), "; ")
			if !strings.HasPrefix(words, "received, without effect: ") || !ok || len(why) < 10 || len(cure) < 10 {
				t.Errorf("%q", words)
			}
		}
		for _, secret := range []string{"ID", "TOKEN", "ORDER", "PARENT", "OTHER", "12.50"} {
			if strings.Contains(n.WordsForPartner(), secret) {
				t.Errorf("a partner reads %s in %q", secret, n.WordsForPartner())
			}
		}
		if !strings.Contains(n.Words(), `it names parent "PARENT", order "ORDER"`) {
			t.Errorf("what it names is not in %q", n.Words())
		}
		if len(n.Elsewhere) > 0 && (strings.Contains(n.Words(), "has not come") ||
			strings.Contains(n.Words(), "did not come") || !strings.Contains(n.Words(), "another token, OTHER")) {
			t.Errorf("its parent is under another token, and it says %q", n.Words())
		}
		said[n.WordsForPartner()] = true
	})
	if len(said) < 15 {
		t.Errorf("only %d different sentences", len(said))
	}
}

// Of every field that a merchant sends both values are named; those that move money make
// it another fact.
func TestDifferences(t *testing.T) {
	amount, quantity := int64(100), int32(2)
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	first := content{Type: "refund", OccurredAt: at, Exponent: 2, Metadata: map[string]string{"a": "1", "b": "2"}}
	for want, change := range map[string]func(c *content){
		`type "refund" "reversal", other fact`:             func(c *content) { c.Type = "reversal" },
		`amount "" "1.00", other fact`:                     func(c *content) { c.AmountMinor = &amount },
		`currency "" "EUR", other fact`:                    func(c *content) { c.Currency = "EUR" },
		`order_id "" "o", other fact`:                      func(c *content) { c.OrderID = "o" },
		`parent_event_id "" "p", other fact`:               func(c *content) { c.Parent = "p" },
		`quantity "" "2", repetition`:                      func(c *content) { c.Quantity = &quantity },
		`name "" "n", repetition`:                          func(c *content) { c.EventName = "n" },
		`reason "" "r", repetition`:                        func(c *content) { c.ReasonText = "r" },
		`customer_ref "" "c", repetition`:                  func(c *content) { c.CustomerRef = "c" },
		`metadata.b "2" "", metadata.c "" "3", repetition`: func(c *content) { c.Metadata = map[string]string{"a": "1", "c": "3"} },
		`occurred_at "2026-03-01T10:00:00.000Z" "2026-03-02T10:00:00.000Z", repetition`: func(c *content) {
			c.OccurredAt = at.Add(24 * time.Hour)
		},
		`occurred_at "2026-03-01T10:00:00.000Z" "2026-03-02T10:00:00.001Z", other fact`: func(c *content) {
			c.OccurredAt = at.Add(24*time.Hour + time.Millisecond)
		},
	} {
		this := first
		change(&this)
		got := ""
		for _, d := range differences(&first, &this) {
			got += fmt.Sprintf("%s %q %q, ", d.Field, d.First, d.This)
		}
		if got += map[bool]string{true: "repetition", false: "other fact"}[isRepetition(&first, &this)]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	sale := content{Type: "sale"}
	if isRepetition(&sale, &sale) {
		t.Error("a sale repeats no negative")
	}
	if differences(nil, &first) != nil || isRepetition(nil, &first) {
		t.Error("something is said of an event that is not known")
	}
}

// One order_id for everything: an answer stays small, and says that there are more.
func TestManyNegatives(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	const n = 20_000
	for _, statement := range []string{
		`INSERT INTO outcomes (workspace_id, src_offset, event_offset, event_id, click_token, type, verdict, effect, order_id)
			SELECT 'acme', number, number, concat('s', toString(number)), 't', 'sale', 'attributed', 1, 'N/A' FROM numbers({n:UInt64})`,
		`INSERT INTO outcomes (workspace_id, src_offset, event_offset, event_id, click_token, type, verdict, reason, order_id)
			SELECT 'acme', {n:UInt64} + number, {n:UInt64} + number, concat('r', toString(number)), 't', 'refund', 'unattributed', 'expired', 'N/A' FROM numbers({n:UInt64})`,
		`INSERT INTO conversions (workspace_id, src_offset, event_id, click_token, type, order_id)
			SELECT 'acme', 2 * {n:UInt64} + number, concat('w', toString(number)), 't', 'refund', 'N/A' FROM numbers({n:UInt64})`,
		`INSERT INTO rejections (workspace_id, src_offset, event_id, click_token, type, order_id)
			SELECT 'acme', number, concat('x', toString(number)), 't', 'refund', 'N/A' FROM numbers({n:UInt64})`,
	} {
		if err := conn.Exec(t.Context(), statement, clickhouse.Named("n", n)); err != nil {
			t.Fatal(err)
		}
	}
	a, err := New(conn).Why(t.Context(), "acme", ByOrderID, "N/A")
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Records) != MaxSame || !a.More || len(a.Refused) != MaxSame || !a.MoreRefused ||
		len(a.Negatives) != MaxNegatives || !a.MoreNegatives {
		t.Errorf("%d records, more %t; %d refused, more %t; %d negatives, more %t", len(a.Records), a.More,
			len(a.Refused), a.MoreRefused, len(a.Negatives), a.MoreNegatives)
	}
	if len(a.Counted) != 1 || a.Counted[0].Counted() != fmt.Sprintf("counted at least %d times", MaxSame) {
		t.Errorf("%+v", a.Counted)
	}
}
