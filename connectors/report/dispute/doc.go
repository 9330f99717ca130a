// Package dispute answers a partner's list of claimed orders: one verdict per line from
// the rows of the warehouse, and sums by currency.
//
//	list ──ReadClaims, package sheet──▶ Claim ──Dispute.Answer, a batch at a time──▶ Finding
//	                                                                 Answers, Totals ◀──┘
//
// # Promises
//
//   - A line that cannot be read is refused with its place in the file; nothing of the
//     list is kept.
//   - A CSV of ours is a list, too: an id is looked for as it is written, and without the
//     ' that escapes a formula; in a whole export of version 2 without it first, unless
//     one of its texts shows that it is -raw. Where both are there, the answer says so.
//     So is one in another form of Unicode, which looks the same. Of an order_id beside an
//     event_id the first that is known answers.
//   - Where nothing is attributed, what became of the order's sale answers, before what
//     became of a refund of it.
//   - What is confirmed of a claim is what stands, and is in an export, too: the sum of
//     standing_change over its events and all that took back from them. What was taken
//     back beyond what stood, and given back beyond what was taken, is said beside it.
//   - What stands is confirmed whatever else is known; a warning is beside it. A negative
//     without effect that belongs to the claim is listed, and an order that counts
//     several times in the workspace says so.
//   - A list of one partner's is answered for that partner's eyes: words and cells of a
//     Finding have no token, no other partner, and no id of an event that is not theirs.
//     What Partner, WithoutEffect and Counted hold is for the workspace's own readers.
//   - An order counts once in a list: a second line that claims it is a duplicate.
//   - Two currencies are never added.
//   - Memory is bounded: a list that concerns more events than are read for one answer
//     is refused (ErrTooMany).
package dispute
