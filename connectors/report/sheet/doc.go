// Package sheet reads a list of orders as spreadsheets save it and partners send it, and
// says what it took it for.
//
//	bytes ──▶ encoding ──▶ separator, header ──▶ first reading: how amounts are written
//	                                                  └──▶ second reading: a Row at a time
//
// A list is a CSV with a header. Cells are separated by , ; TAB or |, as a line such as
// sep=; says, or else as the header does; lines end with LF, CR LF or CR. The encoding is
// UTF-8, UTF-16 with a byte order mark, or Windows-1252. A header names its columns as
// order_id or as Order ID, Order number, Bestellnummer. Amounts are 10.00, 10,00,
// 1.010,00, 1,010.00, $10.00 or (10.00); days 2026-11-29, 29.11.2026 or 11/29/2026.
//
// # Promises
//
//   - Nothing is guessed. A list is read one way because the list or the Options say so;
//     where two ways are left and the answer depends on them, it is refused, with the
//     place and the option that decides.
//   - Assumptions says, before the first Row, what was taken for granted: each of them
//     can be wrong only together with the list.
//   - An amount is what its marks say by themselves: 10,00 and 1,010.00 need no other.
//     1.010 is what the other amounts of the list say, which is an assumption, the
//     Options, or a currency of three digits or of none; else it is refused.
//   - An amount that was cut at its comma, as 1,10,00 without quotes, is refused where it
//     can be told, and an assumption where it cannot.
//   - A sign such as $ never overrules a currency that the line names, and is never
//     another currency than one that uses it.
//   - Cells come as they were written, decoded to UTF-8, and keep their place for errors
//     (BadList). An id is not touched: no zero is added and no ' removed.
//   - Days are checked and not compared, so 05/06/2026 may be either.
//   - Memory is that of a line, and a line is bounded; the list is read twice.
package sheet
