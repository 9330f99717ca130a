// Package topic names the Kafka topics, their settings, and the one rule of co-partitioning: which partition a click token belongs to.
//
// Partition p of clicks, conversions, outcomes, attribution-changelog and progress belong together: one processor owns them, and a token's click, its events and
// its verdicts all stand in the same p. For a token, p = murmur2(text) mod N, where N is the partition count of the epoch that the token's mint time falls
// in. So partitions can be added later: tokens minted before stay where they are, and nothing moves.
package topic
