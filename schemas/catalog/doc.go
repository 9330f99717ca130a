// Package catalog is the contract for workspaces, domains, programs, partners and
// links: the YAML file that people write, the JSON records of the compacted topic
// `catalog`, and the in-memory view that answers a redirect.
//
//	acme.yaml ──Load/Parse──▶ Catalog ──Entries──▶ Diff ──puts──▶ topic `catalog`
//	    ▲                                            ▲                  │ Apply
//	    │                                            └─── Entries ──┐   ▼
//	    └──────────── Format ◀── Workspaces ────────────────────── View ──Lookup──▶ Resolved
//	                                                                ▲ Save / LoadView
//	                                                                ▼
//	                                                            snapshot
//
// # What it promises
//
//   - Files are read strictly: unknown and repeated keys, wrong types, anchors,
//     aliases, tags and second documents are refused. All problems of all files are
//     reported at once, each as FILE:LINE:COL: PATH: TEXT (see [Problem]).
//   - An accepted catalog fits the click record: ids and keys have at most 40
//     characters, slugs 128 bytes, names 200 characters. Records from the topic pass
//     the same checks as files, but for those on slugs and destinations that came
//     later: what an earlier release accepted stays readable.
//   - A destination that leads back to itself through the catalog's own domains is
//     refused: by [New] within the files, by [Diff] together with what is in the topic.
//     So are links that a domain with slug_case: ignore cannot tell apart. Destinations
//     are read as browsers do. [Catalog.Warnings] says what is allowed and probably not wanted.
//   - Records are deterministic: the same catalog gives the same bytes, so comparing
//     bytes shows whether a record has changed.
//   - Ids are never reused. [Diff] refuses to move a link's id to another address, to
//     give an address another id, and to take a domain that another workspace has. An
//     entry that is missing from the files is archived or left alone, never deleted.
//   - A [View] takes records in any order and any number of times: for each key the
//     record with the largest offset wins. A bad record is an error that names its key,
//     and changes nothing.
//
// # Records of the topic
//
// The topic has one partition and is compacted. A host has one record, so two
// workspaces cannot both own it.
//
//	workspace/{w}         {"id","name","plan","access":{…},"token_parameter","timezone",
//	                       "domains":[…],"aliases":{…}}
//	domain/{host}         {"host","domain","workspace","status","root","not_found",
//	                       "slug_case"}
//	program/{w}/{id}      {"workspace","id","key","name","status","window_ms",
//	                       "follow_ms","one_sale_per_order","reward":{…},"utm":{…}}
//	partner/{w}/{id}      {"workspace","id","key","name","relationship","lifecycle"}
//	link/{domain}/{slug}  {"workspace","id","domain","slug","destination",
//	                       "conversion_tracking","token","forward_query","status",
//	                       "partner","program","assignment_id","assigned_at",
//	                       "experiment","variant"}
//
// In domain/{host}, domain is the host itself, or the domain that it is an alias of.
// Every record has all of its fields, except the three reward fields, assigned_at,
// follow_ms, one_sale_per_order and the last three of domain/{host}, which are left out
// if they are not set. Readers
// ignore unknown fields, so fields can be added; the meaning of a field never changes.
// An empty value (a tombstone) removes the record; this package never writes one.
//
// # Statuses
//
// A link that is archived, or whose host is archived, answers 410 ([Archived]). A link
// that never existed or was removed answers 404 ([Unknown]). A link keeps working when
// its partner or program is paused or archived. A link can have no partner, or a
// partner and no program: such a click has the default window of 30 days, no reward,
// no followers, and each sale of an order counts.
package catalog
