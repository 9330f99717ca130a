package clicklog

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	writeChunk    = 256 << 10 // bytes gathered for one write
	writeCategory = vfs.DiskWriteCategory("clicklog")
)

// segmentWriter turns one slab into one segment. It owns nothing that its Log changes:
// while it runs, the slab is only read.
type segmentWriter struct {
	fs         vfs.FS
	dir        string
	id         Identity // for the footer
	outOfOrder OutOfOrderStore
	slab       *slab
	segment    *segment // id, offsets and mint times are given; the writer adds the rest
}

// writeSegment returns when the segment is durable, or why it is not.
func (w *segmentWriter) writeSegment() error {
	tmp := w.fs.PathJoin(w.dir, segmentName(w.segment.id)+tmpSuffix)
	f, err := w.fs.Create(tmp, writeCategory)
	if err != nil {
		return fmt.Errorf("creating a segment: %w", err)
	}
	err = w.writeContents(f)
	// The footer vouches for the out-of-order clicks too, so they must be durable
	// before it becomes visible.
	if err == nil && w.slab.hasOutOfOrder {
		if err = w.outOfOrder.Flush(); err != nil {
			err = fmt.Errorf("flushing the out-of-order clicks: %w", err)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", tmp, err)
	}
	if err := w.fs.Rename(tmp, w.fs.PathJoin(w.dir, segmentName(w.segment.id))); err != nil {
		return fmt.Errorf("publishing a segment: %w", err)
	}
	return syncDir(w.fs, w.dir)
}

// writeContents writes blocks, dictionary, sparse index and footer.
func (w *segmentWriter) writeContents(f vfs.File) error {
	s := w.segment
	data := w.slab.data
	order := sortEntries(w.slab.entries, data)
	s.count = uint32(len(order))
	out := make([]byte, 0, writeChunk+2*blockBytes)
	written := int64(0) // bytes in the file; out follows
	write := func(b []byte) error {
		_, err := f.Write(b)
		written += int64(len(b))
		return err
	}
	block := 0 // start of the last block in out; nothing is there before its first record
	endBlock := func() (err error) {
		sealBlock(out[block:])
		if len(out) >= writeChunk {
			err = write(out)
			out = out[:0]
		}
		block = len(out)
		return err
	}
	for _, e := range order {
		_, n := recordBounds(data[e.pos:])
		if len(out) > block && len(out)-block-blockHeadLen+n > blockBytes {
			if err := endBlock(); err != nil {
				return err
			}
		}
		if len(out) == block {
			s.blockKeys = append(s.blockKeys, e.key)
			s.blockOffsets = append(s.blockOffsets, uint32(written)+uint32(block))
			out = append(out, make([]byte, blockHeadLen)...)
		}
		out = append(out, data[e.pos:int(e.pos)+n]...)
	}
	if len(out) > block {
		if err := endBlock(); err != nil {
			return err
		}
	}
	s.blockOffsets = append(s.blockOffsets, uint32(written)+uint32(len(out)))
	// Both stay in memory: clone them without spare capacity.
	s.blockKeys = slices.Clone(s.blockKeys)
	s.blockOffsets = slices.Clone(s.blockOffsets)
	if dictionary := w.slab.dictionary; len(dictionary) > 0 {
		s.dictionaryLen = uint32(len(dictionary))
		if err := write(out); err != nil {
			return err
		}
		out = out[:0]
		if err := write(dictionary); err != nil {
			return err
		}
	}
	err := write(s.appendTail(out, w.id))
	s.size = written
	return err
}

// sortEntries returns a slab's entries in the order of their tokens, and of several
// with the same token only the last. It overwrites es.
func sortEntries(es []entry, data []byte) []entry {
	es = radixSort(es)
	kept := es[:0]
	for i := 0; i < len(es); {
		k := i + 1
		for k < len(es) && es[k].key == es[i].key {
			k++
		}
		if k > i+1 { // equal first eight bytes: mostly the same token
			slices.SortStableFunc(es[i:k], func(a, b entry) int {
				return bytes.Compare(data[a.pos+8:a.pos+20], data[b.pos+8:b.pos+20])
			})
		}
		for ; i < k; i++ {
			if i+1 < k && bytes.Equal(data[es[i].pos+8:es[i].pos+20], data[es[i+1].pos+8:es[i+1].pos+20]) {
				continue
			}
			kept = append(kept, es[i])
		}
	}
	return kept
}

// radixSort orders by key, byte by byte from the lowest, and is stable. Bytes that all
// keys share cost nothing, such as the upper two or three of the mint time. The result
// is in es or in a new array.
func radixSort(es []entry) []entry {
	var counts [8][256]uint32
	for _, e := range es {
		for d := range counts {
			counts[d][byte(e.key>>(8*d))]++
		}
	}
	other := make([]entry, len(es))
	for d := range counts {
		c := &counts[d]
		if len(es) == 0 || int(c[byte(es[0].key>>(8*d))]) == len(es) {
			continue
		}
		sum := uint32(0)
		for i, n := range c {
			c[i] = sum
			sum += n
		}
		for _, e := range es {
			b := byte(e.key >> (8 * d))
			other[c[b]] = e
			c[b]++
		}
		es, other = other, es
	}
	return es
}

// syncDir makes the names in a directory durable, through the file system of the log.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("opening %s to sync it: %w", dir, err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
