// Package state is one partition's journeys: a durable map on Pebble, bytes in, bytes
// out. It is the only door to Pebble.
//
// The write-ahead log is off: the changelog topic is the log. So what a crash leaves is
// the content as of some flush, an exact prefix of the batches that were committed: a
// batch is there whole or not at all, and never without the batches before it. Whoever
// writes puts the position of his log into the same batch (see pipeline/processor).
// Flush makes everything so far durable; Close flushes first, because Pebble's own
// Close loses the memtable when the log is off.
package state
