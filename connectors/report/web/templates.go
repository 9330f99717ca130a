package web

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

//go:embed pages/*.html
var pageFiles embed.FS

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"count":       func(n uint64) string { return groupDigits(strconv.FormatUint(n, 10)) },
		"number":      formatDecimal,
		"title":       titleWords,
		"tone":        badgeTone,
		"when":        formatInstant,
		"rfc3339":     ledger.FormatTime,
		"flag":        report.FlagWords,
		"quote":       strconv.Quote,
		"eventReason": report.ReasonWords,
		"tokenReason": report.TokenWords,
		"join":        strings.Join,
		"indent":      func(depth int) []int { return make([]int, min(depth, 12)) },
	}).ParseFS(pageFiles, "pages/*.html"))
})

// titleWords turns a word of the tables into a title: partner_review is Partner review.
func titleWords(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.ReplaceAll(s[1:], "_", " ")
}

// badgeTone is the colour of a badge.
func badgeTone(state string) string {
	switch state {
	case "approved", "active", "attributed", "clear":
		return "good"
	case "review", "invited", "waiting", "overdue", "duplicate", "conflict":
		return "warn"
	case "banned", "declined", "reversed":
		return "bad"
	}
	return "mute"
}

// formatInstant writes a time for people. Templates pass times and pointers to them.
func formatInstant(t time.Time) string { return formatLocal(t, time.UTC) }

// formatLocal writes a time for people by the clock of a zone.
func formatLocal(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("2 Jan 2006 15:04:05")
}

func formatDecimal(d decimal.Decimal) string { return ledger.FormatDecimal(d) }

// page is what every template gets.
type page interface {
	setNonce(string)
	nonce() string
}

type head struct {
	Title     string
	Nonce     string   // of the style that this answer may have
	Workspace string   // its name; empty without a session
	Section   string   // of the navigation
	Plan      string   // of the workspace
	Lacks     []string // features that are not switched on for it
}

// newHead is the head of a page of a section, for a workspace's reader.
func newHead(title, section string, ws *catalog.Workspace) head {
	h := head{Title: title, Section: section, Workspace: cmp.Or(ws.Name, ws.ID), Plan: ws.Plan}
	if !ws.Access.ConversionTracking {
		h.Lacks = append(h.Lacks, "conversion tracking")
	}
	if !ws.Access.ConversionReporting {
		h.Lacks = append(h.Lacks, "conversion reporting")
	}
	if !ws.Access.Exports {
		h.Lacks = append(h.Lacks, "exports")
	}
	return h
}

func (h *head) setNonce(n string) { h.Nonce = n }
func (h *head) nonce() string     { return h.Nonce }

type messagePage struct {
	head
	Heading, Text string
}

// renderPage writes a page with a style that only this answer may have.
func (s *Server) renderPage(w http.ResponseWriter, code int, name string, data page) {
	var b [16]byte
	rand.Read(b[:])
	data.setNonce(base64.RawStdEncoding.EncodeToString(b[:]))
	var out bytes.Buffer
	if err := templates().ExecuteTemplate(&out, name, data); err != nil {
		s.log.Error("rendering a page", "page", name, "error", err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%s'; form-action 'self'; "+
		"base-uri 'none'; frame-ancestors 'none'", data.nonce()))
	w.WriteHeader(code)
	io.Copy(w, &out)
}

// admitVisitor admits a visitor to a page. If it returns false it has answered: with
// the sign-in form, or with what the workspace lacks.
func (s *Server) admitVisitor(w http.ResponseWriter, req *http.Request, title string,
	need ...feature) (*catalog.Workspace, bool) {
	ws, err := s.admit(req, "", need...)
	if err == nil {
		return ws, true
	}
	var p *problem
	if !errors.As(err, &p) {
		s.renderError(w, req, err)
		return nil, false
	}
	switch p.Status {
	case http.StatusUnauthorized:
		s.renderPage(w, http.StatusUnauthorized, "signin", &signInPage{head: head{Title: "Sign in"}})
	case http.StatusForbidden:
		s.renderPage(w, http.StatusForbidden, "message", &messagePage{
			head:    head{Title: title, Workspace: ws.ID},
			Heading: "Not part of this workspace's plan",
			Text: "Partner reports need the Professional or Enterprise plan and this workspace's access to them (" +
				p.Field + "). Clicks and events are stored all the same and will be here once it is granted.",
		})
	default:
		s.renderError(w, req, err)
	}
	return nil, false
}

// renderError shows that a page cannot be shown: to a reader who is signed in below the
// menu, to others without.
func (s *Server) renderError(w http.ResponseWriter, req *http.Request, err error) {
	p := s.toProblem(req, err)
	setRetryAfter(w, p)
	h := head{Title: "Not now"}
	if token, err := s.tokens.authenticate(req, s.now()); err == nil {
		h.Workspace = token.workspace
	}
	s.renderPage(w, p.Status, "message", &messagePage{
		head:    h,
		Heading: "This report cannot be shown now",
		Text:    p.Detail,
	})
}
