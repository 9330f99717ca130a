package web

import (
	"encoding/json"
	"html"
	"regexp"
	"strings"
	"testing"
)

// The page of a statement says of which month it is, whether that can change, and leads
// to the months beside it; whatever is filtered stays filtered.
func TestStatementPage(t *testing.T) {
	r := newRig(t)
	for path, words := range map[string][]string{
		"/statement": {"March 2026 by day of receipt, in UTC", `value="2026-03"`, ">Month after<",
			`href="/statement?month=2026-02"`, ">Open<", "It is not known how far all events are judged",
			"Nomura &amp; &lt;Studio&gt;", "statement.csv?bom=1&amp;month=2026-03", `aria-current="page">Statement<`},
		"/statement?month=2026-02&partner=p0&program=g0": {"February 2026", "Nothing stood and nothing was received",
			`href="/statement?month=2026-01&amp;partner=p0&amp;program=g0"`,
			`href="/statement?month=2026-03&amp;partner=p0&amp;program=g0"`, `<option value="p0" selected>`},
		"/statement?month=2026-05": {"May 2026", `href="/statement?month=2026-06"`},
	} {
		code, _, body := r.get("acme", path)
		for _, word := range words {
			if has := strings.Contains(body, word); code != 200 || has == (word == ">Month after<") {
				t.Errorf("%s: %d, %q: %t", path, code, word, has)
			}
		}
	}
	_, _, body := r.get("acme", "/statement?month=2026-02&partner=p0&program=g0")
	links := regexp.MustCompile(`href="([^"]*statement[^"]*month=[^"]*)"`).FindAllStringSubmatch(body, -1)
	if len(links) != 3 { // the month before, the month after, the file
		t.Errorf("links: %q", links)
	}
	for _, link := range links {
		if code, _, _ := r.get("acme", html.UnescapeString(link[1])); code != 200 {
			t.Errorf("%s leads to %d", link[1], code)
		}
	}
	if code, _, body := r.get("acme", "/statement?month=2026-13"); code != 400 ||
		!strings.Contains(body, "month: &#34;2026-13&#34; is not a month such as 2026-11") ||
		!strings.Contains(body, "March 2026") {
		t.Errorf("a month that is none: %d", code)
	}
	if code, _, body := r.get("acme", "/statement?colour=red"); code != 400 ||
		!strings.Contains(body, "colour: no such parameter") {
		t.Errorf("an unknown parameter: %d", code)
	}
	for workspace, path := range map[string]string{"initech": "/statement", "": "/statement"} {
		if code, _, body := r.get(workspace, path); code != 401 && code != 403 || strings.Contains(body, "Opening") {
			t.Errorf("%q reads %s: %d", workspace, path, code)
		}
	}
	if _, _, body := r.get("noexport", "/statement"); strings.Contains(body, ".csv") {
		t.Error("a workspace without exports sees a file")
	}
}

// A statement is the reader's own workspace's, its CSV needs exports, and parameters
// that cannot be are refused by their names.
func TestStatementAccess(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		as, path string
		code     int
		field    string
	}{
		{"acme", "acme/statement?month=2026-03", 200, ""},
		{"acme", "globex/statement?month=2026-03", 403, ""},
		{"acme", "globex/statement.csv?month=2026-03", 403, ""},
		{"noexport", "noexport/statement?month=2026-03", 200, ""},
		{"noexport", "noexport/statement.csv?month=2026-03", 403, "access.exports"},
		{"nocsv", "nocsv/statement.csv?month=2026-03", 403, "access.exports"},
		{"initech", "initech/statement?month=2026-03", 403, "plan"},
		{"acme", "acme/statement", 400, "month"},
		{"acme", "acme/statement.csv", 400, "month"},
		{"acme", "acme/statement?month=", 400, "month"},
		{"acme", "acme/statement?month=2026-03&month=2026-04", 400, "month"},
		{"acme", "acme/statement?month=March", 400, "month"},
		{"acme", "acme/statement?month=2026-03&link=l0", 400, "link"},
		{"acme", "acme/statement?month=2026-03&limit=0", 400, "limit"},
		{"acme", "acme/statement.csv?month=2026-03&limit=1", 400, "limit"},
		{"acme", "acme/statement?month=2026-03&cursor=WyJhIl0", 400, "cursor"}, // ["a"]
	} {
		code, _, body := r.get(c.as, "/v1/workspaces/"+c.path)
		var p problem
		if code != 200 && !strings.HasPrefix(body, "workspace_id") {
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatal(err)
			}
		}
		if code != c.code || p.Field != c.field {
			t.Errorf("%s of %s: %d, field %q, want %d, %q", c.path, c.as, code, p.Field, c.code, c.field)
		}
	}
	// Another workspace's events are in no account: globex has the fifth of the rows.
	_, h, own := r.get("acme", "/v1/workspaces/acme/statement.csv?month=2026-03")
	if got := h.Get("Content-Disposition"); got != `attachment; filename="acme_statement_2026-03.csv"` {
		t.Errorf("the file's name: %s", got)
	}
	_, _, other := r.get("globex", "/v1/workspaces/globex/statement.csv?month=2026-03")
	if strings.Contains(own, "globex") || strings.Contains(other, "acme") || strings.Count(other, "\nglobex,") < 2 {
		t.Errorf("acme:\n%s\nglobex:\n%s", own, other)
	}
}
