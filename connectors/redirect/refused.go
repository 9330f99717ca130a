package redirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kerr"
)

// refusal classifies a produce error by what it says about the record.
type refusal int

const (
	retryable     refusal = iota // another attempt may succeed
	refusedRecord                // no attempt can succeed for this record
	refusedBatch                 // no attempt can succeed for at least one record of the batch
)

// classifyRefusal classifies a produce error. Everything that is not known to be final
// is retryable: it delays the spool but loses nothing. A right that lacks is not final:
// an operator gives it.
func classifyRefusal(err error) refusal {
	switch {
	// All records of a batch share a timestamp, so this concerns each of them.
	case errors.Is(err, kerr.InvalidTimestamp):
		return refusedRecord
	case errors.Is(err, kerr.MessageTooLarge),
		errors.Is(err, kerr.RecordListTooLarge),
		errors.Is(err, kerr.InvalidRecord):
		return refusedBatch
	}
	return retryable
}

// errorCode returns Kafka's name of an error, such as INVALID_TIMESTAMP.
func errorCode(err error) string {
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Message
	}
	return "UNKNOWN"
}

const (
	refusedDir = "refused"
	// maxRefusedFileBytes is the size at which the store begins another file.
	maxRefusedFileBytes = 16 << 20
)

// errRefusedFull: the files in refused/ have reached their limit.
var errRefusedFull = errors.New("refused/ is full")

// refusedStore keeps the records that Kafka refused for good: files of JSON lines in
// refused/, each named by the time of its first line. They are for people. No program
// reads them, and the operator removes them. They may take a quarter of the spool's
// limit.
type refusedStore struct {
	dir   string
	codec *event.Codec
	limit int64 // bytes of all files

	used     int64    // bytes of all files, as last measured plus what was written since
	current  *os.File // nil: the next record begins another file
	written  int64    // bytes written to current
	unsynced error    // a file was closed but not synced: the next syncFile reports it
}

// refusedLine is one line in a file of refused records.
type refusedLine struct {
	RefusedAt time.Time       `json:"refused_at"`
	Error     string          `json:"error"`           // Kafka's name of it
	Detail    string          `json:"detail"`          // the error's text
	Key       string          `json:"key"`             // the click token
	Partition int32           `json:"partition"`       // where the record was sent
	Shown     bool            `json:"token_shown"`     // header t
	Click     json.RawMessage `json:"click,omitempty"` // the click as JSON, if its value can be decoded
	Value     []byte          `json:"value"`           // the record's value; base64 in JSON
}

func openRefusedStore(cfg Config, codec *event.Codec) (*refusedStore, error) {
	r := &refusedStore{dir: filepath.Join(cfg.SpoolDir, refusedDir), codec: codec, limit: cfg.MaxSpoolBytes / 4}
	if err := makeDir(r.dir); err != nil {
		return nil, fmt.Errorf("opening refused records: %w", err)
	}
	if err := r.measureUsed(); err != nil {
		return nil, fmt.Errorf("opening refused records: %w", err)
	}
	return r, nil
}

// measureUsed sums the sizes of all files again, because the operator may have removed
// some.
func (r *refusedStore) measureUsed() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	r.used = 0
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			r.used += info.Size()
		}
	}
	return nil
}

// storeRecord writes a refused record. It is durable after syncFile, which must succeed
// before the acknowledged position moves past the record.
func (r *refusedStore) storeRecord(f failure, code string, partition int32, now time.Time) error {
	line := refusedLine{
		RefusedAt: now.UTC(),
		Error:     code,
		Detail:    f.err.Error(),
		Key:       string(f.frame.token),
		Partition: partition,
		Shown:     f.frame.shown,
		Value:     f.frame.value,
	}
	if _, text, err := r.codec.Text(f.frame.value); err == nil {
		line.Click = text
	}
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("storing a refused record: %w", err)
	}
	b = append(b, '\n')
	if r.used+int64(len(b)) > r.limit {
		if err := r.measureUsed(); err != nil {
			return fmt.Errorf("storing a refused record: %w", err)
		}
	}
	if r.used+int64(len(b)) > r.limit {
		return fmt.Errorf("storing a refused record: %s has %d bytes, its limit is %d (a quarter of "+
			"-spool-max-bytes): %w", r.dir, r.used, r.limit, errRefusedFull)
	}
	if err := r.writeLine(b, now); err != nil {
		r.closeFile() // the line may be torn: continue in another file
		return fmt.Errorf("storing a refused record: %w", err)
	}
	return nil
}

func (r *refusedStore) writeLine(b []byte, now time.Time) error {
	if r.current != nil && r.written+int64(len(b)) > maxRefusedFileBytes {
		r.closeFile()
	}
	if r.current == nil {
		name := now.UTC().Format("20060102T150405.000000000Z") + ".jsonl"
		f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		r.current = f
		r.written = 0
		if err := syncDir(r.dir); err != nil {
			return err
		}
	}
	n, err := r.current.Write(b)
	r.written += int64(n)
	r.used += int64(n)
	return err
}

// syncFile makes all stored records durable. It also fails if an earlier file was
// closed without having been synced.
func (r *refusedStore) syncFile() error {
	err := r.unsynced
	r.unsynced = nil
	if r.current != nil {
		err = errors.Join(err, r.current.Sync())
	}
	return err
}

func (r *refusedStore) closeFile() {
	if r.current != nil {
		r.unsynced = errors.Join(r.unsynced, r.current.Sync())
		r.current.Close()
		r.current = nil
	}
}
