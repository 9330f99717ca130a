package catalog

import (
	"fmt"
	"strings"
	"testing"
)

// A loop of thousands of links is found by following each once, and the error of each link
// names only the next ones. Links that lead into it are none of it.
func TestLongLoop(t *testing.T) {
	const inLoop, before = 3000, 1000
	w := Workspace{ID: "acme", Domains: []string{"go.acme.com"}}
	for i := range before + inLoop {
		next := i + 1
		if next == before+inLoop {
			next = before
		}
		w.Links = append(w.Links, Link{Domain: "go.acme.com", Slug: fmt.Sprint(i),
			Destination: fmt.Sprintf("https://go.acme.com/%d", next)})
	}
	problems := checkLoops([]Workspace{w})
	if len(problems) != inLoop {
		t.Fatalf("%d problems, want %d", len(problems), inLoop)
	}
	for _, p := range []*Problem{problems[0], problems[inLoop-1]} {
		if !strings.HasSuffix(p.Text, ", and 2989 more") {
			t.Errorf("%s", p.Text)
		}
	}
	if !strings.Contains(problems[inLoop-1].Text, "through go.acme.com/1000 (") {
		t.Errorf("%s", problems[inLoop-1].Text)
	}
}
