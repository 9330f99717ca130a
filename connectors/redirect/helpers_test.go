package redirect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

var codec = event.DefaultCodec()

func discardLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
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

func testConfig(t testing.TB) Config {
	cfg := DefaultConfig()
	cfg.SpoolDir = filepath.Join(memoryDir(t), "spool")
	return cfg
}

// memoryDir returns a temporary directory, in memory if there is /dev/shm. Most tests
// are not about the disk, and thousands of fsyncs are slow on a busy one.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "redirect-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// openSpool opens a spool that is closed when the test ends.
func openSpool(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := OpenSpool(cfg, discardLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func testView(t testing.TB, yaml string) *catalog.View {
	t.Helper()
	workspaces, err := catalog.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.New(workspaces)
	if err != nil {
		t.Fatal(err)
	}
	view := catalog.NewView()
	for i, e := range c.Entries() {
		if err := view.Apply(e.Key, e.Value, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return view
}

func testKeys(t testing.TB, workspaces ...string) *token.Keyring {
	t.Helper()
	dir := fstest.MapFS{}
	for _, w := range workspaces {
		line, err := token.NewKey(bytes.NewReader(bytes.Repeat([]byte(w+"-"), 32)))
		if err != nil {
			t.Fatal(err)
		}
		dir[w] = &fstest.MapFile{Data: []byte(line + "\n")}
	}
	keys, err := token.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// definitions are parsed once for all tests.
var definitions = sync.OnceValues(loadDefinitions)

func testDefinitions(t testing.TB) *agentDefinitions {
	t.Helper()
	p, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newTestAgentParser(t testing.TB) *agentParser {
	return newAgentParser(testDefinitions(t), newHandlerMetrics(nil))
}

// testHandler is a handler on a spool of its own.
type testHandler struct {
	*Handler
	cfg  Config
	keys *token.Keyring
	reg  *prometheus.Registry
}

func newTestHandler(t testing.TB, yaml string, countries *Countries) *testHandler {
	t.Helper()
	cfg := testConfig(t)
	spool := openSpool(t, cfg)
	keys := testKeys(t, "acme", "free", "noflag")
	reg := prometheus.NewRegistry()
	h := newHandler(testDefinitions(t), testView(t, yaml), keys, codec, spool, nil, countries, discardLog(), reg)
	return &testHandler{Handler: h, cfg: cfg, keys: keys, reg: reg}
}

// serveRequest sends a request to the handler; change may be nil.
func (s *testHandler) serveRequest(method, target string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("User-Agent", chromeAgent)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const chromeAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) " +
	"Chrome/126.0.0.0 Safari/537.36"

// durableClicks reads what is durable in the spool.
func (s *testHandler) durableClicks(t testing.TB) []event.Click {
	t.Helper()
	var out []event.Click
	for _, f := range readFrames(s.spool) {
		var c event.Click
		if err := codec.DecodeClick(f.value, &c); err != nil {
			t.Fatal(err)
		}
		if c.ClickToken != string(f.token) || f.shown != (c.TokenStatus == event.TokenAppended) {
			t.Errorf("frame says %s shown=%v, its click %s %s", f.token, f.shown, c.ClickToken, c.TokenStatus)
		}
		out = append(out, c)
	}
	return out
}

// lastClick is the newest click.
func (s *testHandler) lastClick(t testing.TB) event.Click {
	t.Helper()
	all := s.durableClicks(t)
	if len(all) == 0 {
		t.Fatal("no click in the spool")
	}
	return all[len(all)-1]
}

func readFrames(s *Spool) []frame {
	var out []frame
	r := newReader(s)
	r.readRetry = 0
	for {
		b, ok, err := r.nextChunk()
		if !ok || err != nil {
			return out
		}
		out = append(out, b.frames...)
	}
}

// testToken is a token by number, minted now.
func testToken(t testing.TB, keys *token.Keyring, n int) string {
	t.Helper()
	raw, err := keys.Mint("acme", time.Now(), strings.NewReader(fmt.Sprintf("%010d", n)))
	if err != nil {
		t.Fatal(err)
	}
	return token.Text(&raw)
}

func testRecord(t testing.TB, keys *token.Keyring, n int) Record {
	t.Helper()
	tok := testToken(t, keys, n)
	click := event.Click{WorkspaceID: "acme", ClickToken: tok, ClickedAt: event.MillisOf(time.Now()),
		TokenStatus: event.TokenAppended, LinkID: "lnk", Domain: "go.acme.com", Slug: "s",
		Trigger: event.TriggerLink, CatalogOffset: int64(n)}
	r := Record{Token: tok, Shown: n%3 != 0}
	if !r.Shown {
		click.TokenStatus = event.TokenWithheld
	}
	var err error
	if r.Value, err = codec.AppendClick(nil, &click); err != nil {
		t.Fatal(err)
	}
	return r
}

func mustAppend(t testing.TB, s *Spool, records ...Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Append(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// readFiles reads all regular files below dir.
func readFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// metricValue returns the sum of a counter or gauge over all label values, or the value
// for one of them. A label value that was never counted is 0.
func metricValue(t testing.TB, reg *prometheus.Registry, name string, label ...string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, family := range all {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if len(label) > 0 && m.GetLabel()[0].GetValue() != label[0] {
				continue
			}
			found = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if !found && len(label) == 0 {
		t.Fatalf("no metric %s %v", name, label)
	}
	return sum
}

// waitLimit is how long a test waits for something that must happen. It is far beyond
// what a slow machine takes, so a test that reaches it has failed.
const waitLimit = 3 * time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", waitLimit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// startServer runs a handler on a loopback port. It returns a client that sends all
// requests there and does not follow redirects.
func startServer(t testing.TB, h http.Handler) *http.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: userAgent{transport}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

type userAgent struct{ next http.RoundTripper }

func (u userAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", chromeAgent)
	}
	return u.next.RoundTrip(r)
}

// placedIn places every token at once.
type placedIn topic.Epochs

func (e placedIn) TryPlace(clickToken string, minted, _ time.Time) (int32, bool) {
	return topic.Epochs(e).Partition(clickToken, minted), true
}
