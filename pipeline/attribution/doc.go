// Package attribution holds the rules of RULES.md: how a token's click and its events
// become verdicts. It is pure: no input or output but the rows it is given, no clock,
// no randomness, no goroutine, no log. What it decides is written down, to be read by
// people who reconcile ledgers, in testdata/*.txt.
//
// # Promises
//
//   - Everything is a function of one token's click, of the time at which that reached
//     Kafka, and of the token's events in the order of their offsets. When a click is
//     read and when Due is called changes when a row is written, never the row.
//   - Each event gets exactly one row: at once, or when its wait ends.
//   - One event touches a number of rows that depends on its children and its chain of
//     parents, not on the size of the journey. The one scan over waiting events visits
//     those that are judged, and one more.
//   - Rewards of a root and of all under it sum to the reward of what stands of it.
//
// # The logical timeline
//
// A token's events stand in order of record; its click stands before the first event
// that was received after the click reached Kafka. Seen from there, an early click is
// the normal case: each event arrives with the click known, and is judged from line 1
// of the table of verdicts. A late click is made equal to it: the events that waited
// are taken out and arrive again, one by one. So a late click changes nothing, by
// construction.
//
//	Event ──▶ click known? ──no──▶ journey, or within the click life? ──no──▶ expired
//	              │                     └─yes─▶ waits for the click ◀── Click: all of them arrive again
//	              │                                                ◀── Due: click_not_found, or expired
//	              ▼ arrives
//	          ended parent waits are closed ─▶ lines 1 … 14 ─▶ row, kept ─▶ cascade: what waited for it, first in order of record
//	                                                 └───────▶ waits for a parent ◀── the cascade, a later event, Due
//
// An event whose click is unknown finds a journey while the wait of an event before it
// lasts. Whether a wait that seems to have ended found its click in time is only known
// when the clicks have been read past its end; until then a later event waits behind
// it, and its row is the same whenever that becomes known.
//
// # Limits
//
// Two events of one token that stand in the log more than the grace apart from the
// order in which they were received may find a journey that has been forgotten in
// between, and then a click that came too late for them. Gateways record within seconds
// of receiving.
//
// A click that reaches Kafka later than click life and grace after its token's time
// stays unknown. It could not attribute anything: every event received within the click
// life has ended its wait, every later one finds no journey.
//
// # How it is held to the rules
//
// The scenarios in testdata have one file per theme. TestCoverage prints which
// verdicts, reasons, flags, types and parents they show, and fails for one that the
// rules allow and no scenario shows. TestMutations breaks one rule after the other and
// fails if no scenario and no comparison with package oracle notices; a plain go test
// tries a few of them, PARTNERS_TEST_LONG=1 go test -run Mutation
// ./pipeline/attribution all. go test -rapid.checks=1000 runs ten times the usual cases
// of each property.
//
// # Shape
//
// Rules has three entries, Event, Click and Due. Each opens the token's journey
// (journey.go: its head in memory for the length of the call), judges (judge.go,
// parent.go, amounts.go, reward.go) and writes the head back. The row formats are in
// schemas/event (journey.go).
package attribution
