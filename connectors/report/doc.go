// Package report answers questions from the warehouse: how partners perform, why an
// event counts as it does, and what stands behind a partner's claims. It does so as
// pages, JSON and CSV.
//
// # Promises
//
//   - Every query names its workspace; nothing of another workspace is in any answer.
//   - Nothing is written, and nothing is decided anew: verdicts are those of the rows.
//     What stands is recomputed from the rows, as the rules define it.
//   - Two currencies are never added, and money is exact.
//   - An answer stays small in memory: bounds are named below, and an answer that met
//     one says so.
//
// # Shape
//
// Reader.Why collects every record with an event id: where it is in the log, its
// verdict or what it waits for, the click as it was frozen, and the chain from the root
// down with what stands of each event. Dispute judges claims in batches, one Finding
// for each; Claims reads them from a CSV file. Words for people are in words.go; who
// shows them lays them out.
//
// An event "stands" with amount − Σ of what stands of its reversed children in the same
// currency, never below nothing; without an amount it is one unit. What a claim nets is
// the sum of effect × amount over its events and all below them, as an export sums
// them.
//
// # Server
//
//	GET  /                                       the performance page, or a form to sign in
//	GET  /why?event_id=…     GET, POST /dispute  the story of an event; a list of claimed orders
//	POST /session            POST /session/end   sign in with workspace and reader token, sign out
//	GET  /v1/workspaces/{w}/performance[.csv]    the view partner_performance
//	GET  /v1/workspaces/{w}/outcomes[.csv]       the view conversion_rows
//	GET  /v1/workspaces/{w}/events?event_id=…    verdict and why
//	GET  /v1/workspaces/{w}/conservation         the view workspace_conservation
//	GET  /v1/workspaces/{w}/coverage             the view token_coverage
//	GET  /v1/openapi.json                        all of this as OpenAPI: schemas/openapi/report.json
//
// Filters are from, to (days in UTC, both inclusive, of occurred_at), partner, program,
// link (ids), type, verdict, review (one or several, with commas) and basis=click,
// which puts events on the day of their click. Lists take limit (1 to 1000) and cursor.
// Whatever else a request names is refused with 400 and the parameter's name, so that a
// misspelt filter does not select everything.
//
// A reader is who has a token of the workspace, as bearer or in a session; see
// signin.go for the cookie. What a workspace's plan and flags do not include is 403:
// performance, conservation and coverage need partner_reporting, outcomes and events
// conversion_reporting too, a CSV exports too. They are read from the newest catalog
// and never decide what is stored.
//
// Pages have no script and nothing from elsewhere. A query takes at most 30 s, a CSV 15
// minutes; a CSV that fails on the way, or whose reader stops reading, breaks the
// connection.
//
// # Metrics
//
//	partners_report_requests_total{route,code}    requests, by route and status; aborted: the answer broke off, 499: its reader left first
//	partners_report_request_seconds{route}        time from a request to the end of its answer
//	partners_report_sign_ins_total{result}        sign-ins, accepted and refused
package report
