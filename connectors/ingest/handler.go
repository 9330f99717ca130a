package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/nimriz/partners/schemas/topic"
)

// maxKeptBuffer is the largest body buffer that is used again, in bytes. Larger ones
// are rare and left to the garbage collector.
const maxKeptBuffer = 64 << 10

// maxBodyMemory bounds the memory of all bodies, in bytes: a body must be read before
// its sender is known.
const maxBodyMemory = 256 << 20

// A Handler serves the events API. It is safe for concurrent use.
type Handler struct {
	cfg             Config
	conversions     string // topic, with prefix
	rejections      string // topic, with prefix
	producer        *kgo.Client
	codec           *event.Codec
	placer          Placer             // partitions of tokens
	keyring         *signature.Keyring // signing secrets
	tokens          *token.Keyring     // token keys
	proxies         *forwarded.Proxies // nil if no proxy is trusted
	lookupWorkspace func(id string) (exists, conversionTracking bool)
	log             *slog.Logger
	metrics         *metrics
	limits          *rateLimits

	requests          inFlight     // being served
	pendingRejections inFlight     // produced and not acknowledged yet
	bodyBytes         atomic.Int64 // of the bodies of requests being served
	buffers           sync.Pool    // of bodies, *bytes.Buffer

	specification []byte        // the OpenAPI document
	watch         *outage.Watch // over Kafka
	loggedKeyless sync.Map      // ids of workspaces without token key that were logged
	now           func() time.Time
}

// Placer knows the partitions of click tokens.
type Placer interface {
	// Place returns the partition of a token that was minted at a time. It waits while that
	// is not known, and fails where nothing may be written, or when ctx ends.
	Place(ctx context.Context, clickToken string, minted time.Time) (int32, error)
}

// New makes a handler. The producer is made with ProducerOptions; the caller closes it,
// after Drain. workspaces looks an id up in the catalog, without blocking. proxies may be
// nil.
func New(
	cfg Config, kafkaCfg kafka.Config, producer *kgo.Client, codec *event.Codec, placer Placer,
	keyring *signature.Keyring, tokens *token.Keyring,
	workspaces func(id string) (exists, conversionTracking bool),
	proxies *forwarded.Proxies, log *slog.Logger, reg prometheus.Registerer,
) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := checkProducer(producer); err != nil {
		return nil, fmt.Errorf("checking the Kafka client: %w", err)
	}
	limits, err := newRateLimits(cfg)
	if err != nil {
		return nil, err
	}
	if kafkaCfg.Watch == nil {
		kafkaCfg.Watch = kafkaCfg.NewWatch(log)
	}
	h := &Handler{
		cfg:               cfg,
		conversions:       kafkaCfg.Topic(topic.Conversions),
		rejections:        kafkaCfg.Topic(topic.Rejections),
		producer:          producer,
		codec:             codec,
		placer:            placer,
		keyring:           keyring,
		tokens:            tokens,
		lookupWorkspace:   workspaces,
		proxies:           proxies,
		log:               log,
		limits:            limits,
		pendingRejections: inFlight{limit: maxRejections},
		buffers:           sync.Pool{New: func() any { return new(bytes.Buffer) }},
		specification:     openapi.Events(),
		watch:             kafkaCfg.Watch,
		now:               time.Now,
	}
	h.metrics = newMetrics(reg, h.requests.count)
	return h, nil
}

// Drain stops accepting events, waits for the requests being served, and flushes the
// producer, rejections included. Call it after http.Server.Shutdown and before closing
// the producer. If ctx ends first, Drain returns its error, and records that are still
// buffered may be lost. No event that was answered 202 is among them.
func (h *Handler) Drain(ctx context.Context) error {
	h.requests.close()
	err := h.requests.wait(ctx)
	if err == nil {
		err = h.producer.Flush(ctx)
	}
	if err == nil {
		err = h.pendingRejections.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("draining the events API: %w", err)
	}
	return nil
}

// Unavailable answers every request as a Handler does while Kafka is away. It serves
// until there is a Handler.
func Unavailable() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, unavailableRefusal()) })
}

// A route is what a path leads to.
type route int

const (
	unknownRoute route = iota
	eventRoute
	batchRoute
	specificationRoute
)

// routeOf reads a decoded path. No path is cleaned or redirected: a redirect would make
// the client send a signed request again, to another URL.
func routeOf(path string) (workspace string, to route) {
	if path == "/v1/openapi.json" {
		return "", specificationRoute
	}
	rest, ok := strings.CutPrefix(path, "/v1/workspaces/")
	if !ok {
		return "", unknownRoute
	}
	workspace, rest, _ = strings.Cut(rest, "/")
	switch {
	case workspace == "":
	case rest == "events":
		return workspace, eventRoute
	case rest == "events:batch":
		return workspace, batchRoute
	}
	return "", unknownRoute
}

// A request is one POST while it is served.
type request struct {
	workspace string             // of the path; verified with the signature
	sender    netip.Addr         // the zero Addr if it is not known
	batch     bool               // else one event
	body      *bytes.Buffer      // as sent
	verified  signature.Verified // zero until the signature was verified
	dryRun    bool               // nothing of it is written; false until the body was read
}

func (rq *request) maxBytes() int64 {
	if rq.batch {
		return MaxBatchBytes
	}
	return MaxEventBytes
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	workspace, to := routeOf(r.URL.Path)
	var code string
	switch {
	case to == unknownRoute:
		code = h.writeRefusal(w, newRefusal(codeNotFound, "", "there is nothing here; see /v1/openapi.json"))
	case to == specificationRoute:
		code = h.serveSpecification(w, r)
	case !h.requests.enter():
		w.Header().Set("Connection", "close")
		code = h.writeRefusal(w, unavailableRefusal())
	default:
		defer h.requests.leave()
		code = h.servePost(w, r, workspace, to == batchRoute)
	}
	h.metrics.requests.WithLabelValues(code).Inc()
}

func (h *Handler) writeRefusal(w http.ResponseWriter, ref *refusal) string {
	writeProblem(w, ref)
	return ref.code
}

func (h *Handler) serveSpecification(w http.ResponseWriter, r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return h.writeRefusal(w, newRefusal(codeMethodNotAllowed, "", "the method is not GET"))
	}
	writeBody(w, http.StatusOK, "application/json", h.specification)
	return codeOK
}

func (h *Handler) servePost(w http.ResponseWriter, r *http.Request, workspace string, isBatch bool) string {
	body := h.buffers.Get().(*bytes.Buffer)
	body.Reset()
	defer func() {
		if body.Cap() <= maxKeptBuffer {
			h.buffers.Put(body)
		}
	}()
	rq := &request{workspace: workspace, sender: h.proxies.ClientOf(r).Addr, batch: isBatch, body: body}
	defer func() { h.bodyBytes.Add(-int64(body.Len())) }()
	ref := h.admitRequest(w, r, rq)
	if ref == nil {
		if isBatch {
			return h.serveBatch(w, rq)
		}
		return h.serveEvent(w, rq)
	}
	if rq.verified.KeyID != "" {
		h.rejectUnread(rq, ref)
	}
	return h.writeRefusal(w, ref)
}

// rejectUnread records a refusal that was made before the body was read as JSON. It is
// read for the record alone.
func (h *Handler) rejectUnread(rq *request, ref *refusal) {
	about := refused{refusal: ref}
	switch {
	case !rq.batch:
		d := parseEvent(rq.body.Bytes())
		about.event, rq.dryRun = &d, d.dryRun.on()
	case mayBeDryRun(rq.body.Bytes()):
		b := parseBatch(rq.body.Bytes())
		rq.dryRun = b.dryRun.on()
	}
	h.rejectRequest(rq, about)
}

// rejectRequest records the refusal of a whole request, if its status is 4xx.
func (h *Handler) rejectRequest(rq *request, about ...refused) {
	if statusOf(about[0].code) < http.StatusInternalServerError {
		h.produceRejections(rq, about...)
	}
}

// admitRequest makes the checks that come before JSON. It reads the body, and sets
// rq.verified if the signature is genuine, even if it then returns a refusal.
func (h *Handler) admitRequest(w http.ResponseWriter, r *http.Request, rq *request) *refusal {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return newRefusal(codeMethodNotAllowed, "", "the method is not POST")
	}
	if fault := mediaFault(r.Header); fault != "" {
		return newRefusal(codeUnsupportedMedia, "", fault)
	}
	if ref := h.readBody(w, r, rq); ref != nil {
		return ref
	}
	now := h.now()
	verified, err := h.keyring.Verify(rq.workspace, r.Header, rq.body.Bytes(), now)
	genuine := verified.KeyID != ""
	exists, tracking := false, false
	if genuine || errors.Is(err, signature.ErrUnreadable) {
		if exists, tracking = h.lookupWorkspace(rq.workspace); !exists {
			err, genuine = signature.ErrBad, false
		}
	}
	if !genuine {
		if wait := h.limits.chargeUnverified(rq.sender, now); wait > 0 {
			return rateLimitRefusal(wait)
		}
		if errors.Is(err, signature.ErrUnreadable) {
			return unavailableRefusal()
		}
		return signatureRefusal(err)
	}
	rq.verified = verified
	switch {
	case err != nil:
		return signatureRefusal(err)
	case !tracking:
		return newRefusal(codeNotEntitled, "", "access.conversion_tracking of the workspace is off")
	case !h.tokens.Has(rq.workspace):
		if _, known := h.loggedKeyless.LoadOrStore(rq.workspace, true); !known {
			h.log.Error("a workspace has signing secrets but no token key: its events are answered unavailable",
				"workspace", rq.workspace)
		}
		return unavailableRefusal()
	}
	// A sender over its limit gets its 429 before the body is parsed.
	if wait := h.limits.budgetOf(rq.workspace).events.waitTime(now, 1); wait > 0 {
		return rateLimitRefusal(wait)
	}
	return nil
}

// signatureRefusal converts an error of signature.Keyring.Verify to a refusal. Its
// detail depends only on the headers, not on the workspace.
func signatureRefusal(err error) *refusal {
	return newRefusal(signature.Code(err), "", signature.Detail(err))
}

// readBody reads at most the allowed length. A body whose declared length is larger is
// not read at all.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, rq *request) *refusal {
	var tooLong *http.MaxBytesError
	var slow net.Error
	var err error
	if r.ContentLength <= rq.maxBytes() {
		_, err = rq.body.ReadFrom(&boundedReader{http.MaxBytesReader(w, r.Body, rq.maxBytes()), &h.bodyBytes})
	}
	switch {
	case r.ContentLength > rq.maxBytes() || errors.As(err, &tooLong):
		w.Header().Set("Connection", "close") // or the server would read on, to find the next request
		return newRefusal(codeTooLarge, "", fmt.Sprintf("the body is over %d kB", rq.maxBytes()>>10))
	case errors.Is(err, errNoRoom), errors.As(err, &slow) && slow.Timeout():
		// This says nothing about the event, so it is not the sender's fault (4xx).
		w.Header().Set("Connection", "close")
		if wait := h.limits.chargeUnverified(rq.sender, h.now()); wait > 0 {
			return rateLimitRefusal(wait)
		}
		return unavailableRefusal()
	case err != nil:
		return newRefusal(codeMalformedJSON, "", "the body ended early")
	}
	return nil
}

var errNoRoom = errors.New("too many bodies in memory")

// boundedReader adds the bytes that it reads to a total, and fails with errNoRoom above
// maxBodyMemory.
type boundedReader struct {
	io.Reader
	total *atomic.Int64
}

// Read implements io.Reader.
func (c *boundedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.total.Add(int64(n)) > maxBodyMemory && (err == nil || err == io.EOF) {
		err = errNoRoom
	}
	return n, err
}
