package verify

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// childEnv makes this binary a verifier: it holds the brokers.
const childEnv = "PARTNERS_VERIFY_CHILD"

// TestMain lets a benchmark measure a verifier in a process of its own.
func TestMain(m *testing.M) {
	if brokers := os.Getenv(childEnv); brokers != "" {
		if err := verifyAlone(brokers); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// aloneResult is what a verifier in a process of its own says.
type aloneResult struct {
	Report  *Report
	Seconds float64
	PeakKB  int64 // VmHWM
}

func verifyAlone(brokers string) error {
	codec := event.DefaultCodec()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = strings.Split(brokers, ",")
	began := time.Now()
	source, err := OpenTopics(context.Background(), cfg, codec, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	last := began
	r, err := Run(context.Background(), Config{
		Workspace: "acme",
		Progress: func(step string, done, of int64) {
			if time.Since(last) > 10*time.Second {
				last = time.Now()
				fmt.Fprintln(os.Stderr, step, done, of)
			}
		},
	}, source, codec)
	if err != nil {
		return err
	}
	result := aloneResult{Report: r, Seconds: time.Since(began).Seconds()}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			if result.PeakKB, err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// BenchmarkVerify verifies a ledger in Apache Kafka, in a process of its own: of
// PARTNERS_BENCH_EVENTS events, 100,000 if that is not set. Four rows, at random places,
// are wrong, and must be found with their offset.
func BenchmarkVerify(b *testing.B) {
	n := 100_000
	if text := os.Getenv("PARTNERS_BENCH_EVENTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	w := newBenchWorld(b, kafkatest.Real(b).Brokers(), n)
	began := time.Now()
	w.writeLedger(n)
	b.Logf("wrote %d events in %v; wrong: %+v", n, time.Since(began).Round(time.Second), w.wrong)
	for b.Loop() {
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), self)
		cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(w.cfg.Brokers, ","))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var r aloneResult
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil {
			b.Fatal(err)
		}
		w.check(r.Report, n)
		b.ReportMetric(float64(n)/r.Seconds, "events/s")
		b.ReportMetric(float64(r.PeakKB)/1024, "peak-MB")
	}
}

// benchWorld writes clicks, events and their rows.
type benchWorld struct {
	testing.TB
	cfg    kafka.Config
	client *kgo.Client
	codec  *event.Codec
	rules  *attribution.Rules
	rand   *rand.Rand
	now    event.Millis
	ends   map[string]map[int32]int64 // by topic and partition
	// wrongAt says at which event, counted over all, which row is wrong.
	wrongAt map[int]Kind
	wrong   []Difference
	events  int
}

// benchToken is a token with events to come.
type benchToken struct {
	raw       token.Raw
	text      string
	partition int32
	wire      []byte
	at        event.Millis
	rows      journeyRows
	events    int
}

func newBenchWorld(b *testing.B, brokers []string, n int) *benchWorld {
	w := &benchWorld{
		TB:      b,
		cfg:     kafka.DefaultConfig(),
		codec:   event.DefaultCodec(),
		rand:    rand.New(rand.NewPCG(uint64(n), rand.Uint64())),
		now:     event.MillisOf(time.Now().Add(-24 * time.Hour)),
		ends:    make(map[string]map[int32]int64),
		wrongAt: make(map[int]Kind),
	}
	w.cfg.Brokers = brokers
	kafkatest.Topics(b, brokers)
	w.client = kafkatest.Client(b, brokers, kgo.MaxBufferedRecords(100_000),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Progress} {
		w.ends[name] = make(map[int32]int64)
	}
	var err error
	if w.rules, err = attribution.New(attribution.DefaultConfig(), w.codec); err != nil {
		b.Fatal(err)
	}
	for _, kind := range []Kind{Differs, Missing, Doubled, Surplus} { // Surplus: of another rules version
		for {
			at := n/100 + w.rand.IntN(n-n/50) // no upgrade: not at an end
			if w.wrongAt[at] == "" {
				w.wrongAt[at] = kind
				break
			}
		}
	}
	return w
}

func (w *benchWorld) produce(name string, partition int32, r *kgo.Record) (offset int64) {
	r.Topic, r.Partition = name, partition
	r.Timestamp = w.now.Time()
	offset = w.ends[name][partition]
	w.ends[name][partition]++
	w.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err == nil && r.Offset != offset {
			err = fmt.Errorf("offset %d, want %d", r.Offset, offset)
		}
		if err != nil {
			w.Errorf("producing to %s: %v", name, err)
		}
	})
	return offset
}

// writeLedger writes n events. Those of one token lie thousands of records apart.
func (w *benchWorld) writeLedger(n int) {
	const open = 20_000
	tokens := make([]*benchToken, open)
	for w.events < n {
		w.now++
		i := w.rand.IntN(open)
		if tokens[i] == nil || tokens[i].events == 3 {
			tokens[i] = w.newToken()
		}
		w.writeEvent(tokens[i])
	}
	for p := range int32(kafkatest.Partitions) {
		value, err := w.codec.AppendProgress(nil, &event.Progress{
			Partition:           p,
			At:                  w.now,
			ClicksPosition:      w.ends[topic.Clicks][p],
			ConversionsPosition: w.ends[topic.Conversions][p],
			OutcomesEnd:         w.ends[topic.Outcomes][p],
			Watermark:           w.now,
			GraceMs:             attribution.DefaultConfig().Grace.Milliseconds(),
			ClickLifeMs:         attribution.DefaultConfig().ClickLife.Milliseconds(),
			JourneyLifeMs:       attribution.DefaultConfig().JourneyLife.Milliseconds(),
		})
		if err != nil {
			w.Fatal(err)
		}
		w.produce(topic.Progress, p, &kgo.Record{Key: []byte(strconv.Itoa(int(p))), Value: value})
	}
	if err := w.client.Flush(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func (w *benchWorld) newToken() *benchToken {
	t := &benchToken{at: w.now}
	binary.BigEndian.PutUint32(t.raw[:], token.SecondsOf(int64(w.now)))
	binary.BigEndian.PutUint64(t.raw[4:], w.rand.Uint64())
	binary.BigEndian.PutUint64(t.raw[12:], w.rand.Uint64())
	t.text = token.Text(&t.raw)
	t.partition = topic.OneEpoch(kafkatest.Partitions).Partition(t.text, w.now.Time())
	var err error
	if t.wire, err = w.codec.AppendClick(nil, &event.Click{
		WorkspaceID:         "acme",
		ClickToken:          t.text,
		ClickedAt:           w.now,
		WindowMs:            30 * 86400_000,
		TokenStatus:         event.TokenAppended,
		Trigger:             event.TriggerLink,
		LinkID:              "lnk_nomura",
		Domain:              "go.acme.com",
		Slug:                "nomura",
		Destination:         "https://shop.acme.com/",
		PartnerID:           "prt_nomura",
		PartnerKey:          "nomura",
		PartnerName:         "Nomura Studio",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_agency",
		ProgramKey:          "agency",
		ProgramName:         "Agency partners",
		ProgramStatus:       "active",
		AssignmentID:        "asg_1",
		RewardTerms:         "12.5%",
		Country:             "DE",
		Device:              "mobile",
		OS:                  "Android",
		Browser:             "Chrome",
		CatalogOffset:       17,
	}); err != nil {
		w.Fatal(err)
	}
	w.produce(topic.Clicks, t.partition, &kgo.Record{Key: []byte(t.text), Value: t.wire,
		Headers: []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}}})
	return t
}

func (w *benchWorld) writeEvent(t *benchToken) {
	amount := 100 + w.rand.Int64N(100_000)
	ev := event.Conversion{
		WorkspaceID: "acme",
		EventID:     fmt.Sprintf("event-%d", w.events),
		ClickToken:  t.text,
		Type:        event.Sale,
		OccurredAt:  w.now,
		ReceivedAt:  w.now,
		EnteredAt:   w.now,
		AmountMinor: &amount,
		Currency:    "EUR",
		Exponent:    2,
		OrderID:     fmt.Sprintf("order-%d", w.events),
		ResolvedBy:  event.ResolvedByToken,
		KeyID:       "0123456789abcdef",
	}
	if t.events > 0 && w.rand.IntN(2) == 0 {
		ev.Type, ev.OrderID = event.Refund, ""
	}
	t.events++
	ev.ContentSHA256 = ev.ContentHash()
	value, err := w.codec.AppendConversion(nil, &ev)
	if err != nil {
		w.Fatal(err)
	}
	offset := w.produce(topic.Conversions, t.partition, &kgo.Record{Key: []byte(t.text), Value: value})
	clicks := func(*[20]byte) ([]byte, event.Millis, bool, error) { return t.wire, t.at, true, nil }
	if err := w.rules.JudgeEvent(&t.rows, clicks, &ev, attribution.Source{Partition: t.partition, Offset: offset},
		w.writeRow); err != nil {
		w.Fatal(err)
	}
	w.events++
}

// writeRow writes a row, or what is wrong instead of it.
func (w *benchWorld) writeRow(o *event.Outcome, click []byte) error {
	kind := w.wrongAt[w.events]
	c := *o
	c.DecidedAt = w.now + 7
	d := Difference{Kind: kind, Event: &Place{o.EventPartition, o.EventOffset}}
	switch kind {
	case Differs:
		amount := int64(1)
		c.AmountMinor = &amount
	case Surplus:
		c.RulesVersion--
		d.Kind = Differs
	}
	value, err := w.codec.AppendOutcome(nil, &c, click)
	if err != nil {
		return err
	}
	for range map[Kind]int{"": 1, Differs: 1, Surplus: 1, Missing: 0, Doubled: 2}[kind] {
		d.Row = &Place{o.EventPartition, w.produce(topic.Outcomes, o.EventPartition,
			&kgo.Record{Key: []byte(c.ClickToken), Value: value})}
	}
	if kind != "" {
		w.wrong = append(w.wrong, d)
	}
	return nil
}

// check wants exactly what is wrong, with its offset.
func (w *benchWorld) check(r *Report, n int) {
	w.Helper()
	x := r.Tallies[0]
	if int64(n) != r.Events || x.Differing != 2 || x.Missing != 1 || x.Doubled != 1 || x.Surplus != 0 ||
		x.Equal != int64(n)-3 || len(x.Differences) != 4 {
		w.Errorf("%d events: %v", r.Events, x)
	}
	for _, want := range w.wrong {
		found := false
		for _, d := range x.Differences {
			found = found || d.Kind == want.Kind && *d.Event == *want.Event &&
				(d.Row == nil) == (want.Row == nil) && (d.Row == nil || *d.Row == *want.Row)
		}
		if !found {
			w.Errorf("not found: %s of event %v at %v", want.Kind, want.Event, want.Row)
		}
	}
}
