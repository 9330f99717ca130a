// Package export writes what a workspace's events came to into a CSV that two parties
// can trust: a file that is whole or not there, a manifest that says what is in it, and
// the means to write the very same bytes again later.
//
//	tiled ends of outcomes, conversions, catalog ──▶ as_of ──▶ one query, bounded by it ──▶ NAME.csv, NAME.manifest.json
//
// # Promises
//
//   - A file holds exactly the rows that had arrived when it began: those below as_of,
//     in every partition. Rows that the sink inserts meanwhile are not in it, not in
//     its sums, not in its flags.
//   - If a table has fewer rows than the batches of the last day inserted, as on a
//     replica that is behind, a run waits a minute and ends in ErrRowsMissing; a
//     schedule tries again. A user who sees only some workspaces cannot have this
//     checked, and is warned.
//   - The same command with -as-of MANIFEST writes the same bytes, whatever arrived
//     since, and whatever a partner's status is now: that too is read as it was at
//     as_of.
//   - -since MANIFEST writes only rows that arrived after it; a file and its deltas
//     have no row in common and leave none out. So a delta has the filters, the days
//     and the zone of what it continues. Two deltas of one manifest have rows in
//     common: the next delta continues the manifest of the one before.
//   - NAME.csv appears at once and whole; NAME.manifest.json after it. A run that fails
//     leaves neither. One that is killed leaves hidden temporary files, which the next
//     run removes; or, between the two last steps, a whole CSV whose manifest is
//     missing.
//   - A workspace that has neither events nor a place in the catalog, or an empty file
//     because of a partner, program or link that it does not have, is an error
//     (ErrUnknown): nothing is written. A schedule waits for the catalog.
//   - A final file takes the place of a provisional one of the same command: of
//     NAME.csv and NAME_provisional.csv only one stays. A schedule writes no
//     provisional file unless it is asked to.
//   - Two runs into one directory exclude each other (ErrBusy).
//   - No row is kept: ClickHouse writes the lines, this process copies, hashes and sums
//     them, a few blocks at a time (TestConstantMemory). Measured alone
//     (BenchmarkExport): 66 MB for 1 million rows, 77 MB for 10 million; 1.8 times as
//     fast as ClickHouse's own CSV of the same rows in the same run.
//
// # Format
//
// RFC 4180, UTF-8, lines end with \n, a header always, in the order of occurred_at,
// event_id, event_partition, event_offset. Null is empty. Times are RFC 3339 in UTC
// with milliseconds. Money is a bare decimal number. A text that begins with = + - @
// TAB CR LF gets a ' in front, or a spreadsheet would run it (Raw turns that off).
// Bytes that are no UTF-8, and NUL, become U+FFFD.
//
// Days are those of the workspace's timezone, by the first instant of each, so a day
// with a change of clocks has 23 or 25 hours. The zone is part of the manifest. A
// schedule goes on in the zone of the newest day that its directory has, and warns if
// the workspace has another one now: between a day of Berlin and the next of New York
// hours would be in no file, between one of Berlin and one of Tokyo in two. Days of the
// new zone begin in a directory of their own.
//
// The file of a night has what was judged until then. Refunds that are received later,
// and events whose wait ends later, are in no scheduled file: -since with the day's
// manifest writes them.
//
// # Manifest
//
//	sha256, rows                 of NAME.csv
//	sums                         of net_amount, by currency, then type, over the rows of the file
//	conservation                 of the whole workspace within as_of: received = the verdicts + waiting; difference is 0
//	reused_event_ids             ids of the file's rows that have effect under several click tokens: up to 1000 of them, and how many there are in reused_event_ids_total
//	filters                      what was asked for, timezone included
//	as_of                        the ends of outcomes and conversions by partition, of catalog, and when they were read
//	since                        the as_of of the manifest that a delta continues
//	schema_version, tool_version of this format, of this program
//	rules_version                the newest rules by which a row was judged; rules_versions lists them all
//	provisional                  the joined watermark had not passed the last day: events that still wait may add rows. The name says it too.
//	raw                          texts are as they came
//
// # Metrics
//
//	partners_export_runs_total{result}             runs of a schedule, by ok and failed
//	partners_export_rows_total                     rows written
//	partners_export_last_success_timestamp_seconds when a run last succeeded, in this process or before; until the first, when the schedule began
//	partners_export_seconds                        duration of a run
package export
