// Package simtest runs the real processor through thousands of failures in virtual
// time, and then asks whether anybody could tell.
//
// # What is real and what is not
//
// Real: the processor, franz-go, Pebble, the click log, the rules. Replaced: the
// broker (kfake, over its virtual network), the disk (Pebble's crash-able memory file
// system: a crash keeps what was synced and a random part of the rest), the clock
// (testing/synctest: hours pass in milliseconds). kfake writes a transaction's markers
// at once; so that no reader may take the last stable offset for the end of what is
// committed, listings of it are answered as they were up to half a second ago, which
// Kafka may do at any time.
//
// # A seed
//
// Two slots share three partitions; journeys of every kind (../internal/scenario)
// arrive all the time, every second one a story in which the rules have to choose:
// followers, repeated orders, won chargebacks, one id for two facts. Then, twenty
// times, a fault is injected at a step of the processor's life, while records lie
// unprocessed. Steps are those of engine.Env, and "disk": before an operation on a file
// that changes it. Faults:
//
//	kill         the process is gone; its disk keeps what a power cut would leave; it
//	             starts again within two seconds
//	kill, lost   … without its state directory
//	kill, older  … with a state directory of some time ago
//	kill, other  … with two partitions' directories exchanged
//	network      no connection for a while
//	stop         the process is stopped (SIGSTOP) beyond its session's end, while the
//	             other takes over, and then continues (SIGCONT)
//	rebalance    the other slot joins or leaves
//	abort        the broker refuses the transaction's offsets, its end, or its records, once
//	request lost EndTxn does not arrive, however often it is sent
//	answer lost  EndTxn is applied, and its answers are lost
//	clock        the wall clock goes back by two hours, for some seconds
//
// Every third seed has waits of two minutes instead of two seconds: there, before any
// wait can be over, every event must have its row that lacks nothing. (The end of a
// wait looks up the click once more, and so puts right what was overlooked: short waits
// cannot show that verdicts come late.)
//
// In every second seed both slots stand by for each other: faults then find partitions
// that are followed, handed over and given back, and what a standby writes to its disk.
//
// When everything has come to rest, outcomes must be the oracle's, row by row; progress
// must account for every record; each unreadable record must have one dead letter; and
// three state directories, those of both slots and one rebuilt from the log, must
// give the same rows, the clicks that the log has, and the standing amount that the oracle
// computes for each event.
//
// # Running
//
//	go test ./pipeline/simtest                                   30 seeds, three mutations
//	PARTNERS_TEST_LONG=1 go test -timeout 1h ./pipeline/simtest  300 seeds, all mutations
//	PARTNERS_TEST_SEED=17 go test -v -run TestSimulation ./pipeline/simtest  seed 17 alone
//	PARTNERS_TEST_SEEDS=10000 go test -timeout 24h -run TestSimulation ./pipeline/simtest
//
// Thirty seeds or more fail if a fault, a step, a refusal or a situation of the rules
// never came about, a hundred or more if a cell of the matrix did not.
//
// A seed decides what is sent and what is injected where. It does not decide in which
// order goroutines run that are ready at the same instant, so a seed that failed may
// pass when it runs again.
//
// All seeds run in one bubble of synctest: Pebble keeps batches in a pool for the whole
// program, and a sync.WaitGroup within them may not move between bubbles.
package simtest
