// Package embedded runs a real ClickHouse engine inside this process: chDB's libchdb.so
// (chDB 26.7, ClickHouse 26.7.2), behind ClickHouse's HTTP protocol on a loopback
// address. clickhouse-go with an http:// DSN, Grafana and curl talk to it as to a
// server. It is for the demo, tests and one machine; ClickHouse itself is for
// everything else.
//
// # Promises
//
//   - Prepare leaves a complete library with the pinned checksum in the cache, or none.
//   - A request's settings and database end with it. A request that breaks off inserts
//     nothing more, and a statement whose client has gone is killed.
//   - Results in Native, RowBinary, CSV, TSV and the line-wise JSON formats are
//     streamed: memory holds a few blocks of them. In other formats (JSON, Parquet,
//     Pretty) they are made as a whole first.
//   - An error in the first megabyte of a result is an HTTP status with
//     X-ClickHouse-Exception-Code; a later one is an exception block at the end of the
//     body, as ClickHouse writes it, and a transfer that breaks off.
//
// There is no access control: user and password are accepted and ignored, roles do not
// exist (CREATE ROLE answers ACCESS_DENIED). So the server listens on loopback only,
// answers only requests whose Host is a loopback name, and refuses those that a browser
// marks as coming from another site; GET changes nothing. Not there: the native TCP
// protocol, sessions, external tables, brotli, ON CLUSTER and Replicated engines (no
// Keeper).
//
// # Limits of the library
//
//   - One data directory at a time per process, one process per data directory; after
//     Close another can be opened.
//   - A crash of the engine, or the kernel's out-of-memory killer, takes this process
//     along.
//   - glibc and amd64; 150 MB of resident memory after loading, 200 MB after opening,
//     then what queries need (as a server: up to 90 % of the machine's), and about 40
//     threads.
//
// # What libchdb does to the process
//
// chdb_set_signal_handlers_enabled(0), which keeps ClickHouse's crash handlers out,
// also resets the handlers of Go's runtime; loading blocks SIGPIPE on the loading
// thread. Both are undone (signals.go); a test holds it to that. What stays: a handler
// for SIGRTMIN (34), for system.stack_trace, and SIGPIPE blocked on chDB's own threads.
// Resource limits, umask, working directory and environment were found unchanged; C++
// terminate handlers live in the library's own C++ runtime, which no one else uses.
//
// # Shape
//
// library.go is the binding (purego, so CGO stays off), pool.go keeps sessions,
// statement.go sees just enough of an SQL text to know an INSERT with data and a FORMAT
// clause, request.go and response.go are the two halves of the protocol, handler.go
// connects them.
//
// clickhouse-go first asks for the server's revision and then reads blocks as that
// revision writes them. chDB writes plain Native, so the answer says revision 0
// (response.go, hello).
//
// # Non-obvious
//
//   - Data must not be part of the statement: chDB ends inline data at the first blank
//     line, without an error. All data goes through chdb_stream_insert; only INSERT …
//     VALUES stays text.
//   - After any other statement on its connection, a streamed insert that passes a
//     materialized view with a scalar subquery fails with QUERY_WAS_CANCELLED, which
//     also hides the real error. So inserts have connections that see nothing else, and
//     their settings are written into the statement.
//   - A streamed result's blocks are documents of their own: a CSVWithNames header
//     comes with each, and is cut off.
//   - chDB streams SELECT only; it refuses others before it runs them, and they are
//     then run unstreamed.
//   - KILL QUERY … SYNC hangs while a statement aggregates. ASYNC works, but the
//     statement stays listed until its connection runs another or is closed, so a
//     session that saw an error is closed.
package embedded
