// Package report answers questions from the warehouse: how partners perform, what
// became of events, and why an event counts as it does. It has the queries and their
// rows. Package web below it shows them over HTTP; package dispute judges a partner's
// list of orders with them.
//
//	views, tables ──▶ Reader ──┬──▶ web: pages, JSON, CSV
//	                           ├──▶ dispute: one verdict per claimed order
//	                           └──▶ ctl why
//
// # Promises
//
//   - Every query names its workspace; no answer contains anything of another
//     workspace. The two exceptions are Freshness and Grace, which are of partitions.
//   - Nothing is written, and no verdict is judged again: verdicts are those of the
//     rows. Standing amounts are computed from the rows, as the rules define them.
//   - Two currencies are never added, and money is exact.
//   - Wherever money is confirmed, the negatives that have no effect are beside it: see
//     below.
//   - An answer stays small in memory. Its bounds are named constants, and an answer
//     that met one says so. Lists are read row by row.
//   - A query names the columns that it reads, so a running process survives a
//     migration that adds a column to a view (TestViewWithOneMoreColumn).
//
// # Parts
//
// Reader.Performance, Conversions, Conservation and Coverage are lists, by a Filter and
// a Page of them; their rows are those of the views. Links is a list of links with all
// that a page says of them. The columns of a Conversion are
// those of package ledger.
//
// Reader.StatementHead and Accounts are a statement of account: package
// schemas/statement says what it adds up and when it is final. It reads all rows of the
// workspace up to the month's end (BenchmarkStatement).
//
// Reader.Why collects every record with an event id or an order id: where it is in the
// log, its verdict or what it waits for, the click as it was frozen, the chain from the
// root down with the standing amount of each event, and what a conflict differs in. If it
// knows nothing it says what there is under a similar id.
// Words for people are in words.go.
//
// Reader.Negatives finds the negatives that were received and take nothing back. They
// wait, are unattributed, lost as a conflict, or were refused by the gateway, under
// whatever token. One belongs to an event that it names in parent_event_id or whose
// event_id it has, to an order that it names in order_id, and, if it names nothing that
// is in the workspace, to the positives of its token. Three tables are asked, outcomes,
// conversions and rejections, each once, by all these columns. Left out is what was sent
// again under its id and has effect since.
//
// What is asked by ids of the first two, here and elsewhere, also names the times of their
// rows, from outcomes_by_key and conversions_by_key: so the primary key finds their
// granules, in a large workspace as in a small one. Whatever has no line there is not
// found.
//
// Reader.CountOrders tells how often an order counts: by sales that have effect, in the
// whole workspace. A sale that follows another one of its order is a shipment, and one
// that came when nothing stood of those before it takes their place: neither counts
// again.
//
// The standing amount of an event is its amount less the standing amounts of its
// reversed children in the same currency, never below 0; an event without an amount is
// one unit.
package report
