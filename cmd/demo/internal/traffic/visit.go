package traffic

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// target is a link that visitors follow.
type target struct {
	workspace *catalog.Workspace
	link      *catalog.Link
	program   *catalog.Program // nil if none
	partner   *catalog.Partner // nil if none
	path      string           // of the short link, escaped
	hidden    bool             // no visitor may see a token
	// nothing in the destination forbids a token: if not hidden, all visitors see one
	plain  bool
	weight int // popularity
}

// activeTargets returns the active links, each more popular than the next.
func activeTargets(workspaces []catalog.Workspace) []target {
	var targets []target
	for i := range workspaces {
		w := &workspaces[i]
		for k := range w.Links {
			l := &w.Links[k]
			if l.Status != catalog.StatusActive {
				continue
			}
			t := target{
				workspace: w,
				link:      l,
				path:      (&url.URL{Path: "/" + l.Slug}).EscapedPath(),
				weight:    1 + 1000/(len(targets)+2),
			}
			t.hidden = !l.ConversionTracking || l.Token == catalog.TokenNever || !w.Entitled() ||
				!w.Access.ConversionTracking
			t.plain = !strings.ContainsAny(l.Destination, "?;") && strings.HasPrefix(l.Destination, "http")
			for p := range w.Programs {
				if w.Programs[p].ID == l.Program {
					t.program = &w.Programs[p]
				}
			}
			for p := range w.Partners {
				if w.Partners[p].ID == l.Partner {
					t.partner = &w.Partners[p]
				}
			}
			targets = append(targets, t)
		}
	}
	return targets
}

// visit is one request to the redirector.
type visit struct {
	*target
	head      bool      // HEAD instead of GET
	agent     string    // User-Agent
	bot       bool      // the click must be flagged as one of a bot
	referrer  string    // a URL, or ""
	qr        bool      // the visitor scanned a QR code
	subs      [5]string // sub1 to sub5
	extra     string    // further query parameters, as sent
	forwarded string    // those of extra that the destination must get
}

var browsers = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 " +
		"Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 " +
		"Safari/605.1.15",
	"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 " +
		"Safari/537.36 Edg/141.0.0.0",
}

var crawlers = []string{
	"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
	"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
	"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
	"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
	"Twitterbot/1.0",
}

var referrers = []string{"https://news.example.com/spring?id=7", "https://www.example.org/",
	"https://blog.example.net/reviews/best-of", "https://t.example/x"}

// drawVisit draws a visitor, a referrer and a link.
func (r *generator) drawVisit(rng *rand.Rand) visit {
	total := 0
	for i := range r.targets {
		total += r.targets[i].weight
	}
	v := visit{agent: browsers[rng.IntN(len(browsers))]}
	for at, i := rng.IntN(total), 0; ; i++ {
		if at -= r.targets[i].weight; at < 0 {
			v.target = &r.targets[i]
			break
		}
	}
	switch kind := rng.IntN(100); {
	case kind < 10:
		v.agent, v.bot = crawlers[rng.IntN(len(crawlers))], true
	case kind < 13:
		v.head, v.bot = true, true
	case kind < 25:
		v.qr = true
	case kind < 80:
		v.referrer = referrers[rng.IntN(len(referrers))]
	}
	if rng.IntN(4) == 0 {
		v.subs[0] = fmt.Sprint("pub-", rng.IntN(100))
		for i := 1; i < 5 && rng.IntN(2) == 0; i++ {
			v.subs[i] = fmt.Sprint([]string{"ad ", "c=", "k&", "ü-"}[rng.IntN(4)], i, rng.IntN(10))
		}
	}
	if rng.IntN(20) == 0 {
		// a link that was copied with its token
		v.extra = v.workspace.TokenParameter + "=" + token.Text(&token.Raw{1})
	}
	return v
}

func (v *visit) queryString() string {
	var parts []string
	for i, s := range v.subs {
		if s != "" {
			parts = append(parts, fmt.Sprintf("sub%d=%s", i+1, strings.ReplaceAll(url.QueryEscape(s), "+", "%20")))
		}
	}
	if v.extra != "" {
		parts = append(parts, v.extra)
	}
	if v.qr {
		parts = append(parts, "nr=qr")
	}
	return strings.Join(parts, "&")
}

// clickFacts is the part of a click record that a visit decides.
type clickFacts struct {
	workspace, link string        // ids
	trigger         event.Trigger // link or QR code
	bot             bool          // is_bot
	subs            [5]string     // sub1 to sub5
	referrer        string        // host, or ""
}

func (v *visit) expectedClick() clickFacts {
	f := clickFacts{workspace: v.workspace.ID, link: v.link.ID, trigger: event.TriggerLink, bot: v.bot, subs: v.subs}
	if v.qr {
		f.trigger = event.TriggerQR
	}
	if u, err := url.Parse(v.referrer); err == nil {
		f.referrer = u.Host
	}
	return f
}

func recordedClick(c *event.Click) clickFacts {
	return clickFacts{c.WorkspaceID, c.LinkID, c.Trigger, c.IsBot, [5]string{c.Sub1, c.Sub2, c.Sub3, c.Sub4, c.Sub5},
		c.ReferrerHost}
}

func (f clickFacts) String() string {
	s := fmt.Sprintf("%s %s, trigger %s, bot %v, subs %q", f.workspace, f.link, f.trigger, f.bot, f.subs)
	if f.referrer != "" {
		s += ", from " + f.referrer
	}
	return s
}

// tokenInLocation returns the token in a Location, "" if the Location is just the
// destination. Everything but the token must equal the destination byte for byte.
func (v *visit) tokenInLocation(location string) (string, error) {
	head, fragment := v.link.Destination, ""
	if i := strings.IndexByte(head, '#'); i >= 0 {
		head, fragment = head[:i], head[i:]
	}
	separator := func(before string) string {
		switch {
		case !strings.Contains(before, "?"):
			return "?"
		case strings.HasSuffix(before, "?") || strings.HasSuffix(before, "&"):
			return ""
		}
		return "&"
	}
	if v.forwarded != "" {
		head += separator(head) + v.forwarded
	}
	if location == head+fragment {
		if v.plain && !v.hidden {
			return "", fmt.Errorf("location %q shows no token", location)
		}
		return "", nil
	}
	before := head + separator(head) + v.workspace.TokenParameter + "="
	text, ok := strings.CutPrefix(location, before)
	if ok {
		text, ok = strings.CutSuffix(text, fragment)
	}
	if !ok {
		return "", fmt.Errorf("location %q is neither %q nor %qTOKEN%s", location, head+fragment, before, fragment)
	}
	if _, err := token.Parse(text); err != nil {
		return "", fmt.Errorf("location %q: %w", location, err)
	}
	if v.hidden {
		return "", fmt.Errorf("location %q shows a token that must not be seen", location)
	}
	return text, nil
}
