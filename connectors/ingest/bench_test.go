package ingest

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

// BenchmarkHandler serves requests from signature check to acknowledgement; the broker
// is a fake in this process and shares the CPUs.
func BenchmarkHandler(b *testing.B) {
	for _, events := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.Rate, cfg.Burst = 1e12, 1e12
			r := newRigOn(b, kafkatest.Broker(b), cfg, topic.OneEpoch(kafkatest.Partitions))
			var list []string
			for range events {
				r.token = mint(b, r.tokens, "acme") // so that all partitions are used
				list = append(list, r.event("order_id", `"o-1"`, "metadata", `{"channel":"web"}`))
			}
			path, body := toWorkspace("acme"), list[0]
			if events > 1 {
				path, body = batchTo("acme"), batchOf(list...)
			}
			b.ReportAllocs()
			b.SetParallelism(max(4, 64/events)) // requests wait for Kafka, not for a CPU
			b.ResetTimer()
			start, before := time.Now(), cpuSeconds(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req := httptest.NewRequest("POST", path, strings.NewReader(body))
					req.Header.Set("Content-Type", "application/json")
					if err := signature.SignRequest(req, "msg_1", time.Now(), []byte(body),
						secretOf("acme")); err != nil {
						b.Fatal(err)
					}
					w := httptest.NewRecorder()
					r.handler.ServeHTTP(w, req)
					if w.Code != 202 {
						b.Fatalf("%d %s", w.Code, w.Body)
					}
				}
			})
			b.ReportMetric(float64(b.N*events)/time.Since(start).Seconds(), "events/s")
			b.ReportMetric(float64(b.N*events)/(cpuSeconds(b)-before), "events/cpu-s")
		})
	}
}

// cpuSeconds is what this process, fake broker included, has used so far: unlike the
// clock it does not count what other processes take.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkValidate is the handler's own work on one event: parsing, validating,
// hashing and encoding, without signature and Kafka.
func BenchmarkValidate(b *testing.B) {
	tokens := tokenKeys(b)
	h := &Handler{tokens: tokens}
	body := []byte(eventWith(mint(b, tokens, "acme"), time.Now().Format(time.RFC3339),
		"order_id", `"o-1"`, "metadata", `{"channel":"web"}`))
	b.ReportAllocs()
	for b.Loop() {
		d := parseEvent(body)
		one, ref := h.validateEvent("acme", &d, time.Now())
		if ref != nil {
			b.Fatal(ref)
		}
		one.ContentHash()
	}
}

// BenchmarkParseBatch reads 500 events: all strict, and with one that is not, for which
// the batch is read twice.
func BenchmarkParseBatch(b *testing.B) {
	list := slicesOf(eventWith(fuzzToken, fuzzNow.Format(time.RFC3339), "order_id", `"o-1"`), MaxBatchEvents)
	good := []byte(batchOf(list...))
	list[MaxBatchEvents-1] = `{"event_id":"e","event_id":"e"}`
	for name, body := range map[string][]byte{"strict": good, "one faulty": []byte(batchOf(list...))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if parsed := parseBatch(body); parsed.count != MaxBatchEvents || parsed.fault != nil {
					b.Fatal(parsed.fault)
				}
			}
		})
	}
}
