package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// Entry is one record of the topic `catalog`. The package comment lists keys and
// values.
type Entry struct {
	Key   string
	Value []byte
}

// Host is the record domain/{host}: which workspace owns a host, and as which domain it
// answers.
type Host struct {
	Host           string `json:"host"`      // as [NormalizeHost] gives it
	Domain         string `json:"domain"`    // whose links it serves: itself, or the domain it is an alias of
	Workspace      string `json:"workspace"` // id of the owner
	Status         string `json:"status"`    // active, archived
	DomainSettings        // the domain's
}

// The records of programs, partners and links have the id of their workspace beside
// their own fields.
type (
	programRecord struct {
		Workspace string `json:"workspace"`
		Program
	}
	partnerRecord struct {
		Workspace string `json:"workspace"`
		Partner
	}
	linkRecord struct {
		Workspace string `json:"workspace"`
		Link
	}
)

// Kinds of records: the first part of their keys.
const (
	kindWorkspace = "workspace"
	kindDomain    = "domain"
	kindProgram   = "program"
	kindPartner   = "partner"
	kindLink      = "link"
)

// IsForeign reports whether a record of topic `catalog` belongs to no catalog, but to
// the installation: `ctl topics` writes it, and a View passes over it as if it were not
// there.
func IsForeign(key string) bool { return strings.HasPrefix(key, "install/") }

// Entries returns the catalog's records, sorted by key. The same catalog gives the same
// bytes.
func (c *Catalog) Entries() []Entry {
	var out []Entry
	put := func(key string, record any) {
		value, err := json.Marshal(record, json.Deterministic(true))
		if err != nil { // cannot happen: the records have only strings, numbers, flags and checked times
			panic(fmt.Sprintf("catalog: encoding %s: %v", key, err))
		}
		out = append(out, Entry{Key: key, Value: value})
	}
	for i := range c.workspaces {
		w := &c.workspaces[i]
		put(kindWorkspace+"/"+w.ID, w)
		for _, d := range w.Domains {
			put(kindDomain+"/"+d, Host{d, d, w.ID, StatusActive, w.Settings[d]})
		}
		for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
			put(kindDomain+"/"+host, Host{host, w.Aliases[host], w.ID, StatusActive, w.Settings[w.Aliases[host]]})
		}
		for _, p := range w.Programs {
			put(kindProgram+"/"+w.ID+"/"+p.ID, programRecord{w.ID, p})
		}
		for _, p := range w.Partners {
			put(kindPartner+"/"+w.ID+"/"+p.ID, partnerRecord{w.ID, p})
		}
		for _, l := range w.Links {
			put(kindLink+"/"+l.Domain+"/"+l.Slug, linkRecord{w.ID, l})
		}
	}
	sortEntries(out)
	return out
}

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
}

// record is a decoded and checked record. Exactly one of the pointers is set.
type record struct {
	workspace *Workspace
	host      *Host
	program   *programRecord
	partner   *partnerRecord
	link      *linkRecord
}

// ownerID returns the id of the workspace that the record belongs to.
func (r *record) ownerID() string {
	switch {
	case r.workspace != nil:
		return r.workspace.ID
	case r.host != nil:
		return r.host.Workspace
	case r.program != nil:
		return r.program.Workspace
	case r.partner != nil:
		return r.partner.Workspace
	}
	return r.link.Workspace
}

// decodeRecord reads a record and checks it alone. It does not check that what the
// record refers to exists, because records come in any order.
func decodeRecord(key string, value []byte) (*record, error) {
	var (
		r     record
		c     = checker{stored: true}
		want  string
		owner string
		err   error
	)
	kind, _, ok := strings.Cut(key, "/")
	if !ok {
		return nil, fmt.Errorf("catalog record %q: unknown kind of key", key)
	}
	switch kind {
	case kindWorkspace:
		r.workspace = new(Workspace)
		err = json.Unmarshal(value, r.workspace)
		fillDefaults(r.workspace)
		want, owner = kind+"/"+r.workspace.ID, r.workspace.ID
		c.checkWorkspace(r.workspace, nil)
	case kindDomain:
		r.host = new(Host)
		err = json.Unmarshal(value, r.host)
		want, owner = kind+"/"+r.host.Host, r.host.Workspace
		c.checkHost(r.host.Host, (*fieldPath)(nil).field("host"))
		c.checkHost(r.host.Domain, (*fieldPath)(nil).field("domain"))
		c.checkOneOf(r.host.Status, (*fieldPath)(nil).field("status"), "status", StatusActive, StatusArchived)
		c.checkDomainSettings(r.host.DomainSettings, nil)
	case kindProgram:
		r.program = new(programRecord)
		err = json.Unmarshal(value, r.program)
		want, owner = kind+"/"+r.program.Workspace+"/"+r.program.ID, r.program.Workspace
		c.checkProgram(&r.program.Program, nil)
	case kindPartner:
		r.partner = new(partnerRecord)
		err = json.Unmarshal(value, r.partner)
		want, owner = kind+"/"+r.partner.Workspace+"/"+r.partner.ID, r.partner.Workspace
		c.checkPartner(&r.partner.Partner, nil)
	case kindLink:
		r.link = new(linkRecord)
		err = json.Unmarshal(value, r.link)
		want, owner = kind+"/"+r.link.Domain+"/"+r.link.Slug, r.link.Workspace
		c.checkLink(&r.link.Link, nil)
	default:
		return nil, fmt.Errorf("catalog record %q: unknown kind of key", key)
	}
	if err != nil {
		return nil, fmt.Errorf("catalog record %q: %w", key, err)
	}
	if err := joinProblems(c.problems); err != nil {
		return nil, fmt.Errorf("catalog record %q: %w", key, err)
	}
	if !workspaceForm.MatchString(owner) {
		return nil, fmt.Errorf("catalog record %q: bad workspace id %q", key, owner)
	}
	if want != key {
		return nil, fmt.Errorf("catalog record %q: the value belongs under %q", key, want)
	}
	return &r, nil
}
