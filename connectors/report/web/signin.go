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
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/schemas/secretdir"
)

// ReaderTokens are the tokens by which people and programs may read a workspace. They
// are safe for concurrent use, with Reload too.
type ReaderTokens struct {
	byWorkspace atomic.Pointer[map[string][]readerToken]
}

type readerToken struct {
	workspace string            // id
	name      string            // of the person or program, unique in the workspace
	sum       [sha256.Size]byte // of the token; the token itself is stored nowhere
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// LoadReaderTokens reads a directory with one file per workspace id, a line
// NAME:SHA-256-OF-THE-TOKEN-IN-HEX for each token. Empty lines, and those that begin
// with #, are skipped.
func LoadReaderTokens(dir fs.FS) (*ReaderTokens, error) {
	r := new(ReaderTokens)
	if err := r.Reload(dir); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload reads the directory again, as LoadReaderTokens does, and replaces all tokens
// at once. On an error the tokens from before stay valid.
func (r *ReaderTokens) Reload(dir fs.FS) error {
	byWorkspace, err := readTokenFiles(dir)
	if err != nil {
		return fmt.Errorf("reading reader tokens: %w", err)
	}
	r.byWorkspace.Store(&byWorkspace)
	return nil
}

func readTokenFiles(dir fs.FS) (map[string][]readerToken, error) {
	owners := map[[sha256.Size]byte]string{} // by token, its workspace: a token opens one
	return secretdir.Load(dir, func(file secretdir.File) ([]readerToken, error) {
		var tokens []readerToken
		names := map[string]bool{}
		for _, line := range file.Lines {
			token, err := parseToken(file.Workspace, line)
			if err != nil {
				return nil, err
			}
			if names[token.name] {
				return nil, line.Errorf("name %s is there twice", token.name)
			}
			names[token.name] = true
			if owner, ok := owners[token.sum]; ok && owner != token.workspace {
				return nil, line.Errorf("the token of %s is also in %s: a token opens one workspace", token.name, owner)
			}
			owners[token.sum] = token.workspace
			tokens = append(tokens, token)
		}
		return tokens, nil
	})
}

func parseToken(workspace string, line secretdir.Line) (readerToken, error) {
	name, digits, _ := strings.Cut(line.Text, ":")
	sum, err := hex.DecodeString(digits)
	if !tokenName.MatchString(name) || err != nil || len(sum) != sha256.Size {
		return readerToken{}, line.Errorf("want NAME:SHA-256-OF-THE-TOKEN in hex")
	}
	return readerToken{workspace, name, [sha256.Size]byte(sum)}, nil
}

// find returns the entry of a token, of whatever workspace. All are compared, in
// constant time.
func (r *ReaderTokens) find(token string) (found readerToken, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, tokens := range *r.byWorkspace.Load() {
		for _, t := range tokens {
			if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
				found, ok = t, true
			}
		}
	}
	return found, ok
}

const (
	cookieName = "partners_session"
	// sessionLife is how long a sign-in lasts. The server stores nothing about it: a
	// session also ends when its token's line is removed.
	sessionLife = 12 * time.Hour
)

// errNoSession is a request without a valid token or session.
var errNoSession = errors.New("no session")

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
	for _, t := range (*r.byWorkspace.Load())[fields[0]] {
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

// isEncrypted reports whether the visitor's connection is encrypted, here or at a proxy
// in front.
func isEncrypted(req *http.Request) bool {
	return req.TLS != nil || strings.EqualFold(req.Header.Get("X-Forwarded-Proto"), "https")
}

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
	return err == nil && u.Host == req.Host
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
	t, ok := s.tokens.find(strings.TrimSpace(req.PostForm.Get("token")))
	if !ok || t.workspace != strings.TrimSpace(req.PostForm.Get("workspace")) {
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
