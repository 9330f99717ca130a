// Package clicklog keeps the clicks of one partition on local disk: for each click the
// time of its Kafka record and its undecoded bytes, under the raw 20-byte token. Put
// copies a click into memory. Get finds one click among a billion with a read of 4 kB
// and one of half a kB.
//
// # Promises
//
//   - Get finds every click that was put at an offset below [Log.Next], with its own
//     bytes, also after a crash. After a crash Next has moved back to what was durable,
//     and the caller reads Kafka on from there. Put ignores offsets below Next, so
//     reading too much does no harm.
//   - The last put of a token wins, wherever earlier ones were stored.
//   - Every byte that is read from a file is checked. Damage is [ErrCorrupt], never a
//     wrong answer.
//   - A log that belongs to another cluster, topic or partition does not open
//     ([ErrForeign]).
//
// The topic is the write-ahead log, so there is no WAL, no manifest and no compaction.
// [NeedsRebuild] reports the errors that are cured by wiping the log and reading the
// topic again.
//
// Most of a click is the same for every click of its link. The log knows nothing of
// links: the caller says where the *shared part* of a value begins, and the log stores
// each such part once a slab, in the slab's *dictionary*. A wrong position costs space,
// never an answer.
//
// The format is our own because Pebble, which could hold the clicks too, measured
// worse: three times the CPU time a put and a get, and 30 % more disk (bench_test.go).
//
// # Shape
//
//	Put ──▶ slab in memory ──full──▶ writer: sort ──▶ segment … segment ──▶ Expire
//	 └─ out-of-order click ──▶ OutOfOrderStore        newest     oldest
//
// A full slab goes to a goroutine that writes it while the next slab fills; Get reads
// both. If the second slab fills before the first is durable, Put waits. So at most one
// slab's bytes are unsynced, and after a crash the caller reads at most two slabs or
// four million offsets again.
//
// A token begins with the second of its minting, and clicks arrive nearly in that
// order. A segment therefore covers a narrow range of mint times, and the mint time of
// a token selects the one or two segments to search. Out-of-order clicks would widen
// that range, so they go to the [OutOfOrderStore]: clicks minted more than ten minutes
// before the slab's start (a redirector's backlog), and clicks dated more than ten
// minutes ahead of the clock or of their own Kafka record (a redirector's wrong clock).
// This placement affects only speed. Get consults the actual range of each segment, so
// it finds a click wherever it was put.
//
// # Files
//
// A segment is <id>.seg: id counts from 1 and has sixteen hexadecimal digits. Numbers
// are little endian; keys and tokens compare as bytes.
//
//	segment  block … │ dictionary entry … │ index entry … │ cluster id │ footer
//	block    crc32c 4 │ length of the records 4, top bit: not compressed │ records
//	         about 4 kB of records; crc over all that follows; version 2 never compresses
//	record   token 20 │ at 8 │ length of its own bytes 4 │ own bytes
//	         ascending by token, each token once; if the length has its top bit, the
//	         position of an entry (4) precedes the own bytes, and the value is these
//	         and the entry's shared part
//	entry    crc32c 4 │ length 4 │ shared part
//	         its position counts from the first entry; the crc is over all that follows
//	         and begins with the position, so that no entry can stand in for another
//	index    first 8 bytes of the block's first token 8, as a number │ block's offset 4
//	         the sparse index, in memory: 1 B per click
//
//	footer   dictionary's length 4, then
//	         0       8      16     24     32       36      40    44    48      52     56
//	         │ first │ next │ id   │ data │ blocks │ count │ min │ max │ start │ part │ topic id …
//	         72      76     80     84     88       96
//	         │ index │ clus │ version │ crc │ magic │
//
//	first, next  offsets: the segment vouches for [first, next), whether the clicks are stored
//	             here, out of order or skipped
//	data         bytes of blocks            blocks, count  number of blocks and of clicks
//	min, max     lowest and highest mint time; 0xffffffff and 0 when there is no click
//	start        mint time at which the next slab starts
//	index        crc32c of the sparse index       clus   length of the cluster id
//	crc          crc32c of the cluster id and all of the footer before it
//
// Version 1 has no dictionary, neither its length, and compresses blocks with s2 where
// that makes them smaller. It is read, and no longer written. A change of the format
// gets a new version; a file of an unknown version is [ErrForeign], so an older program
// rebuilds the log.
//
// Open reads footers and sparse indexes. A dictionary stays in the file, and Get reads
// the one entry that it needs: those of a billion clicks would not fit in memory, and
// each is a hundredth of its file, so the operating system keeps what is asked for.
//
// # Crash argument
//
// The writer does, in this order: write blocks, dictionary, sparse index and footer into
// <id>.seg.tmp; call [OutOfOrderStore.Flush] if an out-of-order click was stored; fsync
// the file; rename it to <id>.seg; fsync the directory. Only then does the next one
// begin. So a file named .seg is complete, everything that it vouches for is durable,
// and a crash leaves a sequence of segments without a hole. Open removes leftover .tmp
// files.
//
// On a disk that loses what it reported as synced, the newest segment may come back
// torn. Without a valid footer it is deleted and its offsets are read again. Anything
// else is ErrCorrupt: a hole in ids or offsets, an older file without a footer, a
// sparse index that contradicts the footer. Expire unlinks oldest first, one durable
// unlink after another, and never the newest, whose footer says where to read on. Wipe
// renames the directory first, so it happens entirely or not at all.
//
// # Non-obvious
//
//   - Put looks an out-of-order click up first. If the log already holds its token, the
//     click goes to the slab after all. So Get may stop at the first copy, newest
//     first, and ask the OutOfOrderStore last. It also makes a rebuilt log equal to one
//     that ran without a crash.
//   - A segment without clicks (all skipped or out of order) replaces the newest one if
//     that is empty too. A log that only skips has one small file, which is rewritten.
//   - The start of a slab is the median mint time of the slab before, not its first:
//     one redirector whose clock is ahead must not make all others out of order.
//   - A slab is sealed early if a probe of its hash index takes 512 steps. Skewed
//     hashes give small segments, never a slow or wrong answer.
//   - After a crash the OutOfOrderStore may hold clicks at offsets at or above Next.
//     They are put again in the same order, so a Get that finds one early returns what
//     it will return anyway.
//   - Each Log keeps at most 64 files open, the most recently read ones.
//   - A dictionary takes at most an eighth of its slab. Parts beyond that, parts under
//     32 bytes, and of two parts with the same hash the second are stored with their
//     clicks.
//   - Memory: two slabs of [Config].SlabBytes while one is being written, up to an eighth
//     more for their dictionaries, 32 to 48 B of index for each of their clicks, 16 B a
//     click while they are sorted, and the sparse indexes.
//
// One goroutine owns a Log. The writer touches nothing that the owner changes, except
// through the OutOfOrderStore, which must allow it.
package clicklog
