// Package blackbox tests the programs as operators run them: each daemon is a process,
// built by `go build`, on Apache Kafka, with real HTTP in front. It has no code but
// tests:
//
//	go test -v ./cmd/internal/blackbox
//
// A rig is a broker (kafkatest.Alone), an embedded ClickHouse in its own process (demo
// -run warehouse), two processors, two sinks, a gateway and a redirector. A load of
// visits and signed events runs against it and records the answers: the token of every
// 302, every event that was answered 202. Then something is killed or disconnected. At
// the end judge_test.go reads Kafka and ClickHouse and compares:
//
//   - the outcomes equal those of the oracle (pipeline/oracle), and the same events
//     wait;
//   - the base tables hold each record of the topics once, and of a click that was sent
//     twice the first record;
//   - partner_daily equals the oracle's, and both conservation views show 0;
//   - every token of a 302 and every accepted event is recorded, and there are no more
//     clicks than requests.
//
// TestMatrix has neither gateway nor redirector: it writes clicks and conversions to
// Kafka itself, and tests two processors on one broker. It is Kafka's own matrix of
// kills. A reader of committed outcomes runs throughout, and the markers in the log are
// compared with what it saw.
//
// A kill proves something only if it hits work that is under way. The tests therefore
// wait for such a moment and repeat until enough kills have hit. They count hits by the
// traces, not by the intention: a transaction that the broker still calls Ongoing, an
// insert or a request without an answer, a click whose first record in Kafka is a
// replay.
//
// No verdict depends on the speed of the machine: the grace is an hour, so no wait
// ends.
//
// TestLiveChanges changes what lies beneath a running install: a schema registry is
// adopted, and partitions are added and taken back as the runbook says.
//
// During an outage no process may log a line per attempt, partition or connection:
// TestOutages counts warnings and errors.
//
// If a test fails, the logs of all processes are kept and their last lines printed.
// Otherwise nothing remains. The tests run where Apache Kafka (see kafkatest) and the
// embedded ClickHouse run: on Linux.
//
// # Environment
//
// With PARTNERS_TEST_LONG=1 each process is killed with work under way ten times, Kafka
// and ClickHouse are down for half a minute, and the matrix has Kafka's size: 100,000
// records in each cell and three nodes. This takes about 20 minutes (use -timeout 40m).
// Without it, each process is killed twice, outages last two seconds, and the matrix
// has one node and fewer records.
package blackbox
