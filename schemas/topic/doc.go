// Package topic names the Kafka topics, their settings, and the one rule of
// co-partitioning: which partition a click token belongs to.
//
// Partition p of clicks, conversions, outcomes, attribution-changelog and progress
// belong together: one processor owns them, and a token's click, its events and its
// verdicts all stand in the same p. For a token, p = murmur2(text) mod N. N is chosen
// when the topics are made and fixed for the life of an installation: every daemon
// takes it from Kafka as the count of one epoch. Epochs has what growth would need, a
// count by a token's mint time, so that tokens minted before stay where they are.
package topic
