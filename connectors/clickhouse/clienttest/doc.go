// Package clienttest gives tests other people's clients of ClickHouse, and readers of the
// files that we write, as they are published: clickhouse-connect, pandas, Polars, DuckDB
// and PyArrow for Python, the client of ClickHouse and its JDBC driver for Java.
//
// pip and Maven fetch them once (170 MB and 12 MB), with the user's mirrors and proxies,
// into the user's cache directory. requirements.txt and java.sha256 pin each file by its
// SHA-256; of jars it is compared before each run.
//
// A machine on which they cannot run, or that cannot get them, skips the test with the
// reason. PARTNERS_REQUIRE_CLIENTS=1 fails it instead.
package clienttest
