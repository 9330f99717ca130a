package redirect

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ua-parser/uap-go/uaparser"
)

// The lists say in their heads where their words come from, and on which day.
var (
	//go:embed agents/bots.txt
	botList string
	//go:embed agents/systems.txt
	systemList string
	//go:embed agents/people.txt
	peopleList string
)

// agentDefinitions is what User-Agents are compared with. It does not change.
type agentDefinitions struct {
	parser  *uaparser.Parser
	bots    []agentWord    // each with its reason
	systems []agentWord    // a person's agent names at least one
	people  *regexp.Regexp // text that says nothing of bots
}

// agentWord is a word of a list. Its first and last characters stand at a word's edge:
// beside them is no letter, unless the list has a * there. So *bot is in Googlebot/2.1
// and robot, but not in turbotabbee.
type agentWord struct {
	text                string // in lower case
	reason              string // botCrawler, botHeadless, botTool; "" in a list without reasons
	openLeft, openRight bool   // a letter may stand before, behind the word
}

// loadDefinitions reads uap-go's embedded definitions and the lists of words.
func loadDefinitions() (*agentDefinitions, error) {
	// The parser's own cache would keep User-Agents, and behind ours it is of no use. 1
	// is its smallest size.
	parser, err := uaparser.New(uaparser.WithCacheSize(1))
	if err != nil {
		return nil, fmt.Errorf("reading user agent definitions: %w", err)
	}
	people, err := regexp.Compile(strings.Join(listLines(peopleList), "|"))
	if err != nil {
		return nil, fmt.Errorf("reading the list of people's agents: %w", err)
	}
	d := &agentDefinitions{parser: parser, people: people}
	for _, line := range listLines(botList) {
		reason, text, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{botCrawler, botHeadless, botTool}, reason) || text == "" {
			return nil, fmt.Errorf("reading the list of bots: %q has no reason and word", line)
		}
		d.bots = append(d.bots, newAgentWord(text, reason))
	}
	for _, line := range listLines(systemList) {
		d.systems = append(d.systems, newAgentWord(line, ""))
	}
	return d, nil
}

// listLines returns the lines of a list that are neither empty nor comments.
func listLines(list string) (lines []string) {
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

func newAgentWord(text, reason string) agentWord {
	text, openLeft := strings.CutPrefix(text, "*")
	text, openRight := strings.CutSuffix(text, "*")
	return agentWord{text: text, reason: reason, openLeft: openLeft, openRight: openRight}
}

// isIn reports whether s, in lower case, has the word.
func (w *agentWord) isIn(s string) bool {
	for from := 0; ; {
		i := strings.Index(s[from:], w.text)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(w.text)
		if (w.openLeft || start == 0 || !isLowerLetter(s[start-1])) &&
			(w.openRight || end == len(s) || !isLowerLetter(s[end])) {
			return true
		}
		from = start + 1
	}
}

func isLowerLetter(c byte) bool { return 'a' <= c && c <= 'z' }

var (
	// contactForm: who runs a bot says where to complain. A browser does not.
	contactForm = regexp.MustCompile(`https?:|www\.|[\[(]at[\])]|` +
		`[a-z0-9._+-]+@[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}|` +
		`(^|[^a-z0-9.-])([a-z0-9-]+\.)+(com|net|org|io|ai|co|dev|cloud)([^a-z0-9.-]|$)`)
	commentForm = regexp.MustCompile(`\([^()]*(\([^()]*\)[^()]*)*\)`)
	// compatibleForm is how bots have called themselves since the first of them:
	// Mozilla/5.0 (compatible; NAME …).
	compatibleForm = regexp.MustCompile(`^mozilla/[0-9.]+ \(compatible; ?([^;)]*)`)
	// productForm is a text that names programs, not one that attacks readers of logs.
	productForm = regexp.MustCompile(`^[a-z0-9][a-z0-9 ./:;,_+()|\[\]*&!=~#-]*$`)
)

// compatibleBrowsers are the browsers that write compatibleForm.
var compatibleBrowsers = []string{"msie", "u", "konqueror", "ibrowse", "amiga", "netpositive",
	"webpositive", "icab", "omniweb"}

// classifyBot returns the reason for which an agent is a bot's, or "".
func (d *agentDefinitions) classifyBot(userAgent string) string {
	full := strings.ToLower(userAgent)
	s := d.people.ReplaceAllString(full, "")
	// A phone's model can be a tool's word, such as K6, but stands in a browser's comments;
	// a tool that calls itself a browser stands outside of them.
	isBrowser := strings.HasPrefix(full, "mozilla/") && d.namesSystem(s)
	if i := slices.IndexFunc(d.bots, func(w agentWord) bool {
		return w.isIn(s) && (w.reason != botTool || !isBrowser || w.isIn(commentForm.ReplaceAllString(s, " ")))
	}); i >= 0 {
		return d.bots[i].reason
	}
	switch {
	case contactForm.MatchString(s), namesCompatible(s):
		return botCrawler
	case s == full && productForm.MatchString(s) && !d.namesSystem(s):
		return botTool
	}
	return ""
}

// namesSystem reports whether an agent says where it runs, as those of people do.
func (d *agentDefinitions) namesSystem(s string) bool {
	return slices.ContainsFunc(d.systems, func(w agentWord) bool { return w.isIn(s) })
}

// namesCompatible reports whether an agent has compatibleForm and is no browser's.
func namesCompatible(s string) bool {
	m := compatibleForm.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	return !slices.ContainsFunc(compatibleBrowsers, func(b string) bool { return strings.HasPrefix(m[1], b) })
}
