package web

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// Every page, also filled with the longest ids, on a phone and on a wide screen, light
// and dark: fields have labels, headings and landmarks an order, texts a contrast that
// people see, nothing is wider than its window, and on a phone every page ends.
// testdata/audit.js looks, in the browser.
func TestAccessible(t *testing.T) {
	browse := chromium(t)
	r := newOwnRig(t)
	audit, err := os.ReadFile("testdata/audit.js")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("W", 128)
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, amount_minor, currency, exponent, order_id, parent_event_id, occurred_at, clicked_at, link_id, partner_id, partner_name, event_partition, event_offset, src_partition, src_offset)
		SELECT 'acme', if(number = 0, '`+long+`', concat('below', toString(number))), 'deep', if(number = 0, 'attributed', 'reversed'), if(number = 0, 'sale', 'refund'), if(number = 0, 1, -1), 123456789012, 'EUR', 2, '`+long+`', multiIf(number = 0, '', number = 1, '`+long+`', concat('below', toString(number - 1))),
			toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), toDateTime64('2026-03-17 12:00:00', 3, 'UTC'), '`+long+`', 'p0', '`+long+`', 3, number, 3, number FROM numbers(8)`); err != nil {
		t.Fatal(err)
	}
	execAll(t, r.conn, manyLinks)
	pages := map[string]func() string{
		"links":         func() string { _, _, body := r.get("acme", "/links?"+march); return body },
		"links-nothing": func() string { _, _, body := r.get("acme", "/links?q=nowhere"); return body },
		"links-wrong":   func() string { _, _, body := r.get("acme", "/links?page=x"); return body },
		"performance":   func() string { _, _, body := r.get("acme", "/?from=2026-03-01&to=2026-03-20"); return body },
		"nothing":       func() string { _, _, body := r.get("acme", "/?from=2026-01-01&to=2026-01-02"); return body },
		"why":           func() string { _, _, body := r.get("acme", "/why"); return body },
		"why-long":      func() string { _, _, body := r.get("acme", "/why?event_id="+long); return body },
		"why-refused":   func() string { _, _, body := r.get("acme", "/why?event_id=bad"); return body },
		"why-wrong":     func() string { _, _, body := r.get("acme", "/why?event_id="+long+"W"); return body },
		"dispute":       func() string { _, _, body := r.get("acme", "/dispute"); return body },
		"dispute-done": func() string {
			_, body := r.dispute("acme", "p0", "order_id,amount,currency\no4,10.04,EUR\nnone,5.00,EUR\n"+long+
				",1234567890.12,EUR\no8,1.00,EUR\n", "")
			return body
		},
		"dispute-wrong":     func() string { _, body := r.dispute("acme", "", "colour\nred\n", ""); return body },
		"statement":         func() string { _, _, body := r.get("acme", "/statement?month=2026-03"); return body },
		"statement-nothing": func() string { _, _, body := r.get("acme", "/statement?month=2026-01"); return body },
		"statement-wrong":   func() string { _, _, body := r.get("acme", "/statement?month=2026-3"); return body },
		"signin":            func() string { _, _, body := r.get("", "/"); return body },
		"message":           func() string { _, _, body := r.get("initech", "/"); return body },
	}
	bodies, frames := map[string]string{}, ""
	for name, page := range pages {
		bodies["/"+name] = strings.Replace(page(), "</body>", "<script>"+string(audit)+"</script></body>", 1)
		for _, width := range []int{380, 1600} {
			frames += fmt.Sprintf(`<iframe src="/%s" style="width:%dpx;height:900px;border:0"></iframe>`, name, width)
		}
	}
	// Without the report's policy, which lets nothing look into a page.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if body, ok := bodies[req.URL.Path]; ok {
			io.WriteString(w, body)
			return
		}
		io.WriteString(w, `<!doctype html><meta name="color-scheme" content="light dark"><pre id="said"></pre>`+frames)
	}))
	defer server.Close()
	for _, dark := range []bool{false, true} {
		args := []string{"--dump-dom", server.URL + "/all"}
		if dark {
			args = append([]string{"--blink-settings=preferredColorScheme=0"}, args...)
		}
		_, said, _ := strings.Cut(browse(args...), `<pre id="said">`)
		said, _, _ = strings.Cut(said, "</pre>")
		lines := strings.Split(strings.TrimSpace(html.UnescapeString(said)), "\n")
		if len(lines) != 2*len(pages) {
			t.Fatalf("%d of %d pages were looked at: %.500s", len(lines), 2*len(pages), said)
		}
		for _, line := range lines {
			var s struct {
				Page  string
				Width int
				Dark  bool
				Wrong []string
			}
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if s.Dark != dark || s.Width != 380 && s.Width != 1600 {
				t.Errorf("%s was drawn %d px wide, dark %v, want %v", s.Page, s.Width, s.Dark, dark)
			}
			for _, wrong := range s.Wrong {
				t.Errorf("%s, %d px, dark %v: %s", s.Page, s.Width, dark, wrong)
			}
		}
	}
}
