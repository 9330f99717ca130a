// Package redirect turns a short link into a 302 and a click. It is the visitor's side
// of the pipeline: nothing here waits for Kafka, and nothing that fails here keeps a
// visitor from the destination.
//
//	GET /slug ─▶ Handler ── catalog.View: link, partner, program as they are now
//	               │       ── token, click, bot?, device, country
//	               ├─▶ Spool.Append ─▶ group ─▶ write ─▶ fsync ─┐
//	               ◀────────────── durable ─────────────────────┤
//	  302 Location ┘                                            ▼
//	                                                segments on disk ─▶ Shipper ─▶ Kafka `clicks` ─▶ acknowledged: cut
//
// # What it promises
//
//   - With CaptureDurable a click is fsynced before its response begins. Appends that
//     come while the disk is busy share the next fsync.
//   - A spool that is full, fails, or does not answer for five seconds costs the click,
//     not the redirect, and is counted by reason.
//   - Every byte of a destination stays as configured; only parameters are added,
//     before the fragment.
//   - A click that was acknowledged by the spool reaches Kafka, or refused/; while
//     neither takes it, it stays in the spool. Of copies in Kafka, the first in the log
//     may be without header replay, all later ones have it.
//   - Neither an IP address nor a User-Agent is stored, logged or sent. Both are looked
//     at in memory: the address for the country, the User-Agent for names out of fixed
//     lists; the cache of User-Agents is keyed by a hash.
//   - A restart needs no Kafka: StoreCatalog and KeepCatalog store the catalog beside
//     the spool, LoadCatalog reads it. Without any catalog every link is answered 503.
//
// # The spool directory
//
//	LOCK                     held by the process that owns the directory
//	00000000000000000007.seg a segment: frames with checksums, see segment.go
//	cut                      how far Kafka has acknowledged
//	catalog                  the last good catalog
//	refused/TIME.jsonl       what Kafka refused for good, one JSON object a line, for people to read
//	00…07.seg.unread         a segment that could not be read for a minute: its clicks are not in Kafka. To send them, stop the process, take the ending away, remove cut, start
//
// Each process begins a segment of its own and never touches an older one but to ship
// and to unlink it. So "may have been sent before" is a property of segments: what was
// there at the start and lies behind the cut goes with header replay, what came since
// does not, until an attempt of ours fails. A tail that a crash tore is dropped: nobody
// got an answer for it. Damage elsewhere costs the records it touches: the next valid
// frame is searched byte by byte, which is safe because a checksum covers the frame's
// place.
//
// The cut lags what Kafka has acknowledged by at most a quarter of a second; it never
// leads. A segment that is acknowledged as a whole is unlinked, which frees space also
// where the cut cannot be written because the disk is full.
//
// # Unknown outcomes
//
// The client gives a record up after 30 s (ClientOptions), written or not; then it is
// sent again, with a new timestamp and header replay. The client raises its producer
// epoch before that, so that the broker refuses a first attempt that is still on its
// way. A restarted process has a new producer id and no such fence: it holds what it
// found for a second before sending, so that requests of its predecessor that the
// broker already has are written first. A broker that stalls for longer at that very
// moment can turn the order of the two copies around.
//
// # Decisions
//
//   - Where several reasons not to show a token apply: tracking_off, not_entitled,
//     link_setting, then the destination's, in this order. `token: always` is about the
//     token: a query is forwarded to destinations only that are safe to modify.
//   - sub1 … sub5: what is not printable is dropped, then the first 64 characters
//     count; of a repeated name the first counts. nr counts wherever it stands.
//   - Names of parameters are compared decoded once and exactly; the token parameter in
//     any case. Empty parts of a query (&&) are not forwarded.
//   - A referrer that is an IP address is not kept, whoever's it is.
//   - device is desktop, phone, tablet, tv or other; os and browser are families that
//     uap-core's definitions (embedded in uap-go) name, from fixed lists, or Other.
//   - The country is that of the connection's address. Behind a proxy that is the
//     proxy's; no header is trusted.
//
// # Metrics
//
//	partners_redirect_answers_total{status}       answers: 302, 404, 405, 410, 503 (no catalog yet)
//	partners_redirect_seconds                     server time of a redirect, the wait for the disk included
//	partners_redirect_clicks_lost_total{reason}   redirected, but not kept: full, spool, closed, token (no key), encode
//	partners_redirect_texts_cut_total             texts shortened so that a click fits its record
//	partners_redirect_agents_parsed_total         User-Agents that were not in the cache
//	partners_redirect_agents_unparsed_total       User-Agents left unparsed because all parsers were busy
//	partners_spool_bytes                          size on disk
//	partners_spool_limit_bytes                    size at which it takes no more clicks
//	partners_spool_backlog_bytes                  of these not acknowledged by Kafka
//	partners_spool_fsync_seconds                  time of one fsync
//	partners_spool_group_records                  clicks that shared one fsync
//	partners_spool_late_total                     visitors who were redirected before the disk answered
//	partners_spool_damaged_total                  places without valid record that were skipped
//	partners_spool_damaged_bytes_total            bytes of them
//	partners_shipper_records_total                acknowledged by Kafka
//	partners_shipper_replayed_total               sent with header replay
//	partners_shipper_failed_total                 attempts without acknowledgement
//	partners_shipper_refused_total{error}         refused for good, now in refused/
//	partners_shipper_refused_unkept_total         attempts to keep a refused click in refused/ that failed; it stays in the spool
//	partners_shipper_lag_seconds                  age of the oldest click that is not acknowledged
//
// # Shape
//
// A server mounts Handler itself, without http.ServeMux (which cleans paths), and keeps
// net/http's own log from naming visitors' addresses. Stop in this order: the server,
// so that no click is under way; the context of Shipper.Run, which ships what is left;
// the Kafka client; the Spool.
package redirect
