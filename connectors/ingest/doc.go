// Package ingest is the events API: an http.Handler to which merchant backends post
// signed events, and which puts them on record in Kafka. What it answers is described
// by schemas/openapi; a test validates every kind of answer against that document.
//
// # Promises
//
//   - 202 is sent after Kafka has acknowledged the event on all in-sync replicas, never
//     before. In a batch that holds for each event with status accepted.
//   - What Kafka has not acknowledged within Config.AckTimeout is answered unavailable:
//     503, or that code on the events of a batch that it concerns. The outcome is then
//     not known: the record may still arrive, so the log can hold the event twice once
//     the merchant sends it again. That counts once, because event_id is the
//     idempotency key of its click token and both copies have the same content hash.
//   - A signed request that is refused with 4xx is recorded in topic rejections (its
//     hash, ids and code, never its body), each refused event of a batch by itself.
//     That is best effort and never changes or delays an answer: what is lost is
//     counted.
//   - No input panics or makes a 5xx. No answer, log line or metric carries a secret, a
//     body, an address or the text of an internal error.
//
// # Order of the checks
//
//	method, content type, size     without reading the body where its length is declared
//	signature                      then, unseen by those who cannot sign: stale or future timestamp, the workspace's entitlement (403), its rate limit
//	JSON                           all of the body: syntax, names that come twice, data after the value; at most 500 events
//	fields                         an unknown one first, then all in the order of the documentation
//	token                          its form, then its MAC
//
// The first that fails decides. Entitlement stands right behind the signature, because
// before it would tell anybody which workspaces exist, and behind the body it would
// tell a workspace about events that are not looked at. A workspace that the catalog
// does not have is refused as bad_signature, by the same path with the same number of
// MACs, even if a secret of it is loaded. A workspace without a token key could only
// refuse every token it was given: that is the operator's mistake, not the merchant's,
// so it is 503 and an error in the log.
//
// # Choices where the contract leaves one
//
//   - kB and MB are 1024 and 1024² bytes. Lengths of texts are counted in characters,
//     those of event_id and metadata in bytes.
//   - Digits of an amount are counted as written: "10.00" JPY is bad_amount, like
//     "10.000" EUR. "10.0" EUR is fine, and the same content as "10.00".
//   - An empty text is an absent one for order_id, parent_event_id, name, reason and
//     customer_ref. It is refused for all other fields, as by the document's schema: an
//     empty amount on a refund would otherwise take back all that stands of its parent.
//   - null is a wrong type. quantity is an integer literal of at most 32 bits, so 2.0
//     is refused.
//   - Of an amount without currency, or the reverse, the missing one is to blame.
//   - A batch of which no event was acknowledged and none refused is 503 as a whole;
//     every other batch is 202 with a result for each event.
//   - ISO 4217 is Rhymond/go-money's table without the entries that have no numeric
//     code: those are not ISO's, or withdrawn.
//
// # Limits
//
// Each workspace has a token bucket of Config.Rate events a second; it is charged after
// verification, a batch by its events. Requests that fail verification have another one
// for each network (IPv4 /24, IPv6 /48), kept in memory only. It is looked at when
// verification has failed: a genuine signature is never refused for what its neighbours
// or the others behind its proxy send. A body is at most 256 kB or 1 MB; time limits
// for slow senders are the http.Server's.
//
// # Shape
//
// ServeHTTP finds the route; admit does all that comes before JSON; draft (event.go,
// batch.go) is the parsed body, conversion its judgement; record (record.go) is the
// only way to a 202: it hands all events of a request to one idempotent producer and
// waits once; reject (rejections.go) is the side channel. The producer is made with
// ProducerOptions, and New refuses one that would acknowledge early.
//
// # Metrics
//
//	partners_ingest_requests_total{code}           answers by their code; accepted for 202, ok for the specification
//	partners_ingest_events_total{type}             events acknowledged to their sender
//	partners_ingest_events_refused_total{code}     events of batches that were refused or unavailable
//	partners_ingest_ack_seconds                    time until Kafka had acknowledged all events of a request
//	partners_ingest_unacknowledged_total           events answered unavailable because Kafka did not acknowledge them
//	partners_ingest_late_acks_total                those of them that Kafka acknowledged after the answer
//	partners_ingest_in_flight                      requests being served
//	partners_ingest_rejections_recorded_total      refusals that Kafka has
//	partners_ingest_rejections_lost_total          refusals that are not recorded: too many at a time, or Kafka did not acknowledge
package ingest
