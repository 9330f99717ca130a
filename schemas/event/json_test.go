package event

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What AppendJSON writes, DecodeJSON reads: absent and present numbers, maps, bytes and
// a snapshot.
func TestJSON(t *testing.T) {
	c := DefaultCodec()
	amount, quantity, first := int64(-1<<63), int32(7), int64(0)
	click := &Click{ClickToken: "t", WorkspaceID: "w\n\"", WindowMs: 1 << 60, AssignedAt: 5, IsBot: true,
		TokenStatus: TokenOff, Trigger: TriggerQR}
	for _, v := range []any{
		click,
		&Conversion{EventID: "e", Type: Refund, ResolvedBy: ResolvedByOrder},
		&Conversion{EventID: "\u2028ü", Type: Sale, AmountMinor: &amount, Quantity: &quantity,
			ResolvedBy: ResolvedByToken, Metadata: map[string]string{"k": "v"}, References: []string{"order"},
			ContentSHA256: [32]byte{0, 255, 128}, CustomerHash: []byte("0123456789abcdef")},
		&Outcome{Verdict: Reversed, Type: Lead, Review: ReviewNeeded, ResolvedBy: ResolvedByNone,
			Flags: []string{"a", "b"}, FirstOffset: &first, StandingChangeMinor: &amount, Effect: -1, Click: click},
		&Outcome{Verdict: Unattributed, Type: Lead, Review: ReviewClear, ResolvedBy: ResolvedByNone},
	} {
		text, err := c.AppendJSON(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		switch v.(type) {
		case *Click:
			got = new(Click)
		case *Conversion:
			got = new(Conversion)
		case *Outcome:
			got = new(Outcome)
		}
		if err := c.DecodeJSON(text, got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := c.AppendJSON(nil, got)
		if err != nil || string(again) != string(text) {
			t.Errorf("%s became %s: %v", text, again, err)
		}
		wire, want := encodeAny(t, c, got), encodeAny(t, c, v)
		if d := cmp.Diff(want, wire); d != "" {
			t.Errorf("%s has other bytes: %s", text, d)
		}
	}
	if err := c.DecodeJSON([]byte(`{"event_id":1}`), new(Conversion)); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrong JSON: %v", err)
	}
	if _, err := c.AppendJSON(nil, Progress{}); err == nil {
		t.Error("a Progress has a form in JSON")
	}
}

func encodeAny(t *testing.T, c *Codec, v any) (wire []byte) {
	t.Helper()
	var err error
	switch v := v.(type) {
	case *Click:
		wire, err = c.AppendClick(nil, v)
	case *Conversion:
		wire, err = c.AppendConversion(nil, v)
	case *Outcome:
		wire, err = c.AppendOutcome(nil, v, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return wire
}
