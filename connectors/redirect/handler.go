package redirect

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// Handler answers GET /{slug}. Mount it as the server's handler itself: behind an
// http.ServeMux, the mux would clean paths and answer some requests on its own.
type Handler struct {
	codec      *event.Codec
	view       *catalog.View // updated by its owner while the handler reads it
	keys       *token.Keyring
	spool      *Spool
	proxies    *forwarded.Proxies // nil if no proxy is trusted
	countries  *Countries         // nil without a country database
	private    *privateWatch
	userAgents *agentParser
	tokenLog   *tokenLog
	metrics    *handlerMetrics
	random     io.Reader        // crypto/rand, for tokens
	now        func() time.Time // tests set it
	buffers    sync.Pool        // *requestBuffer
}

// requestBuffer is the memory of one request, reused by later ones.
type requestBuffer struct {
	click  event.Click
	value  []byte // the click in wire form
	body   []byte // of the response
	random randomBuffer
}

// New returns a handler. proxies and countries may be nil. New parses the definitions of
// user agents, which takes a tenth of a second.
func New(view *catalog.View, keys *token.Keyring, codec *event.Codec, spool *Spool, proxies *forwarded.Proxies,
	countries *Countries, log *slog.Logger, reg prometheus.Registerer) (*Handler, error) {
	definitions, err := loadDefinitions()
	if err != nil {
		return nil, err
	}
	return newHandler(definitions, view, keys, codec, spool, proxies, countries, log, reg), nil
}

func newHandler(definitions *agentDefinitions, view *catalog.View, keys *token.Keyring, codec *event.Codec,
	spool *Spool, proxies *forwarded.Proxies, countries *Countries, log *slog.Logger,
	reg prometheus.Registerer) *Handler {
	m := newHandlerMetrics(reg, http.StatusOK, http.StatusFound, http.StatusNotFound, http.StatusGone,
		http.StatusMethodNotAllowed, http.StatusServiceUnavailable)
	h := &Handler{
		codec:      codec,
		view:       view,
		keys:       keys,
		spool:      spool,
		proxies:    proxies,
		countries:  countries,
		private:    newPrivateWatch(log),
		userAgents: newAgentParser(definitions, m),
		tokenLog:   newTokenLog(log),
		metrics:    m,
		random:     rand.Reader,
		now:        time.Now,
	}
	h.buffers.New = func() any {
		b := &requestBuffer{value: make([]byte, 0, 768)}
		b.random = randomBuffer{source: h.random, next: len(b.random.buf)}
		return b
	}
	return h
}

// SetClock replaces the machine's clock, by which clicks and their tokens are dated. It is
// for tests of a clock that goes wrong; call it before the first request.
func (h *Handler) SetClock(now func() time.Time) { h.now = now }

// Header values that all responses share. net/http only reads them.
var (
	noStore   = []string{"private, no-store"}
	htmlType  = []string{"text/html; charset=utf-8"}
	textType  = []string{"text/plain; charset=utf-8"}
	allowGets = []string{"GET, HEAD"}
)

// ServeHTTP implements http.Handler. With CaptureDurable the click is on disk before
// the response begins. A spool that fails does not stop the redirect.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header()["Allow"] = allowGets
		h.writeError(w, r, http.StatusMethodNotAllowed, "This address answers GET and HEAD only.\n")
		return
	}
	client := h.proxies.ClientOf(r)
	slug, ok := catalog.SlugOf(r.URL)
	if !ok {
		h.serveWithoutLink(w, r, client.Host, "")
		return
	}
	resolved, found := h.view.Lookup(client.Host, slug)
	switch found {
	case catalog.Active:
		if isPrefetch(r.Header) {
			h.declinePrefetch(w, r)
			return
		}
		h.serveRedirect(w, r, &client, &resolved)
	case catalog.Archived:
		h.writeError(w, r, http.StatusGone, "This link is no longer in use.\n")
	default:
		h.serveWithoutLink(w, r, client.Host, slug)
	}
}

// robotsText lets everybody in: a preview of a link is made by a robot that asks first,
// and what robots fetch is no click of a person.
const robotsText = "User-agent: *\nDisallow:\n"

// serveWithoutLink answers for a slug that no link has; "" is none. The domain's own
// destinations get no token, and such a visit is no click.
func (h *Handler) serveWithoutLink(w http.ResponseWriter, r *http.Request, host, slug string) {
	domain, known := h.view.Domain(host)
	switch {
	case !known && h.view.Offset() < 0: // no catalog yet: the link may well exist
		w.Header()["Retry-After"] = []string{"5"}
		h.writeError(w, r, http.StatusServiceUnavailable, "This server has only just started. Please try again.\n")
	case known && slug == "robots.txt":
		h.metrics.responses[http.StatusOK].Inc()
		w.Header()["Cache-Control"] = []string{"public, max-age=3600"}
		w.Header()["Content-Type"] = textType
		h.writeResponse(w, r, http.StatusOK, []byte(robotsText))
	case slug == "" && domain.Root != "" && (r.URL.Path == "/" || r.URL.Path == ""):
		h.sendElsewhere(w, r, domain.Root)
	case slug != "" && domain.NotFound != "" && !catalog.IsMachinePath(slug):
		h.sendElsewhere(w, r, domain.NotFound)
	default:
		h.writeError(w, r, http.StatusNotFound, notFoundText)
	}
}

// sendElsewhere redirects without a click.
func (h *Handler) sendElsewhere(w http.ResponseWriter, r *http.Request, location string) {
	h.metrics.responses[http.StatusFound].Inc()
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = htmlType
	header["Location"] = []string{location}
	h.writeResponse(w, r, http.StatusFound, appendLinkPage(nil, location))
}

const notFoundText = "There is no such link.\n"

func (h *Handler) writeError(w http.ResponseWriter, r *http.Request, status int, text string) {
	h.metrics.responses[status].Inc()
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = textType
	header["X-Content-Type-Options"] = []string{"nosniff"}
	h.writeResponse(w, r, status, []byte(text))
}

// writeResponse writes the same header for GET and HEAD, and a body for GET only.
func (h *Handler) writeResponse(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if r.Method == http.MethodHead {
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
		w.WriteHeader(status)
		return
	}
	w.WriteHeader(status)
	w.Write(body)
}

// appendLinkPage appends a page of one line, for clients that do not follow redirects.
func appendLinkPage(dst []byte, location string) []byte {
	dst = append(dst, `<a href="`...)
	done := 0 // bytes of location that are in dst
	for i := range len(location) {
		escaped := ""
		switch location[i] {
		case '&':
			escaped = "&amp;"
		case '"':
			escaped = "&#34;"
		case '<':
			escaped = "&lt;"
		case '>':
			escaped = "&gt;"
		case '\'':
			escaped = "&#39;"
		default:
			continue
		}
		dst = append(append(dst, location[done:i]...), escaped...)
		done = i + 1
	}
	dst = append(dst, location[done:]...)
	return append(dst, "\">Found</a>.\n"...)
}

// serveRedirect captures the click and answers 302.
func (h *Handler) serveRedirect(w http.ResponseWriter, r *http.Request, client *forwarded.Client,
	resolved *catalog.Resolved) {
	now := h.now()
	// A client may send a fragment, which belongs to no parameter.
	query, _, _ := strings.Cut(r.URL.RawQuery, "#")
	b := h.buffers.Get().(*requestBuffer)
	shown := h.fillClick(b, r, client, resolved, query, now)
	if b.click.ClickToken != "" {
		h.captureClick(r.Context(), b)
	}
	extra := ""
	if resolved.Link.ForwardQuery && resolved.WithholdReason == "" && query != "" {
		extra = forwardedQuery(query, resolved.Link.Destination, resolved.Workspace.TokenParameter)
	}
	location := resolved.Link.Destination
	if shown {
		b.body = appendLocation(b.body[:0], location, extra, resolved.Workspace.TokenParameter, b.click.ClickToken)
		location = string(b.body)
	} else if extra != "" {
		b.body = appendLocation(b.body[:0], location, extra, "", "")
		location = string(b.body)
	}
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = htmlType
	header["Location"] = []string{location}
	b.body = appendLinkPage(b.body[:0], location)
	h.writeResponse(w, r, http.StatusFound, b.body)
	b.click = event.Click{} // the next request must not see anything of this visitor
	h.buffers.Put(b)
	h.metrics.responses[http.StatusFound].Inc()
	h.metrics.duration.Observe(h.now().Sub(now).Seconds())
}

// fillClick fills b.click and reports whether the visitor gets to see its token. The
// click of a workspace without token key is kept under a token that verifies nowhere
// and that its visitor does not see. Without random bytes there is no click: ClickToken
// stays empty and the loss is counted.
func (h *Handler) fillClick(b *requestBuffer, r *http.Request, client *forwarded.Client, resolved *catalog.Resolved,
	query string, now time.Time) (shown bool) {
	raw, err := h.keys.Mint(resolved.Workspace.ID, now, &b.random)
	keyless := errors.Is(err, token.ErrNoKey)
	if keyless {
		raw, err = token.Unsigned(now, &b.random)
	}
	if err != nil {
		h.spool.metrics.lost[lostToken].Inc()
		h.tokenLog.logError(now, "clicks are being lost: cannot make a token", resolved.Workspace.ID, err)
		return false
	}
	c := &b.click
	c.ClickToken = token.Text(&raw)
	c.ClickedAt = event.MillisOf(now)
	c.TokenStatus, c.TokenReason = decideTokenStatus(resolved)
	if keyless && c.TokenStatus == event.TokenAppended {
		c.TokenStatus, c.TokenReason = event.TokenWithheld, reasonNoTokenKey
		h.metrics.keyless.Inc()
		h.tokenLog.logError(now, "clicks go without token", resolved.Workspace.ID, token.ErrNoKey)
	}
	fillFromCatalog(c, resolved)
	h.fillFromRequest(c, r, client, query)
	return c.TokenStatus == event.TokenAppended
}

// fillFromCatalog records in the click what the catalog says at this moment. Later
// changes of the catalog do not affect the click.
func fillFromCatalog(c *event.Click, r *catalog.Resolved) {
	link := r.Link
	c.WorkspaceID = r.Workspace.ID
	c.LinkID = link.ID
	c.Domain = link.Domain
	c.Slug = link.Slug
	c.Destination = bareDestination(link.Destination)
	c.WindowMs = r.WindowMs
	c.RewardTerms = r.RewardTerms
	c.AssignmentID = link.AssignmentID
	if !link.AssignedAt.IsZero() {
		c.AssignedAt = event.MillisOf(link.AssignedAt)
	}
	c.Experiment = link.Experiment
	c.Variant = link.Variant
	if p := r.Partner; p != nil {
		c.PartnerID = p.ID
		c.PartnerKey = p.Key
		c.PartnerName = p.Name
		c.PartnerRelationship = p.Relationship
		c.PartnerLifecycle = p.Lifecycle
	}
	if p := r.Program; p != nil {
		c.ProgramID = p.ID
		c.ProgramKey = p.Key
		c.ProgramName = p.Name
		c.ProgramStatus = p.Status
		c.FollowMs = p.FollowMs
		c.OneSalePerOrder = p.OneSalePerOrder
	}
	c.UTMSource = r.UTM.Source
	c.UTMMedium = r.UTM.Medium
	c.UTMCampaign = r.UTM.Campaign
	c.UTMTerm = r.UTM.Term
	c.UTMContent = r.UTM.Content
	c.CatalogOffset = r.Offset
}

// fillFromRequest records in the click what the request says about the visitor.
func (h *Handler) fillFromRequest(c *event.Click, r *http.Request, client *forwarded.Client, query string) {
	c.Trigger = event.TriggerLink
	if query != "" {
		v := parseVisitQuery(query)
		if v.qr {
			c.Trigger = event.TriggerQR
		}
		c.Sub1 = v.sub[0]
		c.Sub2 = v.sub[1]
		c.Sub3 = v.sub[2]
		c.Sub4 = v.sub[3]
		c.Sub5 = v.sub[4]
	}
	userAgent := r.UserAgent()
	info := h.userAgents.lookUpAgent(userAgent)
	c.Device = info.device
	c.OS = info.os
	c.Browser = info.browser
	c.BotReason = botReason(r, userAgent, info)
	c.IsBot = c.BotReason != ""
	if referer := r.Header["Referer"]; len(referer) > 0 {
		c.ReferrerHost = referrerHost(referer[0])
	}
	c.Country = h.countryOf(client)
}

// captureClick puts the click into the spool. It waits for the disk, but not on the
// request's context ctx: a visitor who leaves has clicked all the same. The spool counts
// and logs the clicks that it loses.
func (h *Handler) captureClick(ctx context.Context, b *requestBuffer) {
	value, truncated, err := h.codec.AppendFitted(b.value[:0], &b.click)
	if err != nil {
		h.spool.metrics.lost[lostEncode].Inc()
		return
	}
	if truncated > 0 {
		h.metrics.textsTruncated.Add(float64(truncated))
	}
	b.value = value
	if c, ok := ctx.Value(visitorKey{}).(*visitorConn); ok {
		c.answering.Store(true)
		defer c.answering.Store(false)
	}
	_ = h.spool.Append(context.Background(), Record{
		Token: b.click.ClickToken,
		Shown: b.click.TokenStatus == event.TokenAppended,
		Value: value,
	})
}

// randomBuffer reads from source in larger pieces. It returns each byte once.
type randomBuffer struct {
	source io.Reader
	next   int       // index in buf of the next unused byte
	buf    [400]byte // 40 tokens
}

// Read implements io.Reader. It may return fewer bytes than asked for.
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
