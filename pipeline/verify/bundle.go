package verify

import (
	"archive/zip"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// A bundle is a zip file:
//
//	README.txt               what is in it, what it proves and what not
//	schemas/Click.avsc       … of each record, as Avro writes schemas
//	P/clicks.jsonl           partition P: the clicks of tokens that have events
//	P/conversions.jsonl      all events of these tokens
//	P/outcomes.jsonl         their rows
//	bundle.json              BundleHeader
//
// Each line of a .jsonl file is a record with its offset: bundleLine.

// bundleFormat is the version of the form. Format 1, which is read, too, does not say which
// tokens were given up: their rows are then taken for wrong.
const bundleFormat = 2

// bundleReadme is README.txt.
//
//go:embed bundle.txt
var bundleReadme string

// BundleHeader is bundle.json.
type BundleHeader struct {
	Format       int         `json:"format"`
	Workspace    string      `json:"workspace"`
	Partner      string      `json:"partner"`
	From         time.Time   `json:"from,omitzero"` // of occurred_at; zero: no bound
	To           time.Time   `json:"to,omitzero"`   // not included; zero: no bound
	RulesVersion int         `json:"rules_version"`
	MadeAt       time.Time   `json:"made_at"`
	Partitions   []Partition `json:"partitions"` // how far each was judged, and by which times
	// GivenUp are those of the partner's tokens that an operator has given up: their rows
	// do not follow from the records. Since format 2.
	GivenUp []string `json:"given_up,omitempty"`
}

// bundleLine is a line of a .jsonl file.
type bundleLine struct {
	Offset int64           `json:"offset"`
	At     event.Millis    `json:"at_ms"`           // Kafka's timestamp
	Replay bool            `json:"replay,omitzero"` // of a click: it may have been sent before
	Record json.RawMessage `json:"record"`          // Avro JSON
}

// BundleConfig says what goes into a bundle.
type BundleConfig struct {
	Workspace string    // whose events
	Partner   string    // whose tokens
	From, To  time.Time // tokens with an event that occurred then; see Config
	MadeAt    time.Time // for the header
	Progress  func(step string, done, of int64)
}

// Validate reports a setting that cannot be, by flag.
func (c BundleConfig) Validate() error {
	if c.Partner == "" {
		return errors.New("-partner is required: a bundle has the records of one partner's tokens")
	}
	return Config{Workspace: c.Workspace, From: c.From, To: c.To}.Validate()
}

// BundleCounts is how many records a bundle has.
type BundleCounts struct {
	Clicks, Conversions, Outcomes int64
}

// WriteBundle writes what the partner needs to check his rows: the records of his tokens
// alone.
//
// What the rules do not read and a partner has no business with is left out, in events
// and rows alike: customer_ref, customer_hash, metadata, references and key_id.
// content_sha256 is replaced by an HMAC of it, under a key that is forgotten: whether
// two events have the same content can be seen, and nothing be guessed from it. An
// event that another workspace sent with a token of his is left with its times.
func WriteBundle(ctx context.Context, cfg BundleConfig, source *Source, codec *event.Codec, to io.Writer) (
	counts BundleCounts, err error) {
	if err := cfg.Validate(); err != nil {
		return counts, err
	}
	b := &bundleWriter{cfg: cfg, source: source, codec: codec, zip: zip.NewWriter(to), key: make([]byte, 32)}
	b.scope = Config{Workspace: cfg.Workspace, From: cfg.From, To: cfg.To, Progress: cfg.Progress}
	rand.Read(b.key)
	if err := b.writeForms(); err != nil {
		return counts, fmt.Errorf("writing the bundle: %w", err)
	}
	for i := range source.Partitions {
		if err := b.writePartition(ctx, &source.Partitions[i]); err != nil {
			return b.counts, fmt.Errorf("writing partition %d of the bundle: %w", source.Partitions[i].ID, err)
		}
	}
	if err := errors.Join(b.writeHeader(), b.zip.Close()); err != nil {
		return b.counts, fmt.Errorf("writing the bundle: %w", err)
	}
	return b.counts, nil
}

type bundleWriter struct {
	cfg    BundleConfig
	scope  Config
	source *Source
	codec  *event.Codec
	zip    *zip.Writer
	key    []byte // of the HMACs
	counts BundleCounts
	// givenUp are the partner's tokens that were given up, of the partitions written.
	givenUp []string
}

func (b *bundleWriter) writeHeader() error {
	header := BundleHeader{
		Format:       bundleFormat,
		Workspace:    b.cfg.Workspace,
		Partner:      b.cfg.Partner,
		From:         b.cfg.From,
		To:           b.cfg.To,
		RulesVersion: event.RulesVersion,
		MadeAt:       b.cfg.MadeAt.UTC(),
		Partitions:   b.source.Partitions,
		GivenUp:      slices.Sorted(slices.Values(b.givenUp)),
	}
	text, err := json.MarshalIndent(header, "", "  ")
	if err != nil {
		return err
	}
	return b.writeFile("bundle.json", string(text)+"\n")
}

// writeForms writes the files that are the same in all bundles.
func (b *bundleWriter) writeForms() error {
	schemas := make(map[string]string)
	for _, s := range event.Schemas() { // the newest comes last
		schemas[s.Record] = s.JSON
	}
	for _, f := range []struct{ name, text string }{
		{"README.txt", bundleReadme},
		{"schemas/Click.avsc", schemas["Click"]},
		{"schemas/Conversion.avsc", schemas["Conversion"]},
		{"schemas/Outcome.avsc", schemas["Outcome"]},
	} {
		if err := b.writeFile(f.name, f.text); err != nil {
			return err
		}
	}
	return nil
}

func (b *bundleWriter) writeFile(name, text string) error {
	w, err := b.createFile(name)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	return err
}

func (b *bundleWriter) createFile(name string) (io.Writer, error) {
	return b.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: b.cfg.MadeAt})
}

// bundlePartition is one partition of a bundle in the making.
type bundlePartition struct {
	*bundleWriter
	*partitionRun
	tokens map[token.Raw]bool // the partner's
}

// writePartition reads conversions twice: what is the partner's is known when the clicks
// and the rows have been read.
func (b *bundleWriter) writePartition(ctx context.Context, p *Partition) error {
	v := &verifier{Config: b.scope, source: b.source, codec: b.codec}
	w := &bundlePartition{
		bundleWriter: b,
		partitionRun: &partitionRun{verifier: v, part: p},
		tokens:       make(map[token.Raw]bool),
	}
	if err := w.noteWanted(ctx); err != nil || len(w.wanted) == 0 {
		return err
	}
	if err := w.writeClicks(ctx); err != nil {
		return err
	}
	if err := w.writeOutcomes(ctx); err != nil || len(w.tokens) == 0 {
		return err
	}
	w.noteGivenUp()
	return w.writeConversions(ctx)
}

// noteGivenUp notes which of the partner's tokens were given up, and no others.
func (w *bundlePartition) noteGivenUp() {
	for raw := range w.tokens {
		if text := token.Text(&raw); w.part.IsGivenUp != nil && w.part.IsGivenUp(text) {
			w.givenUp = append(w.givenUp, text)
		}
	}
}

// writeRecords writes a topic's file of the partition. choose returns what of a record
// is written, or nil.
func (w *bundlePartition) writeRecords(ctx context.Context, name string, count *int64,
	choose func(*Record) (any, error)) error {
	var out io.Writer
	return w.eachRecord(ctx, name, func(r *Record) error {
		value, err := choose(r)
		if err != nil || value == nil {
			return err
		}
		text, err := w.bundleWriter.codec.AppendJSON(nil, value)
		if err != nil {
			return fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		line, err := json.Marshal(bundleLine{Offset: r.Offset, At: r.At, Replay: r.Replay, Record: text})
		if err != nil {
			return fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		if out == nil {
			if out, err = w.createFile(fmt.Sprintf("%d/%s.jsonl", w.part.ID, name)); err != nil {
				return err
			}
		}
		*count++
		_, err = out.Write(append(line, '\n'))
		return err
	})
}

// writeClicks writes the partner's clicks of the tokens that have events.
func (w *bundlePartition) writeClicks(ctx context.Context) error {
	return w.writeRecords(ctx, topic.Clicks, &w.counts.Clicks, func(r *Record) (any, error) {
		raw, ok := shownToken(r)
		if !ok || !w.isWanted(&raw) || w.tokens[raw] {
			return nil, nil
		}
		k := new(event.Click)
		if err := w.bundleWriter.codec.DecodeClick(r.Value, k); err != nil {
			if event.Unreadable(err) && !errors.Is(err, event.ErrUnknownSchema) {
				return nil, nil
			}
			return nil, fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		if k.WorkspaceID != w.cfg.Workspace || k.PartnerID != w.cfg.Partner {
			return nil, nil
		}
		w.tokens[raw] = true
		return k, nil
	})
}

// writeOutcomes writes the rows of the partner's tokens. A token whose click is gone is
// his if a row says so.
func (w *bundlePartition) writeOutcomes(ctx context.Context) error {
	return w.writeRecords(ctx, topic.Outcomes, &w.counts.Outcomes, func(r *Record) (any, error) {
		o := new(event.Outcome)
		if err := w.bundleWriter.codec.DecodeOutcome(r.Value, o); err != nil {
			return nil, fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		raw, err := token.Parse(string(r.Key))
		if err != nil || o.WorkspaceID != w.cfg.Workspace || !w.isWanted(&raw) {
			return nil, nil
		}
		if !w.tokens[raw] {
			if o.Click == nil || o.Click.PartnerID != w.cfg.Partner {
				return nil, nil
			}
			w.tokens[raw] = true
		}
		o.CustomerRef = ""
		o.Metadata = nil
		o.ContentSHA256 = w.hideHash(o.ContentSHA256)
		return o, nil
	})
}

// writeConversions writes the events of the partner's tokens.
func (w *bundlePartition) writeConversions(ctx context.Context) error {
	return w.writeRecords(ctx, topic.Conversions, &w.counts.Conversions, func(r *Record) (any, error) {
		ev := new(event.Conversion)
		raw, ok, err := w.decodeEvent(r, ev)
		if err != nil || !ok || !w.tokens[raw] {
			return nil, err
		}
		if ev.WorkspaceID != w.cfg.Workspace {
			return strangersEvent(ev), nil
		}
		ev.CustomerRef = ""
		ev.CustomerHash = nil
		ev.Metadata = nil
		ev.References = nil
		ev.KeyID = ""
		ev.ContentSHA256 = w.hideHash(ev.ContentSHA256)
		return ev, nil
	})
}

// strangersEvent is what is left of an event of another workspace: the rules look at
// when it came, and at nothing else of it.
func strangersEvent(ev *event.Conversion) *event.Conversion {
	return &event.Conversion{
		WorkspaceID: "(another workspace)",
		EventID:     "(not shown)",
		ClickToken:  ev.ClickToken,
		Type:        event.Lead,
		OccurredAt:  ev.EnteredAt,
		ReceivedAt:  ev.EnteredAt,
		EnteredAt:   ev.EnteredAt,
		ResolvedBy:  event.ResolvedByToken,
	}
}

// hideHash makes a hash of which only equality can be seen.
func (b *bundleWriter) hideHash(hash [32]byte) [32]byte {
	mac := hmac.New(sha256.New, b.key)
	mac.Write(hash[:])
	return [32]byte(mac.Sum(nil))
}

// noteWanted notes the tokens that have an event of the workspace within the days.
func (r *partitionRun) noteWanted(ctx context.Context) error {
	var ev event.Conversion
	err := r.eachRecord(ctx, topic.Conversions, func(record *Record) error {
		raw, ok, err := r.decodeEvent(record, &ev)
		if err == nil && ok && ev.WorkspaceID == r.Workspace && r.isInRange(ev.OccurredAt) {
			r.wanted = append(r.wanted, tokenKey(&raw))
		}
		return err
	})
	r.sortWanted()
	return err
}
