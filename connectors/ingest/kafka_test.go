package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

const produceKey = 0

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

// faultyRig is a rig whose broker breaks the connection on every produce request while
// away is set.
func faultyRig(t *testing.T) (r *rig, away *atomic.Bool) {
	away = new(atomic.Bool)
	cluster, brokers := kafkatest.Cluster(t)
	r = newRigOn(t, brokers, testConfig(), topic.OneEpoch(kafkatest.Partitions))
	cluster.ControlKey(produceKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("away"), away.Load()
	})
	return r, away
}

// While Kafka is away the answer is 503, within the time given; afterwards the same
// request is accepted.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	r, away := faultyRig(t)
	if a := r.do(call{body: r.event()}); a.status != 202 {
		t.Fatalf("before: %d %s", a.status, a.body)
	}
	away.Store(true)
	start := time.Now()
	one := r.do(call{body: r.event()})
	many := r.do(call{path: batchTo("acme"), body: batchOf(r.event(), r.event())})
	mixed := r.do(call{path: batchTo("acme"), body: batchOf(r.event(), "{}")})
	refused := r.do(call{body: "{}"}) // its rejection is lost, its answer is not
	t.Logf("four answers took %v with a timeout of %v for three", time.Since(start).Round(time.Millisecond),
		testConfig().AckTimeout)
	for _, a := range []answer{one, many} {
		if a.status != 503 || a.Code != "unavailable" || a.header.Get("Retry-After") != "5" {
			t.Errorf("away: %d %s", a.status, a.body)
		}
	}
	if mixed.status != 202 || mixed.Results[0].Code != "unavailable" || mixed.Results[1].Code != "invalid_field" {
		t.Errorf("a batch with a refusal: %d %s", mixed.status, mixed.body)
	}
	if refused.status != 422 {
		t.Errorf("a refusal while Kafka is away: %d %s", refused.status, refused.body)
	}
	if n := r.metric("partners_ingest_unacknowledged_total"); n != 4 {
		t.Errorf("counted %v events that were not acknowledged, want 4", n)
	}
	if n := strings.Count(r.logged.String(), "level=WARN"); n != 1 ||
		!strings.Contains(r.logged.String(), `level=WARN msg="waiting for Kafka"`) {
		t.Errorf("%d warnings of one outage:\n%s", n, r.logged)
	}
	away.Store(false)
	deadline := time.Now().Add(hang)
	for a := r.do(call{body: r.event("event_id", `"after"`)}); a.status != 202; a = r.do(
		call{body: r.event("event_id", `"after"`)}) {
		if time.Now().After(deadline) {
			t.Fatalf("after: %d %s", a.status, a.body)
		}
	}
	list := r.conversions()
	if len(list) < 2 || list[len(list)-1].EventID != "after" {
		t.Errorf("recorded %+v", list)
	}
	if recorded, lost := r.metric("partners_ingest_rejections_recorded_total"), r.metric(
		"partners_ingest_rejections_lost_total"); recorded+lost != 2 {
		t.Errorf("of 2 rejections %v were recorded and %v lost", recorded, lost)
	}
}

// A broker that was never there.
func TestKafkaNeverThere(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, []string{"127.0.0.1:1"}, testConfig(), topic.OneEpoch(kafkatest.Partitions))
	if a := r.do(call{body: r.event()}); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if !strings.Contains(r.logged.String(), `msg="waiting for Kafka"`) {
		t.Errorf("the log does not tell the operator:\n%s", r.logged)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if err := r.handler.Drain(ctx); err != nil {
		t.Errorf("with the records given up, draining ends: %v", err)
	}
}

// Events of one batch that Kafka takes and that it does not take.
func TestPartlyAcknowledgedBatch(t *testing.T) {
	t.Parallel()
	// Half of the partitions that tokens are sent to do not exist.
	r := newRigOn(t, kafkatest.Broker(t), testConfig(), topic.OneEpoch(2*kafkatest.Partitions))
	epochs := topic.OneEpoch(2 * kafkatest.Partitions)
	var events []string
	var want []itemResult
	acknowledged := 0
	for i := range 40 {
		r.token = mint(t, r.tokens, "acme")
		id := fmt.Sprintf("e-%d", i)
		events = append(events, r.event("event_id", `"`+id+`"`))
		w := itemResult{Index: i, EventID: id, Status: "accepted"}
		if epochs.Partition(r.token, time.Now()) >= kafkatest.Partitions {
			w.refuse(unavailableRefusal())
		} else {
			acknowledged++
		}
		want = append(want, w)
	}
	a := r.do(call{path: batchTo("acme"), body: batchOf(events...)})
	if a.status != 202 || fmt.Sprint(a.Results) != fmt.Sprint(want) || acknowledged == 0 || acknowledged == 40 {
		t.Errorf("%d\n got %v\nwant %v", a.status, a.Results, want)
	}
	if got := len(r.conversions()); got != acknowledged {
		t.Errorf("%d events recorded, %d accepted", got, acknowledged)
	}
}

// heldRig is a rig whose broker holds produce requests back until release is closed,
// and says when it has come.
func heldRig(t *testing.T, cfg Config) (r *rig, arrived, release chan struct{}) {
	arrived, release = make(chan struct{}), make(chan struct{})
	cluster, brokers := kafkatest.Cluster(t)
	r = newRigOn(t, brokers, cfg, topic.OneEpoch(kafkatest.Partitions))
	var once sync.Once // the client tries again when its own patience ends
	cluster.ControlKey(produceKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() { close(arrived) })
		cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	return r, arrived, release
}

// 202 is not sent before Kafka has acknowledged.
func TestNoAnswerBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	for path, body := range map[string]func(*rig) string{
		toWorkspace("acme"): func(r *rig) string { return r.event() },
		batchTo("acme"):     func(r *rig) string { return batchOf(r.event(), "{}") },
	} {
		r, arrived, release := heldRig(t, DefaultConfig())
		answered := make(chan answer, 1)
		go func() { answered <- r.do(call{path: path, body: body(r)}) }()
		<-arrived
		select {
		case a := <-answered:
			t.Errorf("answered %d while Kafka was still writing", a.status)
		case <-time.After(200 * time.Millisecond):
		}
		if n := r.metric("partners_ingest_in_flight"); n != 1 {
			t.Errorf("in flight: %v", n)
		}
		close(release)
		if a := <-answered; a.status != 202 {
			t.Errorf("after the acknowledgement: %d %s", a.status, a.body)
		}
	}
}

// An acknowledgement that comes after the answer is counted and does no harm; the event
// sent again is the same event.
func TestLateAcknowledgement(t *testing.T) {
	t.Parallel()
	r, _, release := heldRig(t, testConfig())
	body := r.event()
	if a := r.do(call{body: body}); a.status != 503 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	close(release)
	r.flush()
	if a := r.do(call{body: body}); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	list := r.conversions()
	for _, c := range list {
		if c.ContentSHA256 != list[0].ContentSHA256 || c.EventID != "e-1" {
			t.Errorf("%+v", c)
		}
	}
	if late := int(r.metric("partners_ingest_late_acks_total")); len(list) < 1 || len(list) > 2 || late > 1 ||
		late == 1 && len(list) != 2 {
		t.Errorf("%d records, %d late acknowledgements", len(list), late)
	}
}

// Drain waits for the requests that are being served, lets no more in, and gets the
// refusals to Kafka.
func TestDrain(t *testing.T) {
	t.Parallel()
	r, arrived, release := heldRig(t, DefaultConfig())
	answered := make(chan answer, 1)
	go func() { answered <- r.do(call{body: r.event()}) }()
	<-arrived
	r.do(call{body: "{}"})

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.handler.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with a request in flight: %v", err)
	}
	if a := r.do(call{body: r.event()}); a.status != 503 || a.Code != "unavailable" {
		t.Errorf("let in while draining: %d %s", a.status, a.body)
	}
	close(release)
	if err := r.handler.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if a := <-answered; a.status != 202 {
		t.Errorf("the request in flight: %d %s", a.status, a.body)
	}
	if n := r.metric("partners_ingest_rejections_recorded_total"); n != 1 {
		t.Errorf("%v rejections recorded, want 1", n)
	}
}

// With many senders, Kafka has exactly the events that were answered 202.
func TestManySenders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]bool{}
	for s := range 8 {
		wg.Go(func() {
			for i := range 25 {
				id := fmt.Sprintf("e-%d-%d", s, i)
				body := r.event("event_id", `"`+id+`"`)
				if i%5 == 0 {
					body = r.event("event_id", `"`+id+`"`, "amount", `"x"`)
				}
				if a := r.do(call{body: body}); a.status == 202 {
					mu.Lock()
					accepted[id] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	recorded := map[string]int{}
	for _, c := range r.conversions() {
		recorded[c.EventID]++
	}
	if len(accepted) != 160 || len(recorded) != 160 || len(r.rejections()) != 40 {
		t.Errorf("%d accepted, %d recorded, %d rejections; want 160, 160, 40",
			len(accepted), len(recorded), len(r.rejections()))
	}
	for id, n := range recorded {
		if n != 1 || !accepted[id] {
			t.Errorf("%s: recorded %d times, accepted %v", id, n, accepted[id])
		}
	}
}
