// Package topic defines the Kafka topics and their settings, and the partition of a
// click token.
//
// Partition p of clicks, conversions, outcomes, attribution-changelog and progress
// belong together: one processor owns all five, and a token's click, events and
// verdicts are all in the same p. For a token, p = murmur2(text) mod N, where N is the
// count of the epoch in which it was minted. The first count is chosen when the topics are
// made and recorded in the catalog, as an Install. Programs take it from there, and none
// works while Kafka shows another count. `ctl topics grow` adds an epoch with more
// partitions, which begins ahead: tokens minted before keep their partition, and nothing
// moves.
//
// A token's time says its epoch, so whoever places a token must know every epoch that
// began before. He does when he has read the catalog to an end that was listed after the
// token was minted: an epoch begins GrowLead after its Growth was written, and from then
// until the Install with the epoch is there nobody places anything.
package topic
