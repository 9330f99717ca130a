package catalog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// Diff compares the records of the topic (old) with those of a catalog (new). It
// returns the records to write, and one line for each change that says it in words.
// Only workspaces that new names are changed. A record that they have in old but not in
// new is left as it is; with archiveMissing its status (of a partner: lifecycle)
// becomes archived. Each record comes after the records it refers to.
//
//	~ partner/acme/prt_creator: relationship "review" → "approved"
//	+ link/go.acme.com/nomura
//	- link/go.acme.com/old: archived
//	= link/go.acme.com/older: not in the files, left as it is
//	! link/go.acme.com/odd: unreadable, left as it is
//
// The error joins all conflicts with old: a host or address that another workspace has,
// an address that would get another link's id, a link id that would get another
// address; and what only the files and old together are: a destination that leads back to
// itself, links that a domain with slug_case: ignore cannot tell apart. Ids are never
// reused. After an error nothing may be written.
func Diff(old, new []Entry, archiveMissing bool) (puts []Entry, lines []string, err error) {
	d, err := newDiffer(old, new)
	if err != nil {
		return nil, nil, err
	}
	if err := d.findConflicts(); err != nil {
		return nil, nil, err
	}
	for _, key := range d.sortedKeys() {
		put, line, err := d.compareRecord(key, archiveMissing)
		if err != nil {
			return nil, nil, err
		}
		if put != nil {
			puts = append(puts, Entry{Key: key, Value: put})
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if err := d.findClashes(puts); err != nil {
		return nil, nil, err
	}
	return puts, lines, nil
}

// recordSet is one state of the catalog.
type recordSet struct {
	values  map[string][]byte  // by key
	records map[string]*record // by key, of the values that can be decoded
}

type differ struct {
	old, new recordSet
	scope    map[string]bool // workspaces named in new
}

func newDiffer(old, new []Entry) (*differ, error) {
	d := &differ{scope: map[string]bool{}}
	d.old, _ = newRecordSet(old) // an unreadable old record may be replaced, and otherwise stays
	var err error
	if d.new, err = newRecordSet(new); err != nil {
		return nil, err
	}
	for _, r := range d.new.records {
		if r.workspace != nil {
			d.scope[r.workspace.ID] = true
		}
	}
	for key, r := range d.new.records {
		if !d.scope[r.ownerID()] {
			return nil, fmt.Errorf("catalog record %q: its workspace %q has no record", key, r.ownerID())
		}
	}
	return d, nil
}

func newRecordSet(entries []Entry) (recordSet, error) {
	s := recordSet{map[string][]byte{}, map[string]*record{}}
	var errs []error
	for _, e := range entries {
		s.values[e.Key] = e.Value
		r, err := decodeRecord(e.Key, e.Value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.records[e.Key] = r
	}
	return s, errors.Join(errs...)
}

// sortedKeys returns all keys, each after those that its record refers to.
func (d *differ) sortedKeys() []string {
	all := maps.Clone(d.old.values)
	maps.Copy(all, d.new.values)
	kinds := []string{kindWorkspace, kindDomain, kindProgram, kindPartner, kindLink}
	rank := func(key string) int {
		kind, _, _ := strings.Cut(key, "/")
		return slices.Index(kinds, kind)
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
}

func (d *differ) findConflicts() error {
	addresses := map[workspaceKey]string{} // of old links, by id
	for key, r := range d.old.records {
		if r.link != nil {
			addresses[workspaceKey{r.link.Workspace, r.link.ID}] = key
		}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(d.new.records)) {
		now, was := d.new.records[key], d.old.records[key]
		switch {
		case now.host != nil && was != nil && was.ownerID() != now.ownerID() && was.host.Status == StatusActive:
			errs = append(errs, fmt.Errorf("workspace %s: host %s belongs to workspace %s",
				now.ownerID(), now.host.Host, was.ownerID()))
		case now.link == nil:
		case was != nil && was.ownerID() != now.ownerID():
			errs = append(errs, fmt.Errorf("workspace %s: %s belongs to workspace %s",
				now.ownerID(), key, was.ownerID()))
		case was != nil && was.link.ID != now.link.ID:
			errs = append(errs, fmt.Errorf("workspace %s: %s is link %q and cannot become %q: an address keeps "+
				"its link, edit that one",
				now.ownerID(), key, was.link.ID, now.link.ID))
		}
		if now.link != nil {
			if at, ok := addresses[workspaceKey{now.ownerID(), now.link.ID}]; ok && at != key {
				errs = append(errs, fmt.Errorf("workspace %s: %s has link id %q, which is that of %s: ids are "+
					"never reused, give the new address its own",
					now.ownerID(), key, now.link.ID, at))
			}
		}
	}
	return errors.Join(errs...)
}

// findClashes returns what is wrong with the topic as it will be. Each file was checked
// alone, before what it leaves as it is and what other workspaces have was known. Only
// what workspaces of the files take part in is reported.
func (d *differ) findClashes(puts []Entry) error {
	values := maps.Clone(d.old.values)
	for _, p := range puts {
		values[p.Key] = p.Value
	}
	view := NewView()
	for i, key := range slices.Sorted(maps.Keys(values)) {
		_ = view.Apply(key, values[key], int64(i)) // what is unreadable leads nowhere
	}
	workspaces := view.Workspaces()
	m := newPlaceMap(workspaces)
	loops := m.findLoops()
	var errs []error
	for _, p := range m.order {
		if loop := loops[p]; loop != nil && d.scope[m.places[p].workspace] {
			through := ""
			if len(loop) > 1 {
				through = " through " + describeRest(loop, func(q place) string {
					return fmt.Sprintf("%s of workspace %s", q, m.places[q].workspace)
				})
			}
			errs = append(errs, fmt.Errorf("workspace %s: the destination of %s leads back to itself%s",
				m.places[p].workspace, p, through))
		}
	}
	for i := range workspaces {
		if w := &workspaces[i]; d.scope[w.ID] {
			errs = append(errs, findSameSlugs(w)...)
		}
	}
	return errors.Join(errs...)
}

// findSameSlugs returns an error for each two active links that a domain does not tell
// apart because it ignores case.
func findSameSlugs(w *Workspace) (errs []error) {
	first := map[place]string{}
	for i := range w.Links {
		l := &w.Links[i]
		if w.Settings[l.Domain].SlugCase != SlugCaseIgnore || l.Status == StatusArchived {
			continue
		}
		at := place{l.Domain, foldSlug(l.Slug)}
		if other, known := first[at]; known {
			errs = append(errs, fmt.Errorf("workspace %s: links %s/%s and %s/%s differ in case alone, and the "+
				"domain's slug_case is ignore: archive one of them", w.ID, l.Domain, other, l.Domain, l.Slug))
			continue
		}
		first[at] = l.Slug
	}
	return errs
}

// compareRecord returns what happens to one record: the value to write, nil for none,
// and a line about it, "" if nothing changes.
func (d *differ) compareRecord(key string, archiveMissing bool) (put []byte, line string, err error) {
	was, now := d.old.values[key], d.new.values[key]
	switch {
	case was == nil:
		return now, "+ " + key, nil
	case now != nil && bytes.Equal(was, now):
		return nil, "", nil
	case now != nil && d.old.records[key] == nil:
		return now, "~ " + key + ": was unreadable", nil
	case now != nil:
		changes, err := changedFields(was, now)
		if err != nil {
			return nil, "", fmt.Errorf("comparing catalog record %q: %w", key, err)
		}
		return now, "~ " + key + ": " + changes, nil
	}
	r := d.old.records[key]
	if r == nil {
		return nil, "! " + key + ": unreadable, left as it is", nil
	}
	if !d.scope[r.ownerID()] || r.isArchived() {
		return nil, "", nil
	}
	if !archiveMissing {
		return nil, "= " + key + ": not in the files, left as it is", nil
	}
	put, err = r.encodeArchived()
	if err != nil {
		return nil, "", fmt.Errorf("archiving catalog record %q: %w", key, err)
	}
	return put, "- " + key + ": archived", nil
}

// statusField returns the field that says whether the record is archived. A workspace
// has none, and is never missing.
func (r *record) statusField() *string {
	switch {
	case r.host != nil:
		return &r.host.Status
	case r.program != nil:
		return &r.program.Status
	case r.partner != nil:
		return &r.partner.Lifecycle
	case r.link != nil:
		return &r.link.Status
	}
	return new(string)
}

func (r *record) isArchived() bool { return *r.statusField() == StatusArchived }

// encodeArchived returns the record's value with the status archived.
func (r *record) encodeArchived() ([]byte, error) {
	*r.statusField() = StatusArchived
	switch {
	case r.host != nil:
		return json.Marshal(r.host, json.Deterministic(true))
	case r.program != nil:
		return json.Marshal(r.program, json.Deterministic(true))
	case r.partner != nil:
		return json.Marshal(r.partner, json.Deterministic(true))
	case r.link != nil:
		return json.Marshal(r.link, json.Deterministic(true))
	}
	return nil, errors.New("a workspace cannot be archived")
}

// changedFields lists the differences as `path old → new`, in the order of paths.
func changedFields(was, now []byte) (string, error) {
	a, b := map[string]string{}, map[string]string{}
	if err := errors.Join(flattenObject(was, a), flattenObject(now, b)); err != nil {
		return "", err
	}
	paths := maps.Clone(a)
	maps.Copy(paths, b)
	var out []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if a[path] != b[path] {
			out = append(out, fmt.Sprintf("%s %s → %s", path, cmp.Or(a[path], "none"), cmp.Or(b[path], "none")))
		}
	}
	if len(out) == 0 {
		return "same content, written differently", nil
	}
	return strings.Join(out, "; "), nil
}

// flattenObject adds a JSON object's leaves to out as JSON text, by their path. A list
// is a leaf.
func flattenObject(value []byte, out map[string]string) error {
	var object map[string]any
	if err := json.Unmarshal(value, &object); err != nil {
		return err
	}
	return flattenInto("", object, out)
}

func flattenInto(prefix string, object map[string]any, out map[string]string) error {
	for name, v := range object {
		if inner, ok := v.(map[string]any); ok {
			if err := flattenInto(prefix+name+".", inner, out); err != nil {
				return err
			}
			continue
		}
		text, err := json.Marshal(v, json.Deterministic(true))
		if err != nil {
			return err
		}
		out[prefix+name] = string(text)
	}
	return nil
}
