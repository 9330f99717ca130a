package ledger

import "strings"

// formulaStarts are the characters with which a text begins that a spreadsheet runs
// (OWASP: CSV injection).
const formulaStarts = "=+-@\t\r\n"

// EscapeFormula puts a ' in front of a text that a spreadsheet would run as a formula.
func EscapeFormula(text string) string {
	if text != "" && strings.IndexByte(formulaStarts, text[0]) >= 0 {
		return "'" + text
	}
	return text
}

// CleanText makes a text valid UTF-8 without NUL: a run of bytes that are none, and
// each NUL, becomes U+FFFD.
func CleanText(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// Functions define, for the WITH clause of a query, the SQL functions that Column.SQL
// and CSVLine use:
//
//   - clean_text is CleanText.
//   - escape_formula is EscapeFormula.
//   - quote_cell quotes a cell as RFC 4180 says.
//   - format_time is FormatTime; null is the empty text.
//   - format_decimal is FormatDecimal of minor units; null is null.
const Functions = `
	(t) -> replaceAll(toValidUTF8(t), '\0', '\xEF\xBF\xBD') AS clean_text,
	(t) -> if(
		substring(t, 1, 1) IN ('=', '+', '-', '@', '\t', '\r', '\n'),
		concat('\'', t),
		t) AS escape_formula,
	(t) -> if(
		multiSearchAny(t, ['"', ',', '\n', '\r']),
		concat('"', replaceAll(t, '"', '""'), '"'),
		t) AS quote_cell,
	(t) -> if(
		isNull(t),
		'',
		concat(
			formatDateTime(t, '%Y-%m-%dT%H:%i:%S', 'UTC'),
			'.',
			leftPad(toString(toUnixTimestamp64Milli(assumeNotNull(t)) % 1000), 3, '0'),
			'Z')) AS format_time,
	(minor, digits) -> concat(
		if(minor < 0, '-', ''),
		toString(intDiv(abs(minor), intExp10(digits))),
		if(digits = 0, '', concat('.', leftPad(toString(abs(minor) % intExp10(digits)), digits, '0')))
	) AS format_decimal`

// CSVLine is the SQL of a line of a CSV of a version, without its end. expression gives
// the SQL of a column's value; in raw lines no formula is escaped.
func CSVLine(version int, raw bool, expression func(Column) string) string {
	var cells []string
	for _, c := range ColumnsOf(version) {
		cells = append(cells, cellSQL(c.Kind, raw, expression(c)))
	}
	// clean_text runs once over the whole line, which ends with two numbers. At the end
	// of a text toValidUTF8 takes what follows the beginning of a character, such as a
	// quote or a comma, for a part of that character.
	return "clean_text(concatWithSeparator(',',\n\t" + strings.Join(cells, ",\n\t") + "))"
}

func cellSQL(kind Kind, raw bool, value string) string {
	switch kind {
	case Time:
		return "format_time(" + value + ")"
	case Integer, Decimal, Bool:
		return "ifNull(toString(" + value + "), '')"
	case List:
		value = "arrayStringConcat(" + value + ", '|')"
	}
	if raw {
		return "quote_cell(toString(" + value + "))"
	}
	return "quote_cell(escape_formula(toString(" + value + ")))"
}
