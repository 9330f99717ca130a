package clicklog

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	chunkBytes    = 256 << 10 // written at once
	writeCategory = vfs.DiskWriteCategory("clicklog")
)

// writer turns one slab into one segment. It owns nothing that its Log changes: the
// slab is only read until it is done.
type writer struct {
	fs   vfs.FS
	dir  string
	id   Identity
	side Side
	slab *slab
	seg  *segment // id, offsets and times are given; count, keys and offs are filled in
}

// run returns when the segment is durable, or with the reason why it is not.
func (w *writer) run() error {
	tmp := w.fs.PathJoin(w.dir, segmentName(w.seg.id)+tmpSuffix)
	f, err := w.fs.Create(tmp, writeCategory)
	if err != nil {
		return fmt.Errorf("creating a segment: %w", err)
	}
	err = w.fill(f)
	// What was put aside is vouched for by this footer, so it must be there before the
	// footer can be seen.
	if err == nil && w.slab.aside {
		if err = w.side.Flush(); err != nil {
			err = fmt.Errorf("flushing the side store: %w", err)
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
	if err := w.fs.Rename(tmp, w.fs.PathJoin(w.dir, segmentName(w.seg.id))); err != nil {
		return fmt.Errorf("publishing a segment: %w", err)
	}
	return syncDir(w.fs, w.dir)
}

// fill writes blocks, fences and footer.
func (w *writer) fill(f vfs.File) error {
	s, data := w.seg, w.slab.data
	order := sortEntries(w.slab.entries, data)
	s.count = uint32(len(order))
	records := make([]byte, 0, blockBytes)
	out := make([]byte, 0, chunkBytes+2*blockBytes)
	end := int64(0)
	flush := func(atLeast int) error {
		if len(out) < atLeast {
			return nil
		}
		_, err := f.Write(out)
		out = out[:0]
		return err
	}
	block := func() error {
		s.offs = append(s.offs, uint32(end))
		k := len(out)
		out = appendBlock(out, records)
		end += int64(len(out) - k)
		records = records[:0]
		return flush(chunkBytes)
	}
	for _, e := range order {
		n := recordHead + int(le.Uint32(data[e.pos+28:]))
		if len(records) > 0 && len(records)+n > blockBytes {
			if err := block(); err != nil {
				return err
			}
		}
		if len(records) == 0 {
			s.keys = append(s.keys, e.key)
		}
		records = append(records, data[e.pos:int(e.pos)+n]...)
	}
	if len(records) > 0 {
		if err := block(); err != nil {
			return err
		}
	}
	s.offs = append(s.offs, uint32(end))
	s.keys, s.offs = slices.Clone(s.keys), slices.Clone(s.offs) // they stay in memory: without spare room
	k := len(out)
	out = s.appendTail(out, w.id)
	s.size = end + int64(len(out)-k)
	return flush(1)
}

// sortEntries returns a slab's entries in the order of their tokens; of several under
// one token only the last. The given order is lost.
func sortEntries(es []entry, data []byte) []entry {
	es = radixSort(es)
	kept := es[:0]
	for i := 0; i < len(es); {
		k := i + 1
		for k < len(es) && es[k].key == es[i].key {
			k++
		}
		if k > i+1 { // the same eight bytes: mostly the same token
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
// keys share cost nothing: of a token's seconds those are the upper two or three. It
// returns one of two arrays.
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
			c[i], sum = sum, sum+n
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

// syncDir makes the names in a directory durable.
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
