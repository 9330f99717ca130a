// Package embedded runs a real ClickHouse engine inside this process: chDB's libchdb.so
// (chDB 26.7, ClickHouse 26.7.2), behind ClickHouse's HTTP protocol on a loopback
// address. clickhouse-go with an http:// DSN, Grafana, curl and the official clients for
// Python (clickhouse-connect) and Java (client v2, JDBC) use it like a server. It is for
// the demo, for tests and for a single machine; use ClickHouse itself for everything
// else.
//
// The server is our own so that two commands set up a fresh machine: nothing has to be
// installed or started beside this process, and CGO stays off.
//
// # Promises
//
//   - Prepare leaves a complete library with the pinned checksum in the cache, or none.
//   - A request's settings, database and temporary tables end with it, those that SET
//     and USE make too. A request that breaks off inserts nothing more, and a statement
//     whose client has gone is killed.
//   - With a session_id they last until session_timeout (60 s unless given, an hour at
//     most) after the session's last request. Its requests run one at a time; a second
//     one gets SESSION_IS_LOCKED. 32 sessions with something to keep are kept, 10,000
//     without.
//   - X-ClickHouse-Summary is there, and whole, if the result has at most a megabyte or
//     the client has said wait_end_of_query.
//   - Results in Native, RowBinary, CSV, TSV and the line-wise JSON formats are
//     streamed: memory holds a few blocks of them. In other formats (JSON, Parquet,
//     Pretty) the whole result is first built in memory.
//   - An error in the first megabyte of a result is an HTTP status with
//     X-ClickHouse-Exception-Code. A later one is an exception block at the end of the
//     body, as ClickHouse writes it, and the transfer breaks off.
//
// There is no access control: the server accepts and ignores user and password, and
// roles do not exist (CREATE ROLE answers ACCESS_DENIED). So it listens on loopback
// only, answers only requests whose Host is a loopback name, and refuses those that a
// browser marks as coming from another site; GET changes nothing and writes no file. It
// does not have the native TCP protocol, brotli, ON CLUSTER or Replicated engines (no
// Keeper). External tables are held in memory, 64 MB of them in at most 1,000 parts of a
// form; an INSERT that has data takes none. A setting log_comment is ignored: it is the
// server's.
//
// # Limits of the library
//
//   - One data directory at a time per process, one process per data directory; after
//     Close another can be opened.
//   - A crash of the engine, or the kernel's out-of-memory killer, also ends this
//     process.
//   - glibc and amd64; 150 MB of resident memory after loading, 200 MB after opening,
//     then what queries need (as for a server: up to 90 % of the machine's memory), and
//     about 40 threads.
//
// # What libchdb does to the process
//
// chdb_set_signal_handlers_enabled(0), which keeps ClickHouse's crash handlers out,
// also resets the handlers of Go's runtime. Loading blocks SIGPIPE on the loading
// thread. signals.go undoes both, and a test checks it. An exit through the C library
// (a program with the race detector ends that way) would destroy the engine's objects
// under its threads; exit.go ends the process before that. Two things remain: a handler
// for SIGRTMIN (34), for system.stack_trace, and SIGPIPE blocked on chDB's own threads.
// Resource limits, umask, working directory and environment were found unchanged. C++
// terminate handlers live in the library's own C++ runtime, which no other code uses.
//
// # Shape
//
// library.go is the binding (purego, so CGO stays off). pool.go keeps connections for
// requests without state, sessions.go those of clients' sessions: a session has none
// until a statement leaves something on it. statement.go recognizes an INSERT with data,
// a FORMAT clause and what leaves something behind in an SQL text, and no more. form.go
// reads multipart forms. request.go and response.go are the two halves of the protocol,
// and handler.go connects them.
//
// clickhouse-go first asks for the server's revision and then reads blocks as that
// revision writes them. chDB writes plain Native, so the answer says revision 0
// (response.go, helloBlock).
//
// # Non-obvious
//
//   - Data must not be part of the statement: chDB ends inline data at the first blank
//     line, without an error. All data goes through chdb_stream_insert; only INSERT …
//     VALUES stays text.
//   - A streamed insert that passes a materialized view with a scalar subquery fails
//     with QUERY_WAS_CANCELLED, which also hides the real error, if its connection has
//     run any other statement before. So inserts have connections of their own, and
//     their settings are written into the statement.
//   - Some settings cannot be taken back on a connection: readonly forbids it, and
//     compatibility and profile change hundreds of others. Such a connection is closed. In
//     a session they are given to another connection, which has not the session's
//     temporary tables: beside those, readonly is held by the server, and the other two
//     are refused.
//   - Each block of a streamed result is a document of its own: a CSVWithNames header
//     comes with every block, and all but the first are cut off.
//   - chDB streams only SELECT. It refuses other statements before it runs them, and
//     the server then runs them unstreamed.
//   - KILL QUERY … SYNC hangs while a statement aggregates. ASYNC works, but the
//     statement stays listed until its connection runs another or is closed. So a
//     session that saw an error is closed.
package embedded
