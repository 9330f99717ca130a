package report

import (
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/schemas/catalog"
)

//go:embed pages/*.html
var pageFiles embed.FS

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"count": func(n uint64) string { return grouped(strconv.FormatUint(n, 10)) },
		"title": func(s string) string {
			if s == "" {
				return ""
			}
			return strings.ToUpper(s[:1]) + strings.ReplaceAll(s[1:], "_", " ")
		},
		"tone": tone,
		"when": func(t any) string {
			if p, ok := t.(*time.Time); ok {
				t = *p
			}
			return t.(time.Time).UTC().Format("2 Jan 2006 15:04:05")
		},
		"flag":   FlagWords,
		"stamp":  stamp,
		"indent": func(depth int) []int { return make([]int, min(depth, 12)) },
	}).ParseFS(pageFiles, "pages/*.html"))
})

// tone is the colour of a badge.
func tone(state string) string {
	switch state {
	case "approved", "active", "attributed", "clear":
		return "good"
	case "review", "invited", "waiting", "duplicate", "conflict":
		return "warn"
	case "banned", "declined", "reversed":
		return "bad"
	}
	return "mute"
}

// page is what every template gets.
type page interface {
	setNonce(string)
	nonce() string
}

type head struct {
	Title     string
	Nonce     string
	Workspace string // its name; empty when nobody is signed in
	Section   string
}

func (h *head) setNonce(n string) { h.Nonce = n }
func (h *head) nonce() string     { return h.Nonce }

type signInPage struct {
	head
	Workspace string
	Failed    bool
}

// admit lets a visitor in, or shows the sign-in form, or why the workspace may not
// look.
func (s *Server) admit(w http.ResponseWriter, req *http.Request, title string, need ...feature) (*catalog.Workspace,
	bool) {
	ws, err := s.enter(req, "", need...)
	if err == nil {
		return ws, true
	}
	var p *problem
	if !errors.As(err, &p) {
		s.broken(w, req, err)
		return nil, false
	}
	switch p.Status {
	case http.StatusUnauthorized:
		s.render(w, http.StatusUnauthorized, "signin", &signInPage{head: head{Title: "Sign in"}})
	case http.StatusForbidden:
		s.render(w, http.StatusForbidden, "message", &messagePage{head: head{Title: title, Workspace: ws.ID},
			Heading: "Not part of this workspace's plan",
			Text: "Partner reports need the Professional or Enterprise plan and this workspace's access to them (" +
				p.Field + "). Clicks and events are stored all the same and will be here once it is granted."})
	default:
		s.broken(w, req, err)
	}
	return nil, false
}

type messagePage struct {
	head
	Heading, Text string
}

func (s *Server) broken(w http.ResponseWriter, req *http.Request, err error) {
	p := s.asProblem(req, err)
	s.render(w, p.Status, "message", &messagePage{head: head{Title: "Not now", Workspace: " "},
		Heading: "This report cannot be shown now", Text: p.Detail})
}
