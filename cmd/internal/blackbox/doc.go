// Package blackbox is a test of what people run: each daemon a process of its own, as
// `go build` makes it, on Apache Kafka, with real HTTP in front. It has no code but
// tests:
//
//	go test -v ./cmd/internal/blackbox
//
// A rig is a broker (kafkatest.Alone), an embedded ClickHouse in a process of its own
// (demo -run warehouse), two processors, two sinks, a gateway and a redirector. A load
// of visits and signed events runs against it and remembers what it was told: the token
// of every 302, every event that was answered 202. Then something is killed or cut off.
// At the end the judge reads Kafka and ClickHouse and compares:
//
//   - outcomes are those of the oracle (pipeline/oracle), and nothing waits;
//   - base tables hold what the topics hold, each record once, of a click that was sent
//     twice the first;
//   - partner_daily is the oracle's; both conservation views say 0;
//   - every token of a 302 and every accepted event is there, and there are no more
//     clicks than requests were sent.
//
// TestMatrix has no outside: it writes clicks and conversions to Kafka itself, and
// looks at two processors and the broker alone. It is Kafka's own matrix of kills, with
// a reader of committed outcomes throughout; the markers in the log are held against
// what that reader saw.
//
// A kill shows something only if it hits work that is under way. So the tests wait for
// such a moment, go on until they had enough of them, and count by what was left
// behind, not by what they aimed at: a transaction that the broker still calls Ongoing,
// an insert and a request that were never answered, a click whose first record in Kafka
// is a replay.
//
// No verdict depends on how fast the machine is: an event may wait for an hour here, so
// no wait ends.
//
// While something is away no process logs a line for each attempt, partition or
// connection: TestOutages counts warnings and errors.
//
// Logs of all processes are kept, and their ends printed, if a test fails; nothing is
// left otherwise. It runs where Apache Kafka (see kafkatest) and the embedded
// ClickHouse run: on Linux.
//
// # Environment
//
// PARTNERS_TEST_LONG=1: each process is killed with work under way ten times, Kafka and
// ClickHouse are away for half a minute, and the matrix has Kafka's size, 100,000
// records in each cell and three nodes (about 20 minutes in all, so with -timeout 40m).
// Otherwise twice, no longer than it takes to see it, and one node and fewer records.
package blackbox
