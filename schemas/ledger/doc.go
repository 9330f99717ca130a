// Package ledger declares the row in which a judged event is shown to people: its
// columns, and how their values are written. Export, report, their API's description
// and the demo derive from it, so a new column is declared here and nowhere else behind
// the tables.
//
//	topics ──▶ table outcomes ──▶ view conversion_rows ──▶ report: JSON, CSV
//	                 └──────────────────────────────────▶ export: CSV
//
// Columns is the list, in the order of the CSV. The view is SQL written by hand, in a
// migration of schemas/ddl, because a migration never changes once it has run; tests
// with a migrated database hold the view, and what the sink fills, to the list. A column
// says which Version added it: ColumnsOf has those of an older version, for a CSV that
// is written again.
//
// # How values are written
//
//   - Money is an exact decimal number with the digits of its currency (FormatDecimal;
//     in SQL, format_decimal of Functions).
//   - Times are RFC 3339 in UTC with milliseconds (FormatTime, format_time).
//   - A text of a CSV that a spreadsheet would run as a formula gets a ' in front, and so
//     does each part of it that one with another separator would run (EscapeFormula,
//     escape_formula; UnescapeFormula is the way back). CSVLine has the whole of a CSV's
//     line as SQL.
//
// What is written by ClickHouse and what is written by Go is the same byte for byte;
// the fuzz test FuzzCell of connectors/export compares the two.
//
// # Conservation
//
// Conservation counts what became of the events of a workspace: received = the sums by
// verdict + waiting, and the difference is 0. The view workspace_conservation has it by
// day; ConservationQuery has it over rows that the caller selects.
//
// An event without a row waits until it is overdue, and counts as a difference then.
// Its end is entered_at + the largest grace that a Progress of its partition has named
// since; it is overdue when the end lies more than five minutes before the watermark of
// the newest Progress that the rows have reached, and that Progress was past the event.
// No clock decides: while no processor runs, nothing becomes overdue.
package ledger
