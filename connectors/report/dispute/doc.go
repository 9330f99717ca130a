// Package dispute answers a partner's list of claimed orders: one verdict per line from
// the rows of the warehouse, and sums by currency.
//
//	CSV ──ReadClaims──▶ Claim ──Dispute.Answer, a batch at a time──▶ Finding ──▶ Totals
//
// # Promises
//
//   - A line that cannot be read is refused with its place in the file; nothing of the
//     list is kept.
//   - What is confirmed of a claim is what stands, and is in an export, too: the sum of
//     standing_change over its events and all that took back from them. What was taken
//     back beyond what stood, and given back beyond what was taken, is said beside it.
//   - An order counts once in a list: a second line that claims it is a duplicate.
//   - Two currencies are never added.
//   - Memory is bounded: a list that concerns more events than are read for one answer
//     is refused (ErrTooMany).
package dispute
