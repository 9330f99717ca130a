package topic

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The record as the first release with it writes it. Never change it: add another.
const goldenInstall = `{"epochs":[{"from":"0001-01-01T00:00:00Z","partitions":6}],` +
	`"topics":{"catalog":{"id":"pzu2rYQcTUe5JzBsjkjWqA","partitions":1},` +
	`"clicks":{"id":"0I8YpOt0RpuH7r5gXwcVkg","partitions":6}}}`

func TestInstallGolden(t *testing.T) {
	install := Install{Epochs: OneEpoch(6), Topics: map[string]Installed{
		Clicks:  {ID: "0I8YpOt0RpuH7r5gXwcVkg", Partitions: 6},
		Catalog: {ID: "pzu2rYQcTUe5JzBsjkjWqA", Partitions: 1},
	}}
	value, err := install.Encode()
	if err != nil || string(value) != goldenInstall {
		t.Errorf("got %s %v\nwant %s", value, err, goldenInstall)
	}
	read, err := ParseInstall([]byte(goldenInstall))
	if diff := cmp.Diff(install, read); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// A record of a later release has further epochs, and nothing that is not known.
func TestParseInstall(t *testing.T) {
	grown := strings.Replace(goldenInstall, `"partitions":6}]`,
		`"partitions":6},{"from":"2027-01-01T00:00:00Z","partitions":8}]`, 1)
	read, err := ParseInstall([]byte(grown))
	if err != nil || read.Epochs.Now() != 8 || !read.Epochs[1].From.Equal(
		time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v %v", read, err)
	}
	refused := func(old, replacement, want string) {
		t.Helper()
		value := strings.Replace(goldenInstall, old, replacement, 1)
		if _, err := ParseInstall([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
	refused(`"epochs"`, `"rules":2,"epochs"`, `"rules"`)
	refused(`"partitions":6}]`, `"partitions":0}]`, "partition epochs: epoch 0 has 0 partitions")
	refused(`0001-01-01`, `2027-01-01`, "the first must begin at the zero time")
	refused(`"partitions":1`, `"partitions":0`, "topics: catalog has 0 partitions")
	refused(`"id":"pzu2rYQcTUe5JzBsjkjWqA",`, ``, "topics: catalog has no id")
	refused(`}}}`, ``, "reading record install/partitions")
}

// FuzzParseInstall: whatever is accepted is written and read again as the same.
func FuzzParseInstall(f *testing.F) {
	f.Add([]byte(goldenInstall))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		install, err := ParseInstall(value)
		if err != nil {
			return
		}
		again, err := install.Encode()
		if err != nil {
			t.Fatal(err)
		}
		read, err := ParseInstall(again)
		if diff := cmp.Diff(install, read); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", again, err, diff)
		}
	})
}
