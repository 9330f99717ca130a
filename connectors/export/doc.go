// Package export writes the judged events of a workspace into a CSV that two parties
// can trust: a file that is whole or absent, a manifest that says what is in it, and
// the means to write the same bytes again later.
//
//	config, manifests ──┐
//	how far tables go ──┴─▶ plan ──▶ one query, bounded by as_of ──▶ NAME.csv, NAME.manifest.json
//
// # Promises
//
//   - A file holds exactly the rows that had arrived when the run began: those below
//     as_of, in every partition. Rows that the sink inserts meanwhile are in neither
//     the file, its sums nor its flags.
//   - If a table has fewer rows than the batches of the last day inserted, as on a
//     replica that is behind, a run waits a minute and ends in ErrRowsMissing; a
//     schedule tries again. A user who sees only some workspaces cannot check this, and
//     is warned.
//   - The same command with -as-of MANIFEST writes the same bytes, CSV and manifest,
//     whatever arrived since: with the columns of the manifest's schema_version. A
//     partner's status now is also read as it was at as_of.
//   - -since MANIFEST writes only rows that arrived after that manifest. A file and its
//     deltas have no row in common and leave none out, so a delta has the filters, days
//     and zone of what it continues. Two deltas of one manifest have rows in common:
//     the next delta continues the manifest of the one before. A delta is a new file, so
//     it has the newest schema_version, whatever the manifest's is: what reads both goes
//     by the names in the header.
//   - NAME.csv appears at once and whole; NAME.manifest.json after it. A run that fails
//     leaves neither. A run that is killed leaves hidden temporary files, which the
//     next run removes; or, between the last two steps, a whole CSV without its
//     manifest.
//   - A row of rules version 1 that arrived after the migration has no computed
//     standing_change until `ctl rollup rebuild` runs. Until then a run ends in
//     ErrStandingPending; a schedule tries again.
//   - A workspace that has neither events nor an entry in the catalog is an error
//     (ErrUnknown), and so is an empty file because of a partner, program or link that
//     the catalog does not have: nothing is written. A schedule waits for the catalog.
//   - A workspace whose plan or access.exports in the newest catalog gives it no exports
//     is refused (ErrNotEntitled) before anything is written, whatever its manifests say.
//     A schedule skips what is due; a series that has a file makes up the last 31 days
//     once it may again, a new one begins then. A workspace that never was in the catalog
//     here is exported, one that was removed from it is refused.
//   - A final file replaces a provisional one of the same command: of NAME.csv and
//     NAME_provisional.csv only one stays. A schedule writes no provisional file unless
//     it is asked to. A single run does, unless it is told to wait (RunFinal).
//   - A final file that is written again with other bytes leaves its manifest behind, as
//     NAME.manifest.json.HASH, so that -as-of can write what somebody has got.
//   - Two runs into one directory exclude each other (ErrBusy).
//   - Memory does not grow with the rows: ClickHouse makes of each row one text in its
//     format RowBinary and sorts these; this process decodes, writes, hashes and sums
//     them, on all cores and a few blocks at a time (TestConstantMemory). What that
//     costs is in deploy/PERFORMANCE.md (BenchmarkExport).
//
// # Statements
//
// With Filters.Statement a file is a statement of account of one month instead of its
// events: package schemas/statement says what it adds up. It is bounded by as_of like
// any other, and -as-of writes it again. It is provisional until no event of its month
// can get a row any more, which is later than the joined watermark; it is judged before
// the rows are counted. It has no deltas and no schedule. A row below the month's end
// that has no computed standing_change ends in ErrStandingPending, whatever month it is
// of.
//
// # Format
//
// The columns are those of package ledger. RFC 4180, UTF-8, lines end with \n, a header
// always, in the order of occurred_at, event_id, event_partition, event_offset. Null is
// empty. Times are RFC 3339 in UTC with milliseconds. Money is a bare decimal number. A
// text that a spreadsheet would run gets a ' in front, and so does each part of it that
// would be run where ; TAB or | separate cells, or a line ends, or quotes mean nothing;
// ledger.EscapeFormula says where, and ledger.UnescapeFormula takes them out (Raw turns
// that off: for programs that join by ids). Bytes that are no UTF-8, and NUL, become
// U+FFFD. BOM puts a byte order mark in front of the header, or Excel takes the file for
// Windows-1252.
//
// With FormatParquet the file is NAME.parquet, its manifest NAME.parquet.manifest.json:
// the same rows in the same order, in columns with types. Money is DECIMAL(38, 4), times
// are timestamps in UTC, lists are lists, null is null, and texts are as they came. It
// has the same bytes when it is written again, as long as the library writes the same:
// TestParquetBytes holds it.
//
// Days are those of the workspace's timezone, each from its first instant, so a day on
// which the clocks change has 23 or 25 hours. The zone is the one that the catalog has
// now, also for days before; it is part of the manifest, which keeps it. A
// schedule goes on in the zone of the newest day in its directory, and warns if the
// workspace has another zone now. Between a day of Berlin and the next of New York
// hours would be in no file; between one of Berlin and one of Tokyo, in two. Days of a
// new zone begin in a directory of their own.
//
// A night's file has what was judged until then. Refunds that are received later, and
// events whose wait ends later, are in no scheduled file: -since with the day's
// manifest writes them.
//
// # Manifest
//
//	sha256, rows        of the file
//	format              parquet; a CSV's manifest has none
//	sums                of net_amount, by currency, then type, over the rows of the file
//	standing_sums       of standing_change, in the same way; not in version 1. Net revenue
//	                    is this sum over all days: what a refund changes follows the order
//	                    of arrival, and its sale may be in another day's file
//	conservation        of the whole workspace within as_of: received = the verdicts +
//	                    waiting; difference is 0. An event that waited for longer than
//	                    it can is a difference, judged by the newest progress within
//	                    as_of
//	reused_event_ids    ids of the file's rows that have effect under several click tokens:
//	                    up to 1000, and how many there are in reused_event_ids_total
//	filters             of the command, timezone included; of a statement its month too
//	totals              of a statement, in place of sums and standing_sums: its amounts by
//	                    currency, then column
//	as_of               the ends of outcomes, conversions and progress by partition, of
//	                    catalog, and when they were read. Older manifests lack progress:
//	                    repeated, they count every event without a row as waiting
//	since               the as_of of the manifest that a delta continues
//	schema_version      of this format and of the columns: 1, or 2 with standing_change,
//	                    standing_sums and columns, where formulas are escaped within texts
//	                    too, not at their start alone
//	tool_version        of the program that wrote the file first
//	rules_version       the newest rules by which a row was judged; rules_versions has all
//	provisional         the joined watermark had not passed the last day: events that still
//	                    wait may add rows. The name says it too.
//	raw                 texts are as they came
//	bom                 the CSV begins with a byte order mark; else it is not there
//	columns             name, type, nullable and guarded of each column, in order; not in
//	                    version 1. Readers that guess types read 0001 as 1 and NA as null:
//	                    give them these. In a guarded column formulas are escaped
//
// # Metrics
//
//	partners_export_runs_total{result}              runs, by ok, refused and failed
//	partners_export_rows_total                      rows written
//	partners_export_last_success_timestamp_seconds  when a run last succeeded, in this process
//	                                                or before; until the first, when the
//	                                                schedule began
//	partners_export_seconds                         duration of a run
//	partners_export_not_entitled                    1 from a run that was refused, because the
//	                                                workspace has no exports, to the next that
//	                                                may begin
package export
