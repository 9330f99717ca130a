// Package processor joins clicks with conversions and writes one verdict for each
// event, exactly once. It is a topology on package engine: clicks lead, conversions
// follow. The rules are pipeline/attribution, which knows nothing of Kafka;
// ../DESIGN.md is the protocol of both.
//
// # Shape
//
// A task joins one partition. It stores each click in the partition's click log and
// judges the events that wait for it; it gives each conversion its verdict, its place
// among the waiting, or its dead letter; on a watermark it closes the waits that have
// ended and deletes journeys that no event can reach; at the end of a transaction it
// writes totals and progress; behind a commit it deletes old clicks.
//
//	task.go      apply, tick, finish, committed
//	clicks.go    the click log by token; outoforder.go: out-of-order clicks in the store
//	rows.go      journey rows, and what is remembered about waiting events
//	expire.go    deleting clicks and journeys by the log's time
//	progress.go  how far a partition has come
//	inspect.go   a partition's files, without a broker
//
// # Metrics
//
//	partners_processor_events_total{verdict}      rows written; unreadable counts dead letters
//	partners_processor_clicks_total               clicks read, shown or not
//	partners_processor_misplaced_total            events in another partition than their
//	                                              token's: dead letters, too
//	partners_processor_waiting_events{partition}  events that wait for their click or parent
//	partners_processor_event_seconds              histogram: from an event's receipt to its
//	                                              verdict
//
// and those of the engine:
//
//	partners_processor_transactions_total{result}     committed, aborted, unknown
//	partners_processor_transaction_seconds_total{phase}
//	                                                  poll, rules, produce, commit, apply
//	partners_processor_sessions_total                 sessions begun; each after the first is a
//	                                                  recovery
//	partners_processor_hanging_transactions_total     partitions that got a marker that Kafka
//	                                                  had lost
//	partners_processor_waiting_for_markers            partitions that a transaction holds back
//	partners_processor_partitions{state}              partitions restoring or running here
//	partners_processor_restored_records_total{topic}  records read by restores
//	partners_processor_restore_seconds                histogram: a partition's restore
//	partners_processor_next_offset{topic,partition}   next offset to judge
//	partners_processor_lag_records{topic,partition}   records behind the newest end offset
//	partners_processor_buffered_records{partition}    conversions read ahead of their clicks
//	partners_processor_watermark_timestamp_seconds{partition}
//	                                                  everything before this unix time was read
//	partners_processor_standby_partitions{state}      partitions of others that are followed
//	                                                  here: warm, behind, closed
//	partners_processor_standby_lag_records{topic,partition}
//	                                                  records that a standby has not applied
//	partners_processor_standby_records_total{topic}   records that a standby has applied
package processor
