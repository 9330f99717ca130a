// Package rollup brings the sums of earlier releases into the table that the sink's
// inserts feed now, and computes what rows of rules version 1 do not say: how much they
// changed of what stands.
//
//	outcomes of rules version 1 ─▶ chains ─▶ standing_change_minor, standing_basis
//	                                               │
//	rows of a month ─▶ materialized views ─▶ shadow ◀─ sums by the hour without rows
//	                                               │ equal to the sums by the hour?
//	                                               ▼
//	                                partner_quarter_hourly_state
//
// # What CarryOver promises
//
//   - No sum changes: of every hour, partner, program, link and currency the new table
//     has what the old one has, or the run ends with ErrDiffers and the old sums stay
//     in use.
//   - Sums of rows that were dropped because of their age stay, in the first quarter of
//     their hour, on lines whose src_topic is Carried.
//   - Each month of a table changes at once, and a run that was interrupted anywhere is
//     repeated from its beginning with the same result.
//   - Memory is bounded: by the months' sums, and by a part of one partition's events.
//
// No sink may insert meanwhile; the caller sees to that.
//
// # Standing changes of rules version 1
//
// A chain is a positive and all that takes back from it, directly or not. Its rows are
// replayed in the order of their offsets, which is the order of their verdicts. A row
// whose ancestors are missing, or before which rows of its partition are missing since
// its chain began, gets effect × amount, and standing_basis says so. Which rows are
// missing is known from the table batches.
package rollup
