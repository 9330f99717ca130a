// Package web serves the report over HTTP: pages for people, JSON and CSV for programs.
//
//	GET  /                                       the performance page, or a form to sign in
//	GET  /links                                  what links brought, and why clicks lack tokens
//	GET  /why?event_id=…                         why an event counts as it does; also by order_id
//	GET  /statement?month=…                      what stood, what a month changed, what stands
//	GET  /dispute            POST /dispute       a partner's list of claimed orders
//	POST /session            POST /session/end   sign in with workspace and reader token, sign out
//	GET  /v1/workspaces/{w}/performance[.csv]    the view partner_days, with names; amounts
//	                                             of the CSV are decimals
//	GET  /v1/workspaces/{w}/outcomes[.csv]       the view conversion_rows
//	GET  /v1/workspaces/{w}/events?event_id=…    verdict and why; also by order_id
//	GET  /v1/workspaces/{w}/conservation         the view workspace_conservation_days
//	GET  /v1/workspaces/{w}/coverage             token_coverage of some days, with the reasons
//	GET  /v1/workspaces/{w}/statement[.csv]      a month's statement of account
//	GET  /v1/openapi.json                        all of this as OpenAPI
//
// The document is schemas/openapi/report.json; tests hold every answer to it.
//
// # Requests
//
// Filters are from, to (days, both inclusive, of occurred_at), partner, program, link
// (ids), type, verdict, review (one or several, with commas) and basis=click,
// which puts events on the day of their click. clicks=human counts the clicks of people
// alone in the column clicks; what a person is, connectors/redirect says.
// Lists take limit (1 to 1000) and cursor; coverage also q, a part of a link, and sort.
// Days are those of the workspace's timezone in the newest catalog, or with tz=UTC those
// of UTC. They are the days of an export, and every answer names their zone.
//
// Any other parameter is refused with 400 and its name, so that a misspelt filter does
// not select everything.
//
// A request carries a reader token of the workspace, as bearer or in a session (see
// signin.go for the cookie). A feature that the workspace's plan or flags do not
// include is 403: performance, statement, conservation and coverage need partner_reporting,
// outcomes and events also conversion_reporting, a CSV also exports. They are read from
// the newest catalog and never decide what is stored. Where it is not known who may read
// a workspace, because its file of reader tokens cannot be used and nothing of an earlier
// one is in force, a request without a valid token is 503 instead of 401.
//
// The cookie is Secure if the reader's connection is encrypted, and a form is compared
// with the host that the reader asked for. Both are those of the request, or what a
// trusted proxy says of them (see package forwarded).
//
// # Promises
//
//   - No answer contains anything of another workspace.
//   - Pages have no script, and load nothing from elsewhere.
//   - A query takes at most 30 s, a CSV 15 minutes. A CSV that fails on the way, or
//     whose reader stops reading, breaks the connection: what ends properly is whole.
//   - outcomes.csv has the bytes of an export of the same rows.
//
// # Metrics
//
//	partners_report_requests_total{route,code}  requests, by route and status; aborted: the
//	                                            answer broke off; 499: its reader left first
//	partners_report_request_seconds{route}      time from a request to the end of its answer
//	partners_report_sign_ins_total{result}      sign-ins: accepted, refused, unavailable (the
//	                                            workspace's reader tokens cannot be read)
package web
