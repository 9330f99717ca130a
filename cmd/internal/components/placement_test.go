package components

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// addPartitions does what kafka-topics --alter does.
func addPartitions(t *testing.T, d Deps) {
	t.Helper()
	altered, err := kadm.NewClient(kafkatest.Client(t, d.Kafka.Brokers)).UpdatePartitions(t.Context(), 8,
		topic.Clicks, topic.Conversions, topic.Outcomes, topic.Changelog, topic.Progress)
	if err = errors.Join(err, altered.Error()); err != nil {
		t.Fatal(err)
	}
}

// With other partitions than tokens are bound to, a redirector goes on redirecting and
// sends nothing, and a gateway asks its clients to come again.
func TestAddedPartitions(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	addPartitions(t, d)
	lines := make(logLines, 1000)
	d.Log = slog.New(slog.NewTextHandler(lines, nil))
	differs := func(reg *prometheus.Registry) func() bool {
		return func() bool {
			n, _ := readMetric(t, reg, "partners_kafka_partitions_differ")
			return n == 1
		}
	}
	within := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(maxWait); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	keys := newSecretsFolder(t, map[string]string{"acme": tokenKey, "globex": tokenKey})

	reg := prometheus.NewRegistry()
	d.Registry = reg
	g := &Gateway{Deps: d, Config: ingest.DefaultConfig(), Listener: listenLoopback(t), TokenKeys: string(keys),
		SigningSecrets: string(newSecretsFolder(t, map[string]string{"acme": testSecret(t, "a1").Reveal() + "\n"}))}
	stop := stopAfter(t, g)
	within("the gateway sees no difference", differs(reg))
	lines.await(t, "topic clicks has 8, the installation was made with 6")
	answer := postEvent(t, g.Listener, "acme", "a1")
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", answer.StatusCode, answer.Header.Get("Retry-After"))
	}
	if err := g.Ready(); err == nil {
		t.Error("the gateway is ready")
	}
	stop()

	reg = prometheus.NewRegistry()
	d.Registry = reg
	r := &Redirector{Deps: d, Config: redirect.DefaultConfig(), Listener: listenLoopback(t), TokenKeys: string(keys)}
	r.Config.SpoolDir = t.TempDir()
	stop = stopAfter(t, r)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Listener.Addr().String()+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "go.acme.com"
	var at string
	awaitStatus(t, "redirecting", http.StatusFound, func() *http.Response {
		answer := answerOf(t, req)
		at = answer.Header.Get("Location")
		return answer
	})
	if !strings.Contains(at, "nim_ct=") {
		t.Errorf("no token: %s", at)
	}
	within("the redirector sees no difference", differs(reg))
	stop()
	if n := len(kafkatest.Consume(t, d.Kafka.Brokers, topic.Clicks)); n != 0 {
		t.Errorf("%d clicks were sent", n)
	}
}

// A placement notices added partitions while it runs, and keeps the recorded count.
func TestPlacementFollows(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	p, err := newPlacement(d, "test", kafkatest.Client(t, d.Kafka.Brokers), topic.Clicks)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if p.isHeld() || placementState(p.state.Load()) != placementUnknown {
		t.Errorf("at first: %v", placementState(p.state.Load()))
	}
	now := time.Now()
	if err := p.await(t.Context()); err != nil || p.isHeld() {
		t.Fatalf("%v, held: %v", err, p.isHeld())
	}
	home := topic.OneEpoch(kafkatest.Partitions).Partition(aToken, now)
	if got, err := p.Place(t.Context(), aToken, now); err != nil || got != home {
		t.Errorf("placed in %d, want %d: %v", got, home, err)
	}
	addPartitions(t, d)
	if err := p.look(t.Context()); !errors.Is(err, kafka.ErrPartitions) || !p.isHeld() {
		t.Errorf("%v, held: %v", err, p.isHeld())
	}
	if got, err := p.Place(t.Context(), aToken, now); !errors.Is(err, kafka.ErrPartitions) {
		t.Errorf("placed in %d, %v", got, err)
	}
}

// While partitions are added, a gateway says so, and not that somebody else has added them:
// by the record, and by its state where its producer does not know of them yet.
func TestGrowthIsNoDifference(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	p, err := newPlacement(d, "test", kafkatest.Client(t, d.Kafka.Brokers), topic.Clicks)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	var g Gateway
	g.placement.Store(p)
	p.state.Store(int32(placementGrowing)) // as checkProducer finds it, without a record
	for name, err := range map[string]error{"held": p.heldError(), "ready": g.Ready()} {
		if !errors.Is(err, kafka.ErrGrowing) {
			t.Errorf("%s: %v, want %v", name, err, kafka.ErrGrowing)
		}
	}
	if _, err := p.Place(t.Context(), aToken, time.Now()); !errors.Is(err, kafka.ErrGrowing) {
		t.Errorf("placed: %v, want %v", err, kafka.ErrGrowing)
	}
	value, err := topic.Growth{Partitions: 8, From: time.Now().Add(time.Hour).Truncate(time.Second)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.Produce(t, d.Kafka.Brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.GrowthKey), Value: value})
	if err := p.install.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := p.look(t.Context()); !errors.Is(err, kafka.ErrGrowing) || !errors.Is(g.Ready(), kafka.ErrGrowing) {
		t.Errorf("with the record: %v, ready: %v", err, g.Ready())
	}
	p.state.Store(int32(placementDiffers))
	if err := g.Ready(); !errors.Is(err, kafka.ErrPartitions) {
		t.Errorf("ready: %v", err)
	}
}

const aToken = "3MWgyD5yf6kfC92HIBeU6RXBUYB"

// An open gate that is shut answers at once, and serves again afterwards.
func TestGateIsShutForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		isShut := true
		gate := newReadinessGate(ingest.Unavailable())
		gate.openTo(http.RedirectHandler("/", http.StatusFound), func() bool { return isShut })
		want := func(status int) {
			t.Helper()
			began := time.Now()
			w := httptest.NewRecorder()
			if gate.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil)); w.Code != status || time.Since(began) > 0 {
				t.Errorf("status %d after %v, want %d", w.Code, time.Since(began), status)
			}
		}
		want(http.StatusServiceUnavailable)
		isShut = false
		want(http.StatusFound)
	})
}

// A gateway that serves when partitions are added stops to accept events.
func TestPartitionsAddedWhileServing(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	keys := newSecretsFolder(t, map[string]string{"acme": tokenKey})
	secrets := newSecretsFolder(t, map[string]string{"acme": testSecret(t, "a1").Reveal() + "\n"})
	g := &Gateway{Deps: d, Config: ingest.DefaultConfig(), Listener: listenLoopback(t), TokenKeys: string(keys),
		SigningSecrets: string(secrets)}
	stop := stopAfter(t, g)
	defer stop()
	ask := func() *http.Response { return postEvent(t, g.Listener, "acme", "a1") }
	awaitStatus(t, "before", http.StatusUnprocessableEntity, ask) // it reads the event, whose token is none
	addPartitions(t, d)
	awaitStatus(t, "with more partitions", http.StatusServiceUnavailable, ask)
	if err := g.Ready(); !errors.Is(err, kafka.ErrPartitions) {
		t.Errorf("ready: %v", err)
	}
}
