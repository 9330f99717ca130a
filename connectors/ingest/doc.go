// Package ingest is the events API: an http.Handler to which merchant backends post
// signed events, and which writes the accepted events to Kafka. schemas/openapi
// describes its answers; a test validates every kind of answer against that document.
//
// # Promises
//
//   - 202 is sent only after all in-sync replicas of Kafka have acknowledged the event.
//     In a batch that holds for each event with status accepted.
//   - An event that Kafka has not acknowledged within Config.AckTimeout is answered
//     unavailable: 503, or that code on the event of a batch. Its outcome is not known:
//     the record may still arrive, so the log can contain the event twice once the
//     merchant sends it again. It still counts once, because event_id is the
//     idempotency key of its click token and both copies have the same content hash.
//   - A signed request that is refused with 4xx is recorded in the topic rejections:
//     its hash, code, type and ids, never its body; each refused event of a batch by
//     itself, also if the batch is refused as a whole and the event's id can be read.
//     This is best effort and never changes or delays an answer. Losses are counted.
//   - A body with the member dry_run: true, beside events in a batch, is checked as any
//     other and written nowhere: not as conversion, not as rejection. It is answered as
//     without it, but for 200 and valid in place of 202 and accepted.
//   - A refusal says in one sentence what is wrong: which header, which member, at which
//     byte. What is said before the signature is genuine depends on the request alone.
//   - No input causes a panic or a 5xx. No answer, log line or metric contains a
//     secret, a body, an address or the text of an internal error.
//
// # Order of the checks
//
//	method, content type, size  without reading a body whose declared length is too large
//	signature                   only a genuine signer sees the results of the next three:
//	                            stale or future timestamp, the workspace's entitlement
//	                            (403), its rate limit
//	JSON                        the whole body: syntax, UTF-8, repeated names, data after
//	                            the value; at most 500 events. An event of a batch that
//	                            has the form of JSON is refused alone
//	fields                      an unknown field first, then in the documented order
//	token                       its form, then its MAC
//
// The first check that fails decides. Entitlement comes directly after the signature:
// before it, the answer would tell strangers which workspaces exist; after the body, it
// would say something about events that are not even considered. A workspace that is
// not in the catalog is refused as bad_signature, on the same path and with the same
// number of MACs, even if a secret of it is loaded. A workspace without token key would
// have every token refused, and one whose file of signing secrets cannot be used, with
// nothing of an earlier one in force, every signature. That is the operator's mistake,
// not the merchant's, so it is answered 503, which senders repeat, and logged as an
// error.
//
// # Choices where the contract leaves one
//
//   - kB and MB are 1024 and 1024² bytes. The length of a text is counted in
//     characters, of event_id and metadata in bytes.
//   - Digits beyond the currency's are accepted if they are zeros: "705.00" JPY and
//     "10.000" EUR have the same content as "705" and "10".
//   - Empty text equals absent text in order_id, parent_event_id, name, reason and
//     customer_ref. All other fields refuse it, as the document's schema does: an empty
//     amount on a refund would otherwise take back the whole standing amount of its
//     parent.
//   - null equals absence in a field that may be absent, and is a wrong type in the
//     others and in metadata. quantity is an integer literal of at most 32 bits, so 2.0
//     is refused.
//   - event_id and order_id have no blank at their ends: for order_id that is white
//     space of Unicode. Earlier releases took such ids, so a parent_event_id may have
//     them.
//   - name and reason are context: they are cut to 128 characters, and the answer names
//     them. The content hash is that of the event as it is recorded: cut, the currency
//     in capitals, the amount in minor units.
//   - If only one of amount and currency is sent, the error names the missing one.
//   - A batch is read twice if it is not strict JSON: by a lenient decoder, which finds
//     where its events end, and each event by a strict one. What is wrong in the form of
//     JSON (NaN, a comma too many, a line break in a text) leaves no certain end, so it
//     refuses the batch wherever it is. Bytes are counted from 0.
//   - A dry run counts towards the rate limit. It does not ask Kafka, so it is answered
//     while Kafka is away, and valid does not promise that an event could be recorded
//     now. It cannot know a verdict, which depends on other events and on the click: an
//     event that is valid can be unattributed. A body that breaks off in front of dry_run
//     is none, so its refusal goes on record.
//   - A batch in which no event was acknowledged and none refused is answered 503 as a
//     whole; every other batch is 202 with a result for each event.
//   - Currencies are those of package currency, in any case. A positive has a code that
//     was in force on the UTC day of its occurred_at and is no funds code, metal or test
//     code; a negative any code that was in force in the 800 days before its occurred_at,
//     that day included. 800 days are twice the age that an event can have. Codes
//     without minor unit, as metals, have no digits after the point.
//
// # Limits
//
// Each workspace has a token bucket of Config.Rate events a second. It is charged after
// verification, a batch by the number of its events. Requests that fail verification
// have another bucket for each network (IPv4 /24, IPv6 /48), in memory only. It is
// consulted only after verification has failed, so a genuine signature is never refused
// because of its neighbours or of others behind the same proxy. The network is that of
// the sender, which behind trusted proxies is the one that they name (see package
// forwarded); all senders that are not known share one bucket. A body has at most 256
// kB (one event) or 1 MB (a batch). Timeouts for slow senders are the http.Server's.
//
// # Shape
//
// ServeHTTP finds the route. admitRequest makes all checks before JSON; mediaFault
// (media.go) and signature.Detail have their sentences. draft (event.go, batch.go) is a
// parsed event; toConversion checks its fields. fault (fault.go) says why a text is not
// strict JSON, and where. produceEvents (record.go) is the only way to a 202: it hands
// all events of a request to one idempotent producer and waits once. produceRejections
// (rejections.go) is the side channel. The producer is made with ProducerOptions; New
// refuses one that acknowledges too early.
//
// # Metrics
//
//	partners_ingest_requests_total{code}        answers by code; accepted for 202, valid for
//	                                            dry runs, ok for the OpenAPI document
//	partners_ingest_events_total{type}          events acknowledged to their sender
//	partners_ingest_events_refused_total{code}  events of batches that were refused or
//	                                            unavailable
//	partners_ingest_workspace_accepted_total{workspace}
//	                                            events acknowledged to their sender
//	partners_ingest_workspace_refused_total{workspace,code}
//	                                            events that were refused for what they are
//	                                            (400, 413, 422), dry runs aside. Workspaces
//	                                            are those of the catalog with a genuine
//	                                            request
//	partners_ingest_ack_seconds                 time until Kafka has acknowledged all
//	                                            events of a request
//	partners_ingest_unacknowledged_total        events answered unavailable because Kafka
//	                                            did not acknowledge them in time
//	partners_ingest_late_acks_total             of those, the ones acknowledged after the
//	                                            answer
//	partners_ingest_in_flight                   requests being served
//	partners_ingest_rejections_recorded_total   rejections that Kafka has acknowledged
//	partners_ingest_rejections_lost_total       rejections not recorded: too many at a
//	                                            time, or not acknowledged
package ingest
