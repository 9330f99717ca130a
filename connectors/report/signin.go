package report

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
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/schemas/secretdir"
)

// Readers are the tokens by which people and programs may read a workspace. They are
// safe for concurrent use, with Reload too.
type Readers struct {
	byWorkspace atomic.Pointer[map[string][]reader]
}

type reader struct {
	workspace, name string
	sum             [sha256.Size]byte // of the token
}

var readerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// LoadReaders reads a directory with one file per workspace id, a line
// NAME:SHA-256-OF-THE-TOKEN-IN-HEX for each token. Empty lines, and those that begin
// with #, are skipped. The token itself is nowhere.
func LoadReaders(dir fs.FS) (*Readers, error) {
	r := new(Readers)
	if err := r.Reload(dir); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload reads the directory again, as LoadReaders does, and puts what it holds in
// place at once. On an error the tokens from before stay valid.
func (r *Readers) Reload(dir fs.FS) error {
	byWorkspace, err := loadReaders(dir)
	if err != nil {
		return fmt.Errorf("reading reader tokens: %w", err)
	}
	r.byWorkspace.Store(&byWorkspace)
	return nil
}

func loadReaders(dir fs.FS) (map[string][]reader, error) {
	owner := map[[sha256.Size]byte]string{} // workspace, by token: a token opens only one
	return secretdir.Load(dir, func(file secretdir.File) ([]reader, error) {
		var readers []reader
		names := map[string]bool{}
		for _, line := range file.Lines {
			x, err := parseReader(file.Workspace, line)
			if err != nil {
				return nil, err
			}
			if names[x.name] {
				return nil, line.Errorf("name %s is there twice", x.name)
			}
			names[x.name] = true
			if other, taken := owner[x.sum]; taken && other != x.workspace {
				return nil, line.Errorf("the token of %s is also in %s: a token opens one workspace", x.name, other)
			}
			owner[x.sum] = x.workspace
			readers = append(readers, x)
		}
		return readers, nil
	})
}

func parseReader(workspace string, line secretdir.Line) (reader, error) {
	name, digits, _ := strings.Cut(line.Text, ":")
	sum, err := hex.DecodeString(digits)
	if !readerName.MatchString(name) || err != nil || len(sum) != sha256.Size {
		return reader{}, line.Errorf("want NAME:SHA-256-OF-THE-TOKEN in hex")
	}
	return reader{workspace, name, [sha256.Size]byte(sum)}, nil
}

// find returns the reader with this token, of whatever workspace. All are compared, in
// constant time.
func (r *Readers) find(token string) (found reader, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, readers := range *r.byWorkspace.Load() {
		for _, x := range readers {
			if subtle.ConstantTimeCompare(sum[:], x.sum[:]) == 1 {
				found, ok = x, true
			}
		}
	}
	return found, ok
}

const (
	cookieName = "partners_session"
	// sessionLife is how long a sign-in lasts. There is nothing on the server: a
	// session also ends when its token's line is removed.
	sessionLife = 12 * time.Hour
)

// errNoSession is a request that shows nobody.
var errNoSession = errors.New("no session")

// cookie says who signed in until when, with a MAC whose key is the hash of the
// reader's token, which nobody else has.
//
//	base64url( WORKSPACE "." NAME "." UNIX-SECONDS "." HEX-HMAC-SHA-256 )
func (r *Readers) cookie(who reader, until time.Time) string {
	text := who.workspace + "." + who.name + "." + strconv.FormatInt(until.Unix(), 10)
	return base64.RawURLEncoding.EncodeToString([]byte(text + "." + hex.EncodeToString(who.mac(text))))
}

func (x reader) mac(text string) []byte {
	m := hmac.New(sha256.New, x.sum[:])
	m.Write([]byte("partners report session\n" + text))
	return m.Sum(nil)
}

func (r *Readers) session(value string, now time.Time) (reader, error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return reader{}, errNoSession
	}
	parts := strings.Split(string(b), ".")
	if len(parts) != 4 {
		return reader{}, errNoSession
	}
	seconds, err := strconv.ParseInt(parts[2], 10, 64)
	mac, err2 := hex.DecodeString(parts[3])
	if err != nil || err2 != nil || now.Unix() >= seconds {
		return reader{}, errNoSession
	}
	for _, x := range (*r.byWorkspace.Load())[parts[0]] {
		if x.name == parts[1] && hmac.Equal(mac, x.mac(strings.Join(parts[:3], "."))) {
			return x, nil
		}
	}
	return reader{}, errNoSession
}

// who is the reader of a request: of its bearer token, or of its session. A request
// with a bearer token that nobody has is nobody's, whatever cookie it has.
func (r *Readers) who(req *http.Request, now time.Time) (reader, error) {
	if header := req.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if x, ok := r.find(strings.TrimSpace(token)); ok && strings.EqualFold(scheme, "Bearer") {
			return x, nil
		}
		return reader{}, errNoSession
	}
	c, err := req.Cookie(cookieName)
	if err != nil {
		return reader{}, errNoSession
	}
	return r.session(c.Value, now)
}

// secure says whether the visitor's connection is encrypted, here or at a proxy in
// front.
func secure(req *http.Request) bool {
	return req.TLS != nil || strings.EqualFold(req.Header.Get("X-Forwarded-Proto"), "https")
}

func (r *Readers) signIn(w http.ResponseWriter, req *http.Request, who reader, now time.Time) {
	until := now.Add(sessionLife)
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Value:    r.cookie(who, until),
		Path:     "/",
		Expires:  until,
		HttpOnly: true,
		Secure:   secure(req),
		SameSite: http.SameSiteLaxMode,
	})
}

func signOut(w http.ResponseWriter, req *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Path:     "/",
		MaxAge:   -1,
		HttpOnly: true,
		Secure:   secure(req),
		SameSite: http.SameSiteLaxMode,
	})
}
