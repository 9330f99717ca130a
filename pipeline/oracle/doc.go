// Package oracle computes the truth about a log of clicks and conversions the slow,
// obvious way: from the rules as they are written in pipeline/attribution/RULES.md,
// over whole lists, with nothing kept between two calls and nothing kept up to date
// within one. Simulation, demo and tests hold the engine's outcomes against it, so it
// shares no code with the engine: of the project it imports schemas/event alone.
//
// Judge takes one token after the other. A token's history is its events in order of
// record with its click among them, and is played once from the front:
//
//	event 1   event 2   CLICK   event 3   …   through
//	          ▲         ▲ stands before the first event with received_at > its Kafka time
//	          └ whatever arrives first closes the waits that ended before it, then is judged; then waiting events are tried again from the first
//
// All that is remembered of the past are two lists, kept and waiting. Who is whose
// parent, what stands and what reward follows from it is looked up in them from scratch
// for each event. That costs quadratic time in the events of one token (cubic, if most
// of them wait for parents), and linear time in the number of tokens.
//
// What the rules leave open is decided like this:
//
//   - The journey that line 1 of the rules asks for, and the count of line 6, are of
//     events before this one in order of record, also when what waited is judged
//     because the click came. Otherwise a late click would change rows.
//   - An event whose wait for its parent is over is not judged from line 1 again, only
//     its search for a parent is.
//   - Of several clicks with one token the first in the list counts, and clicks whose
//     token was not shown are not looked at.
//   - An event that names itself has no parent: its row shows the name and no parent
//     type.
//   - Whether two events have the same content is read from the records'
//     content_sha256.
//   - A token that is not 27 base62 characters of at most 20 bytes counts as minted at
//     the start of KSUID's time.
package oracle
