package topic

import (
	"strings"
	"testing"
	"time"
)

// The record as the first release with it writes it. Never change it: add another.
const goldenPlacedSince = `{"since":"2026-12-01T06:12:15.123Z"}`

func TestPlacedSinceGolden(t *testing.T) {
	since := time.Date(2026, 12, 1, 7, 12, 15, 123_456_789, time.FixedZone("", 3600))
	value, err := PlacedSince{since}.Encode()
	if err != nil || string(value) != goldenPlacedSince {
		t.Errorf("got %s %v\nwant %s", value, err, goldenPlacedSince)
	}
	read, err := ParsePlacedSince([]byte(goldenPlacedSince))
	if err != nil || !read.Since.Equal(since.Truncate(time.Millisecond)) {
		t.Errorf("%v %v", read, err)
	}
}

func TestParsePlacedSince(t *testing.T) {
	refused := func(value, want string) {
		t.Helper()
		if _, err := ParsePlacedSince([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
	refused(`{}`, "reading record install/placed-since: since: missing")
	refused(`{"since":"2026-12-01T06:12:15.1234Z"}`, "a part of a millisecond")
	refused(`{"since":"2026-12-01T06:12:15Z","until":1}`, `"until"`)
	refused(`{"since":`, "reading record install/placed-since")
}

// FuzzParsePlacedSince: whatever is accepted is written and read again as the same.
func FuzzParsePlacedSince(f *testing.F) {
	f.Add([]byte(goldenPlacedSince))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := ParsePlacedSince(value)
		if err != nil {
			return
		}
		again, err := p.Encode()
		if err != nil {
			return // a zone can move a time out of the years that JSON has
		}
		if read, err := ParsePlacedSince(again); err != nil || !read.Since.Equal(p.Since) {
			t.Errorf("%s: %v %v", again, read, err)
		}
	})
}
