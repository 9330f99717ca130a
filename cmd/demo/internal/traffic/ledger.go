package traffic

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/nimriz/partners/schemas/event"
)

// Ledger records the answers of a run.
type Ledger struct {
	mu             sync.Mutex
	visibleTokens  map[string]clickFacts // by token: visits that showed one
	hiddenTokens   map[clickFacts]int    // visits that showed no token
	accepted       map[delivery]*answerCounts
	refused        []expectedRejection
	rateLimited    int           // answers 429
	expectedRows   []expectedRow // of the scenarios
	scenarioEvents int           // events of scenarios that were sent one by one
	visitCount     int           // redirected visits
	acceptedCount  int           // accepted events, duplicates included
}

// delivery identifies an accepted event among the records.
type delivery struct {
	workspace, token, eventID string
	content                   [32]byte // SHA-256, see event.Conversion.ContentHash
}

// answerCounts counts the answers to one delivery.
type answerCounts struct {
	accepted int
	unknown  int    // attempts that may have been recorded although they failed
	keyID    string // of the signing secret
}

// expectedRejection is a refusal that must be recorded.
type expectedRejection struct {
	workspace, webhookID, code string   // as in the rejection's record
	status                     int      // HTTP status
	eventID                    string   // "" if the gateway could not read it
	body                       [32]byte // SHA-256; zero for an item of a batch
	unrecorded                 bool     // refused before or by its signature: never recorded
	either                     bool     // may be recorded or not
}

func newLedger() *Ledger {
	return &Ledger{
		visibleTokens: make(map[string]clickFacts),
		hiddenTokens:  make(map[clickFacts]int),
		accepted:      make(map[delivery]*answerCounts),
	}
}

func (l *Ledger) recordVisit(token string, f clickFacts) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.visitCount++
	if token == "" {
		l.hiddenTokens[f]++
		return nil
	}
	if _, ok := l.visibleTokens[token]; ok {
		return fmt.Errorf("the redirector showed token %s twice", token)
	}
	l.visibleTokens[token] = f
	return nil
}

func (l *Ledger) recordAccepted(c *event.Conversion, keyID string, unknown int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acceptedCount++
	d := delivery{c.WorkspaceID, c.ClickToken, c.EventID, c.ContentHash()}
	a := l.accepted[d]
	if a == nil {
		a = &answerCounts{keyID: keyID}
		l.accepted[d] = a
	}
	a.accepted++
	a.unknown += unknown
}

func (l *Ledger) recordRefusal(e expectedRejection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, e)
}

func (l *Ledger) recordRateLimited() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rateLimited++
}

// Visits returns how many requests were redirected. Each must be a recorded click.
func (l *Ledger) Visits() int { return l.visitCount }

// Accepted returns how many events were accepted, duplicates included.
func (l *Ledger) Accepted() int { return l.acceptedCount }

// Refused returns how many requests and items of batches were refused as expected.
func (l *Ledger) Refused() int { return len(l.refused) }

// LinkCount counts the visits of one link. Humans, QR and WithToken are parts of
// Visits.
type LinkCount struct {
	Workspace, Link               string // ids
	Visits, Humans, QR, WithToken int
}

// Links returns the redirected visits of each link, sorted by workspace and link.
func (l *Ledger) Links() []LinkCount {
	counts := make(map[[2]string]*LinkCount)
	add := func(f clickFacts, n int, shown bool) {
		key := [2]string{f.workspace, f.link}
		c := counts[key]
		if c == nil {
			c = &LinkCount{Workspace: f.workspace, Link: f.link}
			counts[key] = c
		}
		c.Visits += n
		if !f.bot {
			c.Humans += n
		}
		if f.trigger == event.TriggerQR {
			c.QR += n
		}
		if shown {
			c.WithToken += n
		}
	}
	for _, f := range l.visibleTokens {
		add(f, 1, true)
	}
	for f, n := range l.hiddenTokens {
		add(f, n, false)
	}
	rows := make([]LinkCount, 0, len(counts))
	for _, c := range counts {
		rows = append(rows, *c)
	}
	slices.SortFunc(rows, func(a, b LinkCount) int {
		return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.Link, b.Link))
	})
	return rows
}

// maxFindings bounds the findings that a check returns.
const maxFindings = 20

// findings collects the mistakes that a check finds.
type findings struct {
	lines []string
	more  int
}

func (f *findings) addFinding(format string, args ...any) {
	if len(f.lines) == maxFindings {
		f.more++
		return
	}
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
}

func (f *findings) limited() []string {
	if f.more > 0 {
		return append(f.lines, fmt.Sprintf("and %d more", f.more))
	}
	return f.lines
}

// CheckClicks compares the recorded clicks with the visits. Each redirect must be
// recorded exactly once, with the right link, trigger, bot flag, sub-ids and referrer,
// and no other click may be recorded. It returns nil if all clicks are right.
func (l *Ledger) CheckClicks(clicks []event.Click) []string {
	var f findings
	seen := make(map[string]bool, len(clicks))
	hidden := maps.Clone(l.hiddenTokens)
	for i := range clicks {
		c := &clicks[i]
		if seen[c.ClickToken] {
			f.addFinding("click %s is on record twice", c.ClickToken)
			continue
		}
		seen[c.ClickToken] = true
		got := recordedClick(c)
		want, shown := l.visibleTokens[c.ClickToken]
		switch {
		case shown && c.TokenStatus != event.TokenAppended:
			f.addFinding("click %s: token_status is %s, but a visitor saw the token", c.ClickToken, c.TokenStatus)
		case shown && want != got:
			f.addFinding("click %s says %v; the visit was %v", c.ClickToken, got, want)
		case shown:
		case c.TokenStatus == event.TokenAppended:
			f.addFinding("click %s, %v: token_status is appended, but no visitor saw the token", c.ClickToken, got)
		default:
			hidden[got]--
		}
	}
	for token, want := range l.visibleTokens {
		if !seen[token] {
			f.addFinding("click %s, %v, is not on record", token, want)
		}
	}
	for want, n := range hidden {
		if n > 0 {
			f.addFinding("%d clicks without a visible token are not on record: %v", n, want)
		} else if n < 0 {
			f.addFinding("%d clicks without a visible token are on record but never happened: %v", -n, want)
		}
	}
	return f.limited()
}

// CheckConversions compares the recorded conversions with the answers. Each accepted
// event must be recorded as often as it was accepted, with its content and the id of
// the secret that signed it, and nothing else may be recorded. It returns nil if all
// conversions are right.
func (l *Ledger) CheckConversions(conversions []event.Conversion) []string {
	var f findings
	found := make(map[delivery]int)
	for i := range conversions {
		c := &conversions[i]
		d := delivery{c.WorkspaceID, c.ClickToken, c.EventID, c.ContentSHA256}
		found[d]++
		a := l.accepted[d]
		switch {
		case a == nil:
			f.addFinding("%s of %s with token %s is on record with content %x…, which was not accepted",
				c.EventID, c.WorkspaceID, c.ClickToken, c.ContentSHA256[:4])
		case a.keyID != c.KeyID:
			f.addFinding("%s of %s: key_id is %q, want %q", c.EventID, c.WorkspaceID, c.KeyID, a.keyID)
		case c.ContentHash() != c.ContentSHA256:
			f.addFinding("%s of %s: content_sha256 does not match the fields", c.EventID, c.WorkspaceID)
		}
	}
	for d, a := range l.accepted {
		if n := found[d]; n < a.accepted || n > a.accepted+a.unknown {
			f.addFinding("%s of %s with token %s was accepted %d times (unknown: %d) and is on record %d times",
				d.eventID, d.workspace, d.token, a.accepted, a.unknown, n)
		}
	}
	return f.limited()
}

// CheckRejections compares the recorded rejections with the refusals. Each refused
// request with a valid signature, and each refused item of a batch, must be recorded
// once, with its code, status, ids and hash. Nothing else may be recorded. It returns
// nil if all rejections are right.
func (l *Ledger) CheckRejections(rejections []event.Rejection) []string {
	var f findings
	name := func(workspace, webhookID, code string) string {
		return strings.Join([]string{workspace, webhookID, code}, " ")
	}
	expected := make(map[string][]expectedRejection)
	for _, e := range l.refused {
		if !e.unrecorded {
			k := name(e.workspace, e.webhookID, e.code)
			expected[k] = append(expected[k], e)
		}
	}
	rateLimited := l.rateLimited
	for _, r := range rejections {
		k := name(r.WorkspaceID, r.WebhookID, r.Code)
		i := slices.IndexFunc(expected[k], func(e expectedRejection) bool {
			return e.eventID == r.EventID || e.eventID == "" || r.EventID == ""
		})
		if i < 0 {
			if rateLimited--; r.Code != "rate_limited" || rateLimited < 0 {
				f.addFinding("a rejection that did not happen is on record: %s, event %q, %s", k, r.EventID, r.Detail)
			}
			continue
		}
		e := expected[k][i]
		expected[k] = slices.Delete(expected[k], i, i+1)
		if int(r.Status) != e.status {
			f.addFinding("rejection %s: status is %d, want %d", k, r.Status, e.status)
		}
		if e.body != [32]byte{} && r.BodySHA256 != e.body {
			f.addFinding("rejection %s: body_sha256 is %x…, want %x…", k, r.BodySHA256[:4], e.body[:4])
		}
	}
	for k, missing := range expected {
		for _, e := range missing {
			if !e.either {
				f.addFinding("rejection %s, event %q is not on record", k, e.eventID)
			}
		}
	}
	return f.limited()
}
