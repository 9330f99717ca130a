package ledger

import (
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// Kind is the type of a column's values.
type Kind int

// The kinds, with their form in JSON and in a cell of a CSV. Null is an empty cell.
const (
	Text    Kind = iota // string; a cell is escaped, see EscapeFormula
	List                // array of strings; a cell joins them with | and is escaped
	Time                // RFC 3339; a cell has milliseconds, see FormatTime
	Integer             // number
	Decimal             // exact decimal number as a string; a cell is the bare number
	Bool                // true or false
)

// String is the kind's name in a manifest.
func (k Kind) String() string {
	names := [...]string{Text: "text", List: "list", Time: "time", Integer: "integer", Decimal: "decimal", Bool: "bool"}
	return names[k]
}

// Source is where the values of a column come from.
type Source int

const (
	// Outcome is the field of event.Outcome with the column's name.
	Outcome Source = iota
	// Click is the field of event.Click with the column's name, as it was when the link
	// was clicked.
	Click
	// Derived values follow from the outcome alone, by Column.Expression or Column.Minor.
	Derived
	// Joined values need other rows: the catalog, or the other events of the workspace.
	// Each reader has its own expression, bounded by how far it reads.
	Joined
)

// Column is a column of an exported conversion.
type Column struct {
	Name       string   // in the header of a CSV, as a JSON key, and in the view conversion_rows
	Kind       Kind     // of its values
	Source     Source   // of its values
	Since      int      // the version that added it; 0: the first
	Nullable   bool     // there may be no value
	Values     []string // all that a text can be; nil: any
	Min, Max   *int     // bounds of an integer; nil: none
	Expression string   // of a Derived column: SQL over o, a row of the table outcomes
	Minor      string   // of a Derived Decimal, instead: SQL of its smallest units
	Digits     string   // … and of how many digits they have after the point
	Doc        string   // its meaning, for readers of the API; empty where the name says it
	Example    string   // a cell, for the API's description
}

// SQL is the expression for a column's value over o, a row of the table outcomes. It is
// empty for a Joined column.
func (c Column) SQL() string {
	switch c.Source {
	case Derived:
		if c.Minor != "" {
			return "format_decimal(" + c.Minor + ", " + c.Digits + ")"
		}
		return c.Expression
	case Joined:
		return ""
	}
	return "o." + c.Name
}

// IsGuarded reports whether formulas in cells of the column are escaped, but for raw
// ones: any text may come, so it may be a formula.
func (c Column) IsGuarded() bool { return (c.Kind == Text || c.Kind == List) && c.Values == nil }

// Version is the newest version of the columns. A version keeps the columns of those
// before it, in their order, and puts its own among them; so a file of an older one can
// be written again byte for byte. Version 2 added standing_change, and escapes formulas
// also within a text, see EscapeFormula.
const Version = 2

// ColumnsOf are the columns of a version, in order.
func ColumnsOf(version int) []Column {
	return slices.DeleteFunc(Columns(), func(c Column) bool { return c.Since > version })
}

// Columns are the columns of the newest version, in order.
func Columns() []Column {
	minusOne := -1
	zero := 0
	one := 1
	return []Column{
		{Name: "workspace_id", Example: "acme"},
		{Name: "partner_id", Source: Click, Example: "prt_nomura",
			Doc: "As it was at the click, like all of partner, program and link but partner_relationship_now."},
		{Name: "partner_key", Source: Click, Example: "nomura"},
		{Name: "partner_name", Source: Click, Example: "Nomura Studio"},
		{Name: "partner_relationship", Source: Click, Example: "approved", Doc: "At the click."},
		{Name: "partner_relationship_now", Source: Joined, Example: "approved", Doc: "As of now."},
		{Name: "program_id", Source: Click, Example: "prg_agency"},
		{Name: "program_key", Source: Click, Example: "agency"},
		{Name: "program_name", Source: Click, Example: "Agency partners"},
		{Name: "assignment_id", Source: Click, Example: "asg_1"},
		{Name: "link_id", Source: Click, Example: "lnk_nomura"},
		{Name: "domain", Source: Click, Example: "go.acme.com"},
		{Name: "slug", Source: Click, Example: "nomura"},
		{Name: "destination", Source: Click, Example: "https://shop.acme.com/",
			Doc: "As configured, without query and fragment."},
		{Name: "clicked_at", Kind: Time, Source: Click, Nullable: true, Example: "2026-03-13T20:11:09.120Z",
			Doc: "When the visitor clicked, by the redirector's clock. Null: no click is known."},
		{Name: "occurred_at", Kind: Time, Example: "2026-03-14T09:30:00.000Z",
			Doc: "When it happened, as its sender says."},
		{Name: "received_at", Kind: Time, Example: "2026-03-14T09:30:01.482Z",
			Doc: "When the gateway accepted it."},
		{Name: "event_id", Example: "order-1001"},
		{Name: "type", Values: event.Texts(event.Types()), Example: "sale"},
		{Name: "event_name"},
		{Name: "verdict", Values: event.Texts(event.Verdicts()), Example: "attributed"},
		{Name: "reason", Doc: "Why it is unattributed; else empty."},
		{Name: "effect", Kind: Integer, Min: &minusOne, Max: &one, Example: "1",
			Doc: "1 adds, −1 takes back, 0 changes nothing."},
		{Name: "amount", Kind: Decimal, Source: Derived, Nullable: true, Example: "129.90",
			Minor: "o.amount_minor", Digits: "o.exponent",
			Doc: "Exact decimal number; null without an amount."},
		{Name: "net_amount", Kind: Decimal, Source: Derived, Nullable: true, Example: "129.90",
			Minor: "o.effect * o.amount_minor", Digits: "o.exponent",
			Doc: "effect × amount, also where less than that stood."},
		{Name: "standing_change", Kind: Decimal, Source: Derived, Since: 2, Nullable: true, Example: "129.90",
			Minor: "o.standing_change_minor", Digits: "o.exponent",
			Doc: "What it changes of what stands of the sale or lead it belongs to. Summed over whole " +
				"chains it is the net revenue."},
		{Name: "currency", Example: "EUR", Doc: "ISO 4217, or empty."},
		{Name: "amount_minor", Kind: Integer, Nullable: true, Example: "12990",
			Doc: "amount in the currency's smallest unit."},
		{Name: "quantity", Kind: Integer, Nullable: true, Example: "2"},
		{Name: "order_id", Example: "1001"},
		{Name: "parent_event_id", Doc: "What it takes back."},
		{Name: "parent_type"},
		{Name: "reason_text", Doc: "The sender's own words."},
		{Name: "clawback", Source: Derived, Values: []string{"yes", ""},
			Expression: "if(o.effect = -1, 'yes', '')",
			Doc:        "yes where effect is −1."},
		{Name: "review", Values: append(event.Texts(event.Reviews()), ""), Example: "clear",
			Doc: "review: a person should look at it."},
		{Name: "flags", Kind: List, Source: Joined, Doc: "What is remarkable about it."},
		{Name: "estimated_reward", Kind: Decimal, Source: Derived, Nullable: true, Example: "12.99",
			Minor: "o.estimated_reward_minor", Digits: "o.reward_exponent",
			Doc: "An estimate, neither approved nor paid."},
		{Name: "reward_currency", Example: "EUR"},
		{Name: "reward_terms", Source: Click, Example: "10%"},
		{Name: "utm_source", Source: Click, Example: "partner"},
		{Name: "utm_medium", Source: Click, Example: "agency"},
		{Name: "utm_campaign", Source: Click},
		{Name: "utm_term", Source: Click},
		{Name: "utm_content", Source: Click},
		{Name: "sub1", Source: Click},
		{Name: "sub2", Source: Click},
		{Name: "sub3", Source: Click},
		{Name: "sub4", Source: Click},
		{Name: "sub5", Source: Click},
		{Name: "experiment", Source: Click},
		{Name: "variant", Source: Click},
		{Name: "country", Source: Click, Example: "DE"},
		{Name: "device", Source: Click, Example: "mobile"},
		{Name: "is_bot", Kind: Bool, Source: Click, Example: "false"},
		{Name: "click_token", Example: "0ujtsYcgvSTl8PAuAdqWYSMnLOv"},
		{Name: "event_partition", Kind: Integer, Min: &zero, Example: "3",
			Doc: "Place in the log of received events."},
		{Name: "event_offset", Kind: Integer, Min: &zero, Example: "411",
			Doc: "The same; unique with event_partition."},
	}
}

// Names are the names of the columns of the newest version, in order.
func Names() []string { return namesOf(Columns()) }

func namesOf(columns []Column) (names []string) {
	for _, c := range columns {
		names = append(names, c.Name)
	}
	return names
}

// Header is the first line of a CSV of a version, without its end.
func Header(version int) string { return strings.Join(namesOf(ColumnsOf(version)), ",") }
