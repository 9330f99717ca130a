package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawCatalog draws a valid catalog of a few workspaces, small enough that two draws
// overlap. A host belongs to one workspace, and a link's id follows from its address,
// so that two draws never conflict.
func drawCatalog(t *rapid.T, label string) *Catalog {
	var all []Workspace
	for _, id := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, label+" has "+id) {
			all = append(all, drawWorkspace(t, id))
		}
	}
	c, err := New(all)
	if err != nil {
		t.Fatalf("the generator made an invalid catalog: %v", err)
	}
	return c
}

func drawWorkspace(t *rapid.T, id string) Workspace {
	text := rapid.StringMatching(`[A-Za-zäöü '":{}\[\],&*#-]{1,12}`)
	w := Workspace{
		ID: id, Name: text.Draw(t, "name"),
		Plan:           rapid.SampledFrom([]string{PlanStarter, PlanProfessional, PlanEnterprise}).Draw(t, "plan"),
		Access:         Access{ConversionTracking: rapid.Bool().Draw(t, "access")},
		TokenParameter: rapid.SampledFrom([]string{"", "nim_ct", "click"}).Draw(t, "parameter"),
		Aliases:        map[string]string{},
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "domains") {
		w.Domains = append(w.Domains, fmt.Sprintf("d%d.%s.com", i, id))
	}
	if len(w.Domains) > 0 && rapid.Bool().Draw(t, "alias") {
		w.Aliases[id+".local"] = w.Domains[0]
	}
	some := func(name string) bool { return rapid.IntRange(0, 2).Draw(t, name) > 0 }
	programs, partners := []string{""}, []string{""}
	for i := range 2 {
		if p := fmt.Sprintf("p%d", i); some(p) {
			programs = append(programs, p)
			w.Programs = append(w.Programs, Program{
				ID: p, Key: p, Name: text.Draw(t, "name"), WindowMs: 1000 * rapid.Int64Range(0, 90*86400).Draw(t,
					"window"),
				FollowMs:        1000 * rapid.Int64Range(0, 390*86400).Draw(t, "follow"),
				OneSalePerOrder: rapid.Bool().Draw(t, "one sale per order"),
				Status:          rapid.SampledFrom([]string{StatusActive, StatusPaused}).Draw(t, "status"),
				Reward: rapid.SampledFrom([]Reward{
					{},
					{Percent: "10"},
					{Flat: "5.00", Currency: "USD"},
				}).Draw(t, "reward"),
				UTM: UTM{Source: text.Draw(t, "utm")},
			})
		}
		if p := fmt.Sprintf("q%d", i); some(p) {
			partners = append(partners, p)
			w.Partners = append(w.Partners, Partner{ID: p, Key: p, Name: text.Draw(t, "name"),
				Relationship: rapid.SampledFrom([]string{RelationshipApproved, RelationshipReview}).Draw(t,
					"relationship")})
		}
	}
	for i, d := range w.Domains {
		for j := range 3 {
			if !some("link") {
				continue
			}
			l := Link{
				ID: fmt.Sprintf("l-%d-%d", i, j), Domain: d, Slug: fmt.Sprintf("s/%d", j),
				Destination: rapid.SampledFrom([]string{"https://x.com/?click=1", "https://x.com/#f", "app://x"}).Draw(
					t, "destination"),
				Status:  rapid.SampledFrom([]string{StatusActive, StatusActive, StatusArchived}).Draw(t, "status"),
				Partner: rapid.SampledFrom(partners).Draw(t, "partner"),
				Program: rapid.SampledFrom(programs).Draw(t, "program"),
			}
			if l.Partner != "" {
				l.AssignedAt = time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "assigned_at"))
			}
			w.Links = append(w.Links, l)
		}
	}
	return w
}

// answer is a Resolved in a form that can be compared.
type answer struct {
	Found     LookupResult
	Workspace Workspace
	Link      Link
	Partner   Partner
	Program   Program
	WindowMs  int64
	Terms     string
	UTM       UTM
	Unsafe    string
}

func answerOf(r Resolved, found LookupResult) answer {
	if found == Unknown {
		return answer{}
	}
	a := answer{
		Found:     found,
		Workspace: *r.Workspace,
		Link:      *r.Link,
		WindowMs:  r.WindowMs,
		Terms:     r.RewardTerms,
		UTM:       r.UTM,
		Unsafe:    r.WithholdReason,
	}
	if r.Partner != nil {
		a.Partner = *r.Partner
	}
	if r.Program != nil {
		a.Program = *r.Program
	}
	return a
}

// modelLookup is Lookup by walking through the catalog.
func modelLookup(c *Catalog, host, slug string) answer {
	for _, w := range c.Workspaces() {
		domain, ok := w.Aliases[host]
		if !ok && slices.Contains(w.Domains, host) {
			domain, ok = host, true
		}
		for _, l := range w.Links {
			if !ok || l.Domain != domain || l.Slug != slug {
				continue
			}
			a := answer{
				Found:     Active,
				Workspace: w,
				Link:      l,
				WindowMs:  DefaultWindow.Milliseconds(),
				Unsafe:    WithholdReason(l.Destination, w.TokenParameter),
			}
			a.Workspace.Programs, a.Workspace.Partners, a.Workspace.Links = nil, nil, nil
			if l.Status == StatusArchived {
				a.Found = Archived
			}
			for _, p := range w.Partners {
				if p.ID == l.Partner {
					a.Partner = p
				}
			}
			for _, p := range w.Programs {
				if p.ID == l.Program {
					a.Program, a.WindowMs, a.Terms, a.UTM = p, p.WindowMs, p.Reward.Terms(), p.UTM
				}
			}
			return a
		}
	}
	return answer{}
}

func addresses() (out [][2]string) {
	for _, w := range []string{"a", "b", "c"} {
		for _, host := range []string{"d0." + w + ".com", "d1." + w + ".com", w + ".local"} {
			for j := range 4 {
				out = append(out, [2]string{host, fmt.Sprintf("s/%d", j)})
			}
		}
	}
	return out
}

func mustView(t interface {
	Fatal(...any)
	Helper()
}, entries []Entry) *View {
	t.Helper()
	v := NewView()
	for i, e := range entries {
		if err := v.Apply(e.Key, e.Value, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func mustLoad(t testing.TB, file string) *Catalog {
	t.Helper()
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
