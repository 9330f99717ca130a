package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Errors of records whose bytes alone make them useless, beside those of the codec.
// Like those, another attempt would fail as well.
var (
	errKey     = errors.New("key differs from click token")
	errCatalog = errors.New("malformed catalog record")
)

// topicMapping is one topic's way into its table.
type topicMapping struct {
	topic string // without prefix
	table string
	// mayReplay: records with the header `replay` may be in the table already.
	mayReplay bool
	// deadLetteredElsewhere: an unreadable record is somebody else's to dead-letter. The processor
	// does so for conversions, in its transaction.
	deadLetteredElsewhere bool
	// largeBatches: nobody waits for a single record.
	largeBatches bool
	// dedupGroup are the topics, this one included, whose inserts share a table somewhere
	// down the chain, and with it a deduplication window.
	dedupGroup []string
	// latencyFrom is what the way of a row to the tables is measured from; empty: it is not.
	latencyFrom string
	newRows     func() rowBuffer
}

// topicMappings lists all topics that the sink reads.
func topicMappings(codec *event.Codec) []topicMapping {
	codec = codec.Aliasing() // a batch holds its records until it is in the table: its rows need no copies
	rollup := []string{topic.Clicks, topic.Outcomes}
	return []topicMapping{
		{topic: topic.Clicks, table: "clicks", mayReplay: true, largeBatches: true, dedupGroup: rollup,
			latencyFrom: "click", newRows: func() rowBuffer {
				return newTypedRows(func(r *kgo.Record, c *event.Click) error {
					return checkKey(r, codec.DecodeClick(r.Value, c), c.ClickToken)
				}, func(c *event.Click) event.Millis {
					return c.ClickedAt
				}, clickColumns()).measureLatency(func(_ *kgo.Record, c *event.Click) (event.Millis, bool) {
					return c.ClickedAt, true
				})
			}},
		{topic: topic.Conversions, table: "conversions", deadLetteredElsewhere: true, dedupGroup: []string{topic.Conversions},
			newRows: func() rowBuffer {
				return newTypedRows(func(r *kgo.Record, v *event.Conversion) error {
					err := checkKey(r, codec.DecodeConversion(r.Value, v), v.ClickToken)
					if err == nil {
						// The processor keeps journeys by a token's raw bytes, so to it
						// text that is no token is unreadable: both must leave out the
						// same records.
						_, err = token.Parse(v.ClickToken)
					}
					return err
				}, func(v *event.Conversion) event.Millis { return v.ReceivedAt }, conversionColumns())
			}},
		{topic: topic.Outcomes, table: "outcomes", dedupGroup: rollup, latencyFrom: "receipt", newRows: func() rowBuffer {
			return newTypedRows(func(r *kgo.Record, o *event.Outcome) error {
				return checkKey(r, codec.DecodeOutcome(r.Value, o), o.ClickToken)
			}, func(o *event.Outcome) event.Millis {
				return o.DecidedAt
			}, outcomeColumns()).measureLatency(func(r *kgo.Record, o *event.Outcome) (event.Millis, bool) {
				return o.ReceivedAt, !hasWaited(r)
			})
		}},
		{topic: topic.Rejections, table: "rejections", dedupGroup: []string{topic.Rejections}, newRows: func() rowBuffer {
			return newTypedRows(func(r *kgo.Record, v *event.Rejection) error {
				return codec.DecodeRejection(r.Value, v)
			}, func(v *event.Rejection) event.Millis { return v.ReceivedAt }, rejectionColumns())
		}},
		{topic: topic.Progress, table: "progress", dedupGroup: []string{topic.Progress}, newRows: func() rowBuffer {
			return newTypedRows(func(r *kgo.Record, p *event.Progress) error {
				return codec.DecodeProgress(r.Value, p)
			}, func(p *event.Progress) event.Millis { return p.At }, progressColumns())
		}},
		{topic: topic.Catalog, table: "catalog_versions", dedupGroup: []string{topic.Catalog}, newRows: func() rowBuffer {
			return newTypedRows(decodeCatalogVersion, func(v *catalogVersion) event.Millis { return v.at }, catalogVersionColumns())
		}},
	}
}

// hasWaited reports whether an outcome's event waited for its click or parent.
func hasWaited(r *kgo.Record) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == topic.HeaderWaited })
}

// checkKey adds the check that the key is the token. err is what the decoder said.
func checkKey(r *kgo.Record, err error, text string) error {
	if err == nil && string(r.Key) != text {
		return fmt.Errorf("%w: key %q, token %q", errKey, r.Key[:min(len(r.Key), 64)], text[:min(len(text), 64)])
	}
	return err
}

// isUnreadable tells records that are useless by their bytes from everything else.
func isUnreadable(err error) bool {
	return event.Unreadable(err) || errors.Is(err, errKey) || errors.Is(err, token.ErrMalformed) ||
		errors.Is(err, errCatalog)
}

// decodeCatalogVersion reads a record of the catalog: the key is kind/…, the value a JSON
// object, or nothing for a record that was removed. The workspace stands in the key of
// a workspace, program or partner and in the value of a domain or link.
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
