package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/nimriz/partners/schemas/topic"
)

// maxKeptBuffer is the largest body buffer that is used again; larger ones are rare and
// left to the collector.
const maxKeptBuffer = 64 << 10

// maxBodies is how many bytes of bodies may be in memory at a time: nothing is known of
// their senders before they are read.
const maxBodies = 256 << 20

// A Handler serves the events API. It is safe for concurrent use.
type Handler struct {
	cfg           Config
	conversions   string // topic
	rejections    string // topic
	producer      *kgo.Client
	codec         *event.Codec
	epochs        topic.Epochs
	keyring       *signature.Keyring
	tokens        *token.Keyring
	workspaces    func(id string) (exists, conversionTracking bool)
	log           *slog.Logger
	metrics       *metrics
	limits        *limits
	requests      tally
	bodies        atomic.Int64 // bytes of bodies that are being served
	rejecting     tally
	specification []byte
	buffers       sync.Pool
	watch         *outage.Watch // over Kafka
	keyless       sync.Map      // workspaces that were found to have no token key, for the log
	now           func() time.Time
}

// New makes a handler. producer is made with ProducerOptions and stays the caller's to
// close, after Drain. workspaces answers from the catalog, at once.
func New(cfg Config, kafkaCfg kafka.Config, producer *kgo.Client, codec *event.Codec, epochs topic.Epochs,
	keyring *signature.Keyring,
	tokens *token.Keyring, workspaces func(id string) (exists, conversionTracking bool), log *slog.Logger,
	reg prometheus.Registerer) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := epochs.Validate(); err != nil {
		return nil, err
	}
	if err := checkProducer(producer); err != nil {
		return nil, fmt.Errorf("checking the Kafka client: %w", err)
	}
	limits, err := newLimits(cfg)
	if err != nil {
		return nil, err
	}
	if kafkaCfg.Watch == nil {
		kafkaCfg.Watch = outage.New(log, "Kafka")
	}
	h := &Handler{
		cfg: cfg, conversions: kafkaCfg.Topic(topic.Conversions), rejections: kafkaCfg.Topic(topic.Rejections),
		producer: producer, codec: codec, epochs: epochs, keyring: keyring, tokens: tokens, workspaces: workspaces, log: log,
		limits: limits, rejecting: tally{limit: maxRejections}, specification: openapi.Events(),
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}, watch: kafkaCfg.Watch,
		now: time.Now,
	}
	h.metrics = newMetrics(reg, h.requests.count)
	return h, nil
}

// Drain lets no more events in, waits for the requests that are being served, and gets
// what is still buffered to Kafka, refusals included. Call it after
// http.Server.Shutdown and before closing the producer. On the context's end it returns
// its error, and what is buffered then may be lost: no event that was answered 202 is
// among it.
func (h *Handler) Drain(ctx context.Context) error {
	h.requests.close()
	err := h.requests.wait(ctx)
	if err == nil {
		err = h.producer.Flush(ctx)
	}
	if err == nil {
		err = h.rejecting.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("draining the events API: %w", err)
	}
	return nil
}

// Unavailable answers every request as a Handler does while Kafka is away: for a server
// that has no Handler yet.
func Unavailable() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, unavailable()) })
}

// A route is what a path asks for.
type route int

const (
	nowhere route = iota
	toEvent
	toBatch
	toSpecification
)

// routeOf reads a decoded path. No path is cleaned or redirected: a signed request must
// not be sent again elsewhere.
func routeOf(path string) (workspace string, to route) {
	if path == "/v1/openapi.json" {
		return "", toSpecification
	}
	rest, ok := strings.CutPrefix(path, "/v1/workspaces/")
	if !ok {
		return "", nowhere
	}
	workspace, rest, _ = strings.Cut(rest, "/")
	switch {
	case workspace == "":
	case rest == "events":
		return workspace, toEvent
	case rest == "events:batch":
		return workspace, toBatch
	}
	return "", nowhere
}

// A request is one POST while it is served.
type request struct {
	workspace string
	batch     bool
	body      *bytes.Buffer
	verified  signature.Verified // zero until the signature was verified
}

func (rq *request) limit() int64 {
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
	case to == nowhere:
		code = h.answer(w, refuse(codeNotFound, "", "there is nothing here; see /v1/openapi.json"))
	case to == toSpecification:
		code = h.serveSpecification(w, r)
	case !h.requests.enter():
		w.Header().Set("Connection", "close")
		code = h.answer(w, unavailable())
	default:
		defer h.requests.leave()
		code = h.servePost(w, r, workspace, to == toBatch)
	}
	h.metrics.requests.WithLabelValues(code).Inc()
}

func (h *Handler) answer(w http.ResponseWriter, ref *refusal) string {
	writeProblem(w, ref)
	return ref.code
}

func (h *Handler) serveSpecification(w http.ResponseWriter, r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return h.answer(w, refuse(codeMethodNotAllowed, "", "the method is not GET"))
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
	rq := &request{workspace: workspace, batch: isBatch, body: body}
	defer func() { h.bodies.Add(-int64(body.Len())) }()
	ref := h.admit(w, r, rq)
	if ref == nil {
		if isBatch {
			return h.serveBatch(w, rq)
		}
		return h.serveEvent(w, rq)
	}
	if rq.verified.KeyID != "" {
		about := refused{refusal: ref}
		if !isBatch {
			d, _ := parseEvent(body.Bytes()) // for the ids; whether it is JSON does not matter any more
			about.eventID, about.clickToken = d.eventID(), d.clickToken()
		}
		h.rejectRequest(rq, about)
	}
	return h.answer(w, ref)
}

// rejectRequest records the refusal of a whole request, if it is one of 4xx.
func (h *Handler) rejectRequest(rq *request, about refused) {
	if statusOf(about.code) < http.StatusInternalServerError {
		h.reject(rq, about)
	}
}

// admit does what comes before JSON: it reads the body, and fills in rq.verified if the
// sender is one of the workspace's, whatever it then returns.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, rq *request) *refusal {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return refuse(codeMethodNotAllowed, "", "the method is not POST")
	}
	if !isJSON(r.Header) {
		return refuse(codeUnsupportedMedia, "", "content-type is not application/json, or the content is encoded")
	}
	if ref := h.readBody(w, r, rq); ref != nil {
		return ref
	}
	now := h.now()
	verified, err := h.keyring.Verify(rq.workspace, r.Header, rq.body.Bytes(), now)
	genuine := verified.KeyID != ""
	exists, tracking := false, false
	if genuine {
		if exists, tracking = h.workspaces(rq.workspace); !exists {
			err, genuine = signature.ErrBad, false
		}
	}
	if !genuine {
		if wait := h.limits.unverified(r.RemoteAddr, now); wait > 0 {
			return rateLimited(wait)
		}
		return unauthorized(err)
	}
	rq.verified = verified
	switch {
	case err != nil:
		return unauthorized(err)
	case !tracking:
		return refuse(codeNotEntitled, "", "access.conversion_tracking of the workspace is off")
	case !h.tokens.Has(rq.workspace):
		if _, known := h.keyless.LoadOrStore(rq.workspace, true); !known {
			h.log.Error("a workspace has signing secrets but no token key: its events are answered unavailable",
				"workspace", rq.workspace)
		}
		return unavailable()
	}
	// Whoever is over the limit is told so before his body costs anything.
	if wait := h.limits.workspace(rq.workspace).events.wait(now, 1); wait > 0 {
		return rateLimited(wait)
	}
	return nil
}

// unauthorized turns an error of signature.Keyring.Verify into a refusal. Its detail
// depends on the headers alone, not on the workspace.
func unauthorized(err error) *refusal {
	detail := "no signature matches"
	switch {
	case errors.Is(err, signature.ErrMissing):
		detail = "webhook-id, webhook-timestamp or webhook-signature is missing or not in the form described"
	case errors.Is(err, signature.ErrStale):
		detail = "webhook-timestamp is more than 5 minutes old"
	case errors.Is(err, signature.ErrFuture):
		detail = "webhook-timestamp is more than 5 minutes ahead"
	}
	return refuse(signature.Code(err), "", detail)
}

// isJSON wants one content-type, application/json in UTF-8, and the body as it was
// signed, not compressed.
func isJSON(header http.Header) bool {
	values := header.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return false
	}
	if values[0] == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset := params["charset"]
	return err == nil && media == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// readBody reads at most what is allowed. A body that says it is longer is not read at
// all.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, rq *request) *refusal {
	var tooLong *http.MaxBytesError
	var slow net.Error
	var err error
	if r.ContentLength <= rq.limit() {
		_, err = rq.body.ReadFrom(&counted{http.MaxBytesReader(w, r.Body, rq.limit()), &h.bodies})
	}
	switch {
	case r.ContentLength > rq.limit() || errors.As(err, &tooLong):
		w.Header().Set("Connection", "close") // or the server would read on, to find the next request
		return refuse(codeTooLarge, "", fmt.Sprintf("the body is over %d kB", rq.limit()>>10))
	case errors.Is(err, errNoRoom), errors.As(err, &slow) && slow.Timeout(): // says nothing about the event
		w.Header().Set("Connection", "close")
		if wait := h.limits.unverified(r.RemoteAddr, h.now()); wait > 0 {
			return rateLimited(wait)
		}
		return unavailable()
	case err != nil:
		return refuse(codeMalformedJSON, "", "the body ended early")
	}
	return nil
}

var errNoRoom = errors.New("too many bodies in memory")

// counted adds what is read to a total, which ends at maxBodies.
type counted struct {
	io.Reader
	total *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.total.Add(int64(n)) > maxBodies && (err == nil || err == io.EOF) {
		err = errNoRoom
	}
	return n, err
}
