package catalog

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/text/unicode/norm"
)

// LookupResult says whether [View.Lookup] found an address.
type LookupResult int

const (
	Unknown  LookupResult = iota // no such host or slug: 404
	Archived                     // the link or its host is archived: 410
	Active                       // redirect
)

// String returns unknown, archived or active.
func (r LookupResult) String() string {
	return [...]string{"unknown", "archived", "active"}[r]
}

// Resolved is everything a redirect needs. The values it points to never change; a
// later Apply makes new ones.
//
// If a record that the link refers to does not exist (yet), only its id is known: a
// Partner or Program then has nothing but ID, a Workspace nothing but ID and
// TokenParameter. The click still names the right owner, and it is flagged for review.
type Resolved struct {
	Workspace      *Workspace // the owner of the host
	Link           *Link
	Partner        *Partner // nil if the link has none
	Program        *Program // nil if the link has none
	WindowMs       int64    // the program's; DefaultWindow without program
	RewardTerms    string   // the program's [Reward.Terms]
	UTM            UTM      // the program's
	WithholdReason string   // of the destination, for the workspace's token parameter: [WithholdReason]
	Offset         int64    // largest offset of the records this was made from: a click's catalog_offset
}

// View answers look-ups from the records of the topic. It can be read while records are
// applied. The cost of a record does not depend on their number; a look-up takes two
// map reads under a read lock and does not allocate.
//
// To read the topic again from its start, make a new View: the compacted topic may no
// longer have the tombstone of a record that was removed meanwhile, and an old View
// would keep it.
type View struct {
	mu sync.RWMutex // guards viewState and the fields of all cells; what cells point to never changes
	viewState
}

type viewState struct {
	offset     int64                                // the largest that Apply has seen; -1 before the first
	records    map[string]storedRecord              // by key
	workspaces map[string]*cell[Workspace]          // by id
	programs   map[workspaceKey]*cell[programTerms] // with what follows from them
	partners   map[workspaceKey]*cell[Partner]
	hosts      map[string]*hostCell              // by [NormalizeHost]
	domains    map[string]map[string]*linkCell   // domain → slug → link
	folded     map[string]map[string][]*linkCell // the same by foldSlug, of slugs that it changes; by slug
}

// storedRecord is a record as it came, for Save and Entries. A removed one has no
// value, but its offset stays: an older record that arrives later must not restore it.
type storedRecord struct {
	value  []byte
	offset int64
}

// cell holds one record. It is made when something first refers to it, so that links
// can point to partners whose record comes later. value is nil until the record comes,
// and again after its removal.
type cell[T any] struct {
	value  *T
	offset int64
}

// workspaceKey names a program or partner: ids are unique within a workspace.
type workspaceKey struct{ workspace, id string }

// programTerms is a program and its frozen reward terms.
type programTerms struct {
	Program
	reward string // [Reward.Terms]
}

type hostCell struct {
	cell[Host]
	workspace *cell[Workspace]
	links     map[string]*linkCell   // of the domain as which the host answers, by slug
	folded    map[string][]*linkCell // viewState.folded of that domain
}

type linkCell struct {
	cell[linkRecord]
	partner  *cell[Partner]      // nil if the link has none
	program  *cell[programTerms] // nil if the link has none
	withheld atomic.Pointer[cachedReason]
}

// cachedReason is the result of [WithholdReason] for one token parameter.
type cachedReason struct{ parameter, reason string }

// NewView returns an empty view.
func NewView() *View {
	return &View{viewState: viewState{
		offset:     -1,
		records:    map[string]storedRecord{},
		workspaces: map[string]*cell[Workspace]{},
		programs:   map[workspaceKey]*cell[programTerms]{},
		partners:   map[workspaceKey]*cell[Partner]{},
		hosts:      map[string]*hostCell{},
		domains:    map[string]map[string]*linkCell{},
		folded:     map[string]map[string][]*linkCell{},
	}}
}

// Replace makes v hold what other holds, in one step for all readers. other must not be
// used afterwards.
func (v *View) Replace(other *View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.viewState = other.viewState
}

// Apply takes one record of the topic; an empty value removes the record. For each key
// the largest offset wins, in whatever order the records come. After an error, which
// names the key, nothing but [View.Offset] has changed.
func (v *View) Apply(key string, value []byte, offset int64) error {
	if IsForeign(key) {
		return nil
	}
	var r *record
	var err error
	if len(value) > 0 {
		r, err = decodeRecord(key, value)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offset = max(v.offset, offset)
	if err != nil {
		return err
	}
	old, known := v.records[key]
	if known && old.offset > offset {
		return nil
	}
	if r != nil {
		v.records[key] = storedRecord{slices.Clone(value), offset}
		v.storeRecord(r, offset)
		return nil
	}
	v.records[key] = storedRecord{nil, offset}
	if len(old.value) > 0 {
		was, err := decodeRecord(key, old.value)
		if err != nil {
			return err // it was accepted before
		}
		v.removeRecord(was, offset)
	}
	return nil
}

// storeRecord and removeRecord are called with mu held.
func (v *View) storeRecord(r *record, offset int64) {
	switch {
	case r.workspace != nil:
		*cellOf(v.workspaces, r.workspace.ID) = cell[Workspace]{r.workspace, offset}
	case r.program != nil:
		p := r.program
		terms := &programTerms{p.Program, p.Reward.Terms()}
		*cellOf(v.programs, workspaceKey{p.Workspace, p.ID}) = cell[programTerms]{terms, offset}
	case r.partner != nil:
		p := r.partner
		*cellOf(v.partners, workspaceKey{p.Workspace, p.ID}) = cell[Partner]{&p.Partner, offset}
	case r.host != nil:
		h := r.host
		v.hosts[h.Host] = &hostCell{cell[Host]{h, offset}, cellOf(v.workspaces, h.Workspace),
			linksOf(v.domains, h.Domain), linksOf(v.folded, h.Domain)}
	case r.link != nil:
		l := r.link
		c := &linkCell{cell: cell[linkRecord]{l, offset}}
		if l.Partner != "" {
			c.partner = cellOf(v.partners, workspaceKey{l.Workspace, l.Link.Partner})
		}
		if l.Program != "" {
			c.program = cellOf(v.programs, workspaceKey{l.Workspace, l.Link.Program})
		}
		linksOf(v.domains, l.Domain)[l.Slug] = c
		v.setFolded(&l.Link, c)
	}
}

// setFolded makes c the link of a slug where case is ignored; nil removes it.
func (v *View) setFolded(l *Link, c *linkCell) {
	folded := foldSlug(l.Slug)
	if folded == l.Slug {
		return
	}
	links := linksOf(v.folded, l.Domain)
	same := slices.DeleteFunc(links[folded], func(c *linkCell) bool { return c.value.Slug == l.Slug })
	if c != nil {
		same = append(same, c)
		slices.SortFunc(same, func(a, b *linkCell) int { return strings.Compare(a.value.Slug, b.value.Slug) })
	}
	if len(same) == 0 {
		delete(links, folded)
		return
	}
	links[folded] = same
}

func (v *View) removeRecord(r *record, offset int64) {
	switch {
	case r.workspace != nil:
		*cellOf(v.workspaces, r.workspace.ID) = cell[Workspace]{nil, offset}
	case r.program != nil:
		*cellOf(v.programs, workspaceKey{r.program.Workspace, r.program.ID}) = cell[programTerms]{nil, offset}
	case r.partner != nil:
		*cellOf(v.partners, workspaceKey{r.partner.Workspace, r.partner.ID}) = cell[Partner]{nil, offset}
	case r.host != nil:
		delete(v.hosts, r.host.Host)
	case r.link != nil:
		delete(linksOf(v.domains, r.link.Domain), r.link.Slug)
		v.setFolded(&r.link.Link, nil)
	}
}

// cellOf returns the cell of a key, and makes it if there is none.
func cellOf[K comparable, T any](m map[K]*T, key K) *T {
	c := m[key]
	if c == nil {
		c = new(T)
		m[key] = c
	}
	return c
}

func linksOf[T any](domains map[string]map[string]T, domain string) map[string]T {
	links := domains[domain]
	if links == nil {
		links = map[string]T{}
		domains[domain] = links
	}
	return links
}

// Lookup resolves an address. host is the Host header as received, see [NormalizeHost].
// The caller percent-decodes slug and handles a trailing slash. A slug is matched exactly,
// then in composed Unicode, then, with slug_case: ignore, in any case; there an active
// link counts before an archived one.
// Resolved is also filled for an Archived address.
func (v *View) Lookup(host, slug string) (Resolved, LookupResult) {
	host = NormalizeHost(host)
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.hosts[host]
	if h == nil {
		return Resolved{}, Unknown
	}
	l := h.linkOf(slug)
	// a link that the domain's former owner left behind does not count
	if l == nil || l.value.Workspace != h.value.Workspace {
		return Resolved{}, Unknown
	}
	r := Resolved{Link: &l.value.Link, WindowMs: DefaultWindow.Milliseconds(), Offset: max(h.offset, l.offset)}
	r.Workspace = h.workspace.value
	r.Offset = max(r.Offset, h.workspace.offset)
	if r.Workspace == nil {
		r.Workspace = &Workspace{ID: h.value.Workspace, TokenParameter: DefaultTokenParameter}
	}
	if l.partner != nil {
		r.Partner = l.partner.value
		r.Offset = max(r.Offset, l.partner.offset)
		if r.Partner == nil {
			r.Partner = &Partner{ID: r.Link.Partner}
		}
	}
	if l.program != nil {
		r.Offset = max(r.Offset, l.program.offset)
		if p := l.program.value; p != nil {
			r.Program = &p.Program
			r.WindowMs = p.WindowMs
			r.RewardTerms = p.reward
			r.UTM = p.UTM
		} else {
			r.Program = &Program{ID: r.Link.Program}
		}
	}
	r.WithholdReason = l.withholdReason(r.Workspace.TokenParameter)
	if h.value.Status == StatusArchived || r.Link.Status == StatusArchived {
		return r, Archived
	}
	return r, Active
}

// linkOf returns the link of a slug, or nil. Where case is ignored, several links can
// have it: an active one counts before those that were archived.
func (h *hostCell) linkOf(slug string) *linkCell {
	l := h.links[slug]
	if l == nil {
		l = h.links[norm.NFC.String(slug)]
	}
	if h.value.SlugCase != SlugCaseIgnore || l != nil && h.isActive(l) {
		return l
	}
	folded := foldSlug(slug)
	if same := h.links[folded]; same != nil && (l == nil || h.isActive(same)) {
		l = same
	}
	for _, same := range h.folded[folded] {
		if l == nil || !h.isActive(l) && h.isActive(same) {
			l = same
		}
	}
	return l
}

// isActive reports whether a link is one of the host's owner, and not archived.
func (h *hostCell) isActive(l *linkCell) bool {
	return l.value.Workspace == h.value.Workspace && l.value.Status != StatusArchived
}

// Domain returns how an active host answers beside its links; false if the catalog does
// not have it. host is as in [View.Lookup].
func (v *View) Domain(host string) (DomainSettings, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.hosts[NormalizeHost(host)]
	if h == nil || h.value.Status != StatusActive {
		return DomainSettings{}, false
	}
	return h.value.DomainSettings, true
}

// withholdReason caches the reason for one parameter: the parameter is the same until
// the workspace changes it.
func (l *linkCell) withholdReason(parameter string) string {
	if s := l.withheld.Load(); s != nil && s.parameter == parameter {
		return s.reason
	}
	s := &cachedReason{parameter, WithholdReason(l.value.Destination, parameter)}
	l.withheld.Store(s)
	return s.reason
}

// Workspace returns a workspace without its programs, partners and links.
func (v *View) Workspace(id string) (*Workspace, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	c := v.workspaces[id]
	if c == nil || c.value == nil {
		return nil, false
	}
	return c.value, true
}

// Workspaces returns the view's contents in the shape of catalog files, sorted by id.
// Archived hosts, and links on archived domains, are left out. It is meant for printing
// ([Format]) and for checks at start, not for requests.
func (v *View) Workspaces() []Workspace {
	v.mu.RLock()
	defer v.mu.RUnlock()
	byID := map[string]*Workspace{}
	for id, c := range v.workspaces {
		if c.value != nil {
			w := cloneWorkspace(c.value)
			v.fillHosts(&w)
			byID[id] = &w
		}
	}
	for m, c := range v.programs {
		if w := byID[m.workspace]; w != nil && c.value != nil {
			w.Programs = append(w.Programs, c.value.Program)
		}
	}
	for m, c := range v.partners {
		if w := byID[m.workspace]; w != nil && c.value != nil {
			w.Partners = append(w.Partners, *c.value)
		}
	}
	for domain, links := range v.domains {
		for _, c := range links {
			if w := byID[c.value.Workspace]; w != nil && slices.Contains(w.Domains, domain) {
				w.Links = append(w.Links, c.value.Link)
			}
		}
	}
	out := make([]Workspace, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		w := byID[id]
		slices.SortFunc(w.Programs, func(a, b Program) int { return strings.Compare(a.ID, b.ID) })
		slices.SortFunc(w.Partners, func(a, b Partner) int { return strings.Compare(a.ID, b.ID) })
		slices.SortFunc(w.Links, func(a, b Link) int {
			return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Slug, b.Slug))
		})
		out = append(out, *w)
	}
	return out
}

// fillHosts replaces the hosts that the workspace's record names by those that answer.
// A host that the file no longer names still answers until it is archived. Hosts of the
// record keep their order; the others follow.
func (v *View) fillHosts(w *Workspace) {
	active := func(host string) bool {
		h := v.hosts[host]
		return h != nil && h.value.Workspace == w.ID && h.value.Status == StatusActive
	}
	w.Domains = slices.DeleteFunc(w.Domains, func(d string) bool { return !active(d) || v.hosts[d].value.Domain != d })
	clear(w.Aliases)
	for _, host := range slices.Sorted(maps.Keys(v.hosts)) {
		if h := v.hosts[host].value; active(host) && h.Domain == host && !slices.Contains(w.Domains, host) {
			w.Domains = append(w.Domains, host)
		}
	}
	for _, domain := range w.Domains {
		w.setDomain(domain, v.hosts[domain].value.DomainSettings)
	}
	for host, h := range v.hosts {
		if active(host) && h.value.Domain != host && slices.Contains(w.Domains, h.value.Domain) {
			w.Aliases[host] = h.value.Domain
		}
	}
}

// Entries returns the view's records, sorted by key.
func (v *View) Entries() []Entry {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []Entry
	for key, s := range v.records {
		if len(s.value) > 0 {
			out = append(out, Entry{Key: key, Value: slices.Clone(s.value)})
		}
	}
	sortEntries(out)
	return out
}

// Offset returns the largest offset that Apply has seen, of usable and unusable records
// alike; -1 before the first.
func (v *View) Offset() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.offset
}

// LongestWindow returns the longest attribution window of any program, at least
// DefaultWindow. Clicks must be kept longer than that.
func (v *View) LongestWindow() time.Duration {
	v.mu.RLock()
	defer v.mu.RUnlock()
	longest := DefaultWindow
	for _, c := range v.programs {
		if c.value != nil {
			longest = max(longest, time.Duration(c.value.WindowMs)*time.Millisecond)
		}
	}
	return longest
}
