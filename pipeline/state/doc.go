// Package state keeps one partition's journeys: a durable map on Pebble, from bytes to
// bytes. It is the only door to Pebble.
//
// The write-ahead log is off, because the changelog topic is the log. After a crash the
// store holds its content as of some flush: an exact prefix of the committed batches. A
// batch is there entirely or not at all, and never without the batches before it. So
// the caller writes its position in the changelog into the same batch (see
// pipeline/processor).
//
// Flush makes everything so far durable. Close flushes first, because Pebble's own
// Close loses the memtable when the write-ahead log is off.
package state
