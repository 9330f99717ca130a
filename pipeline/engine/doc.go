// Package engine runs a topology exactly once: it reads two co-partitioned topics of
// Kafka, keeps state per partition, and commits records, state and input offsets in one
// transaction. It knows nothing of what the records mean. ../DESIGN.md is its protocol.
//
//	type Topology: inputs, outputs, changelog, side log     a value, wired by the program
//	type Task:     what one partition does with records, watermarks and commits
//
//	         assigned ─▶ restoring ─▶ running ─▶ closed
//	                     ▲   │            │        │
//	         following ──┘   └── corrupt ─┴─▶ wiped, rebuilt from the changelog
//	             ▲                                 │
//	             └───── owned by another ◀─────────┘      with a standby
//
// # Promises
//
//   - What a task writes in a transaction (records, rows of state) becomes visible with
//     the input offsets of what was applied, or not at all.
//   - A record is applied to the state exactly once, whatever is killed, revoked or
//     fenced.
//   - A watermark never runs ahead: everything that reached Kafka before it was
//     applied.
//   - State may be lost, old or foreign: it is recognised and rebuilt from the
//     changelog.
//   - A transaction that hangs in Kafka is decided and ended before anything is written
//     behind it. The engine waits for that and never exits because of it.
//
// # Shape
//
// An Engine runs sessions, one after another. A session is one membership in the
// consumer group with one transactional producer; anything that leaves the outcome of a
// transaction in doubt ends it, and the next one asks the broker.
//
//	engine.go       sessions, restarts, watchdog
//	session.go      joining, assignment, revocation, closing
//	restore.go      a partition's way from disk to what is committed
//	standby.go      following partitions that other processes own;
//	standbyreader.go: what it reads of them
//	loop.go         the loop: poll, apply, tick
//	commit.go       the end of a transaction, and applying it to the state
//	endoffsets.go   end offsets of both inputs, from which watermarks follow
//	hanging.go      transactions that are over and still open in a partition;
//	blockers.go     markers.go: which there are, and how they ended
//	rows.go         rows of the running transaction over those on disk
//	identity.go     whose state a directory holds
//
// # Metrics
//
// All begin with partners_NAME_, where NAME is the topology's:
//
//	transactions_total{result}          committed, aborted, unknown
//	transaction_seconds_total{phase}    poll, rules, produce, commit, apply
//	sessions_total                      sessions begun: each after the first is a recovery
//	hanging_transactions_total          partitions that got the marker that Kafka had lost
//	waiting_for_markers                 partitions that wait for another transaction's end
//	partitions{state}                   partitions by state: restoring, running
//	restored_records_total{topic}       records read by restores
//	restore_seconds                     duration of a partition's restore
//	next_offset{topic,partition}        next offset to apply
//	lag_records{topic,partition}        records behind the newest end offset
//	buffered_records{partition}         records read ahead of the leading input
//	watermark_timestamp_seconds{partition}  everything before this unix time was applied
//	standby_partitions{state}           partitions of others followed here: warm, behind, closed
//	standby_lag_records{topic,partition}  records that a standby has not applied yet
//	standby_records_total{topic}        records that a standby has applied
package engine
