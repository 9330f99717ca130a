package daemon

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

func TestDaysFlag(t *testing.T) {
	life := 40 * 24 * time.Hour
	fs := NewFlags("x", "test")
	DaysFlag(fs, &life, "click-life", "how `long`")
	parse := func(text string) error {
		return Parse(fs, nil, func(string) (string, bool) { return text, true })
	}
	good := func(text string, want time.Duration) {
		t.Helper()
		if err := parse(text); err != nil || life != want {
			t.Errorf("%s: %v, %v; want %v", text, life, err, want)
		}
	}
	good("3d", 72*time.Hour)
	good("0d", 0)
	good("36h", 36*time.Hour)
	good("1h30m", 90*time.Minute)
	good("500ms", 500*time.Millisecond)
	good("65535d", 65535*24*time.Hour)
	for _, text := range []string{"", "d", "-1d", "1.5d", "65536d", "40", "1d12h", "soon"} {
		if err := parse(text); err == nil || !strings.Contains(err.Error(), "PARTNERS_CLICK_LIFE: want a ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The usage prints the default in the unit in which people give it.
func TestDaysFlagUsage(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		fs := NewFlags("x", "test")
		DaysFlag(fs, &d, "click-life", "how `long`")
		var out bytes.Buffer
		fs.SetOutput(&out)
		fs.Usage()
		if !strings.Contains(out.String(), "-click-life long\n    \thow long"+want+"\n") {
			t.Errorf("%v: %s", d, out.String())
		}
	}
	f(960*time.Hour, " (default 40d)")
	f(36*time.Hour, " (default 36h0m0s)")
	f(5*time.Second, " (default 5s)")
	f(0, "")
}

func TestClickHouseFlag(t *testing.T) {
	var cfg clickhouse.Config
	fs := NewFlags("x", "test")
	ClickHouseFlag(fs, &cfg)
	const dsn = "http://user@host:8123/partners"
	environ := func(name string) (string, bool) { return dsn, name == "PARTNERS_CLICKHOUSE" }
	if err := Parse(fs, nil, environ); err != nil || cfg.DSN != dsn {
		t.Errorf("%q, %v", cfg.DSN, err)
	}
}
