package processor_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Every event gets its verdict once, whatever the order of arrival; waits end by
// themselves.
func TestLedgerIsTheOracles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	for range 3 {
		w.story(300)
	}
	w.settle(grace)
	w.conserved()
}

// A stop and a start, with state kept, lost, or only half of it: the same ledger.
func TestRestart(t *testing.T) {
	t.Parallel()
	f := func(name string, harm func(t *testing.T, dir string)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kafkatest.Broker(t))
			dir := t.TempDir()
			stop := start(t, newProcessor(t, w.brokers, config(dir)))
			w.story(200)
			w.judged()
			stop()
			harm(t, dir)
			w.story(200)
			stop = start(t, newProcessor(t, w.brokers, config(dir)))
			w.story(100)
			w.settle(grace)
			w.conserved()
			stop()
		})
	}
	remove := func(glob string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, glob))
			if err != nil || len(found) == 0 {
				t.Fatalf("%s: %v %v", glob, found, err)
			}
			for _, f := range found {
				if err := os.RemoveAll(f); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	f("kept", func(*testing.T, string) {})
	f("everything lost", remove("p*"))
	f("journeys lost", remove("p*/journeys"))
	f("clicks lost", remove("p*/clicks"))
	f("two partitions swapped", func(t *testing.T, dir string) {
		a, b, c := filepath.Join(dir, "p00000"), filepath.Join(dir, "p00001"), filepath.Join(dir, "x")
		if err := errors.Join(os.Rename(a, c), os.Rename(b, a), os.Rename(c, b)); err != nil {
			t.Fatal(err)
		}
	})
}

// A processor that was away for three graces closes nothing that its backlog matches:
// horizons move with what was read, not with the clock. 50,000 clicks arrive meanwhile,
// and 5,000 conversions, each before its click, by up to four fifths of the grace.
func TestOutageExpiresNothing(t *testing.T) {
	t.Parallel()
	const grace, clicks = 5 * time.Second, 50_000
	w := newWorld(t, kafkatest.Broker(t))
	began := time.Now()
	type arrival struct {
		at   time.Duration
		send func()
	}
	var arrivals []arrival
	for i := range clicks {
		at := 3 * grace * time.Duration(i) / clicks
		w.shift = time.Since(began) + 3*grace + 10*time.Second - at
		k := w.Click()
		if i%10 == 0 {
			s := w.Sale(k, 1000)
			arrivals = append(arrivals, arrival{at, func() { w.sendEvent(s) }})
			at += time.Duration(w.Rand.Int64N(int64(grace * 4 / 5)))
		}
		arrivals = append(arrivals, arrival{at, func() { w.sendClick(k) }})
	}
	slices.SortStableFunc(arrivals, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	for _, a := range arrivals {
		w.shift = time.Since(began) + 3*grace + 10*time.Second - a.at
		a.send()
	}
	w.flush()
	cfg := config(t.TempDir())
	cfg.Grace = grace
	p := newProcessor(t, w.brokers, cfg)
	// Conversions are not held for their clicks, and clicks come in small bites: else
	// the backlog is gone before a wrong clock could close anything.
	p.SetHasty()
	p.SetOptions(kgo.FetchMaxPartitionBytes(64 << 10))
	start(t, p)
	w.settle(grace)
	rows := w.outcomes()
	if len(rows) != clicks/10 {
		t.Errorf("%d rows, want %d", len(rows), clicks/10)
	}
	for _, o := range rows {
		if o.Reason != "" {
			t.Fatalf("%s: %s", o.EventID, o.Reason)
		}
	}
}

// Of a click that was sent twice the first in the log counts, also for the time at
// which it reached Kafka, and also in a backlog.
func TestReplayedClickKeepsItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	for range 50 {
		w.shift = time.Minute
		k := w.Click()
		w.sendClick(k)
		w.sendEvent(w.Sale(k, 1000))
		w.shift = 30 * time.Second
		w.sendClick(k, topic.HeaderReplay)
	}
	w.flush()
	start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	w.settle(grace)
	for _, o := range w.outcomes() {
		if o.Reason != "" {
			t.Fatalf("%s: %s", o.EventID, o.Reason)
		}
	}
}

// A row says whether its event had to wait: only of the others is the time until the
// verdict ours.
func TestWhoWaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	late, prompt := w.Click(), w.Click()
	w.sendEvent(w.Sale(late, 1000))
	sale, before := w.Sale(prompt, 1000), w.Sale(prompt, 500)
	w.sendClick(prompt)
	w.sendEvent(sale)
	w.sendEvent(w.Refund(before, 200))
	w.flush()
	cfg := config(t.TempDir())
	cfg.Grace = time.Minute
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "two events wait", func() bool {
		waiting := int64(0)
		for _, p := range w.progress() {
			waiting += p.Waiting
		}
		return waiting == 2
	})
	w.sendClick(late)
	w.sendEvent(before)
	w.flush()
	w.settle(cfg.Grace)
	k := kafka.DefaultConfig()
	k.Brokers = w.brokers
	records, err := kafka.ReadAll(t.Context(), k, slog.New(slog.DiscardHandler), topic.Outcomes)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range records {
		var o event.Outcome
		if err := event.DefaultCodec().DecodeOutcome(r.Value, &o); err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Headers {
			got[o.EventID+" "+string(o.Type)+" "+h.Key]++
		}
		got[string(o.Type)]++
	}
	if got["sale"] != 3 || got["refund"] != 1 || len(got) != 4 {
		t.Errorf("%v", got)
	}
	for _, o := range w.outcomes() {
		id, wants := o.EventID+" "+string(o.Type)+" "+topic.HeaderWaited, 0
		if o.ClickToken == late.ClickToken || o.Type == event.Refund {
			wants = 1
		}
		if got[id] != wants {
			t.Errorf("%s %s of %s: header %d, want %d", o.Type, o.EventID, o.ClickToken, got[id], wants)
		}
	}
}

// Damage that is found while a partition runs wipes the partition's state and makes it
// anew; the ledger stays the oracle's.
func TestDamage(t *testing.T) {
	t.Parallel()
	f := func(name, glob string, from, to float64) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kafkatest.Broker(t))
			dir := t.TempDir()
			stop := start(t, newProcessor(t, w.brokers, config(dir)))
			k := make([]*event.Conversion, 0, 60)
			for range 60 { // sales whose refunds come after the damage: they need what was stored
				c := w.Click()
				w.sendClick(c)
				s := w.Sale(c, 1000)
				w.sendEvent(s)
				k = append(k, s)
			}
			w.story(200)
			w.settle(grace)
			stop()
			files, err := filepath.Glob(filepath.Join(dir, glob))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v %v", glob, files, err)
			}
			for _, file := range files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for i := int(from * float64(len(b))); i < int(to*float64(len(b))); i++ {
					b[i] ^= 0x55
				}
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range k {
				w.sendEvent(w.Refund(s, 400))
				w.sendEvent(w.Sale(&event.Click{ClickToken: s.ClickToken, ClickedAt: s.OccurredAt}, 700))
			}
			w.story(200)
			start(t, newProcessor(t, w.brokers, config(dir)))
			w.settle(grace)
			w.conserved()
		})
	}
	f("a block of clicks", "p*/clicks/*.seg", 0, 0.2)
	f("a table of journeys", "p*/journeys/*.sst", 0.05, 0.3)
	f("the manifest", "p*/journeys/MANIFEST*", 0.5, 1)
}

// What cannot be read becomes a dead letter with its origin; the partition goes on.
func TestPoison(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	k := w.Click()
	s := w.Sale(k, 1000)
	good, err := codec.AppendConversion(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	p := w.partition(k.ClickToken)
	noise := make([]byte, 999_850) // as large as the broker takes; its dead letter has headers too
	for i := range noise {
		noise[i] = byte(w.Rand.Uint32())
	}
	for _, r := range []*kgo.Record{
		{Key: []byte("x"), Value: []byte("garbage")},
		{Key: []byte("x"), Value: []byte{0, 0, 0, 9, 9, 1}},
		{Key: []byte("another token"), Value: good},
		{Key: []byte(k.ClickToken), Value: good[:len(good)-3]},
		{Key: nil, Value: nil},
		{Key: []byte("x"), Value: noise},
	} {
		r.Topic, r.Partition = topic.Conversions, p
		w.send(r)
	}
	w.send(&kgo.Record{
		Topic:     topic.Clicks,
		Partition: p,
		Key:       []byte("nonsense"),
		Value:     []byte("nonsense"),
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	})
	w.flush()
	w.sendClick(k)
	w.sendEvent(s)
	w.flush()
	start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	w.settle(grace)
	w.conserved()
	dead := kafkatest.Consume(t, w.brokers, topic.DeadLetters)
	if len(dead) != 6 {
		t.Fatalf("%d dead letters, want 6", len(dead))
	}
	for i, r := range dead {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h[topic.HeaderSourceTopic] != topic.Conversions || h[topic.HeaderSourceOffset] != string(rune('0'+i)) ||
			h[topic.HeaderError] == "" || h[topic.HeaderFailedAt] == "" {
			t.Errorf("dead letter %d: %v", i, h)
		}
	}
	if string(dead[0].Value) != "garbage" || !strings.Contains(string(dead[2].Key), "another token") {
		t.Errorf("dead letters lost their bytes: %q %q", dead[0].Value, dead[2].Key)
	}
}

// Two processors share the partitions; one leaves and comes back.
func TestTwoProcessors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	a, b := config(t.TempDir()), config(t.TempDir())
	b.Instance = "slot-1"
	start(t, newProcessor(t, w.brokers, a))
	w.story(200)
	second := newProcessor(t, w.brokers, b)
	var judged atomic.Bool
	second.SetHook(func(step string) {
		if step == processor.StepJudged {
			judged.Store(true)
		}
	})
	stop := start(t, second)
	for stories := 0; !judged.Load(); stories++ { // its share comes when it has joined
		if stories == 2000 {
			t.Fatal("the second processor gets nothing to judge")
		}
		w.story(2)
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	w.story(200)
	start(t, newProcessor(t, w.brokers, b))
	w.story(200)
	w.settle(grace)
	w.conserved()
}

// A processor that starts while `ctl topics apply` is at work waits for its end, and says
// so.
func TestStartedBeforeTopicsApplyHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	if _, err := kadm.NewClient(w.client).DeleteGroup(t.Context(), topic.ProcessorGroup); err != nil {
		t.Fatal(err)
	}
	kafkatest.Produce(t, w.brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.InstallKey)}) // deleted
	lines := make(logLines, 1000)
	p := newLoggedProcessor(t, w.brokers, config(t.TempDir()), lines)
	start(t, p)
	lines.await(t, "waiting for the end of `ctl topics apply`")
	kafkatest.Topics(t, w.brokers)
	k := w.Click()
	w.sendClick(k)
	w.sendEvent(w.Sale(k, 1000))
	w.flush()
	eventually(t, "the sale is judged", func() bool { return len(w.outcomes()) == 1 })
}

// logLines are the lines that a processor logs.
type logLines chan string

func (l logLines) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default:
	}
	return len(b), nil
}

func (l logLines) await(t *testing.T, part string) {
	t.Helper()
	for deadline := time.After(hang); ; {
		select {
		case line := <-l:
			if strings.Contains(line, part) {
				return
			}
		case <-deadline:
			t.Fatalf("nothing says %q", part)
		}
	}
}

// Conditions that need a person end Run with an error that says what to change.
func TestRefusals(t *testing.T) {
	t.Parallel()
	run := func(w *world, cfg processor.Config) error {
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		err := newProcessor(t, w.brokers, cfg).Run(ctx)
		if err == nil || !processor.Fatal(err) {
			t.Errorf("not refused: %v", err)
		}
		return err
	}
	t.Run("lost offsets", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		w.story(10)
		if _, err := kadm.NewClient(w.client).DeleteGroup(t.Context(), topic.ProcessorGroup); err != nil {
			t.Fatal(err)
		}
		if err := run(w, config(t.TempDir())); !errors.Is(err, kafka.ErrOffsets) ||
			!strings.Contains(err.Error(), "no committed offset while the log holds [0, ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("retention", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		cfg := config(t.TempDir())
		cfg.ClickLife = 60 * 24 * time.Hour
		if err := run(w, cfg); !errors.Is(err, processor.ErrRetention) ||
			!strings.Contains(err.Error(), "ctl topics apply") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unclean leader election", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		on := "true"
		if _, err := kadm.NewClient(w.client).AlterTopicConfigs(t.Context(),
			[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "unclean.leader.election.enable", Value: &on}},
			topic.Changelog); err != nil {
			t.Fatal(err)
		}
		if err := run(w, config(t.TempDir())); !errors.Is(err, kafka.ErrUnclean) ||
			!strings.Contains(err.Error(), topic.Changelog) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("partition counts", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		if _, err := kadm.NewClient(w.client).UpdatePartitions(t.Context(), 9, topic.Clicks); err != nil {
			t.Fatal(err)
		}
		if err := run(w, config(t.TempDir())); !errors.Is(err, kafka.ErrPartitions) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("added partitions", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		altered, err := kadm.NewClient(w.client).UpdatePartitions(t.Context(), 8, topic.Clicks, topic.Conversions,
			topic.Outcomes, topic.Changelog, topic.Progress)
		if err = errors.Join(err, altered.Error()); err != nil {
			t.Fatal(err)
		}
		if err := run(w, config(t.TempDir())); !errors.Is(err, kafka.ErrPartitions) ||
			!strings.Contains(err.Error(), "topic clicks has 8, the installation was made with 6") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("transactions that let a zombie in", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		const unsafeDowngrade = 3
		updated, err := kadm.NewClient(w.client).UpdateFeatures(t.Context(), false,
			kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: 1, UpgradeType: unsafeDowngrade})
		if err = errors.Join(err, updated.Error()); err != nil {
			t.Fatal(err)
		}
		if err := run(w, config(t.TempDir())); !errors.Is(err, kafka.ErrTransactions) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one state directory, two processes", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		cfg := config(t.TempDir())
		first := newProcessor(t, w.brokers, cfg)
		start(t, first)
		eventually(t, "the first runs", func() bool { return first.Ready() == nil })
		if err := run(w, cfg); !errors.Is(err, processor.ErrStateDir) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one instance, two processes", func(t *testing.T) {
		w := newWorld(t, kafkatest.Broker(t))
		a, b := config(t.TempDir()), config(t.TempDir())
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		errs := make(chan error, 2)
		for _, cfg := range []processor.Config{a, b} {
			p := newProcessor(t, w.brokers, cfg)
			go func() { errs <- p.Run(ctx) }()
			eventually(t, "it runs", func() bool { return p.Ready() == nil })
		}
		if err := <-errs; !errors.Is(err, processor.ErrInstance) || !strings.Contains(err.Error(), "-instance") {
			t.Errorf("got %v", err)
		}
		cancel()
		<-errs
	})
}

func TestConfig(t *testing.T) {
	f := func(want string, change func(*processor.Config)) {
		t.Helper()
		cfg := config("x")
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	f("-state-dir", func(c *processor.Config) { c.StateDir = "" })
	f("-instance", func(c *processor.Config) { c.Instance = "a b" })
	f("-grace", func(c *processor.Config) { c.Grace = 0 })
	f("-click-life", func(c *processor.Config) { c.ClickLife = 0 })
	f("-click-memory", func(c *processor.Config) { c.ClickMemory = 1 })
	f("-journey-cache", func(c *processor.Config) { c.JourneyCache = 1 })
	f("-commit-interval", func(c *processor.Config) { c.CommitInterval = 0 })
}

// A state directory put back to what it was some transactions ago is brought up to date
// from the log.
func TestOlderState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	dir, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	stop := start(t, newProcessor(t, w.brokers, config(dir)))
	w.story(200)
	w.judged()
	stop()
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	stop = start(t, newProcessor(t, w.brokers, config(dir)))
	w.story(200)
	w.judged()
	stop()
	stop = start(t, newProcessor(t, w.brokers, config(old)))
	w.story(100)
	w.settle(grace)
	w.conserved()
	stop()

	// A restart with nothing to do tells the same progress: the end of outcomes is
	// behind the last row, not behind the marker of its transaction.
	began := event.MillisOf(w.now())
	start(t, newProcessor(t, w.brokers, config(old)))
	ends := make(map[int32]int64)
	for _, r := range kafkatest.Consume(t, w.brokers, topic.Outcomes) {
		ends[r.Partition] = r.Offset + 1
	}
	eventually(t, "it tells the progress of every partition", func() bool {
		told := w.progress()
		for _, p := range told {
			if p.At < began {
				return false
			}
		}
		return len(told) == kafkatest.Partitions
	})
	for id, p := range w.progress() {
		if p.OutcomesEnd != ends[id] {
			t.Errorf("partition %d: outcomes_end %d, want %d", id, p.OutcomesEnd, ends[id])
		}
	}
}
