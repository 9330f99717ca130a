package verify

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// ErrBundle is wrapped by every error about the contents of a bundle.
var ErrBundle = errors.New("not a usable bundle")

// Limits of what a bundle can make us hold in memory.
const (
	maxBundleHeader     = 16 << 20
	maxBundleLine       = 8 << 20 // a conversion of 480 KB, with every byte escaped
	maxBundlePartitions = 1 << 16
	maxExponent         = 18 // digits after the point, which are written out
)

// Bundle is a bundle that is open.
type Bundle struct {
	Header BundleHeader
	// Source gives its records.
	Source *Source

	files map[string]*zip.File
	codec *event.Codec
}

// OpenBundle reads the header of a bundle. The caller keeps file open while the source
// is used.
func OpenBundle(file io.ReaderAt, size int64, codec *event.Codec) (*Bundle, error) {
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	b := &Bundle{files: make(map[string]*zip.File), codec: codec}
	for _, f := range archive.File {
		if b.files[f.Name] != nil {
			return nil, fmt.Errorf("%w: %.100q is in it twice", ErrBundle, f.Name)
		}
		b.files[f.Name] = f
	}
	if err := b.readHeader(); err != nil {
		return nil, fmt.Errorf("%w: bundle.json: %w", ErrBundle, err)
	}
	givenUp := make(map[string]bool)
	for _, text := range b.Header.GivenUp {
		givenUp[text] = true
	}
	for i := range b.Header.Partitions {
		b.Header.Partitions[i].IsGivenUp = func(text string) bool { return givenUp[text] }
	}
	b.Source = &Source{Partitions: b.Header.Partitions, Each: b.eachRecord}
	return b, nil
}

func (b *Bundle) readHeader() error {
	f := b.files["bundle.json"]
	if f == nil {
		return errors.New("it is not there")
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxBundleHeader))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &b.Header); err != nil {
		return err
	}
	return b.Header.check()
}

// check reports a header that cannot be.
func (h *BundleHeader) check() error {
	switch {
	case h.Format < 1 || h.Format > bundleFormat:
		return fmt.Errorf("it has the format %d, this program reads 1 to %d", h.Format, bundleFormat)
	case h.RulesVersion != event.RulesVersion:
		return fmt.Errorf("rows were judged by version %d of the rules, this program has version %d: use ctl of the "+
			"release that wrote the bundle", h.RulesVersion, event.RulesVersion)
	case h.Workspace == "" || h.Partner == "":
		return errors.New("workspace or partner is missing")
	case len(h.Partitions) > maxBundlePartitions:
		return fmt.Errorf("it has %d partitions", len(h.Partitions))
	}
	seen := make(map[int32]bool)
	for i := range h.Partitions {
		p := &h.Partitions[i]
		if p.ID < 0 || seen[p.ID] {
			return fmt.Errorf("partition %d is negative, or there twice", p.ID)
		}
		seen[p.ID] = true
		for name, x := range p.extents() {
			if x.Start < 0 || x.End < x.Start {
				return fmt.Errorf("partition %d: %s has the offsets [%d, %d)", p.ID, name, x.Start, x.End)
			}
		}
		if len(p.Times) > 255 {
			return fmt.Errorf("partition %d has %d times", p.ID, len(p.Times))
		}
	}
	return nil
}

// eachRecord gives the records of a partition's topic.
func (b *Bundle) eachRecord(ctx context.Context, name string, partition int32, do func(*Record) error) error {
	path := fmt.Sprintf("%d/%s.jsonl", partition, name)
	f := b.files[path]
	if f == nil {
		return nil // the partner has no record there
	}
	var extent Extent
	for i := range b.Header.Partitions {
		if p := &b.Header.Partitions[i]; p.ID == partition {
			extent = *p.extents()[name]
		}
	}
	in, err := f.Open()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBundle, path, err)
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxBundleLine)
	next := extent.Start
	for n := 1; lines.Scan(); n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		record, err := b.parseLine(name, lines.Bytes())
		if err == nil && (record.Offset < next || record.Offset >= extent.End) {
			err = fmt.Errorf("offset %d is not in order, or not within [%d, %d)",
				record.Offset, extent.Start, extent.End)
		}
		if err != nil {
			return fmt.Errorf("%w: %s line %d: %w", ErrBundle, path, n, err)
		}
		next = record.Offset + 1
		if err := do(record); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBundle, path, err)
	}
	return nil
}

// parseLine reads one line, and makes the record that it stands for.
func (b *Bundle) parseLine(name string, text []byte) (*Record, error) {
	var line bundleLine
	if err := json.Unmarshal(text, &line); err != nil {
		return nil, err
	}
	r := &Record{Offset: line.Offset, At: line.At, Replay: line.Replay}
	var err error
	switch name {
	case topic.Clicks:
		var k event.Click
		if err = b.codec.DecodeJSON(line.Record, &k); err == nil {
			r.Key, r.Shown = []byte(k.ClickToken), true
			r.Value, err = b.codec.AppendClick(nil, &k)
		}
	case topic.Conversions:
		var ev event.Conversion
		if err = b.codec.DecodeJSON(line.Record, &ev); err == nil && ev.Exponent > maxExponent {
			err = fmt.Errorf("an amount has %d digits after the point", ev.Exponent)
		}
		if err == nil {
			r.Key = []byte(ev.ClickToken)
			r.Value, err = b.codec.AppendConversion(nil, &ev)
		}
	case topic.Outcomes:
		var o event.Outcome
		if err = b.codec.DecodeJSON(line.Record, &o); err == nil {
			r.Key = []byte(o.ClickToken)
			r.Value, err = b.codec.AppendOutcome(nil, &o, nil)
		}
	default:
		err = fmt.Errorf("a bundle has no %s", name)
	}
	return r, err
}

// CheckExport reports an export that a bundle cannot be compared with.
func (h *BundleHeader) CheckExport(x *Export) error {
	if x.Partner != h.Partner {
		return fmt.Errorf("-manifest: it is of partner %q, the bundle of %q: export with -partner %s",
			x.Partner, h.Partner, h.Partner)
	}
	if !h.From.IsZero() && x.From.Before(h.From) || !h.To.IsZero() && x.To.After(h.To) {
		return errors.New("-manifest: it has days that the bundle does not have")
	}
	return nil
}
