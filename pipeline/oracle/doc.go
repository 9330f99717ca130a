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
//	                    the click comes before the first event with received_at > its Kafka time
//
// Each arrival first closes the waits that ended before it and is then judged; after
// that, the waiting events are tried again from the first.
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
//   - Of several clicks with one token the first in the list counts. Clicks whose token
//     was not shown are ignored.
//   - An event that names itself has no parent: its outcome shows the name and no
//     parent type.
//   - Whether two events have the same content is read from the records'
//     content_sha256.
//   - A token that is not 27 base62 characters of at most 20 bytes counts as minted at
//     the start of KSUID's time.
package oracle
