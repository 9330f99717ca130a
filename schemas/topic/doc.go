// Package topic defines the Kafka topics and their settings, and the partition of a
// click token.
//
// Partition p of clicks, conversions, outcomes, attribution-changelog and progress
// belong together: one processor owns all five, and a token's click, events and
// verdicts are all in the same p. For a token, p = murmur2(text) mod N. N is chosen
// when the topics are made and recorded in the catalog, as an Install. Programs take it
// from there, and none works while Kafka shows another count. Epochs exist so that an
// installation can later grow: tokens minted before the growth keep their partition.
package topic
