// Package oracle computes the truth about a log of clicks and conversions the slow,
// obvious way: from the rules as pipeline/attribution/RULES.md states them, over whole
// lists, without state between two calls and without running totals within one.
// Simulation, demo and tests compare the engine's outcomes with it. It therefore shares
// no code with the engine: of the project it imports only schemas/event.
//
// Judge takes one token after the other. A token's history is its events in order of
// record, with its click among them. It is played once, from the front:
//
//	event 1   event 2   CLICK   event 3   …   through
//	                    ▲
//	                    the click comes before the first event with entered_at > its Kafka time
//
// Each arrival first closes the waits that ended before it and is then judged; after
// each, the waiting events are tried again from the first.
//
// The only memory of the past is two lists, kept and waiting. For each event the
// parent, the standing amounts and the reward are computed from these lists from
// scratch. The cost is quadratic in the events of one token (cubic if most of them wait
// for parents) and linear in the number of tokens.
//
// Where the rules leave something open:
//
//   - The journey of line 1 and the count of line 6 cover the events before this one in
//     order of record, even when a waiting event is judged because the click arrived.
//     Otherwise a late click would change outcomes.
//   - When an event stops waiting for a parent, it is not judged from line 1 again;
//     only its parent is looked for.
//   - Waits end one after the other, in the order of their ends; those with the same end
//     end together. After each end the waiting events are tried again, so a cancellation
//     turns to the leads when the wait of the sale beside it has ended, and not when the
//     next event comes.
//   - "Earlier" and "came before" mean judged before, wherever the events stand in the
//     order of record: of a sale that waited and one of its order that came meanwhile, it
//     is the one that waited that repeats the order.
//   - A waiting sale keeps a cancellation from the leads if it has the cancellation's
//     order id, or if the cancellation has none.
//   - A positive after the window shows the parent that was looked for and found,
//     whatever its verdict. One inside the window shows the name alone.
//   - Followers after the window have no flat reward, and neither have their chains: the
//     reward is absent, not 0.
//   - A reversal that names no parent is ambiguous because of any reversal of which
//     something stands, in whatever currency. Nothing stands "any more" only where
//     something did: a reversal of a sale of 0 is no guess, and one of an unattributed
//     sale is parent_unattributed.
//   - A row that is parent_ambiguous shows no parent, also where one was found.
//   - Of several clicks with one token the first in the list counts. Clicks whose token
//     was not shown are ignored.
//   - An event that names itself has no parent: its outcome shows the name and no
//     parent type.
//   - A repeat is compared with the first event as the merchant sent it, also while that
//     one waits.
//   - Whether two events have the same content is read from the records'
//     content_sha256.
//   - A token that is not 27 base62 characters of at most 20 bytes counts as minted at
//     the start of KSUID's time.
package oracle
