package event_test

import (
	"bytes"
	"testing"

	"github.com/nimriz/partners/schemas/event"
)

// The link part is where only the link's fields follow: two visits of a link have the
// same bytes from there, and visits of two links differ behind it alone.
func TestLinkPart(t *testing.T) {
	c := event.DefaultCodec()
	encode := func(k *event.Click) (visit, link []byte) {
		b, err := c.AppendClick(nil, k)
		if err != nil {
			t.Fatal(err)
		}
		at := c.LinkPart(b)
		return b[:at], b[at:]
	}
	full := sampleClick()
	bare := &event.Click{TokenStatus: event.TokenOff, Trigger: event.TriggerLink}
	visitOf := func(visit, link *event.Click) *event.Click {
		k := *link
		k.ClickToken, k.ClickedAt = visit.ClickToken, visit.ClickedAt
		k.TokenStatus, k.TokenReason, k.Trigger = visit.TokenStatus, visit.TokenReason, visit.Trigger
		k.Sub1, k.Sub2, k.Sub3, k.Sub4, k.Sub5 = visit.Sub1, visit.Sub2, visit.Sub3, visit.Sub4, visit.Sub5
		k.ReferrerHost, k.Country = visit.ReferrerHost, visit.Country
		k.Device, k.OS, k.Browser = visit.Device, visit.OS, visit.Browser
		k.IsBot, k.BotReason = visit.IsBot, visit.BotReason
		return &k
	}
	fullVisit, fullLink := encode(full)
	bareVisit, bareLink := encode(bare)
	mixedVisit, mixedLink := encode(visitOf(bare, full))
	if !bytes.Equal(mixedVisit, bareVisit) || !bytes.Equal(mixedLink, fullLink) {
		t.Errorf("a bare visit of the full link: %q and %q", mixedVisit, mixedLink)
	}
	mixedVisit, mixedLink = encode(visitOf(full, bare))
	if !bytes.Equal(mixedVisit, fullVisit) || !bytes.Equal(mixedLink, bareLink) {
		t.Errorf("a full visit of the bare link: %q and %q", mixedVisit, mixedLink)
	}
}

// Whatever has no link part is a visit as a whole.
func TestNoLinkPart(t *testing.T) {
	c := event.DefaultCodec()
	whole, err := c.AppendClick(nil, sampleClick())
	if err != nil {
		t.Fatal(err)
	}
	unknown := append([]byte{0, 0xff, 0xff, 0xff, 0xff}, whole[event.FramingLen:]...)
	for name, b := range map[string][]byte{
		"nothing":      nil,
		"framing only": whole[:event.FramingLen],
		"cut":          whole[:c.LinkPart(whole)-1],
		"version 1":    golden(t, "Click", 1),
		"unknown id":   unknown,
		"conversion":   encodeAll(t, c)["Conversion"],
	} {
		if at := c.LinkPart(b); at != len(b) {
			t.Errorf("%s: the link part begins at %d of %d", name, at, len(b))
		}
	}
}

func FuzzLinkPart(f *testing.F) {
	c := event.DefaultCodec()
	for _, b := range encodeAll(f, c) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if at := c.LinkPart(b); at < 0 || at > len(b) {
			t.Fatal(at, len(b))
		}
	})
}
