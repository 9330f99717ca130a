// Package clicklog keeps the clicks of one partition: for each click the time of its
// Kafka record and its bytes, undecoded, under the raw 20-byte token. A put is a copy
// into memory; a get finds one click among a billion with one read of about 2 kB.
//
// # Promises
//
//   - Every click put at an offset below [Log.Next] is found, with its own bytes, also
//     after a crash: then Next has moved back to what was durable and the caller reads
//     Kafka on from there. Puts of offsets below Next are ignored, so reading too much
//     does no harm.
//   - The last put of a token wins, wherever the puts before it went.
//   - No byte that was read from a file is believed unchecked. Damage is [ErrCorrupt],
//     never another answer.
//   - A log that belongs to another cluster, topic or partition does not open
//     ([ErrForeign]).
//
// The topic is the log's log: there is no WAL, no manifest and no compaction, and
// [NeedsRebuild] says which errors mean "wipe it and read the topic again".
//
// # Shape
//
//	Put ──▶ slab in memory (hash index) ──full──▶ the writer: sort, compress, write once ──▶ segment ──…──▶ segment ──▶ Expire
//	 └─ token's time does not fit ──▶ Side                                                   newest                  oldest
//
// A full slab is handed to a goroutine that writes it while the next slab fills; gets
// look into both. If the second slab is full before the first is durable, Put waits: so
// at most one slab's bytes are unsynced, and a crash costs at most two slabs, or four
// million offsets, of reading again.
//
// A token begins with the second of its minting, and clicks arrive nearly in that
// order, so a segment covers a narrow range of time and a token's own time names the
// one or two segments to look in. Clicks that would widen a range go to the [Side]:
// those more than ten minutes older than the slab's start (a redirector's backlog) and
// those dated more than ten minutes ahead of the clock or of their own Kafka record (a
// redirector's wrong clock). Where a click went is only a matter of speed: a get looks
// at the ranges the segments really have.
//
// # Files
//
// A segment is <id>.seg, id counting from 1, sixteen hexadecimal digits. Numbers are
// little endian; keys and tokens compare as bytes.
//
//	segment   block … │ fence … │ cluster id │ footer
//	block     crc32c 4 │ length of the records 4, top bit: not compressed │ records, s2      about 4 kB of records; crc over all that follows it
//	record    token 20 │ at 8 │ length 4 │ value                                             ascending by token, each token once
//	fence     first 8 bytes of the block's first token 8, as a number │ block's offset 4     in memory while the log is open: about 1 B per click
//
//	footer    0        8       16       24       32       36      40     44     48     52     56
//	          │ first  │ next  │ id     │ data   │ blocks │ count │ min  │ max  │ pivot│ part │ topic id …
//	          72       76      80       84       88       96
//	          │ fences │ clus  │ version│ crc    │ magic  │
//
//	first, next  the offsets of the topic this segment vouches for: [first, next), whether stored here, put aside or skipped
//	data         bytes of blocks            blocks, count  blocks and clicks
//	min, max     youngest and oldest token time; 0xffffffff and 0 when there is no click
//	pivot        token time the next slab counts lateness from
//	fences       crc32c of the fences       clus   length of the cluster id
//	crc          crc32c of the cluster id and bytes [0,84) of the footer
//
// A change of the format gets a new version; a file of another version is [ErrForeign].
//
// # Crash argument
//
// The writer does, in this order: blocks, fences and footer into <id>.seg.tmp;
// [Side.Flush], if a click was put aside; fsync of the file; rename to <id>.seg; fsync
// of the directory. Only then is the next one begun. So whatever bears the name .seg is
// whole, all it vouches for is durable, and a crash leaves a run of segments without a
// hole. Leftover .tmp files are removed on open. On a disk that loses what it said was
// synced, the newest segment may come back torn; without a valid footer it is deleted
// and its offsets are read again. Anything else that is not as it should be is
// ErrCorrupt: a hole in ids or offsets, an older file without a footer, fences that do
// not add up. Expire unlinks oldest first, one durable unlink after another, and never
// the newest: its footer says where to read on. Wipe renames the directory first, so it
// happens entirely or not at all.
//
// # Non-obvious
//
//   - A click that belongs aside is first looked up: if the log holds its token, it
//     goes to the slab after all. A get therefore stops at the first copy it finds,
//     newest first, and the Side is asked last. That also keeps a rebuilt log and a log
//     that ran equal.
//   - A segment without clicks (everything skipped or put aside) takes the place of the
//     newest one if that is empty too: a log that only skips has one small file,
//     rewritten.
//   - The pivot is the median of the slab's token times, not its first: one redirector
//     whose clock is ahead must not make everybody late.
//   - A slab is closed early if its hash index has a run of 512: skewed hashes give
//     small segments, never a slow or a wrong answer.
//   - After a crash the Side may hold clicks at offsets at or above Next. They are put
//     again in the same order; a get that finds one early finds what it will find
//     anyway.
//   - Each Log keeps at most 64 files open, the most recently read ones.
//   - Memory: two slabs of [Config].SlabBytes while one is being written, 32 to 48 B of
//     index for each of their clicks, 16 B a click while it is being sorted, and the
//     fences.
//
// One goroutine owns a Log. The writer touches nothing that the owner changes, except
// through the Side, which must allow it.
package clicklog
