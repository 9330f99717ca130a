package export

import "strings"

// kind is how a column becomes a cell.
type kind int

const (
	text   kind = iota // guarded and quoted
	number             // as it is; null is empty
	instant
)

// column is a column of the CSV: its name and the expression over o, a row of outcomes,
// and n, its partner now.
type column struct {
	name, expr string
	kind       kind
}

// columns of the CSV, in order.
func columns() []column {
	decimal := func(minor, digits string) string {
		return "concat(if(" + minor + " < 0, '-', ''), toString(intDiv(abs(" + minor + "), intExp10(" + digits +
			"))), if(" + digits + " = 0, '', concat('.', leftPad(toString(abs(" + minor + ") % intExp10(" + digits +
			")), " + digits + ", '0'))))"
	}
	of := func(k kind, names string) (out []column) {
		for _, n := range strings.Fields(names) {
			out = append(out, column{n, "o." + n, k})
		}
		return out
	}
	var c []column
	c = append(c, of(text, "workspace_id partner_id partner_key partner_name partner_relationship")...)
	c = append(c, column{"partner_relationship_now", "n.relationship", text})
	c = append(c, of(text, "program_id program_key program_name assignment_id link_id domain slug destination")...)
	c = append(c, of(instant, "clicked_at occurred_at received_at")...)
	c = append(c, of(text, "event_id type event_name verdict reason")...)
	c = append(c, of(number, "effect")...)
	c = append(c, column{"amount", decimal("o.amount_minor", "o.exponent"), number},
		column{"net_amount", decimal("(o.effect * o.amount_minor)", "o.exponent"), number})
	c = append(c, of(text, "currency")...)
	c = append(c, of(number, "amount_minor quantity")...)
	c = append(c, of(text, "order_id parent_event_id parent_type reason_text")...)
	c = append(c, column{"clawback", "if(o.effect = -1, 'yes', '')", text})
	c = append(c, of(text, "review")...)
	c = append(c, column{"flags", "arrayStringConcat(if(o.event_id IN (SELECT event_id FROM reused), " +
		"arrayPushBack(o.flags, 'event_id_reused'), o.flags), '|')", text})
	c = append(c, column{"estimated_reward", decimal("o.estimated_reward_minor", "o.reward_exponent"), number})
	c = append(c, of(text, "reward_currency reward_terms utm_source utm_medium utm_campaign utm_term utm_content "+
		"sub1 sub2 sub3 sub4 sub5 experiment variant country device")...)
	c = append(c, of(number, "is_bot")...)
	c = append(c, of(text, "click_token")...)
	return append(c, of(number, "event_partition event_offset")...)
}

// Header is the first line of every file.
func Header() string {
	var names []string
	for _, c := range columns() {
		names = append(names, c.name)
	}
	return strings.Join(names, ",")
}

// Lambdas of the query. clean makes a text valid UTF-8 without NUL, guard keeps
// spreadsheets from running it, quote is RFC 4180.
const (
	cleanSQL = `(t) -> replaceAll(toValidUTF8(t), '\0', '\xEF\xBF\xBD')`
	guardSQL = `(t) -> if(substring(t, 1, 1) IN ('=', '+', '-', '@', '\t', '\r', '\n'), concat('\'', t), t)`
	quoteSQL = `(t) -> if(multiSearchAny(t, ['"', ',', '\n', '\r']), concat('"', replaceAll(t, '"', '""'), '"'), t)`
	stampSQL = `(t) -> if(isNull(t), '', concat(formatDateTime(t, '%Y-%m-%dT%H:%i:%S', 'UTC'), '.', leftPad(toString(toUnixTimestamp64Milli(assumeNotNull(t)) % 1000), 3, '0'), 'Z'))`
)

// line is the expression of a whole line, without its end.
func line(raw bool) string {
	var cells []string
	for _, c := range columns() {
		switch {
		case c.kind == instant:
			cells = append(cells, "stamp("+c.expr+")")
		case c.kind == number:
			cells = append(cells, "ifNull(toString("+c.expr+"), '')")
		case raw:
			cells = append(cells, "quote(toString("+c.expr+"))")
		default:
			cells = append(cells, "quote(guard(toString("+c.expr+")))")
		}
	}
	// All at once, and a line ends with two numbers: at the end of a text, toValidUTF8
	// takes what follows the beginning of a character, a quote or a comma too, for a
	// part of it.
	return "clean(concatWithSeparator(',', " + strings.Join(cells, ", ") + "))"
}
