package topic

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The record as the first release with it writes it. Never change it: add another.
const goldenGrowth = `{"partitions":8,"from":"2026-12-01T06:20:15Z"}`

func TestGrowthGolden(t *testing.T) {
	growth := Growth{Partitions: 8, From: time.Date(2026, 12, 1, 7, 20, 15, 0, time.FixedZone("", 3600))}
	value, err := growth.Encode()
	if err != nil || string(value) != goldenGrowth {
		t.Errorf("got %s %v\nwant %s", value, err, goldenGrowth)
	}
	read, err := ParseGrowth([]byte(goldenGrowth))
	if err != nil || read.Partitions != 8 || !read.From.Equal(growth.From) {
		t.Errorf("%v %v", read, err)
	}
}

func TestParseGrowth(t *testing.T) {
	refused := func(value, want string) {
		t.Helper()
		if _, err := ParseGrowth([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
	refused(`{}`, "reading record install/growth: partitions: 0")
	refused(`{"partitions":8}`, "from: missing")
	refused(`{"partitions":8,"from":"2026-12-01T06:20:15.5Z"}`, "a part of a second")
	refused(`{"partitions":8,"from":"2026-12-01T06:20:15Z","to":1}`, `"to"`)
	refused(`{"partitions":`, "reading record install/growth")
}

// FuzzParseGrowth: whatever is accepted is written and read again as the same.
func FuzzParseGrowth(f *testing.F) {
	f.Add([]byte(goldenGrowth))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		g, err := ParseGrowth(value)
		if err != nil {
			return
		}
		again, err := g.Encode()
		if err != nil {
			return // a zone can move a time out of the years that JSON has
		}
		if read, err := ParseGrowth(again); err != nil || read.Partitions != g.Partitions || !read.From.Equal(g.From) {
			t.Errorf("%s: %v %v", again, read, err)
		}
	})
}

// Whatever epochs follow, a token stays where it was minted, in one of the partitions that
// were there then; the partitions that were added get tokens of later epochs only.
func TestEpochsKeepTokens(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Int32Range(1, 12).Draw(t, "first")
		epochs, at := OneEpoch(first), start
		history := []Epochs{epochs}
		for range rapid.IntRange(0, 4).Draw(t, "growths") {
			at = at.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "later")) * time.Second)
			more := rapid.Int32Range(1, 8).Draw(t, "more")
			epochs = epochs.Grown(Growth{Partitions: epochs.Now() + more, From: at})
			history = append(history, epochs)
		}
		if err := epochs.Validate(); err != nil {
			t.Fatal(err)
		}
		token := rapid.StringMatching(`[0-9A-Za-z]{27}`).Draw(t, "token")
		minted := start.Add(time.Duration(rapid.IntRange(-2, 25).Draw(t, "minted")) * time.Second)
		home := epochs.Partition(token, minted)
		for i, known := range history {
			begun := i+1 < len(history) && !minted.Before(epochs[i+1].From)
			if got := known.Partition(token, minted); !begun && got != home {
				t.Fatalf("minted before %v: in %d, and later in %d", epochs[min(i+1, len(epochs)-1)].From, got, home)
			}
		}
		if epochs.IsAdded(home) && minted.Before(epochs[1].From) {
			t.Fatalf("a token of the first epoch in partition %d, which was added", home)
		}
		for p := range epochs.Now() {
			if epochs.IsAdded(p) != (p >= first) {
				t.Fatalf("partition %d, first there are %d: added %v", p, first, epochs.IsAdded(p))
			}
		}
	})
}
