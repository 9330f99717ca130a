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
// such a moment, and count by what was left behind, not by what they aimed at: a
// transaction that the broker still calls Ongoing, an insert and a request that were
// never answered, a click whose first record in Kafka is a replay.
//
// Logs of all processes are kept, and their ends printed, if a test fails; nothing is
// left otherwise. It runs where Apache Kafka (see kafkatest) and the embedded
// ClickHouse run: on Linux.
//
// # Environment
//
//   - PARTNERS_TEST_MATRIX=long: Kafka's size, 100,000 records in each cell of the
//     matrix, on three nodes (about 15 minutes, so with -timeout 25m); otherwise one
//     node and fewer records.
//   - PARTNERS_TEST_OUTAGE=30s: how long Kafka and ClickHouse are away; 12 s by
//     default, which is longer than the gateway waits for Kafka.
package blackbox
