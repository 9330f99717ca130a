package catalog

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/currency"
	"golang.org/x/text/unicode/norm"
)

// Limits. A click copies all of these into a record of at most 512 bytes.
const (
	maxID          = 40   // characters of ids, of keys and of the token parameter
	maxName        = 200  // characters
	maxUTM         = 100  // characters of each value
	maxExperiment  = 64   // characters of experiment and of variant
	maxSlug        = 128  // bytes
	maxDestination = 2048 // bytes
	maxHost        = 253  // bytes
)

var (
	workspaceForm = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	idForm        = regexp.MustCompile(`^[A-Za-z0-9._-]{1,40}$`)
	hostForm      = regexp.MustCompile(
		`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)
	percentForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,2})(\.[0-9]{1,4})?$`)
	flatForm    = regexp.MustCompile(`^(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?$`)
)

// formerRewardUnits are no money, but records of earlier releases can have them. The
// tables know the digits of no others.
var formerRewardUnits = []string{"CLF", "XAG", "XAU", "XDR"}

// checker collects the problems of one workspace or of one record. It keeps the first
// problem of each path: the others often only follow from it.
type checker struct {
	src      *sourceFile // nil if the workspace was not read from a file
	stored   bool        // a record of the topic, which an earlier release may have accepted
	problems []*Problem
	reported map[string]bool // paths of problems
}

func (c *checker) addProblem(at *fieldPath, format string, args ...any) {
	p := &Problem{Path: at.String(), Text: fmt.Sprintf(format, args...)}
	if c.reported[p.Path] {
		return
	}
	if c.src != nil {
		if c.src.hasComplaint(at) {
			return
		}
		pos := c.src.positionOf(at)
		p.File = c.src.file
		p.Line, p.Column = pos.Line, pos.Column
	}
	c.problems = append(c.problems, p)
	if c.reported == nil {
		c.reported = map[string]bool{}
	}
	c.reported[p.Path] = true
}

// checkWorkspaces applies all rules to workspaces whose defaults are filled in: to each
// alone, and to all together.
func checkWorkspaces(workspaces []Workspace) []*Problem {
	var problems []*Problem
	ids, hosts := map[string]firstUse{}, map[string]firstUse{}
	for i := range workspaces {
		w := &workspaces[i]
		c := &checker{src: w.src}
		at := workspacePath(w, i)
		c.checkWorkspace(w, at)
		c.checkItems(w, at)
		c.checkReferences(w, at)
		c.checkDomains(w, at)
		c.checkUnique(ids, w.ID, at.field("id"), "workspace id")
		for j, domain := range w.Domains {
			c.checkUnique(hosts, domain, at.field("domains").item(j), "host")
		}
		for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
			c.checkUnique(hosts, host, at.field("aliases").freeKey(host), "host")
		}
		problems = append(problems, c.problems...)
	}
	return append(problems, checkLoops(workspaces)...)
}

func workspacePath(w *Workspace, i int) *fieldPath {
	if w.src != nil {
		i = w.src.index
	}
	return (&fieldPath{key: "workspaces"}).item(i)
}

// firstUse is where a name was first used. It becomes text only if there is a second
// use.
type firstUse struct {
	src *sourceFile
	at  *fieldPath
}

// String returns FILE:LINE:COL, or the path if the workspace was not read from a file.
func (u firstUse) String() string {
	if u.src == nil {
		return u.at.String()
	}
	pos := u.src.positionOf(u.at)
	return fmt.Sprintf("%s:%d:%d", u.src.file, pos.Line, pos.Column)
}

// checkUnique reports the second and each later use of a name, with the position of the
// first.
func (c *checker) checkUnique(seen map[string]firstUse, name string, at *fieldPath, what string) {
	if name == "" {
		return
	}
	if first, used := seen[name]; used {
		c.addProblem(at, "duplicate %s %q: first at %s", what, name, first)
		return
	}
	seen[name] = firstUse{c.src, at}
}

// checkWorkspace checks the fields of the record workspace/{w}.
func (c *checker) checkWorkspace(w *Workspace, at *fieldPath) {
	switch {
	case w.ID == "":
		c.addProblem(at.field("id"), "required")
	case !workspaceForm.MatchString(w.ID):
		c.addProblem(at.field("id"), "workspace id %q must be 1 to 64 of a-z 0-9 -", w.ID)
	}
	c.checkName(w.Name, at.field("name"))
	c.checkOneOf(w.Plan, at.field("plan"), "plan", PlanStarter, PlanPlus, PlanGrowth, PlanProfessional, PlanEnterprise)
	if text := tokenParameterProblem(w.TokenParameter); text != "" {
		c.addProblem(at.field("token_parameter"), "%s", text)
	}
	if _, err := calendar.LoadZone(w.Timezone); err != nil {
		c.addProblem(at.field("timezone"), "%v", err)
	} else if calendar.IsOfMachine(w.Timezone) && !c.stored {
		c.addProblem(at.field("timezone"), "time zone %q is not known on every machine: use an IANA name such as "+
			"Europe/Berlin", w.Timezone)
	}
	for i, domain := range w.Domains {
		c.checkHost(domain, at.field("domains").item(i))
	}
	for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
		here := at.field("aliases").freeKey(host)
		c.checkHost(host, here)
		if !slices.Contains(w.Domains, w.Aliases[host]) {
			c.addProblem(here, "unknown domain %q: an alias answers as a domain of its workspace", w.Aliases[host])
		}
	}
}

// checkItems checks programs, partners and links, each alone.
func (c *checker) checkItems(w *Workspace, at *fieldPath) {
	for i := range w.Programs {
		c.checkProgram(&w.Programs[i], at.field("programs").item(i))
	}
	for i := range w.Partners {
		c.checkPartner(&w.Partners[i], at.field("partners").item(i))
	}
	for i := range w.Links {
		c.checkLink(&w.Links[i], at.field("links").item(i))
	}
}

// checkReferences checks the parts of a workspace against each other: names are unique,
// and references lead somewhere.
func (c *checker) checkReferences(w *Workspace, at *fieldPath) {
	programs, partners := map[string]firstUse{}, map[string]firstUse{}
	keys := map[string]firstUse{}
	for i := range w.Programs {
		p, here := &w.Programs[i], at.field("programs").item(i)
		c.checkUnique(programs, p.ID, here.field("id"), "program id")
		c.checkUnique(keys, p.Key, here.field("key"), "program key")
	}
	keys = map[string]firstUse{}
	for i := range w.Partners {
		p, here := &w.Partners[i], at.field("partners").item(i)
		c.checkUnique(partners, p.ID, here.field("id"), "partner id")
		c.checkUnique(keys, p.Key, here.field("key"), "partner key")
	}
	ids, addresses := map[string]firstUse{}, map[string]firstUse{}
	for i := range w.Links {
		l, here := &w.Links[i], at.field("links").item(i)
		c.checkUnique(ids, l.ID, here.field("id"), "link id")
		if l.Domain != "" && l.Slug != "" {
			c.checkUnique(addresses, l.Domain+"/"+l.Slug, here.field("slug"), "address")
		}
		if l.Domain != "" && !slices.Contains(w.Domains, l.Domain) {
			c.addProblem(here.field("domain"), "unknown domain %q: not among the workspace's domains", l.Domain)
		}
		if _, ok := partners[l.Partner]; l.Partner != "" && !ok {
			c.addProblem(here.field("partner"), "unknown partner id %q", l.Partner)
		}
		if _, ok := programs[l.Program]; l.Program != "" && !ok {
			c.addProblem(here.field("program"), "unknown program id %q", l.Program)
		}
	}
}

func (c *checker) checkProgram(p *Program, at *fieldPath) {
	c.checkID(p.ID, at.field("id"), true)
	c.checkID(p.Key, at.field("key"), true)
	c.checkName(p.Name, at.field("name"))
	c.checkOneOf(p.Status, at.field("status"), "status", StatusActive, StatusPaused, StatusArchived)
	if text := windowProblem(p.WindowMs); text != "" {
		c.addProblem(at.field("window"), "%s", text)
	}
	if text := followProblem(p.FollowMs); text != "" {
		c.addProblem(at.field("follow"), "%s", text)
	}
	if where, text := rewardProblem(p.Reward); text != "" {
		here := at.field("reward")
		if where != "" {
			here = here.field(where)
		}
		c.addProblem(here, "%s", text)
	}
	utm := at.field("utm")
	c.checkPrintable(p.UTM.Source, utm.field("source"), maxUTM)
	c.checkPrintable(p.UTM.Medium, utm.field("medium"), maxUTM)
	c.checkPrintable(p.UTM.Campaign, utm.field("campaign"), maxUTM)
	c.checkPrintable(p.UTM.Term, utm.field("term"), maxUTM)
	c.checkPrintable(p.UTM.Content, utm.field("content"), maxUTM)
}

func (c *checker) checkPartner(p *Partner, at *fieldPath) {
	c.checkID(p.ID, at.field("id"), true)
	c.checkID(p.Key, at.field("key"), true)
	c.checkName(p.Name, at.field("name"))
	c.checkOneOf(p.Relationship, at.field("relationship"), "relationship",
		RelationshipApproved, RelationshipReview, RelationshipInvited,
		RelationshipDeclined, RelationshipBanned, RelationshipDeactivated)
	c.checkOneOf(p.Lifecycle, at.field("lifecycle"), "lifecycle", StatusActive, StatusPaused, StatusArchived)
}

func (c *checker) checkLink(l *Link, at *fieldPath) {
	c.checkID(l.ID, at.field("id"), true)
	c.checkHost(l.Domain, at.field("domain"))
	if text := c.slugProblem(l.Slug); text != "" {
		c.addProblem(at.field("slug"), "%s", text)
	}
	c.checkDestination(l.Destination, at.field("destination"))
	c.checkOneOf(l.Token, at.field("token"), "token", TokenAuto, TokenAlways, TokenNever)
	c.checkOneOf(l.Status, at.field("status"), "status", StatusActive, StatusArchived)
	c.checkID(l.Partner, at.field("partner"), false)
	c.checkID(l.Program, at.field("program"), false)
	c.checkID(l.AssignmentID, at.field("assignment_id"), false)
	if l.Partner == "" && l.AssignmentID != "" {
		c.addProblem(at.field("assignment_id"), "an assignment without partner")
	}
	if l.Partner == "" && !l.AssignedAt.IsZero() {
		c.addProblem(at.field("assigned_at"), "an assignment without partner")
	}
	if y := l.AssignedAt.Year(); !l.AssignedAt.IsZero() && (y < 1970 || y > 9999) {
		c.addProblem(at.field("assigned_at"), "year %d is not between 1970 and 9999", y)
	}
	c.checkPrintable(l.Experiment, at.field("experiment"), maxExperiment)
	c.checkPrintable(l.Variant, at.field("variant"), maxExperiment)
}

func (c *checker) slugProblem(s string) string {
	if c.stored {
		return storedSlugProblem(s)
	}
	return slugProblem(s)
}

func (c *checker) checkDestination(s string, at *fieldPath) {
	problem := destinationProblem
	if c.stored {
		problem = storedDestinationProblem
	}
	if text := problem(s); text != "" {
		c.addProblem(at, "%s", text)
	}
}

func (c *checker) checkID(s string, at *fieldPath, required bool) {
	switch {
	case s == "" && required:
		c.addProblem(at, "required")
	case s != "" && !idForm.MatchString(s):
		c.addProblem(at, "%q must be 1 to %d of A-Z a-z 0-9 . _ -", s, maxID)
	}
}

func (c *checker) checkName(s string, at *fieldPath) {
	if s == "" {
		c.addProblem(at, "required")
		return
	}
	c.checkPrintable(s, at, maxName)
}

func (c *checker) checkPrintable(s string, at *fieldPath, limit int) {
	switch n := utf8.RuneCountInString(s); {
	case n > limit:
		c.addProblem(at, "has %d characters, at most %d are allowed", n, limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		c.addProblem(at, "%q has a character that cannot be printed", s)
	}
}

func (c *checker) checkOneOf(s string, at *fieldPath, what string, allowed ...string) {
	switch {
	case s == "":
		c.addProblem(at, "required: one of %s", strings.Join(allowed, ", "))
	case !slices.Contains(allowed, s):
		c.addProblem(at, "unknown %s %q: one of %s", what, s, strings.Join(allowed, ", "))
	}
}

func (c *checker) checkHost(s string, at *fieldPath) {
	if s == "" {
		c.addProblem(at, "required")
		return
	}
	plain := NormalizeHost(s)
	_, err := netip.ParseAddr(plain)
	switch {
	case err != nil && (len(plain) > maxHost || !hostForm.MatchString(plain) || strings.Contains(s, "/")):
		c.addProblem(at, "%q is not a host name (at most %d of a-z 0-9 . _ -; other letters in their xn-- form) "+
			"or IP address", s, maxHost)
	case plain != s:
		c.addProblem(at, "host %q must be written as %q: lower-case, without port, brackets and trailing dot", s, plain)
	}
}

func tokenParameterProblem(s string) string {
	switch {
	case !idForm.MatchString(s):
		return fmt.Sprintf("token parameter %q must be 1 to %d of A-Z a-z 0-9 . _ -", s, maxID)
	case slices.Contains([]string{"nr", "sub1", "sub2", "sub3", "sub4", "sub5"}, strings.ToLower(s)):
		return fmt.Sprintf("token parameter %q has another meaning on a short URL", s)
	}
	return ""
}

func windowProblem(ms int64) string {
	switch limit := MaxWindow.Milliseconds(); {
	case ms <= 0:
		return "window must be longer than nothing"
	case ms > limit:
		return "window is longer than 90d"
	case ms%1000 != 0:
		return "window must be whole seconds"
	}
	return ""
}

func followProblem(ms int64) string {
	switch limit := MaxFollow.Milliseconds(); {
	case ms < 0:
		return "follow must not be negative"
	case ms > limit:
		return "follow is longer than 390d"
	case ms%1000 != 0:
		return "follow must be whole seconds"
	}
	return ""
}

// rewardProblem returns the faulty field, "" for the reward as a whole, and what is
// wrong with it, "" if nothing is.
func rewardProblem(r Reward) (field, text string) {
	switch {
	case r == Reward{}:
		return "", ""
	case r.Percent != "" && (r.Flat != "" || r.Currency != ""):
		return "", "is percent, or flat and currency, not both"
	case r.Percent != "":
		if !percentForm.MatchString(r.Percent) || overHundred(r.Percent) {
			return "percent", fmt.Sprintf("percent %q must be 0 to 100 with at most 4 decimals", r.Percent)
		}
		return "", ""
	case r.Flat == "":
		return "flat", "required with currency"
	case r.Currency == "":
		return "currency", "required with flat"
	}
	iso, ok := currency.Lookup(r.Currency)
	if !ok || !iso.Money && !slices.Contains(formerRewardUnits, r.Currency) {
		return "currency", fmt.Sprintf("unknown currency %q: an ISO 4217 code such as EUR", r.Currency)
	}
	digits := iso.Digits
	whole, fraction, _ := strings.Cut(r.Flat, ".")
	switch {
	case !flatForm.MatchString(r.Flat):
		return "flat", fmt.Sprintf("flat %q is not a decimal number such as 5.00", r.Flat)
	case len(fraction) > int(digits):
		return "flat", fmt.Sprintf("flat %q has more than the %d decimals of %s", r.Flat, digits, r.Currency)
	}
	if _, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", int(digits)-len(fraction)), 10, 64); err != nil {
		return "flat", fmt.Sprintf("flat %q is too large", r.Flat)
	}
	return "", ""
}

// overHundred compares as text, which is exact. s matches percentForm.
func overHundred(s string) bool {
	whole, fraction, _ := strings.Cut(s, ".")
	return len(whole) == 3 && (whole > "100" || strings.Trim(fraction, "0") != "")
}

// slugProblem refuses slugs that people cannot type, that a redirector keeps for itself,
// or that two spellings have.
func slugProblem(s string) string {
	if text := storedSlugProblem(s); text != "" {
		return text
	}
	switch nfc := norm.NFC.String(s); {
	case strings.Contains(s, "%"):
		return fmt.Sprintf("slug %q must not contain %%: typed as it is, it is no valid URL", s)
	case strings.HasPrefix(s, "-/"):
		return fmt.Sprintf("slug %q: addresses under -/ are reserved", s)
	case strings.Contains(s, `\`):
		return fmt.Sprintf("slug %q must not contain \\: browsers ask for / in its place", s)
	case strings.TrimSpace(s) != s:
		return fmt.Sprintf("slug %q must not begin or end with a blank", s)
	case strings.ContainsFunc(s, isInvisible):
		return fmt.Sprintf("slug %+q has an invisible character, which nobody can type", s)
	case nfc != s:
		return fmt.Sprintf("slug %+q is decomposed Unicode (NFD): write it as %q (NFC)", s, nfc)
	}
	return ""
}

// isInvisible reports whether a character takes no place or the place of a blank. Not so
// the joiners and tags, which make one emoji of several, and words of Persian and Hindi.
func isInvisible(r rune) bool {
	joins := r == '\u200c' || r == '\u200d' || '\U000E0020' <= r && r <= '\U000E007F'
	return unicode.Is(unicode.Cf, r) && !joins || unicode.IsSpace(r) && r != ' '
}

// storedSlugProblem refuses slugs that a browser would not request as they are: it drops
// fragments and resolves dots. Records of the topic are held to no more than that.
func storedSlugProblem(s string) string {
	switch {
	case s == "":
		return "required"
	case len(s) > maxSlug:
		return fmt.Sprintf("slug has %d bytes, at most %d are allowed", len(s), maxSlug)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Sprintf("slug %q has a control character", s)
	case strings.ContainsAny(s, "?#"):
		return fmt.Sprintf("slug %q must not contain ? or #", s)
	}
	for _, part := range strings.Split(s, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Sprintf("slug %q must not begin or end with /, nor have an empty, . or .. part", s)
		}
	}
	return ""
}
