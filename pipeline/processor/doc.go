// Package processor joins clicks with conversions and writes one verdict for each
// event, exactly once: the partition life cycle (assigned, restoring, running, revoked)
// and the stepped transaction. ../DESIGN.md is its protocol; the rules are
// pipeline/attribution, which knows nothing of Kafka.
//
// A Processor runs sessions. A session is one membership in the consumer group with one
// transactional producer; it owns some partitions, restores each from its log, and
// commits a transaction every commit interval. Whatever leaves the outcome of a
// transaction in doubt ends the session, and the next one asks the broker.
//
// Metrics (labels: partition where it says so):
//
//	partners_processor_events_total{verdict}         rows written, by verdict; unreadable counts dead letters
//	partners_processor_clicks_total                  clicks read, shown or not
//	partners_processor_transactions_total{result}    committed, aborted, unknown
//	partners_processor_transaction_seconds_total{phase}  poll, rules, produce, commit, apply
//	partners_processor_sessions_total                sessions begun: each one after the first is a recovery
//	partners_processor_hanging_transactions_total    partitions in which Kafka had lost the marker of a transaction of ours, which was then written
//	partners_processor_waiting_for_markers           partitions, and starts of sessions, that a transaction holds back
//	partners_processor_partitions{state}             partitions restoring or running here
//	partners_processor_restored_records_total{topic} records read by restores
//	partners_processor_restore_seconds               how long a partition's restore took
//	partners_processor_position{topic,partition}     next offset to judge
//	partners_processor_lag{topic,partition}          records behind the end as last listed
//	partners_processor_waiting{partition}            events that wait for their click or parent
//	partners_processor_held{partition}               conversions read ahead of their clicks
//	partners_processor_horizon_seconds{partition}    unix time up to which both inputs are known to have been read
//	partners_processor_event_seconds                 histogram: from an event's receipt to its verdict
package processor
