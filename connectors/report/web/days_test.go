package web

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// Days are the workspace's, or those of UTC; no other zone is taken, and the refusal
// names the two.
func TestZoneOfDays(t *testing.T) {
	for _, c := range []struct{ own, tz, want, refusal string }{
		{"Europe/Berlin", "", "Europe/Berlin", ""},
		{"Europe/Berlin", "Europe/Berlin", "Europe/Berlin", ""},
		{"Europe/Berlin", "UTC", "UTC", ""},
		{"Europe/Berlin", "utc", "", `"utc" is neither UTC nor the workspace's timezone, Europe/Berlin`},
		{"Europe/Berlin", "Europe/Paris", "", `"Europe/Paris" is neither UTC nor the workspace's timezone, Europe/Berlin`},
		{"Europe/Berlin", "+02:00", "", `"+02:00" is neither`},
		{"", "", "UTC", ""},
		{"", "UTC", "UTC", ""},
	} {
		f, err := parseFilter(&catalog.Workspace{Timezone: c.own}, url.Values{"tz": {c.tz}})
		var bad *report.BadParameter
		if refused := errors.As(err, &bad); refused != (c.refusal != "") ||
			refused && (bad.Name != "tz" || !strings.Contains(bad.Text, c.refusal)) {
			t.Errorf("tz=%s of a workspace in %q: %v", c.tz, c.own, err)
		}
		if err == nil && f.Zone.Name() != c.want {
			t.Errorf("tz=%s of a workspace in %q: days of %s", c.tz, c.own, f.Zone.Name())
		}
	}
	var bad *report.BadParameter
	if _, err := parseFilter(&catalog.Workspace{Timezone: "Mars/Olympus"}, nil); err == nil || errors.As(err, &bad) ||
		!strings.Contains(err.Error(), "Mars/Olympus") {
		t.Errorf("a workspace in a zone that this machine does not know: %v", err)
	}
}

// Today is the workspace's; the choice of UTC stays in the form and in the links.
func TestPageNamesItsZone(t *testing.T) {
	r := newRig(t)
	r.server.now = func() time.Time { return time.Date(2026, 3, 20, 15, 30, 0, 0, time.UTC) }
	for query, want := range map[string][]string{
		"": {"2026-02-20 to 2026-03-21, days in Asia/Tokyo",
			`<option value="" selected>Asia/Tokyo</option><option value="UTC">UTC</option>`},
		"?tz=UTC": {"2026-02-19 to 2026-03-20, days in UTC",
			`<option value="">Asia/Tokyo</option><option value="UTC" selected>UTC</option>`},
	} {
		code, _, body := r.get("tokyo", "/"+query)
		for _, text := range want {
			if code != 200 || !strings.Contains(body, text) {
				t.Errorf("%q: %d, the page does not say %s", query, code, text)
			}
		}
	}
	if code, _, body := r.get("tokyo", "/?tz=Asia/Seoul"); code != 400 || !strings.Contains(body, "Asia/Seoul") ||
		!strings.Contains(body, "days in Asia/Tokyo") {
		t.Errorf("another zone: %d", code)
	}
	for query, name := range map[string]string{
		"from=2026-03-01&to=2026-03-02":        "tokyo_performance_2026-03-01_2026-03-02_Asia-Tokyo.csv",
		"from=2026-03-01&to=2026-03-02&tz=UTC": "tokyo_performance_2026-03-01_2026-03-02_UTC.csv",
		"":                                     "tokyo_performance_Asia-Tokyo.csv",
	} {
		_, h, _ := r.get("tokyo", "/v1/workspaces/tokyo/performance.csv?"+query)
		if got := h.Get("Content-Disposition"); got != `attachment; filename="`+name+`"` {
			t.Errorf("%q: %s", query, got)
		}
	}
}
