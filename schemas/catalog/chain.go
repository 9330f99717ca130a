package catalog

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// A place is where a visitor can come on one of the catalog's domains: a link, the root
// of a domain, or its answer to an unknown slug.
type place struct{ domain, slug string }

// Slugs of places that are no links. No link can have them.
const (
	rootSlug     = ""
	notFoundSlug = "?"
)

func (p place) String() string {
	if p.slug == notFoundSlug {
		return p.domain + " (not_found)"
	}
	return p.domain + "/" + p.slug
}

// placeInfo is what the catalog says of a place.
type placeInfo struct {
	destination string
	workspace   string     // id
	at          *fieldPath // of the destination
	src         *sourceFile
	archived    bool // a link that answers 410
}

// placeMap finds destinations that lead to one of the catalog's own domains.
type placeMap struct {
	hosts    map[string]string // host → the domain as which it answers
	settings map[string]DomainSettings
	folded   map[place]place // where case is ignored: the folded slug → the active link
	places   map[place]placeInfo
	order    []place // as the workspaces have them
}

func newPlaceMap(workspaces []Workspace) *placeMap {
	m := &placeMap{hosts: map[string]string{}, settings: map[string]DomainSettings{}, folded: map[place]place{},
		places: map[place]placeInfo{}}
	for i := range workspaces {
		w := &workspaces[i]
		at := workspacePath(w, i)
		add := func(p place, info placeInfo) {
			if _, known := m.places[p]; !known && info.destination != "" {
				info.src, info.workspace = w.src, w.ID
				m.places[p] = info
				m.order = append(m.order, p)
			}
		}
		for j, domain := range w.Domains {
			here, settings := at.field("domains").item(j), w.Settings[domain]
			m.hosts[domain], m.settings[domain] = domain, settings
			add(place{domain, rootSlug}, placeInfo{destination: settings.Root, at: here.field("root")})
			add(place{domain, notFoundSlug}, placeInfo{destination: settings.NotFound, at: here.field("not_found")})
		}
		for host, domain := range w.Aliases {
			m.hosts[host] = domain
		}
		for j := range w.Links {
			l := &w.Links[j]
			p := place{l.Domain, l.Slug}
			add(p, placeInfo{destination: l.Destination, at: at.field("links").item(j).field("destination"),
				archived: l.Status == StatusArchived})
			if m.settings[l.Domain].SlugCase == SlugCaseIgnore && l.Status != StatusArchived {
				m.folded[place{l.Domain, foldSlug(l.Slug)}] = p
			}
		}
	}
	return m
}

// next returns the place to which p's destination leads, if it is one of the catalog's.
// Like the redirector it does not look at ports; but an unknown slug on a port of its own
// is another server's.
func (m *placeMap) next(p place) (place, bool) {
	info := m.places[p]
	if !m.leadsOn(p) || !hasWebScheme(info.destination) {
		return place{}, false
	}
	u, err := url.Parse(info.destination)
	if err != nil {
		return place{}, false
	}
	domain, ours := m.hosts[NormalizeHost(u.Host)]
	if !ours {
		return place{}, false
	}
	to := place{domain, notFoundSlug}
	if slug, ok := SlugOf(resolveDots(u)); !ok {
		to.slug = rootSlug
	} else if m.leadsOn(place{domain, slug}) {
		to.slug = slug
	} else if composed := norm.NFC.String(slug); m.leadsOn(place{domain, composed}) {
		to.slug = composed
	} else if link, known := m.folded[place{domain, foldSlug(slug)}]; known {
		to = link
	} else if m.isPlace(place{domain, slug}) || m.isPlace(place{domain, composed}) {
		return place{}, false // archived
	} else if u.Port() != "" && u.Port() != "80" && u.Port() != "443" || IsMachinePath(slug) {
		return place{}, false // another server's, or answered without a redirect
	}
	return to, m.leadsOn(to)
}

// resolveDots returns a URL with the path that a browser requests for it: \ is /, and
// segments of dots, encoded ones too, are resolved.
func resolveDots(u *url.URL) *url.URL {
	path := cmp.Or(u.RawPath, u.EscapedPath())
	path = strings.ReplaceAll(path, `\`, "/")
	var kept []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, segment := range segments {
		dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
		switch {
		case dots == "..":
			kept = kept[:max(len(kept)-1, 0)]
		case dots != ".":
			kept = append(kept, segment)
			continue
		}
		if i == len(segments)-1 {
			kept = append(kept, "")
		}
	}
	resolved := *u
	resolved.RawPath = "/" + strings.Join(kept, "/")
	if decoded, err := url.PathUnescape(resolved.RawPath); err == nil {
		resolved.Path = decoded
	}
	return &resolved
}

func (m *placeMap) isPlace(p place) bool {
	_, known := m.places[p]
	return known
}

// leadsOn reports whether a visitor of a place is redirected.
func (m *placeMap) leadsOn(p place) bool { return m.isPlace(p) && !m.places[p].archived }

// findLoops returns the loop of each place whose destination leads back to it, beginning
// with that place. It follows each destination once, however long chains are.
func (m *placeMap) findLoops() map[place][]place {
	loops := map[place][]place{}
	walk := map[place]int{} // by place: which walk came to it first, from 1
	for i, start := range m.order {
		var path []place
		at, ok := start, true
		for ok && walk[at] == 0 {
			walk[at] = i + 1
			path = append(path, at)
			at, ok = m.next(at)
		}
		if !ok || walk[at] != i+1 {
			continue // an end, or what an earlier walk has seen
		}
		loop := path[slices.Index(path, at):]
		twice := slices.Concat(loop, loop)
		for i, p := range loop {
			loops[p] = twice[i : i+len(loop)]
		}
	}
	return loops
}

// checkLoops refuses destinations that lead back to themselves: each visit would make as
// many clicks as the browser follows redirects.
func checkLoops(workspaces []Workspace) []*Problem {
	m := newPlaceMap(workspaces)
	var problems []*Problem
	loops := m.findLoops()
	for _, p := range m.order {
		loop := loops[p]
		if loop == nil {
			continue
		}
		info := m.places[p]
		c := &checker{src: info.src}
		if len(loop) == 1 {
			c.addProblem(info.at, "destination %q leads back to itself", info.destination)
		} else {
			c.addProblem(info.at, "destination %q leads back to itself through %s", info.destination,
				describeRest(loop, m.describe))
		}
		problems = append(problems, c.problems...)
	}
	return problems
}

// maxNamedPlaces bounds the places of a loop that a message names.
const maxNamedPlaces = 10

// describeRest names the places of a loop behind the first.
func describeRest(loop []place, describe func(place) string) string {
	var through []string
	for i, p := range loop[1:] {
		if i == maxNamedPlaces {
			through = append(through, fmt.Sprintf("and %d more", len(loop)-1-i))
			break
		}
		through = append(through, describe(p))
	}
	return strings.Join(through, ", ")
}

// describe names a place and where it stands.
func (m *placeMap) describe(p place) string {
	info := m.places[p]
	return fmt.Sprintf("%s (%s)", p, firstUse{info.src, info.at})
}

// findWarnings returns what a catalog may have, and its owner probably does not want.
func findWarnings(workspaces []Workspace) []*Problem {
	m := newPlaceMap(workspaces)
	var warnings []*Problem
	for i := range workspaces {
		w := &workspaces[i]
		c := &checker{src: w.src}
		at := workspacePath(w, i)
		for j := range w.Links {
			if l := &w.Links[j]; l.Status != StatusArchived {
				c.warnOfLink(w, l, m, at.field("links").item(j).field("destination"))
			}
		}
		warnings = append(warnings, c.problems...)
	}
	return warnings
}

// warnOfLink adds at most one line of each kind. Problems of one path are kept once, so
// the lines of one link are joined.
func (c *checker) warnOfLink(w *Workspace, l *Link, m *placeMap, at *fieldPath) {
	var texts []string
	tracked := l.ConversionTracking && w.Entitled() && w.Access.ConversionTracking
	if reason := l.TokenWithheld(WithholdReason(l.Destination, w.TokenParameter)); tracked && reason != "" {
		texts = append(texts, fmt.Sprintf("the token of %s/%s is withheld: %s", l.Domain, l.Slug,
			describeReason(reason, w.TokenParameter)))
	}
	if u, err := url.Parse(l.Destination); err == nil && u.User != nil {
		texts = append(texts, fmt.Sprintf("the destination of %s/%s has a user or password, which each visitor gets",
			l.Domain, l.Slug))
	}
	if next, ok := m.next(place{l.Domain, l.Slug}); ok {
		texts = append(texts, fmt.Sprintf("the destination of %s/%s is another redirect, %s: it drops the token, so "+
			"this link's partner gets no sale", l.Domain, l.Slug, m.describe(next)))
	}
	if len(texts) > 0 {
		c.addProblem(at, "%s", strings.Join(texts, "; "))
	}
}

// describeReason says in words what the token_reason of a destination is.
func describeReason(reason, parameter string) string {
	words := map[string]string{
		ReasonLinkSetting:     "the link says token: never",
		ReasonScheme:          "the destination is not http or https",
		ReasonSemicolonQuery:  "the destination's query has a semicolon",
		ReasonReservedPresent: "the destination has " + parameter + " already",
		ReasonSignedURL:       "the destination looks signed; if it is not, say token: always",
		ReasonOAuth:           "the destination looks like OAuth; if it is not, say token: always",
	}
	return reason + ", " + words[reason]
}
