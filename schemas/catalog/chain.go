package catalog

import (
	"fmt"
	"net/url"
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

// loopPosition is where a place is in a loop of destinations.
type loopPosition struct {
	loop []place // in the order of the redirects, shared by all of them
	at   int
}

// findLoops returns the places whose destinations lead back to themselves. It follows each
// destination once.
func (m *placeMap) findLoops() map[place]loopPosition {
	found, done := map[place]loopPosition{}, map[place]bool{}
	for _, at := range m.order {
		var path []place
		index := map[place]int{}
		for ok := true; ok && !done[at]; {
			if first, seen := index[at]; seen {
				loop := path[first:]
				for i, p := range loop {
					found[p] = loopPosition{loop, i}
				}
				break
			}
			index[at] = len(path)
			path = append(path, at)
			at, ok = m.next(at)
		}
		for _, p := range path {
			done[p] = true
		}
	}
	return found
}

// maxThrough is how many places of a loop an error names.
const maxThrough = 8

// through names the places between a place and itself.
func (m *placeMap) through(pos loopPosition) string {
	var names []string
	for i := 1; i < len(pos.loop); i++ {
		if i > maxThrough {
			names = append(names, fmt.Sprintf("and %d more", len(pos.loop)-i))
			break
		}
		names = append(names, m.describe(pos.loop[(pos.at+i)%len(pos.loop)]))
	}
	return strings.Join(names, ", ")
}

// checkLoops refuses destinations that lead back to themselves: each visit would make as
// many clicks as the browser follows redirects.
func checkLoops(workspaces []Workspace) []*Problem {
	m := newPlaceMap(workspaces)
	loops := m.findLoops()
	var problems []*Problem
	for _, p := range m.order {
		pos, inLoop := loops[p]
		if !inLoop {
			continue
		}
		info := m.places[p]
		c := &checker{src: info.src}
		if len(pos.loop) == 1 {
			c.addProblem(info.at, "destination %q leads back to itself", info.destination)
		} else {
			c.addProblem(info.at, "destination %q leads back to itself through %s", info.destination, m.through(pos))
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
