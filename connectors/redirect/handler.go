package redirect

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/ua-parser/uap-go/uaparser"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// Handler answers GET /{slug}. Mount it as the server's handler, not behind an
// http.ServeMux: that one would clean paths and answer for itself.
type Handler struct {
	codec     *event.Codec
	view      *catalog.View
	keys      *token.Keyring
	spool     *Spool
	countries *Countries
	agents    *agents
	log       *slog.Logger
	metrics   *handlerMetrics
	random    io.Reader
	now       func() time.Time
	works     sync.Pool // *work
	noToken   atomic.Int64
}

// work is the memory of one request.
type work struct {
	click  event.Click
	value  []byte
	body   []byte
	random randomBuffer
}

// New makes the handler. countries may be nil. It reads the definitions of user agents,
// which takes a tenth of a second.
func New(view *catalog.View, keys *token.Keyring, codec *event.Codec, spool *Spool, countries *Countries,
	log *slog.Logger, reg prometheus.Registerer) (*Handler, error) {
	definitions, err := userAgents()
	if err != nil {
		return nil, err
	}
	return newHandler(definitions, view, keys, codec, spool, countries, log, reg), nil
}

func newHandler(definitions *uaparser.Parser, view *catalog.View, keys *token.Keyring, codec *event.Codec,
	spool *Spool, countries *Countries, log *slog.Logger, reg prometheus.Registerer) *Handler {
	m := newHandlerMetrics(reg, http.StatusFound, http.StatusNotFound, http.StatusGone, http.StatusMethodNotAllowed,
		http.StatusServiceUnavailable)
	h := &Handler{
		codec:     codec,
		view:      view,
		keys:      keys,
		spool:     spool,
		countries: countries,
		agents:    newAgents(definitions, m),
		log:       log,
		metrics:   m,
		random:    rand.Reader,
		now:       time.Now,
	}
	h.works.New = func() any {
		w := &work{value: make([]byte, 0, 768)}
		w.random = randomBuffer{source: h.random, next: len(w.random.buf)}
		return w
	}
	return h
}

// Header values that are the same for every answer; net/http only reads them.
var (
	noStore   = []string{"private, no-store"}
	htmlType  = []string{"text/html; charset=utf-8"}
	textType  = []string{"text/plain; charset=utf-8"}
	allowGets = []string{"GET, HEAD"}
)

// ServeHTTP implements http.Handler. The click is in the spool before the answer
// begins; a spool that fails does not keep the visitor.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header()["Allow"] = allowGets
		h.refuse(w, r, http.StatusMethodNotAllowed, "This address answers GET and HEAD only.\n")
		return
	}
	slug, ok := slugOf(r.URL)
	if !ok {
		h.refuse(w, r, http.StatusNotFound, notFound)
		return
	}
	resolved, found := h.view.Lookup(r.Host, slug)
	switch found {
	case catalog.Active:
		h.redirect(w, r, &resolved)
	case catalog.Archived:
		h.refuse(w, r, http.StatusGone, "This link is no longer in use.\n")
	default:
		if h.view.Offset() < 0 { // no catalog yet: what is not known may well exist
			w.Header()["Retry-After"] = []string{"5"}
			h.refuse(w, r, http.StatusServiceUnavailable, "This server has only just started. Please try again.\n")
			return
		}
		h.refuse(w, r, http.StatusNotFound, notFound)
	}
}

const notFound = "There is no such link.\n"

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	h.metrics.answers[status].Inc()
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = textType
	header["X-Content-Type-Options"] = []string{"nosniff"}
	h.answer(w, r, status, []byte(text))
}

// answer writes the same header for GET and HEAD.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if r.Method == http.MethodHead {
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
		w.WriteHeader(status)
		return
	}
	w.WriteHeader(status)
	w.Write(body)
}

// appendLink appends the one-line page for those whose client does not follow
// redirects.
func appendLink(dst []byte, location string) []byte {
	dst = append(dst, `<a href="`...)
	for i := 0; i < len(location); i++ {
		switch c := location[i]; c {
		case '&':
			dst = append(dst, "&amp;"...)
		case '"':
			dst = append(dst, "&#34;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '\'':
			dst = append(dst, "&#39;"...)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, "\">Found</a>.\n"...)
}

func (h *Handler) redirect(w http.ResponseWriter, r *http.Request, resolved *catalog.Resolved) {
	start := time.Now()
	query, _, _ := strings.Cut(r.URL.RawQuery, "#") // a client may send a fragment; it is nobody's
	click := h.works.Get().(*work)
	shown := h.fill(click, r, resolved, query)
	if click.click.ClickToken != "" {
		h.capture(click)
	}
	location := resolved.Link.Destination
	extra := ""
	if resolved.Link.ForwardQuery && resolved.WithholdReason == "" && query != "" {
		extra = forwarded(query, location, resolved.Workspace.TokenParameter)
	}
	if shown {
		location = extend(location, extra, resolved.Workspace.TokenParameter+"="+click.click.ClickToken)
	} else if extra != "" {
		location = extend(location, extra)
	}
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = htmlType
	header["Location"] = []string{location}
	click.body = appendLink(click.body[:0], location)
	h.answer(w, r, http.StatusFound, click.body)
	click.click = event.Click{} // holds nothing of this visitor for the next
	h.works.Put(click)
	h.metrics.answers[http.StatusFound].Inc()
	h.metrics.seconds.Observe(time.Since(start).Seconds())
}

// fill makes the click and says whether the visitor gets to see its token. Without a
// token key there is no click: then ClickToken is empty and the loss is counted.
func (h *Handler) fill(w *work, r *http.Request, resolved *catalog.Resolved, query string) (shown bool) {
	now := h.now()
	raw, err := h.keys.Mint(resolved.Workspace.ID, now, &w.random)
	if err != nil {
		h.spool.metrics.lost[lostToken].Inc()
		// Every click of a workspace without key comes here: say it at once, then at
		// most once a minute.
		if last := h.noToken.Load(); now.Unix()-last >= 60 && h.noToken.CompareAndSwap(last, now.Unix()) {
			h.log.Error("clicks are being lost: no token can be made", "workspace", resolved.Workspace.ID, "error", err)
		}
		return false
	}
	c := &w.click
	c.ClickToken = token.Text(&raw)
	c.ClickedAt = event.MillisOf(now)
	c.TokenStatus, c.TokenReason = showToken(resolved)
	fillContext(c, resolved)
	h.fillVisitor(c, r, query)
	return c.TokenStatus == event.TokenAppended
}

// fillContext freezes what the catalog says now.
func fillContext(c *event.Click, r *catalog.Resolved) {
	l := r.Link
	c.WorkspaceID, c.LinkID, c.Domain, c.Slug = r.Workspace.ID, l.ID, l.Domain, l.Slug
	c.Destination = bare(l.Destination)
	c.WindowMs, c.RewardTerms = r.WindowMs, r.RewardTerms
	c.AssignmentID, c.Experiment, c.Variant = l.AssignmentID, l.Experiment, l.Variant
	if !l.AssignedAt.IsZero() {
		c.AssignedAt = event.MillisOf(l.AssignedAt)
	}
	if p := r.Partner; p != nil {
		c.PartnerID, c.PartnerKey, c.PartnerName, c.PartnerRelationship, c.PartnerLifecycle = p.ID, p.Key, p.Name, p.Relationship, p.Lifecycle
	}
	if p := r.Program; p != nil {
		c.ProgramID, c.ProgramKey, c.ProgramName, c.ProgramStatus = p.ID, p.Key, p.Name, p.Status
	}
	c.UTMSource, c.UTMMedium, c.UTMCampaign, c.UTMTerm, c.UTMContent = r.UTM.Source, r.UTM.Medium, r.UTM.Campaign, r.UTM.Term, r.UTM.Content
	c.CatalogOffset = r.Offset
}

func (h *Handler) fillVisitor(c *event.Click, r *http.Request, query string) {
	c.Trigger = event.TriggerLink
	if query != "" {
		v := parseVisit(query)
		if v.qr {
			c.Trigger = event.TriggerQR
		}
		c.Sub1, c.Sub2, c.Sub3, c.Sub4, c.Sub5 = v.sub[0], v.sub[1], v.sub[2], v.sub[3], v.sub[4]
	}
	userAgent := r.UserAgent()
	a := h.agents.of(userAgent)
	c.Device, c.OS, c.Browser = a.device, a.os, a.browser
	c.BotReason = botOf(r, userAgent, a)
	c.IsBot = c.BotReason != ""
	if referer := r.Header["Referer"]; len(referer) > 0 {
		c.ReferrerHost = referrerHost(referer[0])
	}
	if h.countries != nil {
		c.Country = h.countries.Of(remoteAddr(r))
	}
}

// capture puts the click into the spool. It waits for the disk but not for the visitor:
// who leaves has clicked all the same. The spool counts and logs its losses.
func (h *Handler) capture(w *work) {
	if cut := w.click.Fit(); cut > 0 {
		h.metrics.cut.Add(float64(cut))
	}
	value, err := h.codec.AppendClick(w.value[:0], &w.click)
	if err != nil {
		h.spool.metrics.lost[lostEncode].Inc()
		return
	}
	w.value = value
	_ = h.spool.Append(context.Background(), Record{Token: w.click.ClickToken,
		Shown: w.click.TokenStatus == event.TokenAppended, Value: value})
}

// slugOf takes the slug from a path: without the first slash and without one trailing
// slash as the client wrote it (an encoded one is part of the slug), percent-decoded
// once.
func slugOf(u *url.URL) (string, bool) {
	path := u.RawPath // set only where the client's encoding is not the usual one
	if path == "" {
		path = u.Path
	}
	path, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "", false
	}
	path = strings.TrimSuffix(path, "/")
	if u.RawPath == "" {
		return path, path != ""
	}
	slug, err := url.PathUnescape(path)
	return slug, err == nil && slug != ""
}

// randomBuffer draws from source in larger pieces. A byte is used once.
type randomBuffer struct {
	source io.Reader
	next   int
	buf    [400]byte // 40 tokens
}

func (b *randomBuffer) Read(p []byte) (int, error) {
	if b.next == len(b.buf) {
		if _, err := io.ReadFull(b.source, b.buf[:]); err != nil {
			return 0, err
		}
		b.next = 0
	}
	n := copy(p, b.buf[b.next:])
	clear(b.buf[b.next : b.next+n])
	b.next += n
	return n, nil
}
