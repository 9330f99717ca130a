// Package attribution implements RULES.md: how a token's click and its events become
// verdicts. It is pure: it reads and writes only the rows that it is given, and uses no
// clock, no randomness, no goroutine and no log. testdata/*.txt shows its decisions to
// the people who reconcile ledgers.
//
// # Promises
//
//   - A verdict is a function of the token's click, of the time at which the click
//     reached Kafka, and of the token's events in the order of their offsets. When a
//     click is read and when CloseWaits is called changes when an outcome is written,
//     never its content.
//   - Each event gets exactly one outcome: at once, or when its wait ends.
//   - One event touches a number of rows that depends on its children and its chain of
//     parents, not on the size of the journey. A scan over waiting events visits those
//     that are judged or closed next, and one more. A journey of version 1 is scanned
//     once.
//   - The standing changes of a root and of all events below it add up to the root's
//     standing amount, and their rewards to the reward of that.
//
// # The logical timeline
//
// A token's events are in order of record. Its click comes before the first event that
// entered after the click reached Kafka. So an early click is the normal case: the
// click is known when an event arrives, and the event is judged from line 1 of the
// table of verdicts. A late click is reduced to that case: the events that waited for
// it are taken out and judged as if they arrived now, one by one. A late click
// therefore changes nothing, by construction.
//
//	Event ──▶ click known? ──no──▶ journey, or within the click life? ──no──▶ expired
//	              │                     └─yes─▶ waits for the click
//	              │                               ├◀── ApplyClick: all of them are judged
//	              │                               └◀── CloseWaits: click_not_found, or expired
//	              ▼ yes
//	          ended parent waits are closed ─▶ lines 1 … 14 ─▶ outcome ─▶ cascade
//	                                              └─▶ waits for a parent
//	                                                    └◀── cascade, a later event, CloseWaits
//
// The ends of waits are events of this timeline, too: a cancellation may wait beside a
// sale that waits for what it follows, and take a lead when that wait has ended. So ends
// are worked off in their order, whenever they are found.
//
// An event without a known click finds a journey as long as the wait of an earlier
// event lasts. Whether a wait that seems to have ended found its click in time is known
// only when the clicks have been read past its end. Until then a later event waits
// behind it, so its outcome is the same whenever that becomes known.
//
// # A refund before its sale
//
// The longest path through the package. Each step is in the file on the right:
//
//	JudgeEvent(refund)                                                  rules.go
//	└ judgeEvent → judgeNegative                                        verdicts.go
//	  ├ findParent: absent                                              parent.go
//	  └ waitForParent                                                   cascade.go
//	    └ writeWait, writeEvent, writeParentIndex                       rows.go
//
//	JudgeEvent(sale)                                                    rules.go
//	└ judgeEvent                                                        verdicts.go
//	  ├ judgePositive → settlePositive                                  verdicts.go
//	  │ ├ readOwnOrder, repeatsOrder, indexPositive                     parent.go
//	  │ ├ recordEvent                                                   journey.go
//	  │ ├ emitWithClick(the sale)                                       outcome.go
//	  │ └ wakeForPositive → wakeForOrder, wakeWaiting: the refund       cascade.go
//	  └ judgeWoken: first in order of record, until none is left        cascade.go
//	    ├ findParent: found                                             parent.go
//	    ├ deleteWait, leaveParentWait                                   rows.go, cascade.go
//	    └ settleNegative                                                verdicts.go
//	      ├ takeFromParent → propagateStanding, setReward               amounts.go, reward.go
//	      ├ recordEvent, emitWithClick(the refund)                      journey.go, outcome.go
//	      └ wakeWaiting: what waits for the refund                      cascade.go
//
// A sale after the window that comes before what it follows takes the same path, by
// settlePositive.
//
// If the sale never comes, endParentWaits (waiting.go) closes the wait: CloseWaits
// calls it, and judgeEvent before it judges any later event.
//
// # Limits
//
// Two events of one token whose order of record and order of entry differ by more
// than the grace may find a journey that was forgotten in between, and then a click
// that came too late for them. Gateways record an event within seconds of receiving it.
//
// A click that reaches Kafka later than click life and grace after its token's time
// stays unknown. It could not attribute anything: every event that entered within the
// click life has ended its wait, and every later one finds no journey.
//
// # Tests
//
// The scenarios in testdata have one file per theme. TestCoverage prints which
// verdicts, reasons, flags, types and parents they show, and fails for one that the
// rules allow and no scenario shows. TestMutations breaks one rule after the other and
// fails if no scenario and no comparison with package oracle notices. A plain go test
// tries a few mutations; PARTNERS_TEST_LONG=1 go test -run Mutation
// ./pipeline/attribution tries all. go test -rapid.checks=1000 runs ten times the usual
// cases of each property.
//
// # Files
//
// Rules (rules.go) has three entries, JudgeEvent, ApplyClick and CloseWaits. Each reads
// the head of the token's journey (journey.go), judges, and writes the head back. The
// rules are in the files that bear the names of the sections of RULES.md: waiting.go,
// verdicts.go, parent.go, amounts.go, reward.go, and outcome.go and repeats.go for the
// flags. cascade.go decides which waiting events are judged next. upgrade.go takes over
// the journeys of version 1. rows.go reads and writes all other rows; their formats are
// in schemas/event (journeyrows.go, journeywait.go).
package attribution
