// Package kafka makes clients from a Config, creates and checks our topics, reads
// ranges of logs, follows compacted topics, and writes and parses dead letters. It does
// not wrap franz-go: callers get a *kgo.Client and use it directly.
//
// Provisioning is ApplyTopics and CheckTopics: both compare the cluster with
// topic.Specs. A partition count that differs on a co-partitioned topic is refused,
// never repaired: it would send new tokens to partitions where their clicks are not.
//
// Offsets begin with a commit: ApplyTopics commits offset 0 for both consumer groups
// where a topic is fresh. Nothing in this project ever resets an offset by itself. A
// group without a commit, or with one outside the log, is an error that names the lost
// range; but in a partition that was added, as the record says, it begins at offset 0.
//
// RangeReader reads from offset A to offset B, ListOffsets lists where logs begin and
// end. Everything in this project that reads a bounded part of a log uses the two. They
// never turn a refused request into a timeout.
//
// Security in the Config is how we and the brokers know each other. What goes wrong with
// it is an ErrAccess, one sentence that begins with the flag: Explain. Like a right that
// lacks it is Retryable, because a person mends it without a restart. LackingRights
// compares what the cluster allows with topic.Rights, WatchRights logs and counts
// the difference.
//
// Grow adds partitions to a live installation, and can be repeated wherever it was broken
// off. What it is about to do is in a record of its own, so that CheckPartitions tells its
// partitions from those that somebody else has added: ErrGrowing passes, ErrPartitions
// needs a person.
//
// FollowInstall follows the record of the installation in topic catalog for as long as a
// program runs, and tokens that were given up. Its Placement says whether a record lies
// in its token's partition, and its Place where a record belongs, once enough of the topic
// was read to be sure.
//
// A Watch in the Config follows whether brokers can be reached. A client's own warnings
// about what it repeats are then at level debug: while brokers are away there are
// hundreds a minute.
//
// Metrics: those of franz-go's kprom under partners_kafka_, with the label client, and
// partners_kafka_missing_rights of WatchRights.
package kafka
