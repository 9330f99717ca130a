package catalog

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func viewOf(t *testing.T, file string) *View {
	t.Helper()
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	view := NewView()
	for i, e := range c.Entries() {
		if err := view.Apply(e.Key, e.Value, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return view
}

// Promise: where a domain ignores case, a QR code in capitals finds its link, also by an
// alias; a slug in decomposed Unicode finds the composed one.
func TestSlugCase(t *testing.T) {
	v := viewOf(t, "testdata/good/domains.yaml")
	f := func(host, slug, id string) {
		t.Helper()
		r, found := v.Lookup(host, slug)
		if got := found == Active; got != (id != "") || got && r.Link.ID != id {
			t.Errorf("%s/%s: %v %+v, want %q", host, slug, found, r.Link, id)
		}
	}
	f("ANY.ACME.COM", "NOMURA", "l0")
	f("any.acme.com", "nomura", "l0")
	f("any.acme.com", "Nomura", "l0")
	f("a.acme.com", "nOMURA", "l0")
	f("two.acme.com", "nomura", "l1")
	f("two.acme.com", "Nomura", "l2")
	f("two.acme.com", "NOMURA", "")
	if err := v.Apply("link/any.acme.com/Nomura", nil, 1000); err != nil {
		t.Fatal(err)
	}
	f("any.acme.com", "NOMURA", "")
	link := `{"workspace":"acme","id":"cafe","domain":"two.acme.com","slug":"caf\u00e9","destination":"https://acme.com/",` +
		`"token":"auto","status":"active"}`
	if err := v.Apply("link/two.acme.com/caf\u00e9", []byte(link), 1001); err != nil {
		t.Fatal(err)
	}
	f("two.acme.com", "cafe\u0301", "cafe")
}

// Promise: where case is ignored, an active link counts before archived ones that only
// case tells apart, whatever came first; folding is Unicode's.
func TestSlugCaseArchived(t *testing.T) {
	v := viewOf(t, "testdata/good/domains.yaml")
	offset := int64(1000)
	put := func(id, slug, status string) {
		t.Helper()
		offset++
		link := fmt.Sprintf(`{"workspace":"acme","id":%q,"domain":"any.acme.com","slug":%q,"destination":"https://acme.com/",`+
			`"token":"auto","status":%q}`, id, slug, status)
		if err := v.Apply("link/any.acme.com/"+slug, []byte(link), offset); err != nil {
			t.Fatal(err)
		}
	}
	f := func(slug, id string, want LookupResult) {
		t.Helper()
		if r, found := v.Lookup("any.acme.com", slug); found != want || found != Unknown && r.Link.ID != id {
			t.Errorf("%s: %v %+v, want %v %s", slug, found, r.Link, want, id)
		}
	}
	put("a", "Sale", StatusArchived)
	f("sALE", "a", Archived)
	put("b", "SALE", StatusActive)
	put("c", "sale", StatusArchived)
	for _, slug := range []string{"Sale", "SALE", "sale", "sALE"} {
		f(slug, "b", Active)
	}
	put("b", "SALE", StatusArchived)
	put("c", "sale", StatusActive)
	for _, slug := range []string{"Sale", "SALE", "sale", "sALE"} {
		f(slug, "c", Active)
	}
	if err := v.Apply("link/any.acme.com/sale", nil, 2000); err != nil {
		t.Fatal(err)
	}
	f("sale", "b", Archived)
	put("d", "straße", StatusActive)
	f("STRASSE", "d", Active)
	put("e", "οδος", StatusActive)
	f("ΟΔΟΣ", "e", Active)
}

// Promise: what an earlier release accepted stays readable.
func TestStoredRecordsStayReadable(t *testing.T) {
	v := viewOf(t, "testdata/good/domains.yaml")
	link := `{"workspace":"acme","id":"old","domain":"go.acme.com","slug":"50%-off","destination":` +
		`"https://acme.com:99999/\u00fc","token":"auto","status":"active"}`
	if err := v.Apply("link/go.acme.com/50%-off", []byte(link), 1000); err != nil {
		t.Fatal(err)
	}
	if _, found := v.Lookup("go.acme.com", "50%-off"); found != Active {
		t.Errorf("got %v", found)
	}
}

func TestDomainSettings(t *testing.T) {
	v := viewOf(t, "testdata/good/domains.yaml")
	want := DomainSettings{Root: "https://acme.com/", NotFound: "https://acme.com/gone", SlugCase: SlugCaseIgnore}
	for _, host := range []string{"any.acme.com", "a.acme.com"} {
		if got, ok := v.Domain(host); !ok || got != want {
			t.Errorf("%s: %+v %v", host, got, ok)
		}
	}
	if got, ok := v.Domain("go.acme.com:443"); !ok || got != (DomainSettings{}) {
		t.Errorf("a domain without settings: %+v %v", got, ok)
	}
	if _, ok := v.Domain("none.acme.com"); ok {
		t.Error("an unknown host is known")
	}
	formatted := Format(v.Workspaces())
	again, err := Parse("formatted", formatted)
	if err != nil || again[0].Settings["any.acme.com"] != want || len(again[0].Settings) != 1 {
		t.Errorf("%v\n%s", err, formatted)
	}
}

// Promise: each tracked link whose token is withheld has a line with the reason, and so
// have passwords and links that lead to links; nothing else has one.
func TestWarnings(t *testing.T) {
	file := t.TempDir() + "/w.yaml"
	err := os.WriteFile(file, []byte(`workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [go.acme.com]
    links:
      - {id: l0, domain: go.acme.com, slug: plain, destination: "https://acme.com/", conversion_tracking: true}
      - {id: l1, domain: go.acme.com, slug: signed, destination: "https://acme.com/?hmac=1", conversion_tracking: true}
      - {id: l2, domain: go.acme.com, slug: always, destination: "https://acme.com/?hmac=1", conversion_tracking: true,
         token: always}
      - {id: l3, domain: go.acme.com, slug: never, destination: "https://acme.com/", conversion_tracking: true,
         token: never}
      - {id: l4, domain: go.acme.com, slug: off, destination: "https://acme.com/?hmac=1", conversion_tracking: false}
      - {id: l5, domain: go.acme.com, slug: old, destination: "https://acme.com/?hmac=1", conversion_tracking: true,
         status: archived}
      - {id: l6, domain: go.acme.com, slug: call, destination: "tel:112", conversion_tracking: true}
      - {id: l7, domain: go.acme.com, slug: secret, destination: "https://u:p@acme.com/", conversion_tracking: true}
      - {id: l8, domain: go.acme.com, slug: hop, destination: "https://go.acme.com/plain", conversion_tracking: true}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Warnings() {
		got = append(got, strings.TrimPrefix(w.Error(), file+":"))
	}
	want := []string{
		`9:66: workspaces[0].links[1].destination: the token of go.acme.com/signed is withheld: signed_url, the ` +
			`destination looks signed; if it is not, say token: always`,
		`12:65: workspaces[0].links[3].destination: the token of go.acme.com/never is withheld: link_setting, the ` +
			`link says token: never`,
		`17:64: workspaces[0].links[6].destination: the token of go.acme.com/call is withheld: scheme, the ` +
			`destination is not http or https`,
		`18:66: workspaces[0].links[7].destination: the destination of go.acme.com/secret has a user or password, ` +
			`which each visitor gets`,
		`19:63: workspaces[0].links[8].destination: the destination of go.acme.com/hop is another redirect, ` +
			`go.acme.com/plain (` + file + `:8:65): it drops the token, so this link's partner gets no sale`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Promise: loops are found in one walk over all links, however long their chains are. A
// walk from each link would take minutes here.
func TestLoopsOfLongChains(t *testing.T) {
	w := Workspace{ID: "acme", Name: "Acme", Plan: PlanProfessional, Domains: []string{"go.acme.com"}}
	const length = 8_000
	for i := range length {
		w.Links = append(w.Links, Link{ID: fmt.Sprintf("l%d", i), Domain: "go.acme.com", Slug: fmt.Sprintf("s%d", i),
			Destination: fmt.Sprintf("https://go.acme.com/s%d", i+1)})
	}
	if _, err := New([]Workspace{w}); err != nil {
		t.Fatalf("a chain that ends: %v", err)
	}
	w.Links[length-1].Destination = fmt.Sprintf("https://go.acme.com/s%d", length-3)
	_, err := New([]Workspace{w})
	if err == nil {
		t.Fatal("a chain into a loop was accepted")
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != 3 || !strings.Contains(got[0], "links[7997].destination") ||
		!strings.HasSuffix(got[1], "through go.acme.com/s7999 (workspaces[0].links[7999].destination), "+
			"go.acme.com/s7997 (workspaces[0].links[7997].destination)") {
		t.Errorf("got %q", got)
	}
	w.Links[length-1].Destination = "https://go.acme.com/s0"
	if _, err := New([]Workspace{w}); err == nil || !strings.Contains(err.Error(), "), and 7989 more") {
		t.Errorf("a loop of all links: %.2000v", err)
	}
}

// Promise: a zone that the machine of whoever checks has, and another may lack, is
// refused, whether or not this machine has it.
func TestZonesOfMachines(t *testing.T) {
	for _, name := range []string{"right/Europe/Berlin", "posix/Europe/Berlin", "localtime", "posixrules", "Factory"} {
		w := Workspace{ID: "acme", Name: "Acme", Plan: PlanProfessional, Timezone: name}
		_, err := New([]Workspace{w})
		if err == nil || !strings.Contains(err.Error(), "IANA name such as Europe/Berlin") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
