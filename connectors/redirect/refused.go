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

// refusal is what an error of a produce says about the record.
type refusal int

const (
	refusesNothing refusal = iota // another attempt may succeed
	refusesRecord                 // no attempt will
	refusesBatch                  // no attempt will for one or more records of the batch
)

// refusalOf is the classifier of produce errors. Anything that is not known to be final
// stalls the spool with back-off and loses nothing.
func refusalOf(err error) refusal {
	switch {
	case errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err,
		kerr.ClusterAuthorizationFailed):
		return refusesRecord // all records of a batch share timestamp and topic
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err,
		kerr.InvalidRecord):
		return refusesBatch
	}
	return refusesNothing
}

// errorCode is Kafka's name of an error, such as INVALID_TIMESTAMP.
func errorCode(err error) string {
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Message
	}
	return "UNKNOWN"
}

const (
	refusedDir = "refused"
	// refusedFile is the size at which another file is begun.
	refusedFile = 16 << 20
)

// refusals keeps what Kafka refused for good: files of JSON lines in refused/, named by
// the time of their first line. They are for people; nothing reads them back, and
// whoever has dealt with one removes it. They hold at most a quarter of what the spool
// may.
type refusals struct {
	dir   string
	codec *event.Codec
	limit int64

	used     int64 // bytes of all files
	current  *os.File
	written  int64
	unsynced error // a file was closed without being synced: the next sync reports it
}

// refusedLine is one line.
type refusedLine struct {
	RefusedAt time.Time       `json:"refused_at"`
	Error     string          `json:"error"`
	Detail    string          `json:"detail"`
	Key       string          `json:"key"`
	Partition int32           `json:"partition"`
	Shown     bool            `json:"token_shown"` // header t
	Click     json.RawMessage `json:"click,omitempty"`
	Value     []byte          `json:"value"` // base64 of the record's value
}

func openRefusals(cfg Config, codec *event.Codec) (*refusals, error) {
	r := &refusals{dir: filepath.Join(cfg.SpoolDir, refusedDir), codec: codec, limit: cfg.MaxSpoolBytes / 4}
	if err := makeDir(r.dir); err != nil {
		return nil, fmt.Errorf("opening refused records: %w", err)
	}
	if err := r.count(); err != nil {
		return nil, fmt.Errorf("opening refused records: %w", err)
	}
	return r, nil
}

// count adds up what is there: people remove what they have dealt with.
func (r *refusals) count() error {
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

// keep writes a refused record. It is durable after sync, which comes before the cut
// moves over the record.
func (r *refusals) keep(f failure, code string, partition int32, now time.Time) error {
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
		return fmt.Errorf("keeping a refused record: %w", err)
	}
	b = append(b, '\n')
	if r.used+int64(len(b)) > r.limit {
		if err := r.count(); err != nil {
			return fmt.Errorf("keeping a refused record: %w", err)
		}
	}
	if r.used+int64(len(b)) > r.limit {
		return fmt.Errorf("keeping a refused record: %w: %s holds %d bytes", ErrFull, r.dir, r.used)
	}
	if err := r.write(b, now); err != nil {
		r.close() // a line may be torn: go on in another file
		return fmt.Errorf("keeping a refused record: %w", err)
	}
	return nil
}

func (r *refusals) write(b []byte, now time.Time) error {
	if r.current != nil && r.written+int64(len(b)) > refusedFile {
		r.close()
	}
	if r.current == nil {
		f, err := os.OpenFile(filepath.Join(r.dir, now.UTC().Format("20060102T150405.000000000Z")+".jsonl"),
			os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		r.current, r.written = f, 0
		if err := syncDir(r.dir); err != nil {
			return err
		}
	}
	n, err := r.current.Write(b)
	r.written += int64(n)
	r.used += int64(n)
	return err
}

func (r *refusals) sync() error {
	err := r.unsynced
	r.unsynced = nil
	if r.current != nil {
		err = errors.Join(err, r.current.Sync())
	}
	return err
}

func (r *refusals) close() {
	if r.current != nil {
		r.unsynced = errors.Join(r.unsynced, r.current.Sync())
		r.current.Close()
		r.current = nil
	}
}
