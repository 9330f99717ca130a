package ingest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/nimriz/partners/schemas/topic"
)

// secretOf is a workspace's signing secret, made from its name.
func secretOf(workspace string) signature.Secret {
	s, err := signature.ParseSecret("whsec_" +
		base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-32s", workspace))))
	if err != nil {
		panic(err)
	}
	return s
}

// The workspaces of all tests. Only those in the catalog are known; muted has
// conversion tracking off, keyless no token key. The files of signing secrets of torn
// and tornghost cannot be used.
var (
	withSecrets = []string{"acme", "globex", "muted", "ghost", "keyless"}
	withKeys    = []string{"acme", "globex", "muted", "ghost"}
	// → conversion tracking
	inCatalog = map[string]bool{"acme": true, "globex": true, "muted": false, "keyless": true, "torn": true}
)

func catalogOf(id string) (exists, tracking bool) {
	tracking, exists = inCatalog[id]
	return exists, tracking
}

func signingKeys(t testing.TB) *signature.Keyring {
	dir := fstest.MapFS{}
	for _, w := range withSecrets {
		dir[w] = &fstest.MapFile{Data: []byte(secretOf(w).Reveal() + "\n")}
	}
	for _, w := range []string{"torn", "tornghost"} {
		dir[w] = &fstest.MapFile{Data: []byte("v1," + secretOf(w).Reveal() + "\n")}
	}
	k, err := signature.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func tokenKeys(t testing.TB) *token.Keyring {
	dir := fstest.MapFS{}
	for _, w := range withKeys {
		dir[w] = &fstest.MapFile{Data: []byte(base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-32s", w))))}
	}
	k, err := token.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mint(t testing.TB, k *token.Keyring, workspace string) string {
	raw, err := k.Mint(workspace, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token.Text(&raw)
}

// A rig is the handler behind a real server and in front of a fake broker.
type rig struct {
	t        testing.TB
	brokers  []string
	handler  *Handler
	producer *kgo.Client
	registry *prometheus.Registry
	tokens   *token.Keyring
	url      string
	token    string // one of acme's
	doc      *openapi3.T
	logged   *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// testConfig waits only a little for Kafka, but longer than a slow machine's needs.
func testConfig() Config {
	cfg := DefaultConfig()
	cfg.AckTimeout = 3 * time.Second
	return cfg
}

func newRig(t testing.TB) *rig {
	return newRigOn(t, kafkatest.Broker(t), DefaultConfig(), topic.OneEpoch(kafkatest.Partitions))
}

func newRigOn(t testing.TB, brokers []string, cfg Config, epochs topic.Epochs) *rig {
	t.Helper()
	kafkaCfg := kafka.DefaultConfig()
	kafkaCfg.Brokers = brokers
	r := &rig{t: t, brokers: brokers, registry: prometheus.NewRegistry(), tokens: tokenKeys(t), logged: new(safeBuffer)}
	r.producer = kafkatest.Client(t, brokers, ProducerOptions(cfg)...)
	var err error
	r.handler, err = New(cfg, kafkaCfg, r.producer, event.DefaultCodec(), placedIn(epochs), signingKeys(t), r.tokens,
		catalogOf,
		nil, slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug})), r.registry)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.handler)
	t.Cleanup(server.Close)
	r.url, r.token = server.URL, mint(t, r.tokens, "acme")
	loader := openapi3.NewLoader()
	if r.doc, err = loader.LoadFromData(openapi.Events()); err == nil {
		err = r.doc.Validate(loader.Context)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.checkLog() })
	return r
}

// checkLog wants no secret, token or sender's address (192.0.x.x where a test sets one)
// in what the handler logged.
func (r *rig) checkLog() {
	for _, w := range withSecrets {
		if strings.Contains(r.logged.String(), secretOf(w).Reveal()) {
			r.t.Errorf("the log holds a secret")
		}
	}
	if strings.Contains(r.logged.String(), r.token) || strings.Contains(r.logged.String(), "192.0.") {
		r.t.Errorf("the log holds a token or a sender's address:\n%s", r.logged)
	}
}

// A call is a request to make; zero fields are those of a good request for one event of
// acme.
type call struct {
	method, path, contentType string
	body                      string
	signer                    string        // whose secret signs; "nobody" sends no signature
	skew                      time.Duration // of webhook-timestamp
	header                    http.Header   // set last
}

func toWorkspace(id string) string          { return "/v1/workspaces/" + id + "/events" }
func batchTo(id string) string              { return "/v1/workspaces/" + id + "/events:batch" }
func header(name, value string) http.Header { return http.Header{name: {value}} }

// An answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
	// of a problem
	Code   string `json:"code"`
	Field  string `json:"field"`
	Detail string `json:"detail"`
	// of 202, and of a dry run
	EventID    string       `json:"event_id"`
	ReceivedAt time.Time    `json:"received_at"`
	Results    []itemResult `json:"results"`
}

func (r *rig) request(c call) *http.Request {
	r.t.Helper()
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.path == "" {
		c.path = toWorkspace("acme")
	}
	if c.contentType == "" {
		c.contentType = "application/json"
	}
	if c.signer == "" {
		c.signer = "acme"
	}
	req, err := http.NewRequest(c.method, r.url+c.path, strings.NewReader(c.body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", c.contentType)
	if c.signer != "nobody" {
		if err := signature.SignRequest(req, "msg_1", time.Now().Add(c.skew), []byte(c.body),
			secretOf(c.signer)); err != nil {
			r.t.Fatal(err)
		}
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	return req
}

// do makes a request and sends it.
func (r *rig) do(c call) answer {
	r.t.Helper()
	return r.send(r.request(c))
}

// send sends a request and holds the answer against the OpenAPI document.
func (r *rig) send(req *http.Request) answer {
	r.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.checkAnswer(req, resp, body)
	a := answer{status: resp.StatusCode, header: resp.Header, body: body}
	if req.Method != http.MethodHead {
		if err := json.Unmarshal(body, &a); err != nil {
			r.t.Fatalf("%d: %q: %v", resp.StatusCode, body, err)
		}
	}
	return a
}

// event is a valid event of acme with some members replaced or, with the empty text,
// left out: event("type", `"lead"`, "amount", "").
func (r *rig) event(changes ...string) string {
	return eventWith(r.token, time.Now().Format(time.RFC3339Nano), changes...)
}

func eventWith(clickToken, at string, changes ...string) string {
	members := []string{"event_id", `"e-1"`, "type", `"sale"`, "click_token", strconv.Quote(clickToken),
		"occurred_at", strconv.Quote(at),
		"amount", `"10.00"`, "currency", `"EUR"`}
	for i := 0; i < len(changes); i += 2 {
		found := false
		for j := 0; j < len(members); j += 2 {
			if members[j] == changes[i] {
				members[j+1], found = changes[i+1], true
			}
		}
		if !found {
			members = append(members, changes[i], changes[i+1])
		}
	}
	var parts []string
	for j := 0; j < len(members); j += 2 {
		if members[j+1] != "" {
			parts = append(parts, strconv.Quote(members[j])+":"+members[j+1])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func batchOf(events ...string) string { return `{"events":[` + strings.Join(events, ",") + `]}` }

// checkAnswer validates status, content type, headers and body. 404 alone is not
// described: it is no answer of an operation.
func (r *rig) checkAnswer(req *http.Request, resp *http.Response, body []byte) {
	r.t.Helper()
	path := req.URL.Path
	if w, to := routeOf(path); to == eventRoute || to == batchRoute {
		path = strings.Replace(path, w, "{workspace}", 1)
	}
	item := r.doc.Paths.Find(path)
	if item == nil || item.Post == nil {
		return
	}
	described := item.Post.Responses.Status(resp.StatusCode)
	if described == nil {
		r.t.Errorf("%s answers %d, which is not described", path, resp.StatusCode)
		return
	}
	for name, h := range described.Value.Headers {
		if h.Value.Required && resp.Header.Get(name) == "" {
			r.t.Errorf("%s answers %d without %s", path, resp.StatusCode, name)
		}
	}
	media := described.Value.Content[resp.Header.Get("Content-Type")]
	if media == nil {
		r.t.Errorf("%s answers %d as %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		return
	}
	if req.Method == http.MethodHead {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		r.t.Errorf("%s answers %q: %v", path, body, err)
		return
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		r.t.Errorf("%s answers %d %s: %v", path, resp.StatusCode, body, err)
	}
}

// flush waits until what was produced is in Kafka or lost.
func (r *rig) flush() {
	r.t.Helper()
	if err := r.producer.Flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := r.handler.pendingRejections.wait(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// conversions reads all that was recorded.
func (r *rig) conversions() []event.Conversion {
	r.t.Helper()
	r.flush()
	var out []event.Conversion
	for _, rec := range kafkatest.Consume(r.t, r.brokers, topic.Conversions) {
		var c event.Conversion
		if err := event.DefaultCodec().DecodeConversion(rec.Value, &c); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func (r *rig) rejections() []event.Rejection {
	r.t.Helper()
	r.flush()
	var out []event.Rejection
	for _, rec := range kafkatest.Consume(r.t, r.brokers, topic.Rejections) {
		var j event.Rejection
		if err := event.DefaultCodec().DecodeRejection(rec.Value, &j); err != nil {
			r.t.Fatal(err)
		}
		if string(rec.Key) != j.WorkspaceID || rec.Partition != 0 {
			r.t.Errorf("a rejection of %s has key %q and partition %d", j.WorkspaceID, rec.Key, rec.Partition)
		}
		out = append(out, j)
	}
	return out
}

// metric is the sum of a metric over its labels, of a histogram the count of
// observations.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// placedIn places every token at once.
type placedIn topic.Epochs

func (e placedIn) Place(_ context.Context, clickToken string, minted time.Time) (int32, error) {
	return topic.Epochs(e).Partition(clickToken, minted), nil
}
