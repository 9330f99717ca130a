package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func TestConfig(t *testing.T) {
	f := func(change func(*Config), want string) {
		t.Helper()
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); want == "" && err != nil || want != "" &&
			(err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	f(func(*Config) {}, "")
	f(func(c *Config) { c.BatchRows = 0 }, "BatchRows")
	f(func(c *Config) { c.BatchRows = clickhouse.MaxInsertRows + 1 }, "BatchRows")
	f(func(c *Config) { c.BatchBytes = 1 }, "BatchBytes")
	f(func(c *Config) { c.Linger = 0 }, "-linger")
}

// An intent is read as it was written, fits a broker's metadata, and names one token.
func TestIntentRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		start := rapid.Int64Range(0, 1<<62).Draw(t, "start")
		want := intent{
			topicID:    topicIDText(id),
			start:      start,
			end:        start + rapid.Int64Range(1, 1<<61).Draw(t, "n"),
			declaredAt: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "at")).UTC(),
		}
		warehouse := rapid.SampledFrom([]string{"", "wh_01KBD9ZV5K3XW1B1Y9F3Z9Q2T7"}).Draw(t, "warehouse")
		metadata := commitNote{warehouse, &want}.encodeMetadata()
		got, err := parseCommitNote(metadata)
		if err != nil || got.intent == nil || *got.intent != want || got.warehouse != warehouse {
			t.Fatalf("%q: got %+v, %v, want %+v", metadata, got, err, want)
		}
		if len(metadata) > maxMetadataBytes/8 {
			t.Fatalf("%d bytes of metadata", len(metadata))
		}
	})
}

// Whatever the metadata of a commit is, it is either exactly what an intent is written
// as, or nothing, or refused.
func FuzzIntent(f *testing.F) {
	for _, s := range []string{"", "v1 AAAAAAAAAAAAAAAAAAAAAA 0 1 0", "v1 x 5 5 0", "v1 x 5 4 0", "v1 x -1 4 0",
		"v1 x 01 4 0", "v1 x 1 4 0 ", "v2 x 1 4 0", "v1  1 4 0", "v1 x 1 99999999999999999999 0",
		"v2 w x 0 1 0", "v2 w", "v2 ", "v2 w ", "v2  x 0 1 0", "v2 w x 5 5 0", "v3 w x 0 1 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, metadata string) {
		got, err := parseCommitNote(metadata)
		switch {
		case err != nil:
			if got != (commitNote{}) || !errors.Is(err, ErrIntent) {
				t.Errorf("%q: %v, %v", metadata, got, err)
			}
		case got.encodeMetadata() != metadata || got.intent != nil && got.intent.start >= got.intent.end:
			t.Errorf("%q was read as %q", metadata, got.encodeMetadata())
		}
	})
}

// Where a partition is resumed, by hand.
func TestFindResumePoint(t *testing.T) {
	in := func(start, end int64) *intent { return &intent{topicID: "T", start: start, end: end} }
	f := func(name string, s recoveredState, wantAt int64, wantRedo bool, wantErr error) {
		t.Helper()
		if s.topicID == "" {
			s.topicID = "T"
		}
		at, redo, err := s.findResumePoint()
		if !errors.Is(err, wantErr) || err == nil && (at != wantAt || (redo != nil) != wantRedo) {
			t.Errorf("%s: at %d, redo %v, %v", name, at, redo, err)
		}
	}
	none := int64(-1)
	ids := []string{"T"}
	f("fresh install", recoveredState{committed: 0, contiguousEnd: none, logEnd: 9}, 0, false, nil)
	f("first batch in doubt", recoveredState{
		committed:     0,
		commitNote:    commitNote{intent: in(0, 5)},
		contiguousEnd: none,
		logEnd:        9,
	}, 0, true, nil)
	f("an emptied database", recoveredState{
		committed:     1,
		commitNote:    commitNote{intent: in(1, 5)},
		contiguousEnd: none,
		logEnd:        9,
	}, 0, false, ErrForgotten)
	f("fresh install, the log's beginning is gone", recoveredState{
		committed:     4,
		contiguousEnd: none,
		logStart:      4,
		logEnd:        9,
	}, 4, false, nil)
	f("no commit", recoveredState{committed: none, contiguousEnd: none, logEnd: 9}, 0, false, ErrNoCommit)
	f("no commit, but batches", recoveredState{
		committed:     none,
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        9,
	}, 7, false, nil)
	f("the last batch is recorded, not acknowledged", recoveredState{
		committed:     3,
		commitNote:    commitNote{intent: in(3, 7)},
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        9,
	}, 7, false, nil)
	f("the last batch is in doubt", recoveredState{
		committed:     7,
		commitNote:    commitNote{intent: in(7, 9)},
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        9,
	}, 7, true, nil)
	f("restored from a backup", recoveredState{
		committed:     70,
		commitNote:    commitNote{intent: in(70, 90)},
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        99,
	}, 7, false, nil)
	f("the log lost its beginning", recoveredState{
		committed:     7,
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logStart:      8,
		logEnd:        9,
	}, 0, false, ErrLostRange)
	f("the log lost its end", recoveredState{
		committed:     7,
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        6,
	}, 0, false, ErrLostRange)
	f("the log lost a declared batch", recoveredState{
		committed:     7,
		commitNote:    commitNote{intent: in(7, 12)},
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        9,
	}, 0, false, ErrLostRange)
	f("another topic's batches", recoveredState{
		committed:     0,
		batchTopicIDs: []string{"T", "U"},
		contiguousEnd: 7,
		logEnd:        9,
	}, 0, false, ErrTopicChanged)
	f("an adopted topic", recoveredState{
		topicID:       "U",
		formerIDs:     ids,
		committed:     7,
		commitNote:    commitNote{intent: in(3, 7)},
		batchTopicIDs: []string{"T", "U"},
		contiguousEnd: 7,
		logEnd:        9,
	}, 7, false, nil)
	f("an adopted topic, the last batch is in doubt", recoveredState{
		topicID:       "U",
		formerIDs:     ids,
		committed:     7,
		commitNote:    commitNote{intent: in(7, 9)},
		batchTopicIDs: ids,
		contiguousEnd: 7,
		logEnd:        9,
	}, 0, false, ErrHalfDone)
	f("another topic's intent", recoveredState{
		topicID:       "U",
		committed:     0,
		commitNote:    commitNote{intent: in(0, 3)},
		contiguousEnd: none,
		logEnd:        9,
	}, 0, false, ErrTopicChanged)
}

// world is a trivial model of one partition: a log, a table, and what a sink knows of
// both. Sinks of the model follow findResumePoint and die between any two steps.
func TestTilesWhateverDies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logEnd, committed := int64(0), int64(0)
		var declared *intent
		inserted := map[int64]int{}       // offset → rows
		tokens := map[string]bool{}       // of the table
		recorded := map[string][2]int64{} // batches by token
		contiguousEnd := func() int64 {
			end, found := int64(0), true
			for found {
				found = false
				for _, b := range recorded {
					if b[0] == end {
						end, found = b[1], true
						break
					}
				}
			}
			if len(recorded) == 0 {
				return -1
			}
			return end
		}
		for range rapid.IntRange(1, 12).Draw(t, "sinks") {
			logEnd += rapid.Int64Range(0, 5).Draw(t, "new")
			s := recoveredState{
				topicID:       "T",
				committed:     committed,
				commitNote:    commitNote{intent: declared},
				contiguousEnd: contiguousEnd(),
				logEnd:        logEnd,
			}
			at, redo, err := s.findResumePoint()
			if err != nil {
				t.Fatal(err)
			}
			for steps := rapid.IntRange(0, 12).Draw(t, "steps"); ; {
				if at == logEnd {
					break
				}
				end := at + rapid.Int64Range(1, logEnd-at).Draw(t, "size")
				if redo != nil {
					end, redo = redo.end, nil
				}
				id := batchID{topicID: "T", start: at, end: end}
				if steps--; steps < 0 {
					break
				}
				committed, declared = at, &intent{topicID: "T", start: at, end: end}
				if steps--; steps < 0 {
					break
				}
				if !tokens[id.deduplicationToken()] {
					tokens[id.deduplicationToken()] = true
					for o := at; o < end; o++ {
						inserted[o]++
					}
				}
				if steps--; steps < 0 {
					break
				}
				recorded[id.deduplicationToken()] = [2]int64{at, end}
				at = end
			}
		}
		for o, n := range inserted {
			if n != 1 {
				t.Fatalf("offset %d is in the table %d times", o, n)
			}
		}
		for o := range max(contiguousEnd(), 0) {
			if inserted[o] != 1 {
				t.Fatalf("offset %d is recorded but not in the table", o)
			}
		}
	})
}

// The queue gives every record once, in order, in batches within the limits, and wakes
// and resumes whom it must.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{BatchRows: rapid.IntRange(1, 5).Draw(t, "rows"), BatchBytes: rapid.IntRange(1, 40).Draw(t,
			"bytes")}
		q := newQueue(0, cfg)
		var pushed, taken []int64
		next, paused := int64(0), false
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "do") {
			case 0:
				var records []*kgo.Record
				for n := range rapid.IntRange(0, 4).Draw(t, "n") {
					next += rapid.Int64Range(0, 2).Draw(t, "gap") // aborted and compacted records
					if n == 0 && next > 0 && rapid.Bool().Draw(t, "old") {
						// fetched a second time
						records = append(records, &kgo.Record{Offset: q.next - 1, Value: make([]byte, 3)})
					}
					records = append(records,
						&kgo.Record{Offset: next, Value: make([]byte, rapid.IntRange(0, 20).Draw(t, "size"))})
					pushed = append(pushed, next)
					next++
				}
				if q.pushRecords(records) {
					if paused {
						t.Fatal("paused twice")
					}
					paused = true
				}
			case 1:
				records, resume := q.takeBatch()
				bytes := 0
				for _, r := range records {
					taken = append(taken, r.Offset)
					bytes += len(r.Value)
				}
				if len(records) > cfg.BatchRows || len(records) > 1 && bytes > cfg.BatchBytes {
					t.Fatalf("a batch of %d records, %d bytes", len(records), bytes)
				}
				if resume && !paused {
					t.Fatal("resumed what runs")
				}
				paused = paused && !resume
			case 2:
				end := rapid.Int64Range(0, next+3).Draw(t, "end")
				records, resume, complete := q.takeBelow(end)
				if !complete && len(records) > 0 || complete != (q.next >= end) {
					t.Fatalf("to %d: %d records, complete %t, pushed to %d", end, len(records), complete, q.next)
				}
				for _, r := range records {
					if r.Offset >= end {
						t.Fatalf("offset %d is behind %d", r.Offset, end)
					}
					taken = append(taken, r.Offset)
				}
				paused = paused && !resume
			}
			if n, full := q.fillLevel(); n == 0 && (full || paused) {
				t.Fatal("an empty queue is full or paused: no push would wake it")
			}
		}
		if !slices.Equal(taken, pushed[:len(taken)]) {
			t.Fatalf("taken %v of %v", taken, pushed)
		}
	})
}

// What every record's bytes can be, the sink takes or calls unreadable: it never panics
// and never takes another error for an unreadable record.
func FuzzDecode(f *testing.F) {
	all := topicMappings(event.DefaultCodec())
	f.Add(0, []byte("key"), []byte("\x00\x00\x00\x00\x01\x00"))
	f.Add(5, []byte("partner/w/p"), []byte(`{"id":"p"}`))
	f.Add(5, []byte("/"), []byte(`[]`))
	f.Fuzz(func(t *testing.T, n int, key, value []byte) {
		set := all[uint(n)%uint(len(all))].newRows()
		err := set.appendRow(&kgo.Record{Key: key, Value: value}, nil)
		if err != nil && !isUnreadable(err) {
			t.Errorf("%v is an error of another kind", err)
		}
		if rows := set.summarize().rows; (err == nil) != (rows == 1) {
			t.Errorf("%d rows and error %v", rows, err)
		}
	})
}

func TestDecodeVersion(t *testing.T) {
	f := func(key, value, workspace, kind string, ok bool) {
		t.Helper()
		var v catalogVersion
		err := decodeCatalogVersion(&kgo.Record{Key: []byte(key), Value: []byte(value)}, &v)
		if (err == nil) != ok || ok && (v.workspace != workspace || v.kind != kind || v.key != key || v.json != value) {
			t.Errorf("%s: %+v, %v", key, v, err)
		}
	}
	f("workspace/acme", `{"id":"acme"}`, "acme", "workspace", true)
	f("partner/acme/prt_1", `{"workspace":"acme"}`, "acme", "partner", true)
	f("link/go.acme.com/a/b", `{"workspace":"acme"}`, "acme", "link", true)
	f("domain/go.acme.com", `{"workspace":"acme"}`, "acme", "domain", true)
	f("link/go.acme.com/a", ``, "", "link", true)
	f("workspace", `{}`, "", "", false)
	f("workspace/", `{}`, "", "", false)
	f("partner/a/b", `null`, "", "", false)
	f("partner/a/b", `{`, "", "", false)
}

// Retryable errors are repeated, the sink's own never.
func TestRetryable(t *testing.T) {
	for _, err := range []error{ErrTopicChanged, ErrNoTopic, ErrNoCommit, ErrForgotten, ErrWentBack, ErrLostRange,
		ErrHalfDone, ErrWindow, ErrIntent, ErrSurplus} {
		if retryable(fmt.Errorf("%w: %w", errKafka, err)) || !NeedsOperator(fmt.Errorf("x: %w", err)) {
			t.Errorf("%v is repeated", err)
		}
	}
	for _, err := range []error{errKafka, context.DeadlineExceeded} {
		if !retryable(fmt.Errorf("x: %w", err)) || NeedsOperator(err) {
			t.Errorf("%v is not repeated", err)
		}
	}
	if retryable(errors.New("syntax error")) {
		t.Error("a refusal is repeated")
	}
}

// Inserts of clicks are rare, a budget of 20 inserts a second holds for every partition
// count, and a full batch waits no longer than the budget.
func TestInsertInterval(t *testing.T) {
	f := func(name string, partitions int, took time.Duration, full bool, want time.Duration) {
		t.Helper()
		s := &Sink{cfg: DefaultConfig(), partitionCounts: map[string]int{name: partitions}}
		p := &partition{sink: s, mapping: &topicMapping{topic: name, largeBatches: name == topic.Clicks},
			lastInsertTook: took}
		if got := p.insertInterval(full); got != want {
			t.Errorf("%s, %d partitions, took %v, full %t: %v, want %v", name, partitions, took, full, got, want)
		}
	}
	f(topic.Outcomes, 1, 0, false, 250*time.Millisecond)
	f(topic.Outcomes, 6, 0, false, 300*time.Millisecond)
	f(topic.Outcomes, 60, 0, false, 3*time.Second)
	f(topic.Outcomes, 6, 0, true, 300*time.Millisecond)
	f(topic.Outcomes, 1, 0, true, 50*time.Millisecond)
	f(topic.Clicks, 6, 0, false, time.Second)
	f(topic.Clicks, 6, 500*time.Millisecond, false, 2500*time.Millisecond)
	f(topic.Clicks, 6, 10*time.Second, false, 5*time.Second)
	f(topic.Clicks, 120, 0, false, 6*time.Second)
	f(topic.Clicks, 6, time.Second, true, 300*time.Millisecond)
}

// A click's way is measured from the click, a verdict's from the receipt of its event,
// however old each is, unless that had to wait.
func TestVisibleSeconds(t *testing.T) {
	codec, now := event.DefaultCodec(), time.Now()
	ago := func(d time.Duration) event.Millis { return event.MillisOf(now.Add(-d)) }
	m := newMetrics(nil)
	for i, f := range topicMappings(codec) {
		var value []byte
		var err error
		set := f.newRows()
		for _, age := range []time.Duration{-time.Minute, 200 * time.Millisecond, 20 * time.Second, 48 * time.Hour} {
			switch f.topic {
			case topic.Clicks:
				value, err = codec.AppendClick(nil, &event.Click{
					WorkspaceID: "acme",
					ClickToken:  "t",
					ClickedAt:   ago(age),
					TokenStatus: event.TokenAppended,
					Trigger:     event.TriggerLink,
				})
			case topic.Outcomes:
				value, err = codec.AppendOutcome(nil, &event.Outcome{
					WorkspaceID: "acme",
					ClickToken:  "t",
					EventID:     "e",
					Verdict:     event.Unattributed,
					Type:        event.Sale,
					Review:      event.ReviewClear,
					ReceivedAt:  ago(age),
					OccurredAt:  ago(0),
					DecidedAt:   ago(0),
				}, nil)
			default:
				continue
			}
			if err == nil {
				err = set.appendRow(&kgo.Record{Key: []byte("t"), Value: value}, nil)
			}
			// what waited for its click is not late
			if err == nil && f.topic == topic.Outcomes && age > time.Second {
				err = set.appendRow(&kgo.Record{Key: []byte("t"), Value: value,
					Headers: []kgo.RecordHeader{{Key: topic.HeaderWaited}}}, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		m.countBatch(&topicMappings(codec)[i], &batch{summary: set.summarize()})
	}
	for from, within := range measured(t, m) {
		// From a clock that is ahead nothing took negative time; two days are beyond
		// the last bucket.
		if within[0.01] != 1 || within[0.1] != 1 || within[10] != 2 || within[30] != 3 || within[86400] != 3 ||
			within[math.Inf(1)] != 4 {
			t.Errorf("from %s: %v", from, within)
		}
	}
}

// measured is how many rows were visible within which time, by what that is from.
func measured(t *testing.T, m *metrics) map[string]map[float64]uint64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m.rowVisible)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || len(families[0].Metric) != 2 {
		t.Fatalf("%v, %v; want rows from click and from receipt", err, families)
	}
	out := map[string]map[float64]uint64{}
	for _, metric := range families[0].Metric {
		within := map[float64]uint64{math.Inf(1): metric.Histogram.GetSampleCount()}
		for _, b := range metric.Histogram.Bucket {
			within[b.GetUpperBound()] = b.GetCumulativeCount()
		}
		out[metric.Label[0].GetValue()] = within
	}
	return out
}
