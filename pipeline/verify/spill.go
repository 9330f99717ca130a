package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// A partition does not fit into memory, and its tokens lie scattered over it. So its
// records are split by token into buckets, files that do fit, and one bucket after the
// other is read back.
//
//	+----------+---------------+-------+-------------+------------+---------+
//	| token    | offset        | time  | length      | value      | …       |
//	| 20 B     | 8 B           | 8 B   | 4 B         |            |         |
//	+----------+---------------+-------+-------------+------------+---------+
const spillHeader = 20 + 8 + 8 + 4

const (
	// bucketEvents is about how many events go into a bucket: some 40 MB with their
	// clicks.
	bucketEvents = 40_000
	// maxBuckets bounds the open files, two for each bucket.
	maxBuckets = 128
)

// spill is a partition's clicks and conversions on disk, in buckets.
type spill struct {
	dir         string
	conversions []*spillFile
	clicks      []*spillFile
}

type spillFile struct {
	file *os.File
	out  *bufio.Writer
	n    int64 // records
}

// newSpill makes empty buckets for about so many events.
func newSpill(dir string, events int64) (*spill, error) {
	s := &spill{dir: dir}
	for i := range int(min(max(events/bucketEvents, 1), maxBuckets)) {
		for kind, files := range map[string]*[]*spillFile{"conversions": &s.conversions, "clicks": &s.clicks} {
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d", kind, i)))
			if err != nil {
				return nil, errors.Join(err, s.close())
			}
			*files = append(*files, &spillFile{file: f, out: bufio.NewWriterSize(f, 32<<10)})
		}
	}
	return s, nil
}

// close closes and removes the files.
func (s *spill) close() error {
	var errs []error
	for _, f := range slices.Concat(s.conversions, s.clicks) {
		errs = append(errs, f.file.Close(), os.Remove(f.file.Name()))
	}
	return errors.Join(errs...)
}

// bucketOf returns the bucket of a token, by bytes of it that are random.
func (s *spill) bucketOf(t *token.Raw) int { return int(tokenKey(t) % uint64(len(s.conversions))) }

// tokenKey is eight of a token's random bytes.
func tokenKey(t *token.Raw) uint64 { return binary.BigEndian.Uint64(t[4:12]) }

func (s *spill) addRecord(files []*spillFile, t *token.Raw, r *Record) error {
	f := files[s.bucketOf(t)]
	var header [spillHeader]byte
	copy(header[:], t[:])
	binary.BigEndian.PutUint64(header[20:], uint64(r.Offset))
	binary.BigEndian.PutUint64(header[28:], uint64(r.At))
	binary.BigEndian.PutUint32(header[36:], uint32(len(r.Value)))
	f.n++
	_, err := f.out.Write(header[:])
	if err == nil {
		_, err = f.out.Write(r.Value)
	}
	if err != nil {
		return fmt.Errorf("writing a temporary file: %w", err)
	}
	return nil
}

// spilled is a record that was read back.
type spilled struct {
	token  token.Raw
	offset int64
	at     event.Millis
	value  []byte
}

// readBack reads a file's records, by token, then offset.
func (f *spillFile) readBack() ([]spilled, error) {
	if err := f.out.Flush(); err != nil {
		return nil, fmt.Errorf("writing a temporary file: %w", err)
	}
	size, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("reading a temporary file: %w", err)
	}
	b := make([]byte, size)
	if _, err := f.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading a temporary file: %w", err)
	}
	records := make([]spilled, 0, f.n)
	for len(b) >= spillHeader {
		length := int(binary.BigEndian.Uint32(b[36:]))
		records = append(records, spilled{
			token:  token.Raw(b[:20]),
			offset: int64(binary.BigEndian.Uint64(b[20:])),
			at:     event.Millis(binary.BigEndian.Uint64(b[28:])),
			value:  b[spillHeader : spillHeader+length],
		})
		b = b[spillHeader+length:]
	}
	slices.SortFunc(records, func(x, y spilled) int {
		return cmp.Or(bytes.Compare(x.token[:], y.token[:]), cmp.Compare(x.offset, y.offset))
	})
	return records, nil
}

// history is what the rules need to know of a token: its click, and its events in order
// of record.
type history struct {
	token   token.Raw
	click   []byte // wire form; nil: none was shown
	clickAt event.Millis
	events  []spilled // of conversions
}

// eachHistory calls do with each token of a bucket that has events. What it is given is
// valid until the next call of eachHistory.
func (s *spill) eachHistory(bucket int, do func(*history) error) error {
	conversions, err := s.conversions[bucket].readBack()
	if err != nil {
		return err
	}
	clicks, err := s.clicks[bucket].readBack()
	if err != nil {
		return err
	}
	for len(conversions) > 0 {
		h := history{token: conversions[0].token}
		n := 1
		for n < len(conversions) && conversions[n].token == h.token {
			n++
		}
		h.events, conversions = conversions[:n], conversions[n:]
		for len(clicks) > 0 && bytes.Compare(clicks[0].token[:], h.token[:]) < 0 {
			clicks = clicks[1:]
		}
		if len(clicks) > 0 && clicks[0].token == h.token { // of several the first counts
			h.click, h.clickAt = clicks[0].value, clicks[0].at
		}
		if err := do(&h); err != nil {
			return err
		}
	}
	return nil
}
