package event_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/avro"
)

// golden is the wire bytes of a golden file: the dump before its empty line.
func golden(t *testing.T, record string, version int) []byte {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("%s.v%d.golden", strings.ToLower(record), version)))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for lines := bufio.NewScanner(bytes.NewReader(file)); lines.Scan() && lines.Text() != ""; {
		if len(lines.Text()) < 58 {
			t.Fatalf("not a line of a dump: %q", lines.Text())
		}
		digits := strings.ReplaceAll(lines.Text()[10:58], " ", "")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

// grown is a schema as its next version may look: with one more field, which has a
// default.
func grown(t *testing.T, schema string) string {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(schema), &s); err != nil {
		t.Fatal(err)
	}
	s["fields"] = append(s["fields"].([]any), map[string]any{"name": "added", "type": "string", "default": "none"})
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What schemas/README.md promises for a record that grows by a field with a default:
// the next version's reader reads the records in the log, with the default; today's
// reader, by Avro's resolution, reads what the next version writes, without the field.
// Both over the golden bytes.
func TestNextVersionIsCompatible(t *testing.T) {
	for _, s := range event.Schemas() {
		t.Run(s.Record, func(t *testing.T) {
			old, err := avro.Parse(s.JSON)
			if err != nil {
				t.Fatal(err)
			}
			next, err := avro.Parse(grown(t, s.JSON))
			if err != nil {
				t.Fatal(err)
			}
			decode := func(schema *avro.Schema, b []byte) map[string]any {
				t.Helper()
				v := map[string]any{}
				rest, err := schema.Decode(b, &v)
				if err != nil || len(rest) != 0 {
					t.Fatalf("decoding: %v, %d bytes left", err, len(rest))
				}
				return v
			}
			text := func(v map[string]any) string {
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			wire := golden(t, s.Record, s.Version)[event.FramingLen:]
			today := decode(old, wire)

			newReader, err := avro.Resolve(old, next)
			if err != nil {
				t.Fatal(err)
			}
			got := decode(newReader, wire)
			if got["added"] != "none" {
				t.Errorf("new reader, old writer: added is %v", got["added"])
			}
			want := maps.Clone(today)
			want["added"] = "none"
			if text(got) != text(want) {
				t.Errorf("new reader, old writer:\n%s\nwant\n%s", text(got), text(want))
			}

			want["added"] = "something"
			written, err := next.AppendEncode(nil, want)
			if err != nil {
				t.Fatal(err)
			}
			oldReader, err := avro.Resolve(next, old)
			if err != nil {
				t.Fatal(err)
			}
			if got := decode(oldReader, written); text(got) != text(today) {
				t.Errorf("old reader, new writer:\n%s\nwant\n%s", text(got), text(today))
			}
		})
	}
}

// A program that does not know a schema id refuses the record by name: it never
// guesses. Hence readers first, writers second.
func TestUnknownVersionIsRefused(t *testing.T) {
	b := golden(t, "Conversion", 1)
	b[4] = 99
	var c event.Conversion
	if err := event.DefaultCodec().DecodeConversion(b, &c); !errors.Is(err, event.ErrUnknownSchema) ||
		!strings.Contains(err.Error(), "99") {
		t.Errorf("got %v", err)
	}
	if _, err := event.NewCodec(append(event.DefaultIDs(),
		event.ID{ID: 99, Record: "Conversion", Version: 99})); err == nil ||
		!strings.Contains(err.Error(), `record "Conversion" version 99`) {
		t.Errorf("got %v", err)
	}
}

// Today's codec reads every golden file of every version.
func TestGoldenIsRead(t *testing.T) {
	c := event.DefaultCodec()
	for _, s := range event.Schemas() {
		b := golden(t, s.Record, s.Version)
		if record, _, err := c.Text(b); err != nil || record != s.Record {
			t.Errorf("%s: %q, %v", s.Record, record, err)
		}
	}
}

// A record of version 1 has the defaults that its fields had then: an event entered the
// log when it was received, by a token that it named; nothing follows.
func TestFirstVersionsAreRead(t *testing.T) {
	c := event.DefaultCodec()
	click, conversion, outcome := sampleClick(), sampleConversion(), sampleOutcome()
	progress, rejection := sampleProgress(), sampleRejection()
	click.FollowMs, click.OneSalePerOrder = 0, false
	conversion.EnteredAt = conversion.ReceivedAt
	conversion.CustomerHash, conversion.References = nil, nil
	conversion.ResolvedBy, conversion.ReferenceAmbiguous = event.ResolvedByToken, false
	outcome.StandingChangeMinor, outcome.Metadata, outcome.ResolvedBy = nil, nil, event.ResolvedByToken
	outcome.Click = click
	progress.Watermark, progress.ClickLifeMs, progress.JourneyLifeMs = 0, 0, 0
	rejection.Type, rejection.OrderID, rejection.ParentEventID, rejection.CustomerHash = "", "", "", nil

	check := func(record string, want, got any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", record, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s version 1:\n%s", record, d)
		}
	}
	var k event.Click
	check("Click", click, &k, c.DecodeClick(golden(t, "Click", 1), &k))
	var v event.Conversion
	check("Conversion", conversion, &v, c.DecodeConversion(golden(t, "Conversion", 1), &v))
	var o event.Outcome
	check("Outcome", outcome, &o, c.DecodeOutcome(golden(t, "Outcome", 1), &o))
	var p event.Progress
	check("Progress", progress, &p, c.DecodeProgress(golden(t, "Progress", 1), &p))
	var r event.Rejection
	check("Rejection", rejection, &r, c.DecodeRejection(golden(t, "Rejection", 1), &r))
}

// An outcome embeds a click that was stored under version 1 in today's form.
func TestOutcomeOfFirstClick(t *testing.T) {
	c := event.DefaultCodec()
	wire := golden(t, "Click", 1)
	b, err := c.AppendOutcome(nil, sampleOutcome(), wire)
	if err != nil {
		t.Fatal(err)
	}
	want := sampleOutcome()
	want.Click.FollowMs, want.Click.OneSalePerOrder = 0, false
	var got event.Outcome
	if err := c.DecodeOutcome(b, &got); err != nil || !cmp.Equal(want, &got) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, &got))
	}
}
