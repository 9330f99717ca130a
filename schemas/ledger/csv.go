package ledger

import (
	"strconv"
	"strings"
	"time"
)

// ByteOrderMark, at the start of a CSV, tells Excel that it is UTF-8.
const ByteOrderMark = "\ufeff"

// CleanText makes a text valid UTF-8 without NUL: a run of bytes that are none, and
// each NUL, becomes U+FFFD.
func CleanText(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// Functions define, for the WITH clause of a query, the SQL functions that Column.SQL
// and CSVLine use:
//
//   - clean_text is CleanText.
//   - escape_formula_1 is EscapeFormula of version 1, escape_formula that of the newest.
//   - has_formula is whether escape_formula changes a text, or one of a line; and now and
//     then where it does not: a line with a negative number has one, too.
//   - quote_cell quotes a cell as RFC 4180 says.
//   - format_time is FormatTime; null is the empty text.
//   - format_decimal is FormatDecimal of minor units; null is null.
const Functions = `
	(t) -> replaceAll(toValidUTF8(t), '\0', '\xEF\xBF\xBD') AS clean_text,
	(t) -> if(
		substring(t, 1, 1) IN ('=', '+', '-', '@', '\t', '\r', '\n'),
		concat('\'', t),
		t) AS escape_formula_1,
	(t) -> match(t, '(\\A|[` + separators + lineBreaks + `])[` + skipped + `]*[\t\r\n` + formulaStarts +
	`]') AS has_formula,
	(t) -> if(
		match(t, '\\A[` + skipped + `]*[\t\r\n` + formulaStarts + `]'),
		concat('\'', t),
		t) AS escape_start,
	(t) -> if(
		has_formula(t),
		escape_start(
			replaceRegexpAll(
				replaceRegexpAll(
					replaceRegexpAll(t, '([,;|` + lineBreaks + `])([` + skipped + `]*\t)', '\\1\'\\2'),
					'([` + separators + `])([` + skipped + `]*\r)', '\\1\'\\2'),
				'([` + separators + lineBreaks + `])([` + skipped + `]*[` + formulaStarts + `])', '\\1\'\\2')),
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

// quoted are the characters for which quote_cell quotes a cell.
const quoted = "\",\n\r"

// skipped are skippedStarts and the ', for a class of a regular expression.
const skipped = skippedStarts + `\'`

// CSVLine is the SQL of a line of a CSV of a version, without its end. expression gives
// the SQL of a column's value; in raw lines no formula is escaped.
func CSVLine(version int, raw bool, expression func(Column) string) string {
	line := func(escape string) string {
		var cells []string
		for _, c := range ColumnsOf(version) {
			cells = append(cells, cellSQL(c, escape, expression(c)))
		}
		return "concatWithSeparator(',',\n\t" + strings.Join(cells, ",\n\t") + ")"
	}
	var text string
	switch plain := line(""); {
	case raw:
		text = plain
	case version == 1:
		text = line("escape_formula_1")
	default:
		// Few lines have a formula, and one look at a line is cheaper than one at each of
		// its cells.
		text = "if(has_formula(" + plain + "),\n" + line("escape_formula") + ",\n" + plain + ")"
	}
	// clean_text runs once over the whole line, which ends with two numbers. At the end
	// of a text toValidUTF8 takes what follows the beginning of a character, such as a
	// quote or a comma, for a part of that character.
	return "clean_text(" + text + ")"
}

// cellSQL is the SQL of a cell. escape is the function for its text; empty for none.
func cellSQL(c Column, escape, value string) string {
	switch c.Kind {
	case Time:
		return "format_time(" + value + ")"
	case Integer, Decimal, Bool:
		return "ifNull(toString(" + value + "), '')"
	case List:
		value = "arrayStringConcat(" + value + ", '|')"
	}
	if escape == "" || !c.IsGuarded() {
		return "quote_cell(toString(" + value + "))"
	}
	return "quote_cell(" + escape + "(toString(" + value + ")))"
}

// What follows appends cells to a line of a CSV, in Go, byte for byte as CSVLine has
// them. Null is no byte at all.

// AppendText appends a text. escape is the version by which its formulas are escaped; 0:
// they are not.
func AppendText(line []byte, text string, escape int) []byte {
	if text == "" {
		return line
	}
	var seen class
	for i := range len(text) {
		seen |= classes[text[i]]
	}
	if escape == 1 || escape > 1 && (seen&mayPart|classes[text[0]]&mayBegin) != 0 {
		text = EscapeFormula(escape, text)
	}
	if seen&mayBreak != 0 {
		text = CleanText(text)
	}
	if seen&isQuoted == 0 {
		return append(line, text...)
	}
	line = append(line, '"')
	for quote := strings.IndexByte(text, '"'); quote >= 0; quote = strings.IndexByte(text, '"') {
		line = append(append(line, text[:quote]...), `""`...)
		text = text[quote+1:]
	}
	return append(append(line, text...), '"')
}

// AppendList appends a list of texts.
func AppendList(line []byte, list []string, escape int) []byte {
	return AppendText(line, strings.Join(list, "|"), escape)
}

// AppendDecimal appends an amount in smallest units, of which so many digits are after
// the point.
func AppendDecimal(line []byte, minor int64, digits uint8) []byte {
	size := uint64(minor)
	if minor < 0 {
		line = append(line, '-')
		size = -size
	}
	var buffer [20]byte
	number := strconv.AppendUint(buffer[:0], size, 10)
	whole := len(number) - int(digits)
	if digits == 0 {
		return append(line, number...)
	}
	if whole <= 0 {
		line = append(line, '0', '.')
		for ; whole < 0; whole++ {
			line = append(line, '0')
		}
		return append(line, number...)
	}
	line = append(append(line, number[:whole]...), '.')
	return append(line, number[whole:]...)
}

// AppendTime appends a time, of milliseconds since 1970.
func AppendTime(line []byte, milliseconds int64) []byte {
	at := time.UnixMilli(milliseconds).UTC()
	year, month, day := at.Date()
	if year < 1000 || year > 9999 {
		return append(line, FormatTime(at)...)
	}
	hour, minute, second := at.Clock()
	line = appendDigits(line, year/100, year%100)
	line = append(line, '-')
	line = appendDigits(line, int(month))
	line = append(line, '-')
	line = appendDigits(line, day)
	line = append(line, 'T')
	line = appendDigits(line, hour)
	line = append(line, ':')
	line = appendDigits(line, minute)
	line = append(line, ':')
	line = appendDigits(line, second)
	millisecond := at.Nanosecond() / 1e6
	return append(line, '.', byte('0'+millisecond/100), byte('0'+millisecond/10%10), byte('0'+millisecond%10), 'Z')
}

// appendDigits appends numbers below 100, with two digits each.
func appendDigits(line []byte, numbers ...int) []byte {
	for _, n := range numbers {
		line = append(line, byte('0'+n/10), byte('0'+n%10))
	}
	return line
}
