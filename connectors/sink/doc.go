// Package sink copies Kafka topics into ClickHouse, effectively once: however often a
// record is redelivered, it has one row in its base table and counts once in every
// rollup.
//
//	clicks conversions outcomes rejections progress catalog
//	        │ read_committed, group clickhouse-sink
//	        ▼ for each partition, strictly one batch after another
//	form [start, end) ─▶ commit start, metadata = intent ─▶ insert, token = intent
//	                     (acknowledges the batch before)              │
//	      row in `batches`  ◀─  dead letters  ◀─  verify, if repeated ┘
//
// # Why a crash duplicates nothing
//
// A batch is [start, end) of one partition of one topic. Before its rows are sent, it
// is declared in the metadata of the commit of its start:
//
//	v2 WAREHOUSE-ID TOPIC-ID START END UNIX-MILLISECONDS
//
// After a crash the next owner of the partition reads this, forms exactly the same
// batch, and inserts it with the same insert_deduplication_token,
// TOPIC-ID/PARTITION/START/END. ClickHouse drops what it already has: in the base table
// and, view by view, in every table that the views feed. Every commit carries an
// intent. The last batch of an idle partition therefore stays unacknowledged; its row
// in `batches` says that it is finished.
//
// An assigned partition is resumed where the gapless run of its finished batches ends,
// whatever is committed: a ClickHouse that was restored from yesterday's backup is
// filled up again. If it has no finished batch, it is resumed at the committed offset,
// which must then be the log's start: a batch is declared when the one before it is in
// `batches`, so a group that is further on belongs to tables that were emptied or are
// another database's.
// A batch that was declared there is repeated under its token if the tables still
// remember the token: fewer than half a window of batches followed, and less than half
// of the window's time has passed. Otherwise it is inserted if the base table has no
// row of it. In every other case the sink stops with an error that says what to do, for
// which NeedsOperator is true. It never guesses.
//
// Complete repairs such a range for the operator, while no sink runs: it reads the
// records again, inserts those without a row, and records what Kafka has lost. The
// rollup has to be rebuilt afterwards.
//
// # Repair
//
// Repair believes neither commits nor `batches`. It reads every topic from the start of
// the log and compares each record with the base table: missing rows are inserted, rows
// that are there twice are deleted and one is inserted, ranges that no batch covers are
// recorded. Then every line of the rollup becomes the sum of its rows, except lines of a
// partition of which rows are gone from both: batches in front of the log's start had
// more rows than there are. Such a line may be right although its rows are not there, so
// it stays, unless it is of a time from which on the log has everything.
//
// What Repair does follows from the tables alone, so it is repeated after a kill. While
// it runs it holds a lock, a row in table `repairs` with a sign of life every five
// seconds. It takes the lock and then looks for members of the group; a sink is a member
// before it looks for the lock, and waits with its partitions unclaimed. So one of the
// two always sees the other.
//
// # Two warehouses
//
// A database has an id, in table warehouse, which every commit names, and the table names
// the group. Whoever claims partitions or repairs looks at both, at all commits of the
// group, and returns ErrOtherWarehouse if they name something else; a sink that runs looks
// every five seconds (warehouse.go). Commits of earlier releases name none: they are
// adopted by the first sink. A second warehouse has another group (kafka.Config's
// GroupSuffix). Only the sinks of the first, whose group has no suffix, send dead letters.
// A repair that takes the group commits the ends of the tables, then writes the table.
// It refuses while the group that the database would leave has members.
//
// # Months that are dropped
//
// MonthDropper drops the oldest months of the base tables (dropmonths.go). First it writes
// what stays of their rows, then it marks the month, in table dropped_months: from that
// moment on the views count what stays and no longer the rows. Then it drops the rows.
// Repair leaves the records of such months out, and their sums as they are.
//
// # A ClickHouse that goes back
//
// Every five seconds a sink looks whether the batches that it has recorded since, and the
// last of each partition, are still in `batches`. If one is missing twice, a backup was
// restored while the sink ran, and what it inserts now lies behind a hole: it stops with
// ErrWentBack (restored.go). A replica that is five seconds behind looks the same; so a
// sink should talk to one replica.
//
// # Why a repeated insert is not believed
//
// ClickHouse notes a token before it gives the block its name. If it is killed between
// the two it remembers the token without the block, and from then on acknowledges and
// drops every repetition. This can happen to each block on its own: an insert is one
// block for each month in the base table, and one for each month in each rollup.
//
// So whenever an insert was not the first try of its batch, in this process or an
// earlier one, verify.go looks at the tables before the batch is finished:
//
//   - The batch's rows are counted in the base table, by partition and offset. Missing
//     ones are inserted under a token of their own, TOKEN/rows/DIGEST/N, with all views.
//   - The sums of this partition in the rollup, in the quarters of an hour that the
//     batch touches, are compared with what the views make of the base table. A row of
//     differences is added where they differ, under the token TOKEN/sums/DIGEST/N.
//   - The batch's lines in the tables that find events by their ids are inserted once
//     more (lookups.go): there it changes nothing that a row is summed up twice.
//
// The sums come first. If the rollup counts rows that the base table has lost, they are
// subtracted, and return with the missing rows. So each repair follows from what is in
// the tables, and its token from what it adds: a verification that was killed, or that
// runs twice, ends the same. N is 0 until an acknowledged repair turns out to be lost.
// Before it looks, it waits until no insert of the batch is running and, on replicated
// engines, until its replica has caught up; so a sink should talk to one replica. It
// acts only on what it has found twice, two seconds apart.
//
// If the rollup counts more than the missing rows account for, the sink stops with
// ErrSurplus. It subtracts nothing that it cannot explain: rows may have been deleted
// from the base table, which only a person knows, or a view was altered between two
// tries, after which ClickHouse takes the second for a new insert there. Only sums of a
// time of which rows were dropped because of their age may exceed what is left of them;
// they stay as they are. Tables that an operator's own views feed are not verified.
//
// # What else it promises
//
//   - A click that the redirector's spool sent twice (header `replay`) is dropped if
//     the same token occurs before it, in its batch or in the table.
//   - A record whose bytes alone are unreadable goes to `dead-letters`, with headers
//     that say where it was, and is counted in `batches`. The reasons are in
//     deadletter.go. The processor dead-letters unreadable conversions; here they are
//     only left out. A repeated batch looks up which of its dead letters exist. Two
//     sinks that repeat one batch at the same moment may still send a dead letter
//     twice.
//   - While ClickHouse or Kafka is away, slow or full, the partition repeats the same
//     batch, with back-off.
//   - Inserts into one table stay within 20 a second.
//   - When its context ends, it finishes running batches, for at most ten seconds.
//
// # Shape
//
// One client polls for all partitions and pushes records into their queues; fetching of
// a partition pauses while two batches wait (queue.go). Each partition has a goroutine
// that forms batches (partition.go) and takes each through the steps above (batch.go).
// A batch that failed is resumed behind the last step that was confirmed. Only a few
// batches at a time hold rows in memory. resume.go decides where a partition is
// resumed, deduplication.go makes the tokens and knows how long they are remembered,
// verify.go looks after repeated inserts, mapping.go says which topic becomes which
// table.
//
// tables.go declares the columns of each table, once. The rows of a batch are collected as
// the bytes that ClickHouse takes (columns.go), and leave from there. Clicks and outcomes
// of today's schemas are not decoded: the bytes of each field go into its column, and what
// a click says of its link, and of its visitor, has one row for all clicks with those bytes
// (rows.go). What is older or unusual is read by the codec; a test and a fuzz target
// compare both.
//
// # Metrics
//
//	partners_sink_rows_total{topic}               rows inserted into base tables
//	partners_sink_batches_total{topic}            finished batches
//	partners_sink_insert_seconds{topic}           duration of one insert with all its views
//	partners_sink_oldest_row_visible_seconds{topic}
//	                                              from the time in a batch's oldest row
//	                                              until it is visible
//	partners_sink_visible_seconds{from}           of each row. from=click: from the click until
//	                                              it is visible; from=receipt: from the receipt
//	                                              of an event until its verdict is visible, if
//	                                              it did not wait for its click or parent
//	partners_sink_lag_records{topic,partition}    end of the log minus end of finished batches
//	partners_sink_dead_letters_total{topic}       unreadable records sent to the dead letters
//	partners_sink_misplaced_total{topic}          clicks and events in another partition than
//	                                              their token's, left out of the tables
//	partners_sink_replays_dropped_total{topic}    clicks that were sent again and dropped
//	partners_sink_retries_total{topic}            attempts that failed and are repeated
//	partners_sink_verifications_total{topic}      repeated inserts that were verified
//	partners_sink_repaired_rows_total{topic}      rows that a repeated insert, although
//	                                              acknowledged, had not inserted
//	partners_sink_repaired_sums_total{topic}      lines of the rollup that differed from their
//	                                              rows after a repeated insert
//
// Read from views every five minutes, the same in every sink:
//
//	partners_ledger_conservation_difference       events that the view conservation does not
//	                                              account for, summed over partitions: always 0
//	partners_ledger_workspace_conservation_difference
//	                                              what workspace_conservation finds lost, without
//	                                              an event, or more than once, among the events
//	                                              received today and in the seven days before
//	                                              (UTC): always 0
//	partners_ledger_waiting_events                events that wait for their click or parent
//	partners_ledger_reused_event_ids              event ids with effect under several tokens
//	partners_ledger_reused_orders                 orders of which several sales stand, by the
//	                                              view order_reuse
//	partners_ledger_negatives_without_effect      refunds, cancellations and reversals that were
//	                                              received and took nothing back, by the view of
//	                                              that name
//	partners_ledger_positives_in_conflict         leads and sales that came under the id of
//	                                              another event, with other money (the flag
//	                                              money_differs), and do not count
//	partners_ledger_token_coverage_ratio          share of the last day's clicks, on links that
//	                                              track, whose token was shown
//	partners_ledger_joined_watermark_timestamp_seconds
//	                                              the time up to which clicks and events are
//	                                              joined and in the tables
package sink
