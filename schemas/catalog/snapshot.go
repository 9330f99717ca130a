package catalog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
)

// ErrSnapshot is wrapped by every error about a file that [LoadView] cannot use.
var ErrSnapshot = errors.New("unusable catalog snapshot")

// A snapshot is a view on disk:
//
//	┌──────────┬─────────┬─────────┬──────────────────────────────────┬────────────┐
//	│ magic    │ offset  │ records │ records × { key length, key,     │ CRC-32C of │
//	│ 8 bytes  │ int64   │ uint64  │             value length, value, │ all before │
//	│ PARTCAT1 │ of View │ count   │             offset }             │ uint32     │
//	└──────────┴─────────┴─────────┴──────────────────────────────────┴────────────┘
//
// Integers of the frame are big-endian; those of a record are varints (lengths
// unsigned, the offset signed). Records are sorted by key; the value of a removed
// record has length
// 0. The last character of the magic is the version.
var snapshotMagic = []byte("PARTCAT1")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotFrame is the size of a snapshot without records: magic, offset, count and
// checksum.
const snapshotFrame = 8 + 8 + 8 + 4

// Save writes the view. The same records give the same bytes. The caller makes the file
// appear atomically.
func (v *View) Save(w io.Writer) error {
	v.mu.RLock()
	records, offset := maps.Clone(v.records), v.offset
	v.mu.RUnlock()

	sum := crc32.New(castagnoli)
	out := bufio.NewWriter(io.MultiWriter(w, sum)) // keeps its first error until Flush
	out.Write(snapshotMagic)
	buf := binary.BigEndian.AppendUint64(nil, uint64(offset))
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(records)))
	out.Write(buf)
	for _, key := range slices.Sorted(maps.Keys(records)) {
		s := records[key]
		buf = binary.AppendUvarint(buf[:0], uint64(len(key)))
		buf = append(buf, key...)
		buf = binary.AppendUvarint(buf, uint64(len(s.value)))
		buf = append(buf, s.value...)
		buf = binary.AppendVarint(buf, s.offset)
		out.Write(buf)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("saving catalog: %w", err)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return fmt.Errorf("saving catalog: %w", err)
	}
	return nil
}

// LoadView reads what [View.Save] wrote. Any other content, such as a truncated or
// altered file, is an error that wraps [ErrSnapshot]; an error of r itself does not.
func LoadView(r io.Reader) (*View, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("loading catalog: %w", err)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("loading catalog: %w: %w", ErrSnapshot, fmt.Errorf(format, args...))
	}
	switch {
	case len(data) == 0:
		return nil, bad("empty")
	case !bytes.HasPrefix(data, snapshotMagic[:min(7, len(data))]):
		return nil, bad("not a catalog snapshot")
	case len(data) < snapshotFrame:
		return nil, bad("truncated at %d bytes", len(data))
	case data[7] != snapshotMagic[7]:
		return nil, bad("version %q, this program reads %q", data[7], snapshotMagic[7])
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, bad("checksum %08x, expected %08x: truncated or altered", got, sum)
	}
	v := NewView()
	in := &snapshotReader{rest: body[24:]}
	for range binary.BigEndian.Uint64(body[16:]) {
		key, value := in.readBytes(), in.readBytes()
		offset := in.readVarint()
		if in.bad {
			return nil, bad("the records end after %d", len(v.records))
		}
		if err := v.Apply(string(key), value, offset); err != nil {
			return nil, bad("%w", err)
		}
	}
	if len(in.rest) > 0 {
		return nil, bad("%d bytes after the last record", len(in.rest))
	}
	v.offset = int64(binary.BigEndian.Uint64(body[8:]))
	return v, nil
}

// snapshotReader reads from front to back; after the first failure it returns zero
// values.
type snapshotReader struct {
	rest []byte
	bad  bool
}

func (s *snapshotReader) readBytes() []byte {
	n, size := binary.Uvarint(s.rest)
	if size <= 0 || n > uint64(len(s.rest)-size) {
		s.bad, s.rest = true, nil
		return nil
	}
	b := s.rest[size : size+int(n)]
	s.rest = s.rest[size+int(n):]
	return b
}

func (s *snapshotReader) readVarint() int64 {
	n, size := binary.Varint(s.rest)
	if size <= 0 {
		s.bad, s.rest = true, nil
		return 0
	}
	s.rest = s.rest[size:]
	return n
}
