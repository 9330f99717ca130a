// Package sink copies Kafka topics into ClickHouse, effectively once: whatever is
// redelivered, a record is in its base table once, and counts once in every rollup.
//
//	clicks conversions outcomes rejections progress catalog
//	        │ read_committed, group clickhouse-sink
//	        ▼ for each partition, strictly one batch after another
//	form [start, end) ─▶ commit start, metadata = intent ─▶ insert, token = intent ─▶ dead letters ─▶ row in `batches`
//	                     (acknowledges the batch before)
//
// # Why a crash doubles nothing
//
// A batch is [start, end) of one partition of one topic. Before its rows are sent, it
// is declared in the metadata of the commit of its start:
//
//	v1 TOPIC-ID START END UNIX-MILLISECONDS        (at most 4096 bytes, which is what brokers take)
//
// Who takes the partition up after a crash reads this, forms exactly the same batch,
// and inserts it with the same insert_deduplication_token,
// TOPIC-ID/PARTITION/START/END. ClickHouse drops what it has: in the base table and,
// view by view, in everything that hangs behind it. There is never a commit without an
// intent, so the last batch of an idle partition stays unacknowledged; its row in
// `batches` says that it is done.
//
// On assignment a partition is taken up where the gapless run of its finished batches
// ends, whatever is committed: a ClickHouse that was restored from yesterday's backup
// is filled up again. With no finished batch, at the committed offset. A batch that was
// declared there is repeated by its token if the tables still remember it: fewer than
// half a window of batches followed, and half of its time has not passed. Else it is
// inserted if no row of it is in the base table. Everything else stops the sink with an
// error that says what to do, for which NeedsOperator is true. It never guesses.
// Complete is what the operator then has: while no sink runs, it reads the records of
// such a range again, inserts those without a row, and records what Kafka has lost; the
// rollup is computed anew after it.
//
// # What else it promises
//
//   - A click that the redirector's spool sent twice (header `replay`) is dropped if
//     the same token stands before it, in its batch or in the table.
//   - A record whose bytes alone are unreadable goes to `dead-letters` with headers
//     that say where it was, and is counted in `batches`. Unreadable conversions are
//     the processor's to dead-letter, and are only left out here. A repeated batch
//     looks up which of its letters are there already; two sinks that repeat one batch
//     at the same moment may still send a letter twice.
//   - A ClickHouse or Kafka that is merely away, slow or full stalls the partition,
//     which then repeats the same batch, with back-off.
//   - Inserts into one table stay within 20 a second.
//   - When its context ends, running batches are finished, for at most ten seconds.
//
// # Shape
//
// One client polls for all partitions and pushes records into their queues; fetching of
// a partition pauses when two batches wait. Each partition has a goroutine
// (partition.go) that forms batches and walks them through the steps above. A few
// batches at a time hold rows in memory. place.go decides where a partition is taken
// up.
//
// # Metrics
//
//	partners_sink_rows_total{topic}               rows inserted into base tables
//	partners_sink_batches_total{topic}            finished batches
//	partners_sink_insert_seconds{topic}           duration of one insert with all its views
//	partners_sink_oldest_row_visible_seconds{topic}           from the time in a batch's oldest row until it is visible
//	partners_sink_visible_seconds{from}           of each row, from=click: from the click until it is visible; from=receipt: from the receipt of an event until its
//	                                              verdict is, if it did not have to wait for its click or parent
//	partners_sink_lag_records{topic,partition}    end of the log minus end of the finished batches
//	partners_sink_dead_letters_total{topic}       unreadable records sent to the dead letters
//	partners_sink_replays_dropped_total{topic}    clicks that were sent again and dropped
//	partners_sink_retries_total{topic}             attempts that failed and are repeated
//	partners_ledger_conservation_difference        what the view conservation does not account for: 0, always; the books are read every five minutes
//	partners_ledger_waiting_events                 events that wait for their click or parent
//	partners_ledger_reused_event_ids               event ids with effect under several click tokens
//	partners_ledger_token_coverage_ratio           share of the clicks of the last day, on links that track, whose token was shown
//	partners_ledger_joined_watermark_timestamp_seconds  the time up to which clicks and events are joined and in the tables
package sink
