// Package redirect turns a short link into a 302 and a click. It is the visitor's side
// of the pipeline: nothing here waits for Kafka, and no failure here keeps a visitor
// from the destination.
//
//	GET /slug ─▶ Handler ── catalog.View: link, partner, program as they are now
//	               │       ── token, click, bot?, device, country
//	               ├─▶ Spool.Append ─▶ group commit ─▶ write ─▶ fsync ─┐
//	               ◀─────────────────── durable ───────────────────────┤
//	  302 Location ┘                                                   ▼
//	                                                          segments on disk
//	                                                                   │
//	        acknowledged position ◀── Shipper ◀── Kafka `clicks` ◀─────┘
//
// # Promises
//
//   - With CaptureDurable a click is fsynced before its response begins. Appends that
//     arrive while the disk is busy share the next fsync.
//   - If the spool is full, fails, or does not answer for five seconds, the click may
//     be lost, but the visitor is redirected. Losses are counted by reason.
//   - Every byte of a destination stays as configured. Parameters are only added,
//     before the fragment.
//   - A click that the spool has confirmed reaches Kafka or refused/. While neither
//     accepts it, it stays in the spool. If Kafka has several copies of a click, only
//     the first in the log can lack header replay.
//   - No IP address and no User-Agent is stored, logged or sent. Both are only looked
//     at in memory: the address for the country, the User-Agent for names from fixed
//     lists. The cache of User-Agents is keyed by hashes.
//   - A restart does not need Kafka. StoreCatalog and StoreCatalogChanges store the
//     catalog beside the spool, LoadCatalog reads it. Without any catalog every link is
//     answered 503.
//
// # The spool directory
//
//	LOCK                      locked by the process that owns the directory
//	00000000000000000007.seg  a segment: frames with checksums, see segment.go
//	cut                       the checkpoint: the acknowledged position, see checkpoint.go
//	catalog                   the last good catalog
//	refused/TIME.jsonl        what Kafka refused for good, one JSON object a line, for people
//	00…07.seg.unread          a segment that could not be read for a minute
//
// The clicks of a *.unread segment are not in Kafka. To send them, stop the process,
// remove the ending .unread, remove the file cut, and start the process again.
//
// Each process begins its own segments. It only reads and removes older ones. So
// whether a record may have been sent before is a property of its segment: what was
// there at the start, after the acknowledged position, is sent with header replay; what
// came since is sent without, until an attempt of this process has failed.
//
// A tail that a crash tore is dropped. No durable response was given for it. Corrupt
// bytes elsewhere cost only the records that they touch: the reader searches the next
// valid frame byte by byte. That is safe because a checksum covers the place of its
// frame.
//
// The checkpoint lags what Kafka has acknowledged by at most a quarter of a second. It
// never leads. A segment is removed as soon as Kafka has acknowledged all of it, so
// space is freed even when the disk is too full to write the checkpoint.
//
// The spool is our own code because no library has all it needs: an fsync that
// concurrent appends share and wait for, skipping of corrupt bytes, and setting an
// unreadable segment aside. tidwall/wal fsyncs every write on its own and has no
// checksums, nsqio/go-diskqueue confirms before the fsync and gives up a whole file for
// one bad record, and hashicorp/raft-wal is made for a single writer and does not
// verify checksums on read.
//
// # Unknown outcomes
//
// After 30 s (ClientOptions) the client gives a record up, whether the broker has
// written it or not. The shipper then sends it again, with a new timestamp and header
// replay. Before that, the client raises its producer epoch, so that the broker refuses
// a first attempt that is still on its way.
//
// A restarted process has a new producer id, so no epoch fences its predecessor. It
// waits for a second before it sends what it found, so that the broker first writes the
// predecessor's requests. If a broker stalls for longer at that very moment, the two
// copies can be written in the wrong order.
//
// # Decisions
//
//   - If several reasons forbid to show a token, the first of these counts:
//     tracking_off, not_entitled, link_setting, the destination's, no_token_key.
//     `token: always` concerns only the token: a query is never forwarded to a
//     destination that is not safe to modify.
//   - A domain may have a root and a not_found destination: a 302 without token, which is
//     no click. /robots.txt lets everybody in, unless a link has that slug.
//   - sub1 … sub5: characters that are not printable are dropped, then the first 64
//     count. If a name is repeated, its first value counts. nr=qr counts at any place.
//   - Names of parameters are compared after one decoding, and as the loosest server
//     reads them: catalog.ServerName. Only the token parameter matches in any case. Empty
//     parts of a query (&&) are not forwarded.
//   - A referrer that is an IP address is not kept, even if it is a server's.
//   - A browser that prefetches or prerenders an active link gets 503, no-store, no token
//     and no click, so that it asks again when its user clicks: see prefetch.go.
//   - A click is a person's unless the request says otherwise (is_bot, with bot_reason):
//     it is a HEAD; it has no User-Agent; the User-Agent holds an address (a URL, www.,
//     an e-mail address, a host name), has the form "(compatible; NAME)" of bots, names
//     no system that people hold, or has a word of agents/bots.txt at a word's edge.
//     So fetchers of assistants, previews, monitors, mail scanners and Office count as
//     bots. Of the public samples in testdata/agents this tells 98 % of the bots and
//     takes 0.4 % of the people for bots; a client that says it is a browser is taken for one.
//   - device is desktop, phone, tablet, tv or other. os and browser are families as
//     uap-core's definitions (embedded in uap-go) name them, from fixed lists, or
//     Other.
//   - The country is the one that a trusted proxy names, or else that of the visitor's
//     address: the connection's, or behind trusted proxies the one that they give (see
//     package forwarded). No proxy is trusted unless the operator names it; while the
//     first visitors all have private addresses, New's log says so once.
//   - The link is looked up by the request's Host, or by the host that a trusted proxy
//     gives if the operator wants that.
//
// # Metrics
//
//	partners_redirect_responses_total{status}      200 (robots.txt), 302, 404, 405,
//	                                               410, 503 (no catalog yet, or a prefetch)
//	partners_redirect_duration_seconds             server time of a redirect, with the wait for
//	                                               the disk
//	partners_redirect_clicks_lost_total{reason}    redirected but not kept: full, spool, closed,
//	                                               token (no random bytes), encode
//	partners_redirect_clicks_without_key_total     clicks that are kept, but whose visitor got no
//	                                               token because the workspace has no token key
//	partners_redirect_prefetches_declined_total    requests ahead of the click, answered 503
//	                                               without a click
//	partners_redirect_texts_truncated_total        texts truncated so that a click fits its
//	                                               record
//	partners_redirect_user_agents_parsed_total     User-Agents that were not in the cache
//	partners_redirect_user_agents_unparsed_total   left unparsed because all parsers were busy
//	partners_spool_bytes                           size on disk
//	partners_spool_limit_bytes                     size at which it accepts no more clicks
//	partners_spool_backlog_bytes                   bytes that Kafka has not acknowledged
//	partners_spool_fsync_seconds                   time of one fsync
//	partners_spool_group_commit_records            clicks that shared one fsync
//	partners_spool_fsync_timeouts_total            visitors redirected before the disk confirmed
//	partners_spool_corrupt_ranges_total            ranges without a valid record, skipped or set
//	                                               aside
//	partners_spool_corrupt_bytes_total             bytes in these ranges
//	partners_shipper_records_total                 clicks acknowledged by Kafka
//	partners_shipper_replayed_total                clicks sent with header replay
//	partners_shipper_send_failures_total           attempts without acknowledgement
//	partners_shipper_refused_total{error}          clicks refused for good, now in refused/
//	partners_shipper_refused_store_failures_total  failed writes of a refused click to refused/;
//	                                               it stays in the spool
//	partners_shipper_lag_seconds                   age of the oldest click without
//	                                               acknowledgement
//
// # Shape
//
// A server mounts Handler itself, without http.ServeMux (which cleans paths), and must
// keep net/http's own log from naming visitors' addresses. Over plain HTTP it serves a
// Listener, which spares each redirect a read ahead. Stop in this order: the
// server, so that no click is under way; the context of Shipper.Run, which ships what
// is left; the Kafka client; the Spool.
package redirect
