// Package kafka makes clients from a Config, creates and checks our topics, and follows
// compacted topics. It wraps nothing: callers get a *kgo.Client and use franz-go as it
// is.
//
// Provisioning is `Apply` and `Check`: both compare what stands in the cluster with
// topic.Specs. A partition count that differs on a co-partitioned topic is refused,
// never repaired: it would send new tokens to partitions where their clicks are not.
//
// Offsets begin with a commit: Apply commits offset 0 for both consumer groups where a
// topic is fresh, and nothing in this project ever resets an offset by itself. A group
// without a commit, or with one outside the log, is an error that names the lost range.
//
// A Watch in the Config is told whether brokers can be reached, and then a client's own
// warnings about what it repeats are at level debug: while brokers are away there are
// hundreds a minute.
//
// Metrics: those of franz-go's kprom under partners_kafka_, with the label client.
package kafka
