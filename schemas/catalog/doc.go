// Package catalog is the contract for workspaces, domains, programs, partners and
// links: the YAML file that people write, the JSON records of the compacted topic
// `catalog`, and the in-memory view that answers a redirect.
//
//	acme.yaml ──Load/Parse──▶ Catalog ──Entries──▶ Diff ──puts──▶ topic `catalog` ──Apply──▶ View ──Lookup──▶ Resolved
//	   ▲                                             ▲                                         │ Save / LoadView
//	   └───────────────── Format ◀── View.Workspaces └───────────────── View.Entries ◀─────────┘
//
// # What it promises
//
//   - A file is read strictly: unknown and repeated keys, wrong types, anchors,
//     aliases, tags and second documents are refused. Every problem of every file is
//     reported at once, each as FILE:LINE:COL: PATH: TEXT (see [Problem]).
//   - What was accepted fits a click record: ids and keys have at most 40 characters,
//     slugs 128 bytes, names 200 characters. Records from the topic pass the same
//     checks as files, whoever wrote them.
//   - Values are deterministic: the same catalog gives the same bytes, so an unchanged
//     record is recognised by comparing bytes.
//   - An id is never reused. [Diff] refuses to move a link's id to another address, to
//     give an address another id, and to take a domain that another workspace has. What
//     is missing from a file is archived or left alone, never deleted.
//   - A [View] takes records in any order, any number of times: of one key the record
//     with the largest offset wins. A bad record is an error that names its key, and
//     changes nothing.
//
// # Records of the topic
//
// One partition, compacted. A host is in it once, so two workspaces cannot both own
// one.
//
//	workspace/{w}           {"id","name","plan","access":{…},"token_parameter","timezone","domains":[…],"aliases":{…}}
//	domain/{host}           {"host","domain","workspace","status"}    host = domain, or an alias that answers as domain
//	program/{w}/{id}        {"workspace","id","key","name","status","window_ms","reward":{…},"utm":{…}}
//	partner/{w}/{id}        {"workspace","id","key","name","relationship","lifecycle"}
//	link/{domain}/{slug}    {"workspace","id","domain","slug","destination","conversion_tracking","token","forward_query",
//	                         "status","partner","program","assignment_id","assigned_at","experiment","variant"}
//
// All fields are always there, but for the three reward fields and assigned_at, which
// are left out when there is none. A reader ignores fields it does not know, so fields
// can be added; the meaning of a field never changes. An empty value (a tombstone)
// removes the record; nothing here writes one.
//
// # Words
//
// A link that is archived, or whose host is, answers 410 ([Archived]); one that was
// never there or was removed answers 404 ([Unknown]). A paused or archived partner or
// program does not break a link. A link may be without partner, and a partner without
// program: such a click has the default window of 30 days and no reward.
package catalog
