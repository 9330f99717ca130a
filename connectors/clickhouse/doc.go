// Package clickhouse is the warehouse's client, and the only door to clickhouse-go:
// connect, query, insert, migrate.
//
// # Promises
//
//   - An Insert arrives as a whole or not at all, and with a Token once, in its table
//     and in everything that materialized views make of it, as long as every table of
//     that chain still holds the token. Window and Windows read back how long that is.
//   - Unreachable divides errors in two: repeat the same batch with the same token, or
//     give up.
//   - Values never become SQL: placeholders {name:Type} with Named are parsed by the
//     server.
//   - Rows and what it returns stay small in memory, however large the result is.
//   - A password is in no error and no log line.
//
// # Deduplication, and what it needs
//
// ClickHouse remembers tokens per table and counts blocks, not inserts. So a token must
// name exactly the same rows in the same order, all of an insert must stay one block on
// its way through every view, and every table on that way needs a window of its own:
// without one, the target of a view counts a repetition again, silently. The defaults
// of the settings that decide this differ between versions (26.2 turned deduplication
// on for views, 26.3 asynchronous inserts for everybody), so Insert sends all of them
// along, as far as the server knows them. A token with other rows than the first time
// drops those rows.
//
// # Shape
//
// Conn is a pool of clickhouse-go connections, over HTTP or the native protocol as the
// DSN says; Insert, Migrate and Windows are built on it. Two properties of
// clickhouse-go v2.50 over HTTP shape the code: an Exec drops the response body and
// with it a late exception, so Exec asks the server to wait until the end; and a block
// whose columns differ in length is sent as an empty body that inserts nothing and
// succeeds, so Insert compares them first.
//
// A read-only user needs readonly=2: clickhouse-go sends settings (max_execution_time
// for a context's deadline), which readonly=1 refuses.
//
// embedded is a whole ClickHouse inside this process, clickhousetest gives it to tests.
package clickhouse
