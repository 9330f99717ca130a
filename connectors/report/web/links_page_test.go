package web

import (
	"cmp"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/report"
)

// manyLinks are 60 more links and partners of acme, with a click each on 10 March.
const manyLinks = `
INSERT INTO clicks (workspace_id, click_token, clicked_at, link_id, domain, slug, partner_id, token_status, src_partition, src_offset)
	SELECT 'acme', concat('many', toString(number)), toDateTime64('2026-03-10 12:00:00', 3, 'UTC'), concat('m', leftPad(toString(number), 2, '0')) AS id, 'go.acme.com', concat('slug-', id), concat('q', toString(number)), 'appended', 5, number
	FROM numbers(60);
INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES
	('acme', 'link', 'link/go.acme.com/unused', '{"id":"unused","workspace":"acme","partner":"p1","program":"g0","status":"archived"}', 0, 100)`

const march = "from=2026-03-01&to=2026-03-20"

var (
	linkNames   = regexp.MustCompile(`<span class="main"><a href="([^"]*)">([^<]*)</a>`)
	linkNumbers = regexp.MustCompile(`data-l="(Clicks|Leads|Sales|Rate|Tokens)">([^<]*)<`)
)

// shownLink is a line of the page of links.
type shownLink struct {
	name, href string
	numbers    map[string]float64
}

func shownLinks(t *testing.T, page string) (links []shownLink) {
	t.Helper()
	for _, row := range strings.Split(section(page, "links"), "<tr>")[1:] {
		name := linkNames.FindStringSubmatch(row)
		if name == nil {
			continue // the head
		}
		link := shownLink{html.UnescapeString(name[2]), html.UnescapeString(name[1]), map[string]float64{}}
		for _, n := range linkNumbers.FindAllStringSubmatch(row, -1) {
			text := strings.TrimSuffix(strings.ReplaceAll(n[2], "\u202f", ""), "%")
			if text == "–" {
				continue
			}
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			link.numbers[n[1]] = v
		}
		links = append(links, link)
	}
	return links
}

// Links are found by a part of their address, sorted by what they brought, and on pages
// that together have each of them once; with their revenue, and why clicks have no token.
func TestLinksPage(t *testing.T) {
	r := newOwnRig(t)
	execAll(t, r.conn, manyLinks)
	page := func(query string) string {
		code, _, body := r.get("acme", "/links?"+query)
		if code != 200 {
			t.Fatalf("%s: %d", query, code)
		}
		return body
	}
	var all []shownLink
	for _, n := range []int{25, 25, 14} { // l0 to l2, 60 more, and the one without clicks
		body := page(march + "&page=" + strconv.Itoa(1+len(all)/25))
		links := shownLinks(t, body)
		if len(links) != n || !strings.Contains(body, "64 links") || strings.Contains(body, ">Next<") != (n == 25) {
			t.Errorf("%d links after %d, want %d", len(links), len(all), n)
		}
		all = append(all, links...)
	}
	names := map[string]bool{}
	for _, link := range all {
		names[link.name] = true
	}
	if len(names) != 64 || all[0].name == "l1" || all[63].name != "go.acme.com/unused" {
		t.Errorf("%d links, from %s to %s", len(names), all[0].name, all[len(all)-1].name)
	}
	for sort, value := range map[string]func(shownLink) float64{ // the smallest first
		"sales":    func(l shownLink) float64 { return -l.numbers["Sales"] },
		"leads":    func(l shownLink) float64 { return -l.numbers["Leads"] },
		"clicks":   func(l shownLink) float64 { return -l.numbers["Clicks"] },
		"rate":     func(l shownLink) float64 { return -l.numbers["Rate"] },
		"coverage": func(l shownLink) float64 { return l.numbers["Tokens"] },
	} {
		links := shownLinks(t, page(march+"&sort="+sort))
		order := func(a, b shownLink) int { return cmp.Compare(value(a), value(b)) }
		if len(links) != 25 || value(links[0]) == value(links[24]) || !slices.IsSortedFunc(links, order) {
			t.Errorf("sort=%s: %v", sort, links)
		}
	}
	if links := shownLinks(t, page(march+"&q=LUG-M07")); len(links) != 1 || links[0].name != "go.acme.com/slug-m07" ||
		!strings.Contains(links[0].href, "link=m07") {
		t.Errorf("a part of a link, in other letters: %v", links)
	}
	if body := page(march + "&q=nowhere"); !strings.Contains(body, "No link has “nowhere”") {
		t.Error("a link that there is not")
	}
	if body := page(march + "&page=9"); len(shownLinks(t, body)) != 0 || !strings.Contains(body, ">Previous<") {
		t.Error("a page behind the last one")
	}
	if links := shownLinks(t, page("from=2026-01-01&to=2026-01-02")); len(links) != 2 { // s0 and unused
		t.Errorf("days without clicks: %v", links)
	}
	if links := shownLinks(t, page("from=2026-01-01&to=2026-01-02&partner=p1&program=g0")); len(links) != 1 {
		t.Errorf("the catalog's links of a partner: %v", links)
	}
	if code, _, body := r.get("acme", "/links?"+march+"&verdict=conflict"); code != 400 ||
		!strings.Contains(body, "verdict: this list cannot") || len(shownLinks(t, body)) == 0 {
		t.Errorf("a filter of events: %d", code)
	}
	checkLinkFigures(r, page(march+"&q=go.acme.com/s1"))
}

// checkLinkFigures holds the line of l1 against the lists of performance and coverage.
func checkLinkFigures(r *rig, page string) {
	r.Helper()
	links := shownLinks(r.T, page)
	if len(links) != 1 {
		r.Fatalf("%v", links)
	}
	var want report.Counts
	money := moneyTotals{}
	for _, p := range rowsOf[report.Performance](r, "performance?limit=1000&link=l1&"+march).Rows {
		want.Add(p.Counts)
		money.add(&p)
	}
	coverage := rowsOf[report.Coverage](r, "coverage?link=l1&"+march).Rows[0]
	for name, n := range map[string]uint64{"Clicks": want.Clicks, "Leads": want.Leads, "Sales": want.Sales} {
		if links[0].numbers[name] != float64(n) {
			r.Errorf("%s: %v, want %d", name, links[0].numbers[name], n)
		}
	}
	texts := []string{fmt.Sprintf("<b>%d</b> the destination is a signed URL", coverage.Withheld),
		`data-l="Rate">` + formatPercent(want.Sales, want.Clicks), `data-l="Tokens">` +
			formatPercent(coverage.Tokened, coverage.Clicks)}
	for _, m := range money.lines() {
		texts = append(texts, ">"+m.Net+" "+m.Currency+"<")
	}
	for _, text := range texts {
		if !strings.Contains(section(page, "links"), text) || len(texts) < 4 {
			r.Errorf("the line does not say %s", text)
		}
	}
}

// The card has the link of the filter, or the partner's link with the most sales, with
// what the page counts of it; its CSV has the link's events.
func TestPartnerLinkCard(t *testing.T) {
	r := newRig(t)
	_, _, body := r.get("acme", "/?"+march+"&link=l0")
	card := section(body, "partner-link")
	sales := regexp.MustCompile(`<dt>Attributed sales</dt><dd>(\d+)`)
	tile, own := sales.FindStringSubmatch(body), sales.FindStringSubmatch(card)
	if tile == nil || own == nil || tile[1] != own[1] || own[1] == "0" {
		t.Errorf("the page counts %v, the card %v", tile, own)
	}
	for _, want := range []string{"go.acme.com/s0", "<dt>Selected clicks</dt><dd>", "CSV ready",
		"outcomes.csv?bom=1&amp;from=2026-03-01&amp;link=l0&amp;to=2026-03-20"} {
		if !strings.Contains(card, want) {
			t.Errorf("the card does not say %s: %s", want, card)
		}
	}
	if _, _, body := r.get("nocsv", "/?link=l0"); strings.Contains(body, "CSV ready") {
		t.Error("a workspace without exports has a CSV")
	}
	for as, want := range map[string]string{
		"acme":     `<span>Professional plan</span> <span class="badge good">Workspace access on<`,
		"nocsv":    `<span>Enterprise plan</span> <span class="badge warn">Workspace access without exports<`,
		"noexport": "Workspace access without conversion reporting, exports<",
	} {
		if _, _, body := r.get(as, "/"); !strings.Contains(body, want) {
			t.Errorf("the page of %s does not say %s", as, want)
		}
	}
}

// Pages of events and partners have each of them once.
func TestListsOfThePageHavePages(t *testing.T) {
	r := newRig(t)
	seen := map[string]bool{}
	ids := regexp.MustCompile(`<a href="/why\?event_id=(e\d+)"`)
	pages := 0
	for path := "/?" + march; path != "" && pages < 20; pages++ {
		code, _, body := r.get("acme", path)
		events := section(body, "events")
		found := ids.FindAllStringSubmatch(events, -1)
		if code != 200 || len(found) > eventsPage || len(found) == 0 {
			t.Fatalf("%s: %d, %d events", path, code, len(found))
		}
		for _, id := range found {
			seen[id[1]] = true
		}
		path = ""
		if next := regexp.MustCompile(`href="([^"]*)">Next<`).FindStringSubmatch(events); next != nil {
			path, _, _ = strings.Cut(html.UnescapeString(next[1]), "#")
		}
	}
	var a int
	for _, c := range rowsOf[conversion](r, "outcomes?limit=1000&"+march).Rows {
		if c.Verdict != "" {
			a++
		}
	}
	if len(seen) < 100 || pages != (a+eventsPage-1)/eventsPage {
		t.Errorf("%d events of %d on %d pages", len(seen), a, pages)
	}
	for query, field := range map[string]string{"event_page=0": "event_page", "partner_page=x": "partner_page",
		"event_page=1001": "event_page", "page=2": "page"} {
		if code, _, body := r.get("acme", "/?"+query); code != 400 || !strings.Contains(body, `role="alert">`+field+": ") {
			t.Errorf("%s: %d", query, code)
		}
	}
}

// Who is not signed in sees no menu and no name, also where something fails.
func TestNoMenuBeforeSignIn(t *testing.T) {
	r := newRig(t)
	r.conn.Close()
	for _, path := range []string{"/", "/links", "/statement", "/why", "/dispute"} {
		for _, as := range []string{"", "mallory"} {
			if code, _, body := r.get(as, path); code != 401 || strings.Contains(body, "<nav") ||
				strings.Contains(body, "<header") {
				t.Errorf("%s as %q: %d with a menu", path, as, code)
			}
		}
		if code, _, body := r.get("acme", path); code != 503 && code != 500 || !strings.Contains(body, ">acme<") ||
			!strings.Contains(body, `aria-label="Sections"`) {
			t.Errorf("%s of acme without a warehouse: %d", path, code)
		}
	}
}
