// Package verify derives every row of a workspace's ledger again, from the recorded
// clicks and events and by the rules that judged them (pipeline/attribution), and
// compares every field but decided_at with where the ledger is: the topic outcomes, the
// warehouse's table, and an export. It also writes bundles: what a partner needs to do
// the same for his rows, offline.
//
//	conversions, clicks ──by token──▶ buckets on disk ──▶ rules ──▶ digest of each row
//	                                                                 ▲ ▲ ▲
//	                 outcomes, row by row ───────────────────────────┘ │ │
//	                 table outcomes ───────────────────────────────────┘ │
//	                 CSV of a manifest ──────────────────────────────────┘
//
// # What a row is a function of
//
// The rules' own promise: of the token's click, of the time at which the click reached
// Kafka (the record's timestamp), and of the token's events in the order of their
// offsets. With them go grace, click life and journey life, which Progress names, and
// the version of the rules. All of it is in the log, and nothing else decides: not when
// the processor read a click, not how often it was restarted, not its clock.
//
// What is verified is one state: that which the newest Progress of each partition tells
// of. Its transaction says how far the inputs were read, where outcomes ends, and up to
// which time waits are closed (the watermark). So it is known which rows must be there.
// A wait that ends behind the watermark may have its row or not; if it has, the row must
// be the right one, and decided after the wait's end.
//
// # What the log does not say
//
// Each of these has a count of its own, and no such row counts as equal:
//
//   - When a record arrived. Waits end by times in the log; the processor closes one
//     when its watermark passes the end, and relies on it that no record reaches Kafka
//     later than a minute (topic.DeliveryLimit) after its date. If one did, the log says
//     that it came in time, and the processor had closed the wait. Such rows are *late*:
//     they are what the rules say if the click, or an event, came after the wait was
//     closed. Only the whole token's rows explain that, only if the row was decided after
//     the wait's end, and only of a record whose Kafka timestamp is at most six minutes
//     (the minute, and clocks that differ) before that end. Whether it was so, the log
//     cannot tell.
//   - What is deleted. Of a token older than what is left of clicks or conversions,
//     records may be gone, so its rows are not derivable; five minutes are allowed for
//     clocks that differ. A row may be in the part of outcomes that is deleted.
//   - An earlier version of the rules. Its rows come first in a partition, and every
//     token of which it read an event is out. A row of an earlier version behind one of
//     today's, or of a newer one before it, is no upgrade: it differs.
//   - Other times. If Progress names several, tokens that do not lie wholly within the
//     reach of one are out. Progress is compacted, so an earlier change may be forgotten:
//     the table progress of the warehouse remembers (Partition.AddTimes).
//
// Of an export, the column partner_relationship_now and the flag event_id_reused are not
// compared: they follow from the catalog, and from other tokens.
//
// And what no comparison of this kind shows: that the log itself is complete and as it
// was sent. Who can write the topics can change an event and its row together.
//
// # Memory and disk
//
// Each partition is verified on its own. Its clicks and events go to temporary files by
// token (spill.go), some hundred bytes for each event; one file after the other is read
// back. There are at most 128, of 40 MB up to five million events of a partition. Of each
// event 48 bytes are kept in memory, and 16 more for an export. Rows are digested as they
// come, in any order. Only rows that differ are looked at twice.
//
// Measured (BenchmarkVerify, Apache Kafka, two busy cores): five million events in six
// partitions in 170 s, with at most 226 MB of memory, without warehouse and export.
//
// # Files
//
//	run.go        one partition after the other; reading, deriving
//	derive.go     a token through the rules; rows.go: its journey in memory
//	outcomes.go   the topic: equal, missing, doubled, of nothing, of another version
//	late.go       records that came later than they are dated
//	table.go      the warehouse; export.go: the CSV; compare.go: digests and fields
//	topics.go     records from Kafka; bundlefile.go: from a bundle
//	bundle.go     writing a bundle
//	report.go     what is counted
package verify
