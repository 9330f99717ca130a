package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/schemas/secretdir"
)

// ReaderTokens are the tokens by which people and programs may read a workspace. They
// are safe for concurrent use, with Reload too.
type ReaderTokens struct {
	byWorkspace atomic.Pointer[map[string]secretdir.Held[readerToken]]

	reloading sync.Mutex // guards set
	set       *secretdir.Set[readerToken]
}

type readerToken struct {
	workspace string            // id
	name      string            // of the person or program, unique in the workspace
	sum       [sha256.Size]byte // of the token; the token itself is stored nowhere
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// LoadReaderTokens reads a directory with one file per workspace id, a line
// NAME:SHA-256-OF-THE-TOKEN-IN-HEX for each token, in the form of package secretdir. A
// token opens one workspace: a file with the token of another cannot be used. Such
// files are in Findings, by file and line. The error is that the directory cannot be
// read.
func LoadReaderTokens(dir fs.FS) (*ReaderTokens, error) {
	set, err := secretdir.Load(dir, secretdir.Format[readerToken]{
		Parse: parseToken,
		Check: checkNames,
		Claim: func(t readerToken) string { return string(t.sum[:]) },
	})
	if err != nil {
		return nil, fmt.Errorf("reading reader tokens: %w", err)
	}
	r := &ReaderTokens{set: set}
	r.putInForce()
	return r, nil
}

// Findings returns what the newest look at the directory found.
func (r *ReaderTokens) Findings() secretdir.Findings {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	return r.set.Findings()
}

// Reload looks at the directory again; see package secretdir for when a change counts.
// A file that cannot be used leaves its workspace the tokens from before, but for those
// that it readably lacks.
func (r *ReaderTokens) Reload() secretdir.Findings {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	findings := r.set.Reload()
	r.putInForce()
	return findings
}

func (r *ReaderTokens) putInForce() {
	inForce := r.set.InForce()
	r.byWorkspace.Store(&inForce)
}

func parseToken(workspace string, line secretdir.Line) (readerToken, error) {
	name, digits, _ := strings.Cut(line.Text, ":")
	sum, err := hex.DecodeString(digits)
	if !tokenName.MatchString(name) || err != nil || len(sum) != sha256.Size {
		return readerToken{}, line.Errorf("want NAME:SHA-256-OF-THE-TOKEN in hex")
	}
	return readerToken{workspace, name, [sha256.Size]byte(sum)}, nil
}

func checkNames(entries []secretdir.Entry[readerToken]) error {
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		if names[e.Value.name] {
			return e.Line.Errorf("name %s is there twice", e.Value.name)
		}
		names[e.Value.name] = true
	}
	return nil
}

// find returns the entry of a token, of whatever workspace. All are compared, in
// constant time.
func (r *ReaderTokens) find(token string) (found readerToken, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, held := range *r.byWorkspace.Load() {
		for _, t := range held.Values {
			if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
				found, ok = t, true
			}
		}
	}
	return found, ok
}

// isUnreadable reports whether it is not known who may read a workspace: its file
// cannot be used, and nothing of an earlier one is in force.
func (r *ReaderTokens) isUnreadable(workspace string) bool {
	held := (*r.byWorkspace.Load())[workspace]
	return held.Unreadable && len(held.Values) == 0
}

const (
	cookieName = "partners_session"
	// sessionLife is how long a sign-in lasts. The server stores nothing about it: a
	// session also ends when its token's line is removed.
	sessionLife = 12 * time.Hour
)

var (
	// errNoSession is a request without a valid token or session.
	errNoSession = errors.New("no session")
	// errUnreadable is a session that cannot be judged; see isUnreadable.
	errUnreadable = errors.New("the workspace's reader tokens cannot be read")
)

// encodeCookie says who is signed in until when, with a MAC whose key is the hash of
// the reader's token, which is secret.
//
//	base64url( WORKSPACE "." NAME "." UNIX-SECONDS "." HEX-HMAC-SHA-256 )
func (t readerToken) encodeCookie(until time.Time) string {
	text := t.workspace + "." + t.name + "." + strconv.FormatInt(until.Unix(), 10)
	return base64.RawURLEncoding.EncodeToString([]byte(text + "." + hex.EncodeToString(t.mac(text))))
}

func (t readerToken) mac(text string) []byte {
	m := hmac.New(sha256.New, t.sum[:])
	m.Write([]byte("partners report session\n" + text))
	return m.Sum(nil)
}

// checkCookie returns whose session a cookie is.
func (r *ReaderTokens) checkCookie(value string, now time.Time) (readerToken, error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return readerToken{}, errNoSession
	}
	fields := strings.Split(string(b), ".")
	if len(fields) != 4 {
		return readerToken{}, errNoSession
	}
	seconds, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || now.Unix() >= seconds {
		return readerToken{}, errNoSession
	}
	mac, err := hex.DecodeString(fields[3])
	if err != nil {
		return readerToken{}, errNoSession
	}
	if r.isUnreadable(fields[0]) {
		return readerToken{}, errUnreadable
	}
	for _, t := range (*r.byWorkspace.Load())[fields[0]].Values {
		if t.name == fields[1] && hmac.Equal(mac, t.mac(strings.Join(fields[:3], "."))) {
			return t, nil
		}
	}
	return readerToken{}, errNoSession
}

// authenticate returns whose request this is: that of its bearer token, or of its
// session. An unknown bearer token is refused, whatever cookie comes with it.
func (r *ReaderTokens) authenticate(req *http.Request, now time.Time) (readerToken, error) {
	if header := req.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if t, ok := r.find(strings.TrimSpace(token)); ok && strings.EqualFold(scheme, "Bearer") {
			return t, nil
		}
		return readerToken{}, errNoSession
	}
	c, err := req.Cookie(cookieName)
	if err != nil {
		return readerToken{}, errNoSession
	}
	return r.checkCookie(c.Value, now)
}

// isEncrypted reports whether the reader's connection is encrypted, here or at a trusted
// proxy in front.
func isEncrypted(req *http.Request) bool { return clientOf(req).Scheme == "https" }

// isSameSite reports whether a form comes from a page of this site: browsers say where
// a request comes from. A program that says nothing has no cookie either.
func isSameSite(req *http.Request) bool {
	if site := req.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin" || site == "none"
	}
	origin := req.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == clientOf(req).Host
}

// unreadableTokens is the answer where it is not known who may read a workspace.
func unreadableTokens() *problem {
	return &problem{
		Status: http.StatusServiceUnavailable,
		Code:   codeUnavailable,
		Detail: "the reader tokens of this workspace cannot be read at the moment; try again later",
	}
}

// errCrossSite is the answer to a form of another site's page.
func errCrossSite() *problem {
	return &problem{Status: http.StatusForbidden, Code: "cross_site", Detail: "this form came from another site"}
}

type signInPage struct {
	head
	Workspace string // that was tried
	Failed    bool
}

func (s *Server) serveSignIn(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	if !isSameSite(req) {
		writeProblem(w, errCrossSite())
		return
	}
	if err := req.ParseForm(); err != nil {
		writeProblem(w, &problem{
			Status: http.StatusBadRequest,
			Code:   "bad_parameter",
			Detail: "the form cannot be read",
		})
		return
	}
	workspace := strings.TrimSpace(req.PostForm.Get("workspace"))
	t, ok := s.tokens.find(strings.TrimSpace(req.PostForm.Get("token")))
	if s.tokens.isUnreadable(workspace) {
		s.metrics.signIns.WithLabelValues("unavailable").Inc()
		s.renderError(w, req, unreadableTokens())
		return
	}
	if !ok || t.workspace != workspace {
		s.metrics.signIns.WithLabelValues("refused").Inc()
		s.renderPage(w, http.StatusUnauthorized, "signin", &signInPage{
			head:      head{Title: "Sign in"},
			Workspace: req.PostForm.Get("workspace"),
			Failed:    true,
		})
		return
	}
	s.metrics.signIns.WithLabelValues("accepted").Inc()
	until := s.now().Add(sessionLife)
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Value:    t.encodeCookie(until),
		Path:     "/",
		Expires:  until,
		HttpOnly: true,
		Secure:   isEncrypted(req),
		SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, req, "/", http.StatusSeeOther)
}

func (s *Server) serveSignOut(w http.ResponseWriter, req *http.Request) {
	if !isSameSite(req) {
		writeProblem(w, errCrossSite())
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Path:     "/",
		MaxAge:   -1,
		HttpOnly: true,
		Secure:   isEncrypted(req),
		SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, req, "/", http.StatusSeeOther)
}
