// Package ddl holds the ClickHouse schema: numbered migrations (*.sql, for goose) and
// the statements that make roles.
//
//	topics ──sink──▶ base tables ──materialized views──▶ partner_quarter_hourly_state
//	                 clicks conversions outcomes         effects_by_event_id
//	                 rejections progress                 sales_by_order_id
//	                 catalog_versions batches            conversions_by_key
//	                          │                          outcomes_by_key
//	                          │                               │
//	                          └───────────────────────────────┴▶ views: partner_daily,
//	                                                      conversion_rows, conservation …
//
// What the tables promise, together with the sink that fills them:
//
//   - A record is in its base table once, found by (src_partition, src_offset); a click
//     that was sent twice counts once, in table and rollup.
//   - Every table of a chain has deduplication windows of its own, so that an insert
//     can be repeated with its token.
//   - The month of a row's partition follows from the record alone (arrived_at, its
//     timestamp in Kafka), so a repeated insert makes the same parts.
//   - Columns that hold many different texts are String, all others
//     LowCardinality(String). Empty text means absent; a null is a number or a time
//     that is not there.
//   - Money is in minor units, with currency and exponent beside it. Sums are Int128,
//     since two amounts of nineteen digits must not wrap around. Views give them as
//     Decimal(38, 4): Int128 is raw bytes in Parquet and Arrow, and a Decimal(38, 0)
//     divided by 100 has no cents.
//   - A view without a parameter has days of UTC. Those with the parameter tz have the
//     days of a time zone, of which a quarter of an hour is a part.
//   - effects_by_event_id and sales_by_order_id sum up rows of outcomes by an id, by
//     least and greatest values: a row that is summed up twice changes nothing.
//   - conversions_by_key and outcomes_by_key have a line for each event id, token, parent
//     and order of a row: a hash of it, and the time by which the row's table is sorted. A
//     line that is there twice is one.
//   - A month that is dropped leaves a narrow line of each event and verdict. The views
//     events_and_rows and statement_rows have them, or the rows, never both.
//   - One topic and partition, so one sink, writes a line of the rollup: its sums can
//     be compared with the rows of that partition.
//
// The migrations are templates: {{engine "MergeTree"}} becomes the plain or the
// replicated engine. They only go up, and each statement can be run again. Migration
// 0006 stops in the middle on a database with sums by the hour, until package
// connectors/sink/rollup has carried them over (`ctl migrate`). Names of tables are
// unqualified; only the roles name the database, because ClickHouse keeps them outside
// of databases.
package ddl
