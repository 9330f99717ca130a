package catalog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestDiffGivesTheNewState: with the puts applied, every record of the new catalog is
// there, what is missing in its workspaces is archived or untouched, other workspaces
// are untouched; and a second Diff has nothing to write.
func TestDiffGivesTheNewState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now := drawCatalog(t, "before"), drawCatalog(t, "now")
		archive := rapid.Bool().Draw(t, "archive")
		puts, lines, err := Diff(before.Entries(), now.Entries(), archive)
		if err != nil {
			t.Fatal(err)
		}
		v := mustView(t, before.Entries())
		for i, e := range puts {
			if err := v.Apply(e.Key, e.Value, int64(1000+i)); err != nil {
				t.Fatal(err)
			}
		}
		old, want, got := recordSet{values: valuesOf(before.Entries())}, valuesOf(now.Entries()), valuesOf(v.Entries())
		for key, value := range want {
			if string(got[key]) != string(value) {
				t.Fatalf("%s is %s, want %s", key, got[key], value)
			}
		}
		scope := map[string]bool{}
		for _, w := range now.Workspaces() {
			scope[w.ID] = true
		}
		for key, value := range old.values {
			if want[key] != nil {
				continue
			}
			r, err := decodeRecord(key, value)
			if err != nil {
				t.Fatal(err)
			}
			switch untouched := string(got[key]) == string(value); {
			case archive && scope[r.ownerID()] && !r.isArchived():
				after, err := decodeRecord(key, got[key])
				if err != nil || !after.isArchived() {
					t.Fatalf("%s was not archived: %s %v", key, got[key], err)
				}
				*after.statusField() = *r.statusField()
				if diff := cmp.Diff(r, after, cmp.AllowUnexported(record{}, Workspace{}, programRecord{},
					partnerRecord{}, linkRecord{})); diff != "" {
					t.Fatalf("archiving changed more:\n%s", diff)
				}
			case !untouched:
				t.Fatalf("%s was touched: %s", key, got[key])
			}
		}
		if len(lines) < len(puts) {
			t.Fatalf("%d puts, %d lines", len(puts), len(lines))
		}
		if puts, _, err := Diff(v.Entries(), now.Entries(), archive); err != nil || len(puts) != 0 {
			t.Fatalf("again: %v %v", puts, err)
		}
	})
}

func valuesOf(entries []Entry) map[string][]byte {
	out := map[string][]byte{}
	for _, e := range entries {
		out[e.Key] = e.Value
	}
	return out
}

// edit applies textual edits to a small file and returns its records.
func edit(t *testing.T, replace ...string) []Entry {
	t.Helper()
	const file = `workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {exports: true}
    domains: [go.acme.com, old.acme.com]
    aliases: {localhost: go.acme.com}
    programs:
      - {id: prg, key: prg, name: Prg, reward: {percent: "10"}}
      - {id: prg2, key: prg2, name: Prg2}
    partners:
      - {id: prt, key: prt, name: Prt, relationship: review}
      - {id: prt2, key: prt2, name: Prt2, relationship: approved}
    links:
      - {id: l1, domain: go.acme.com, slug: one, destination: "https://acme.com/1", partner: prt, program: prg}
      - {id: l2, domain: old.acme.com, slug: two, destination: "https://acme.com/2"}
  - {id: b, name: B, plan: plus, access: {}, domains: [go.b.com]}
`
	ws, err := Parse("edit.yaml", []byte(strings.NewReplacer(replace...).Replace(file)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(ws)
	if err != nil {
		t.Fatal(err)
	}
	return c.Entries()
}

func TestDiffInWords(t *testing.T) {
	old := edit(t)
	smaller := []string{
		", old.acme.com", "", "aliases: {localhost: go.acme.com}", "aliases: {}",
		"      - {id: prg2, key: prg2, name: Prg2}\n", "", "      - {id: prt2, key: prt2, name: Prt2, " +
			"relationship: approved}\n", "",
		`      - {id: l2, domain: old.acme.com, slug: two, destination: "https://acme.com/2"}` + "\n", "",
		"  - {id: b, name: B, plan: plus, access: {}, domains: [go.b.com]}\n", "",
	}
	for _, c := range []struct {
		name    string
		replace []string
		archive bool
		want    string
	}{
		{"nothing", nil, true, ""},
		{"edits", []string{"review", "approved", `percent: "10"`, `flat: "5.00", currency: EUR`, "plan: plus", "plan: growth", "exports: true", "exports: false", "old.acme.com]", "old.acme.com, new.acme.com]"}, true, `
			~ workspace/acme: access.exports true → false; domains ["go.acme.com","old.acme.com"] → ["go.acme.com","old.acme.com","new.acme.com"]
			~ workspace/b: plan "plus" → "growth"
			+ domain/new.acme.com
			~ program/acme/prg: reward.currency none → "EUR"; reward.flat none → "5.00"; reward.percent "10" → none
			~ partner/acme/prt: relationship "review" → "approved"`},
		{"missing", smaller, false, `
			~ workspace/acme: aliases.localhost "go.acme.com" → none; domains ["go.acme.com","old.acme.com"] → ["go.acme.com"]
			= domain/localhost: not in the files, left as it is
			= domain/old.acme.com: not in the files, left as it is
			= program/acme/prg2: not in the files, left as it is
			= partner/acme/prt2: not in the files, left as it is
			= link/old.acme.com/two: not in the files, left as it is`},
		{"archived", smaller, true, `
			~ workspace/acme: aliases.localhost "go.acme.com" → none; domains ["go.acme.com","old.acme.com"] → ["go.acme.com"]
			- domain/localhost: archived
			- domain/old.acme.com: archived
			- program/acme/prg2: archived
			- partner/acme/prt2: archived
			- link/old.acme.com/two: archived`},
	} {
		t.Run(c.name, func(t *testing.T) {
			puts, lines, err := Diff(old, edit(t, c.replace...), c.archive)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(strings.ReplaceAll(c.want, "\t\t\t", ""))
			if diff := cmp.Diff(want, strings.Join(lines, "\n")); diff != "" {
				t.Error(diff)
			}
			written := 0
			for _, line := range lines {
				if line[0] != '=' {
					written++
				}
			}
			if len(puts) != written {
				t.Errorf("%d puts for %d lines", len(puts), written)
			}
		})
	}
}

// TestDiffConflicts: all conflicts with the past are reported, and nothing is written.
func TestDiffConflicts(t *testing.T) {
	_, _, err := Diff(edit(t), edit(t,
		// b takes a host that acme still has
		"go.b.com", "old.acme.com", "[go.acme.com, old.acme.com]", "[go.acme.com]",
		// another id at an address
		"{id: l1, domain: go.acme.com, slug: one", "{id: l3, domain: go.acme.com, slug: one",
		// an id at another address
		"{id: l2, domain: old.acme.com, slug: two", "{id: l2, domain: go.acme.com, slug: two",
	), true)
	want := `workspace b: host old.acme.com belongs to workspace acme
workspace acme: link/go.acme.com/one is link "l1" and cannot become "l3": an address keeps its link, edit that one
workspace acme: link/go.acme.com/two has link id "l2", which is that of link/old.acme.com/two: ids are never reused, give the new address its own`
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

// TestDiffClashes: what only the files and the topic together are is refused: a loop
// through another workspace or through a link that the files leave as it is, and slugs
// that their domain cannot tell apart. Archiving one of them is the way out.
func TestDiffClashes(t *testing.T) {
	load := func(workspace, domain, links string) []Entry {
		t.Helper()
		ws, err := Parse("f.yaml", fmt.Appendf(nil, "workspaces: [{id: %s, name: N, plan: starter, access: {}, "+
			"domains: [%s], links: [%s]}]", workspace, domain, links))
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(ws)
		if err != nil {
			t.Fatal(err)
		}
		return c.Entries()
	}
	const link = "{id: %s, domain: %s, slug: %s, destination: \"https://%s\"}"
	a := load("a", "go.a.com", fmt.Sprintf(link, "l1", "go.a.com", "one", "go.b.com/two"))
	f := func(old, now []Entry, archive bool, want string) {
		t.Helper()
		puts, _, err := Diff(old, now, archive)
		if got := fmt.Sprint(err); got != want || want != "<nil>" && puts != nil {
			t.Errorf("got %s, %d puts\nwant %s", got, len(puts), want)
		}
	}
	b := load("b", "go.b.com", fmt.Sprintf(link, "l2", "go.b.com", "two", "GO.a.com/x/../one"))
	f(a, b, false, "workspace b: the destination of go.b.com/two leads back to itself through go.a.com/one "+
		"of workspace a")
	f(append(slices.Clone(a), b...), load("c", "go.c.com", ""), false, "<nil>") // not c's

	self := fmt.Sprintf(link, "l3", "go.a.com", "three", "go.a.com/one")
	one := fmt.Sprintf(link, "l1", "go.a.com", "one", "go.a.com/three")
	f(load("a", "go.a.com", one), load("a", "go.a.com", self), false,
		"workspace a: the destination of go.a.com/one leads back to itself through go.a.com/three of workspace a\n"+
			"workspace a: the destination of go.a.com/three leads back to itself through go.a.com/one of workspace a")

	const ignoring = "{host: go.a.com, slug_case: ignore}"
	capital := load("a", ignoring, fmt.Sprintf(link, "l4", "go.a.com", "One", "acme.com"))
	same := "workspace a: links go.a.com/One and go.a.com/one differ in case alone, and the domain's slug_case " +
		"is ignore: archive one of them"
	f(a, capital, false, same)
	f(a, capital, true, "<nil>")
	f(a, load("a", ignoring, ""), false, "<nil>")
}

// TestDiffArchivedHost: a host that its workspace has archived is free for another.
func TestDiffArchivedHost(t *testing.T) {
	old := edit(t)
	for i := range old {
		if old[i].Key == "domain/old.acme.com" {
			old[i].Value = []byte(strings.Replace(string(old[i].Value), `"status":"active"`, `"status":"archived"`, 1))
		}
	}
	now := edit(t, "go.b.com", "old.acme.com", "[go.acme.com, old.acme.com]", "[go.acme.com]",
		`      - {id: l2, domain: old.acme.com, slug: two, destination: "https://acme.com/2"}`+"\n", "")
	_, lines, err := Diff(old, now, true)
	want := `~ domain/old.acme.com: status "archived" → "active"; workspace "acme" → "b"`
	if err != nil || !slices.Contains(lines, want) {
		t.Errorf("%v, lines %q, want among them %s", err, lines, want)
	}
}

// TestDiffUnreadable: what is unreadable in the topic is replaced where the files say
// what it should be, and else left.
func TestDiffUnreadable(t *testing.T) {
	old := edit(t)
	for i := range old {
		if old[i].Key == "partner/acme/prt" {
			old[i].Value = []byte("{")
		}
	}
	old = append(old, Entry{"partner/acme/gone", []byte("[]")})
	puts, lines, err := Diff(old, edit(t), true)
	if err != nil {
		t.Fatal(err)
	}
	want := "! partner/acme/gone: unreadable, left as it is\n~ partner/acme/prt: was unreadable"
	if got := strings.Join(lines, "\n"); got != want || len(puts) != 1 {
		t.Errorf("%d puts, lines:\n%s\nwant\n%s", len(puts), got, want)
	}
	if _, _, err := Diff(nil, old, false); err == nil {
		t.Error("an unreadable new record was accepted")
	}
}

// withChecksum makes the last four bytes of data the checksum of the rest.
func withChecksum(data []byte) []byte {
	if len(data) < 4 {
		return data
	}
	body := data[:len(data)-4]
	return binary.BigEndian.AppendUint32(append([]byte(nil), body...), crc32.Checksum(body, castagnoli))
}
