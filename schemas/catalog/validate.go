package catalog

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a catalog is as valid on a machine without a time zone database
	"unicode"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/currency"
)

// Limits. A click record has at most 512 bytes, and takes all of these over.
const (
	maxID          = 40   // characters of ids and keys, and of the token parameter
	maxName        = 200  // characters
	maxUTM         = 100  // characters of each value
	maxExperiment  = 64   // characters of experiment and variant
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

// check collects what is wrong with one workspace, or with one record: of one place the
// first thing, for the others often only follow from it.
type check struct {
	src      *source
	problems []*Problem
	reported map[string]bool // paths of problems
}

func (c *check) report(at *fieldPath, format string, args ...any) {
	p := &Problem{Path: at.String(), Text: fmt.Sprintf(format, args...)}
	if c.reported[p.Path] {
		return
	}
	if c.src != nil {
		if c.src.complained(at) {
			return
		}
		pos := c.src.position(at)
		p.File, p.Line, p.Column = c.src.file, pos.Line, pos.Column
	}
	c.problems = append(c.problems, p)
	if c.reported == nil {
		c.reported = map[string]bool{}
	}
	c.reported[p.Path] = true
}

// validate applies all rules to workspaces whose defaults are filled in, each alone and
// then against each other.
func validate(workspaces []Workspace) []*Problem {
	var problems []*Problem
	ids, hosts := map[string]use{}, map[string]use{}
	for i := range workspaces {
		w := &workspaces[i]
		c := &check{src: w.src}
		at := workspacePath(w, i)
		c.workspace(w, at)
		c.lists(w, at)
		c.references(w, at)
		c.unique(ids, w.ID, at.field("id"), "workspace id")
		for j, domain := range w.Domains {
			c.unique(hosts, domain, at.field("domains").item(j), "host")
		}
		for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
			c.unique(hosts, host, at.field("aliases").freeKey(host), "host")
		}
		problems = append(problems, c.problems...)
	}
	return problems
}

func workspacePath(w *Workspace, i int) *fieldPath {
	if w.src != nil {
		i = w.src.index
	}
	return (&fieldPath{key: "workspaces"}).item(i)
}

// use is the first use of a name, written out only when there is a second.
type use struct {
	src *source
	at  *fieldPath
}

func (u use) String() string {
	if u.src == nil {
		return u.at.String()
	}
	pos := u.src.position(u.at)
	return fmt.Sprintf("%s:%d:%d", u.src.file, pos.Line, pos.Column)
}

// unique reports the second and later uses of a name, and says where the first is.
func (c *check) unique(seen map[string]use, name string, at *fieldPath, what string) {
	if name == "" {
		return
	}
	if first, used := seen[name]; used {
		c.report(at, "duplicate %s %q: first at %s", what, name, first)
		return
	}
	seen[name] = use{c.src, at}
}

// workspace checks what the record workspace/{w} holds.
func (c *check) workspace(w *Workspace, at *fieldPath) {
	switch {
	case w.ID == "":
		c.report(at.field("id"), "required")
	case !workspaceForm.MatchString(w.ID):
		c.report(at.field("id"), "workspace id %q must be 1 to 64 of a-z 0-9 -", w.ID)
	}
	c.name(w.Name, at.field("name"))
	c.oneOf(w.Plan, at.field("plan"), "plan", PlanStarter, PlanPlus, PlanGrowth, PlanProfessional, PlanEnterprise)
	if text := tokenParameterProblem(w.TokenParameter); text != "" {
		c.report(at.field("token_parameter"), "%s", text)
	}
	if _, err := time.LoadLocation(w.Timezone); err != nil || w.Timezone == "Local" || w.Timezone == "" {
		c.report(at.field("timezone"), "unknown time zone %q: use an IANA name such as Europe/Berlin", w.Timezone)
	}
	for i, domain := range w.Domains {
		c.host(domain, at.field("domains").item(i))
	}
	for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
		here := at.field("aliases").freeKey(host)
		c.host(host, here)
		if !slices.Contains(w.Domains, w.Aliases[host]) {
			c.report(here, "unknown domain %q: an alias answers as a domain of its workspace", w.Aliases[host])
		}
	}
}

// lists checks programs, partners and links one by one.
func (c *check) lists(w *Workspace, at *fieldPath) {
	for i := range w.Programs {
		c.program(&w.Programs[i], at.field("programs").item(i))
	}
	for i := range w.Partners {
		c.partner(&w.Partners[i], at.field("partners").item(i))
	}
	for i := range w.Links {
		c.link(&w.Links[i], at.field("links").item(i))
	}
}

// references checks what holds between the parts of a workspace: names are unique, and
// what is referred to exists.
func (c *check) references(w *Workspace, at *fieldPath) {
	programs, partners := map[string]use{}, map[string]use{}
	keys := map[string]use{}
	for i := range w.Programs {
		p, here := &w.Programs[i], at.field("programs").item(i)
		c.unique(programs, p.ID, here.field("id"), "program id")
		c.unique(keys, p.Key, here.field("key"), "program key")
	}
	keys = map[string]use{}
	for i := range w.Partners {
		p, here := &w.Partners[i], at.field("partners").item(i)
		c.unique(partners, p.ID, here.field("id"), "partner id")
		c.unique(keys, p.Key, here.field("key"), "partner key")
	}
	ids, addresses := map[string]use{}, map[string]use{}
	for i := range w.Links {
		l, here := &w.Links[i], at.field("links").item(i)
		c.unique(ids, l.ID, here.field("id"), "link id")
		if l.Domain != "" && l.Slug != "" {
			c.unique(addresses, l.Domain+"/"+l.Slug, here.field("slug"), "address")
		}
		if l.Domain != "" && !slices.Contains(w.Domains, l.Domain) {
			c.report(here.field("domain"), "unknown domain %q: not among the workspace's domains", l.Domain)
		}
		if _, ok := partners[l.Partner]; l.Partner != "" && !ok {
			c.report(here.field("partner"), "unknown partner id %q", l.Partner)
		}
		if _, ok := programs[l.Program]; l.Program != "" && !ok {
			c.report(here.field("program"), "unknown program id %q", l.Program)
		}
	}
}

func (c *check) program(p *Program, at *fieldPath) {
	c.id(p.ID, at.field("id"), true)
	c.id(p.Key, at.field("key"), true)
	c.name(p.Name, at.field("name"))
	c.oneOf(p.Status, at.field("status"), "status", StatusActive, StatusPaused, StatusArchived)
	if text := windowProblem(p.WindowMs); text != "" {
		c.report(at.field("window"), "%s", text)
	}
	if where, text := rewardProblem(p.Reward); text != "" {
		here := at.field("reward")
		if where != "" {
			here = here.field(where)
		}
		c.report(here, "%s", text)
	}
	utm := at.field("utm")
	c.printable(p.UTM.Source, utm.field("source"), maxUTM)
	c.printable(p.UTM.Medium, utm.field("medium"), maxUTM)
	c.printable(p.UTM.Campaign, utm.field("campaign"), maxUTM)
	c.printable(p.UTM.Term, utm.field("term"), maxUTM)
	c.printable(p.UTM.Content, utm.field("content"), maxUTM)
}

func (c *check) partner(p *Partner, at *fieldPath) {
	c.id(p.ID, at.field("id"), true)
	c.id(p.Key, at.field("key"), true)
	c.name(p.Name, at.field("name"))
	c.oneOf(p.Relationship, at.field("relationship"), "relationship", RelationshipApproved, RelationshipReview,
		RelationshipInvited, RelationshipDeclined, RelationshipBanned, RelationshipDeactivated)
	c.oneOf(p.Lifecycle, at.field("lifecycle"), "lifecycle", StatusActive, StatusPaused, StatusArchived)
}

func (c *check) link(l *Link, at *fieldPath) {
	c.id(l.ID, at.field("id"), true)
	c.host(l.Domain, at.field("domain"))
	if text := slugProblem(l.Slug); text != "" {
		c.report(at.field("slug"), "%s", text)
	}
	if text := destinationProblem(l.Destination); text != "" {
		c.report(at.field("destination"), "%s", text)
	}
	c.oneOf(l.Token, at.field("token"), "token", TokenAuto, TokenAlways, TokenNever)
	c.oneOf(l.Status, at.field("status"), "status", StatusActive, StatusArchived)
	c.id(l.Partner, at.field("partner"), false)
	c.id(l.Program, at.field("program"), false)
	c.id(l.AssignmentID, at.field("assignment_id"), false)
	if l.Partner == "" && l.AssignmentID != "" {
		c.report(at.field("assignment_id"), "an assignment without partner")
	}
	if l.Partner == "" && !l.AssignedAt.IsZero() {
		c.report(at.field("assigned_at"), "an assignment without partner")
	}
	if y := l.AssignedAt.Year(); !l.AssignedAt.IsZero() && (y < 1970 || y > 9999) {
		c.report(at.field("assigned_at"), "year %d is not between 1970 and 9999", y)
	}
	c.printable(l.Experiment, at.field("experiment"), maxExperiment)
	c.printable(l.Variant, at.field("variant"), maxExperiment)
}

func (c *check) id(s string, at *fieldPath, required bool) {
	switch {
	case s == "" && required:
		c.report(at, "required")
	case s != "" && !idForm.MatchString(s):
		c.report(at, "%q must be 1 to %d of A-Z a-z 0-9 . _ -", s, maxID)
	}
}

func (c *check) name(s string, at *fieldPath) {
	if s == "" {
		c.report(at, "required")
		return
	}
	c.printable(s, at, maxName)
}

func (c *check) printable(s string, at *fieldPath, limit int) {
	switch n := utf8.RuneCountInString(s); {
	case n > limit:
		c.report(at, "has %d characters, at most %d are allowed", n, limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		c.report(at, "%q has a character that cannot be printed", s)
	}
}

func (c *check) oneOf(s string, at *fieldPath, what string, allowed ...string) {
	switch {
	case s == "":
		c.report(at, "required: one of %s", strings.Join(allowed, ", "))
	case !slices.Contains(allowed, s):
		c.report(at, "unknown %s %q: one of %s", what, s, strings.Join(allowed, ", "))
	}
}

func (c *check) host(s string, at *fieldPath) {
	if s == "" {
		c.report(at, "required")
		return
	}
	plain := NormalizeHost(s)
	_, err := netip.ParseAddr(plain)
	switch {
	case err != nil && (len(plain) > maxHost || !hostForm.MatchString(plain) || strings.Contains(s, "/")):
		c.report(at, "%q is not a host name (at most %d of a-z 0-9 . _ -; other letters in their xn-- form) "+
			"or IP address", s, maxHost)
	case plain != s:
		c.report(at, "host %q must be written as %q: lower-case, without port, brackets and trailing dot", s, plain)
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

// rewardProblem returns the field to blame, "" for the reward as a whole, and what is
// wrong, "" for nothing.
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
	digits, ok := currency.Digits(r.Currency)
	if !ok {
		return "currency", fmt.Sprintf("unknown currency %q: an ISO 4217 code such as EUR", r.Currency)
	}
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

// overHundred compares as text, which is exact; s has the form of a percentage.
func overHundred(s string) bool {
	whole, fraction, _ := strings.Cut(s, ".")
	return len(whole) == 3 && (whole > "100" || strings.Trim(fraction, "0") != "")
}

// slugProblem refuses what a browser would not ask for again: it drops fragments and
// resolves dots.
func slugProblem(s string) string {
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

// destinationProblem refuses what cannot stand in a Location header byte for byte, and
// schemes that run code where the response's HTML link is clicked.
func destinationProblem(s string) string {
	switch {
	case s == "":
		return "required"
	case len(s) > maxDestination:
		return fmt.Sprintf("destination has %d bytes, at most %d are allowed", len(s), maxDestination)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r)
	}):
		return fmt.Sprintf("destination %q has a space or control character: percent-encode it", s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Sprintf("bad destination: %v", err)
	}
	if u.Scheme == "" || u.Hostname() == "" {
		return fmt.Sprintf("destination %q must be an absolute URL with scheme and host", s)
	}
	if slices.Contains([]string{"javascript", "vbscript", "data"}, u.Scheme) {
		return fmt.Sprintf("destination %q: scheme %s could run code", s, u.Scheme)
	}
	return ""
}
