package catalog

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Found is what [View.Lookup] has to say about an address.
type Found int

const (
	Unknown  Found = iota // no such host or slug: 404
	Archived              // the link or its host is archived: 410
	Active                // redirect
)

func (f Found) String() string {
	return [...]string{"unknown", "archived", "active"}[f]
}

// Resolved is everything a redirect needs. The values pointed to do not change; a later
// Apply makes new ones.
//
// Where a record that the link refers to is not (yet) there, its id stands alone: a
// Partner or Program with nothing but ID, a Workspace with nothing but ID and
// TokenParameter. The click then says truly whom it is for, and is flagged for review.
type Resolved struct {
	Workspace   *Workspace
	Link        *Link
	Partner     *Partner // nil if the link has none
	Program     *Program // nil if the link has none
	WindowMs    int64    // the program's; DefaultWindow without program
	RewardTerms string   // the program's [Reward.Terms]
	UTM         UTM      // the program's
	Unsafe      string   // Safety of the destination with the workspace's token parameter
	Offset      int64    // of the newest record of the topic that this was made from: catalog_offset
}

// View answers look-ups from the records of the topic. It may be read while it is fed.
// A record costs the same however many there are; a look-up takes two map reads under a
// read lock, and does not allocate.
//
// A view that is fed from the beginning of the topic a second time keeps what was
// removed in between, because a compacted topic does not say so for ever: then make a
// new one.
type View struct {
	// guards everything below, and the fields of all cells; what cells point to never
	// changes
	mu         sync.RWMutex
	offset     int64
	records    map[string]stored // by key
	workspaces map[string]*cell[Workspace]
	programs   map[member]*cell[terms]
	partners   map[member]*cell[Partner]
	hosts      map[string]*hostCell
	domains    map[string]map[string]*linkCell // domain → slug → link
}

// stored is a record as it came, for Save and Entries. A removed one has no value, but
// its offset stays: an older record that comes late must not bring it back.
type stored struct {
	value  []byte
	offset int64
}

// cell is the place of one record. It exists from the first time that anything refers
// to it, so that links can point to partners that come later; value is nil until then,
// and again after a removal.
type cell[T any] struct {
	value  *T
	offset int64
}

type member struct{ workspace, id string }

// terms is a program with what follows from it.
type terms struct {
	Program
	reward string
}

type hostCell struct {
	cell[Host]
	workspace *cell[Workspace]
	links     map[string]*linkCell
}

type linkCell struct {
	cell[linkRecord]
	partner *cell[Partner] // nil if the link has none
	program *cell[terms]   // nil if the link has none
	safety  atomic.Pointer[safety]
}

// safety remembers [Safety] for one token parameter.
type safety struct{ parameter, reason string }

// NewView returns an empty view.
func NewView() *View {
	return &View{
		offset:     -1,
		records:    map[string]stored{},
		workspaces: map[string]*cell[Workspace]{},
		programs:   map[member]*cell[terms]{},
		partners:   map[member]*cell[Partner]{},
		hosts:      map[string]*hostCell{},
		domains:    map[string]map[string]*linkCell{},
	}
}

// Replace makes v hold what other holds, at once for whoever looks. other must not be
// used any more.
func (v *View) Replace(other *View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offset, v.records, v.workspaces, v.programs, v.partners, v.hosts, v.domains = other.offset, other.records, other.workspaces, other.programs, other.partners, other.hosts, other.domains
}

// Apply takes one record of the topic; an empty value removes it. Of one key the record
// with the largest offset wins, whatever the order. An error names the key and changes
// nothing but [View.Offset].
func (v *View) Apply(key string, value []byte, offset int64) error {
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
		v.records[key] = stored{slices.Clone(value), offset}
		v.put(r, offset)
		return nil
	}
	v.records[key] = stored{nil, offset}
	if len(old.value) > 0 {
		was, err := decodeRecord(key, old.value)
		if err != nil {
			return err // it was accepted before
		}
		v.remove(was, offset)
	}
	return nil
}

// put and remove are called with mu held.
func (v *View) put(r *record, offset int64) {
	switch {
	case r.workspace != nil:
		*at(v.workspaces, r.workspace.ID) = cell[Workspace]{r.workspace, offset}
	case r.program != nil:
		p := r.program
		*at(v.programs, member{p.Workspace, p.ID}) = cell[terms]{&terms{p.Program, p.Reward.Terms()}, offset}
	case r.partner != nil:
		p := r.partner
		*at(v.partners, member{p.Workspace, p.ID}) = cell[Partner]{&p.Partner, offset}
	case r.host != nil:
		h := r.host
		v.hosts[h.Host] = &hostCell{cell[Host]{h, offset}, at(v.workspaces, h.Workspace), v.linksOf(h.Domain)}
	case r.link != nil:
		l := r.link
		c := &linkCell{cell: cell[linkRecord]{l, offset}}
		if l.Partner != "" {
			c.partner = at(v.partners, member{l.Workspace, l.Link.Partner})
		}
		if l.Program != "" {
			c.program = at(v.programs, member{l.Workspace, l.Link.Program})
		}
		v.linksOf(l.Domain)[l.Slug] = c
	}
}

func (v *View) remove(r *record, offset int64) {
	switch {
	case r.workspace != nil:
		*at(v.workspaces, r.workspace.ID) = cell[Workspace]{nil, offset}
	case r.program != nil:
		*at(v.programs, member{r.program.Workspace, r.program.ID}) = cell[terms]{nil, offset}
	case r.partner != nil:
		*at(v.partners, member{r.partner.Workspace, r.partner.ID}) = cell[Partner]{nil, offset}
	case r.host != nil:
		delete(v.hosts, r.host.Host)
	case r.link != nil:
		delete(v.linksOf(r.link.Domain), r.link.Slug)
	}
}

func at[K comparable, T any](m map[K]*T, key K) *T {
	c := m[key]
	if c == nil {
		c = new(T)
		m[key] = c
	}
	return c
}

func (v *View) linksOf(domain string) map[string]*linkCell {
	links := v.domains[domain]
	if links == nil {
		links = map[string]*linkCell{}
		v.domains[domain] = links
	}
	return links
}

// Lookup resolves an address. host is a Host header as it came, see [NormalizeHost];
// slug is matched exactly, so percent-decoding and the trailing slash are the caller's.
// Of an Archived address Resolved is filled too.
func (v *View) Lookup(host, slug string) (Resolved, Found) {
	host = NormalizeHost(host)
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.hosts[host]
	if h == nil {
		return Resolved{}, Unknown
	}
	l := h.links[slug]
	// a link of the domain's former owner is nobody's
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
			r.Program, r.WindowMs, r.RewardTerms, r.UTM = &p.Program, p.WindowMs, p.reward, p.UTM
		} else {
			r.Program = &Program{ID: r.Link.Program}
		}
	}
	r.Unsafe = l.reason(r.Workspace.TokenParameter)
	if h.value.Status == StatusArchived || r.Link.Status == StatusArchived {
		return r, Archived
	}
	return r, Active
}

// reason is asked for the same parameter until the workspace changes it.
func (l *linkCell) reason(parameter string) string {
	if s := l.safety.Load(); s != nil && s.parameter == parameter {
		return s.reason
	}
	s := &safety{parameter, Safety(l.value.Destination, parameter)}
	l.safety.Store(s)
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

// Workspaces returns what the view holds in the shape of catalog files, by id. Archived
// hosts, and links on domains that are archived, are left out. It is for printing
// ([Format]) and for checks at start, not for requests.
func (v *View) Workspaces() []Workspace {
	v.mu.RLock()
	defer v.mu.RUnlock()
	byID := map[string]*Workspace{}
	for id, c := range v.workspaces {
		if c.value != nil {
			w := clone(c.value)
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

// fillHosts replaces the hosts that the workspace's record names by those that answer:
// one that a file no longer names goes on answering until it is archived. The record's
// order is kept, others follow.
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

// Offset is the largest offset that Apply has seen, good or bad; -1 before the first.
func (v *View) Offset() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.offset
}

// LongestWindow is the longest attribution window of any program, and at least
// DefaultWindow: clicks must be kept longer.
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
