package catalog

import (
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
	at          *fieldPath // of the destination
	src         *sourceFile
	archived    bool // a link that answers 410
}

// placeMap finds destinations that lead to one of the catalog's own domains.
type placeMap struct {
	hosts    map[string]string // host → the domain as which it answers
	settings map[string]DomainSettings
	folded   map[place]place // where case is ignored: the folded slug → the link
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
				info.src = w.src
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
			if m.settings[l.Domain].SlugCase == SlugCaseIgnore {
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
	info, ok := m.places[p]
	if !ok || info.archived || !hasWebScheme(info.destination) {
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
	if slug, ok := SlugOf(u); !ok {
		to.slug = rootSlug
	} else if m.isPlace(domain, slug) {
		to.slug = slug
	} else if composed := norm.NFC.String(slug); m.isPlace(domain, composed) {
		to.slug = composed
	} else if link, known := m.folded[place{domain, foldSlug(slug)}]; known {
		to = link
	} else if u.Port() != "" && u.Port() != "80" && u.Port() != "443" {
		return place{}, false
	}
	info, ok = m.places[to]
	return to, ok && !info.archived
}

func (m *placeMap) isPlace(domain, slug string) bool {
	_, known := m.places[place{domain, slug}]
	return known
}

// loopOf returns the places from p back to p, without p at the end; nil if p's destination
// does not lead back to it.
func (m *placeMap) loopOf(p place) (loop []place) {
	for at := p; !slices.Contains(loop, at); {
		loop = append(loop, at)
		next, ok := m.next(at)
		if !ok {
			return nil
		}
		if next == p {
			return loop
		}
		at = next
	}
	return nil // p leads into the loop of others
}

// checkLoops refuses destinations that lead back to themselves: each visit would make as
// many clicks as the browser follows redirects.
func checkLoops(workspaces []Workspace) []*Problem {
	m := newPlaceMap(workspaces)
	var problems []*Problem
	for _, p := range m.order {
		loop := m.loopOf(p)
		if loop == nil {
			continue
		}
		info := m.places[p]
		c := &checker{src: info.src}
		if len(loop) == 1 {
			c.addProblem(info.at, "destination %q leads back to itself", info.destination)
		} else {
			var through []string
			for _, q := range loop[1:] {
				through = append(through, m.describe(q))
			}
			c.addProblem(info.at, "destination %q leads back to itself through %s", info.destination,
				strings.Join(through, ", "))
		}
		problems = append(problems, c.problems...)
	}
	return problems
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
