package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicMapping is how the records of one topic become rows of its table.
type topicMapping struct {
	topic string // without prefix
	table string // base table
	// mayReplay: a record with the header `replay` may be in the table already.
	mayReplay bool
	// deadLetteredElsewhere: unreadable records are only left out here. The processor
	// dead-letters conversions, in its own transaction.
	deadLetteredElsewhere bool
	// bound: a record belongs into the partition of the token that is its key.
	bound bool
	// largeBatches: latency matters less than the number of inserts.
	largeBatches bool
	// dedupGroup are the topics, this one included, whose inserts reach a common table
	// through views. They share its deduplication window.
	dedupGroup []string
	// latencyFrom is the label of the metric visible_seconds; empty: not measured.
	latencyFrom string
	// isSummed: a view adds the rows to the rollup.
	isSummed bool
	// lookups are the tables by which views find the rows by their ids. A row that is there
	// twice changes nothing, so they are repaired by inserting rows again.
	lookups []string
	// isCompacted: the log forgets records that the table keeps.
	isCompacted bool
	newRows     func() rowBuffer
}

// topicMappings returns one mapping for each topic that the sink reads.
func topicMappings(codec *event.Codec) []topicMapping {
	codec = codec.Aliasing() // a batch holds its records until they are in the table: rows need no copies
	rollup := []string{topic.Clicks, topic.Outcomes}
	return []topicMapping{
		{
			topic:        topic.Clicks,
			table:        "clicks",
			mayReplay:    true,
			bound:        true,
			largeBatches: true,
			dedupGroup:   rollup,
			latencyFrom:  "click",
			isSummed:     true,
			newRows:      func() rowBuffer { return newClickRows(codec) },
		},
		{
			topic:                 topic.Conversions,
			table:                 "conversions",
			deadLetteredElsewhere: true,
			bound:                 true,
			dedupGroup:            []string{topic.Conversions},
			lookups:               []string{"conversions_by_key"},
			newRows:               func() rowBuffer { return newConversionRows(codec) },
		},
		{
			topic:       topic.Outcomes,
			table:       "outcomes",
			dedupGroup:  rollup,
			latencyFrom: "receipt",
			isSummed:    true,
			lookups:     []string{"effects_by_event_id", "sales_by_order_id", "outcomes_by_key"},
			newRows:     func() rowBuffer { return newOutcomeRows(codec) },
		},
		{
			topic:      topic.Rejections,
			table:      "rejections",
			dedupGroup: []string{topic.Rejections},
			newRows:    func() rowBuffer { return newRejectionRows(codec) },
		},
		{
			topic:      topic.Progress,
			table:      "progress",
			dedupGroup: []string{topic.Progress},
			newRows:    func() rowBuffer { return newProgressRows(codec) },
		},
		{
			topic:       topic.Catalog,
			table:       "catalog_versions",
			dedupGroup:  []string{topic.Catalog},
			isCompacted: true,
			newRows:     func() rowBuffer { return newCatalogRows() },
		},
	}
}

func newClickRows(codec *event.Codec) *typedRows[event.Click] {
	decode := func(r *kgo.Record, c *event.Click) error {
		if err := codec.DecodeClick(r.Value, c); err != nil {
			return err
		}
		return checkKey(r, c.ClickToken)
	}
	rows := newTypedRows(decode, func(c *event.Click) event.Millis { return c.ClickedAt }, clickColumns())
	rows.summedAt = func(c *event.Click) event.Millis { return c.ClickedAt }
	rows.readFields(codec.ClickFields(), map[string]func(*event.Click, event.Millis){
		"clicked_at": func(c *event.Click, at event.Millis) { c.ClickedAt = at },
	})
	return rows.measureLatency(func(_ *kgo.Record, c *event.Click) (event.Millis, bool) {
		return c.ClickedAt, true
	})
}

func newConversionRows(codec *event.Codec) *typedRows[event.Conversion] {
	decode := func(r *kgo.Record, v *event.Conversion) error {
		if err := codec.DecodeConversion(r.Value, v); err != nil {
			return err
		}
		if err := checkKey(r, v.ClickToken); err != nil {
			return err
		}
		// The processor keys journeys by the raw bytes of the token, so text that is no
		// token is unreadable to it. Both must leave out the same records.
		_, err := token.Parse(v.ClickToken)
		return err
	}
	return newTypedRows(decode, func(v *event.Conversion) event.Millis { return v.ReceivedAt }, conversionColumns())
}

func newOutcomeRows(codec *event.Codec) *typedRows[event.Outcome] {
	decode := func(r *kgo.Record, o *event.Outcome) error {
		if err := codec.DecodeOutcome(r.Value, o); err != nil {
			return err
		}
		return checkKey(r, o.ClickToken)
	}
	rows := newTypedRows(decode, func(o *event.Outcome) event.Millis { return o.DecidedAt }, outcomeColumns())
	rows.summedAt = func(o *event.Outcome) event.Millis { return o.OccurredAt }
	rows.readFields(codec.OutcomeFields(), map[string]func(*event.Outcome, event.Millis){
		"occurred_at": func(o *event.Outcome, at event.Millis) { o.OccurredAt = at },
		"received_at": func(o *event.Outcome, at event.Millis) { o.ReceivedAt = at },
		"decided_at":  func(o *event.Outcome, at event.Millis) { o.DecidedAt = at },
	})
	version := slices.IndexFunc(codec.OutcomeFields().Fields(), func(f event.Field) bool {
		return f.Name == "rules_version"
	})
	rows.fields.usual = func(values []event.FieldValue) bool {
		return values[version].Number >= 2 // see standingChange
	}
	return rows.measureLatency(func(r *kgo.Record, o *event.Outcome) (event.Millis, bool) {
		_, hasWaited := kafka.Header(r, topic.HeaderWaited) // for its click or parent
		return o.ReceivedAt, !hasWaited
	})
}

func newRejectionRows(codec *event.Codec) *typedRows[event.Rejection] {
	decode := func(r *kgo.Record, v *event.Rejection) error { return codec.DecodeRejection(r.Value, v) }
	return newTypedRows(decode, func(v *event.Rejection) event.Millis { return v.ReceivedAt }, rejectionColumns())
}

func newProgressRows(codec *event.Codec) *typedRows[event.Progress] {
	decode := func(r *kgo.Record, p *event.Progress) error { return codec.DecodeProgress(r.Value, p) }
	return newTypedRows(decode, func(p *event.Progress) event.Millis { return p.At }, progressColumns())
}

func newCatalogRows() *typedRows[catalogVersion] {
	return newTypedRows(decodeCatalogVersion, func(v *catalogVersion) event.Millis { return v.at },
		catalogVersionColumns())
}

// checkKey returns an error unless a record's key is the click token in its value.
func checkKey(r *kgo.Record, token string) error {
	if string(r.Key) != token {
		return fmt.Errorf("%w: key %q, token %q", errKey, r.Key[:min(len(r.Key), 64)], token[:min(len(token), 64)])
	}
	return nil
}

// decodeCatalogVersion reads a record of the catalog. Its key is kind/…; its value is a
// JSON object, or empty if the entry was removed. The key of a workspace, program or
// partner contains the workspace; the value of a domain or link does.
func decodeCatalogVersion(r *kgo.Record, v *catalogVersion) error {
	kind, rest, ok := strings.Cut(string(r.Key), "/")
	if !ok || kind == "" || rest == "" {
		return fmt.Errorf("%w: key %q", errCatalog, r.Key[:min(len(r.Key), 64)])
	}
	*v = catalogVersion{kind: kind, key: string(r.Key), json: string(r.Value), at: event.MillisOf(r.Timestamp)}
	if kind == "workspace" || kind == "program" || kind == "partner" {
		v.workspace, _, _ = strings.Cut(rest, "/")
	}
	if len(r.Value) == 0 {
		return nil
	}
	var owner struct {
		Workspace string `json:"workspace"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(r.Value), []byte("{")) {
		return fmt.Errorf("%w: the value is not a JSON object", errCatalog)
	}
	if err := json.Unmarshal(r.Value, &owner); err != nil {
		return fmt.Errorf("%w: %w", errCatalog, err)
	}
	if v.workspace == "" {
		v.workspace = owner.Workspace
	}
	return nil
}
