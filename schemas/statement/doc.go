// Package statement declares the statement of account: for each partner and currency,
// what stood when a month began, what the month changed, and what stood when it ended.
// Page, JSON, CSV and export of a statement have the same lines, all from here.
//
//	outcomes ──Query──▶ Sums ──Collect──▶ Account ──▶ report: page, JSON, CSV
//	wait_ends ─ClosingQuery─▶ Closing ──▶ Head    └─▶ export: CSV and manifest
//
// # What it adds up
//
// What an event changes of what stands (outcomes.standing_change_minor) counts in the
// month of its received_at, by the workspace's time zone. A month is never that of
// occurred_at: a merchant may date an event back, and a closed month would change.
//
//	opening      all changes that were received before the month
//	attributed   what leads and sales of the month add
//	taken back   what refunds, cancellations and reversals of the month take back, ≥ 0
//	given back   what reversals of negatives give back, such as a chargeback that was won
//	closing      opening + attributed − taken back + given back
//
// Of attributed, taken back and given back, what was dated into earlier months stands
// beside it: three figures, never set off against each other. An earlier month is one
// before the statement's, by occurred_at and the same zone.
//
// # Promises
//
//   - A closing is the next month's opening, to the last digit, and the closings of a
//     month add up to what stood at its end. Sums are Int128 and decimal, never floats.
//   - Two currencies are never added up. Amounts of one currency that were sent with
//     different numbers of digits are.
//   - What has no partner is an account of its own, with an empty partner_id. So the
//     accounts of a workspace are all that it attributed.
//   - Events without an amount count and change no sum: those of a lead without amount
//     are on the account with currency "".
//   - Each account has a line in which anything stood at the beginning, or in which an
//     event of the month counts. Others are left out.
//
// A closing can be below zero. A refund that waits for its sale counts in the month in
// which the refund was received, which may be the month before the sale's; and what is
// taken back beyond what stood changes nothing (the rules' standing amounts see to
// that), whatever month it is in.
//
// # When it is final
//
// A statement is final when no event of its month can get a row any more: when the
// watermark has passed the month's end + the grace + five minutes, in every partition
// and in ClickHouse. That is the moment from which the views of conservation call a
// missing row lost, so it is read from the same view, wait_ends; where the grace was
// lowered, the longer one counts until what entered under it has ended. No clock
// decides. Until then it is open, and running while the watermark has not passed the
// month's end.
//
// It is about events that name their token: those enter the log when they are received.
//
// Two things change a final statement, and both are done by hand: rows that are removed
// from outcomes or added from a repaired log, and another time zone of the workspace.
// An export keeps the zone of its manifest.
//
// # Rules version 1
//
// Rows of rules version 1 did not say what they changed. It was computed from their
// chains; where rows of a chain are missing, effect × amount stands in.
// approximated_events counts these rows up to the closing, as the column of that name in
// partner_daily does. Sums that an earlier release's rollup had of rows that are gone
// are in no statement.
package statement
