// Package clickhouse is the warehouse's client, and the only door to clickhouse-go:
// connect, query, insert, migrate.
//
// # Promises
//
//   - An Insert arrives as a whole or not at all. With a Token it arrives once, in its
//     table and in everything that materialized views make of it, as long as every
//     table of that chain still holds the token. Window and Windows read how long that
//     is. But a server that was killed in an Insert may hold the token of a block and
//     not the block: a caller that repeats an Insert has to look whether its rows are there.
//   - CompareSums finds the sums that differ from what their views would compute, and
//     InsertDifferences makes them equal.
//   - Unreachable divides errors in two: repeat the same batch with the same token, or
//     give up.
//   - Values never become SQL: the server parses the values of {name:Type}
//     placeholders, which Named passes.
//   - Rows needs little memory, however large the result is.
//   - No error and no log line contains a password.
//
// # Deduplication, and what it needs
//
// ClickHouse remembers tokens per table, and it counts blocks, not inserts. So a token
// must name exactly the same rows in the same order, all rows of an insert must stay
// one block on the way through every view, and every table on that way needs a
// deduplication window of its own. The target of a view without a window counts a
// repetition again, silently. A token with other rows than the first time drops those
// rows.
//
// The defaults of the settings that decide this differ between versions (26.2 turned
// deduplication on for views, 26.3 turned asynchronous inserts on for all clients), so
// Insert sends every one of them that the server knows.
//
// # Shape
//
// Conn is a pool of clickhouse-go connections, over HTTP or the native protocol as the
// DSN says. Insert, Migrate, Windows and CompareSums are built on it. InsertBlock takes
// rows that are in ClickHouse's format already (block.go): over HTTP clickhouse-go sends
// them as they are (its InsertFormat); where it does not, over the native protocol and with
// compress=lz4 or zstd, they are copied into its columns. Two properties of
// clickhouse-go v2.50 over HTTP shape the code. An Exec discards the response body and
// with it a late exception, so Exec asks the server to wait until the end. A block
// whose columns differ in length is sent as an empty body, which inserts nothing and
// succeeds, so Insert compares the lengths first.
//
// A read-only user needs readonly=2: clickhouse-go sends settings (max_execution_time
// for a context's deadline), which readonly=1 refuses.
//
// Package embedded runs a whole ClickHouse inside this process; clickhousetest provides
// it to tests.
package clickhouse
