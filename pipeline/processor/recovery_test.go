package processor_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How long a processor takes to come back, with its state on disk and without, on
// Apache Kafka and with the settings a processor has by default:
//
//	PARTNERS_BENCH_CLICKS=10000000 go test -run - -bench Recovery \
//	    -benchtime 1x -timeout 30m ./pipeline/processor
//
// What is compared with is measured in the same run: a plain consumer that reads the
// topics a rebuild reads and does nothing with them, and a file that is written from
// end to end. Nothing is printed unless the ledger is the oracle's in the end.
// PARTNERS_BENCH_PROFILE names a file for a CPU profile of the rebuild.
func BenchmarkRecovery(b *testing.B) {
	clicks := benchClicks(b)
	broker := kafkatest.Alone(b)
	kafkatest.Topics(b, broker.Brokers())
	for b.Loop() {
		newRecovery(b, broker.Brokers()).run(clicks)
	}
	b.ReportMetric(0, "ns/op")
}

// benchClicks is how many clicks a benchmark's history has.
func benchClicks(b *testing.B) int {
	given := os.Getenv("PARTNERS_BENCH_CLICKS")
	if given == "" {
		return 50_000
	}
	clicks, err := strconv.Atoi(given)
	if err != nil || clicks <= 0 {
		b.Fatalf("PARTNERS_BENCH_CLICKS=%s is not a number of clicks", given)
	}
	return clicks
}

const (
	recoveryKills = 5
	// clicksPerSale is one conversion for so many clicks of the history, each saleAfter
	// clicks later.
	clicksPerSale, saleAfter = 50, 20_000
	// historyRate is how many clicks a second the history pretends to have had.
	historyRate = 2000
)

// recovery is a world that remembers what the oracle has to know of it.
type recovery struct {
	*world
	dir    string
	every  int // one sale for so many clicks of the history
	tail   *outcomeTail
	clicks []oracle.Click  // those that have an event
	events []*oracle.Event // their offsets come with the acknowledgements
	links  []event.Click   // what clicks are copies of
}

func newRecovery(b *testing.B, brokers []string) *recovery {
	r := &recovery{world: newWorld(b, brokers), dir: b.TempDir(), every: clicksPerSale}
	r.client = kafkatest.Client(b, brokers, kgo.MaxBufferedRecords(100_000), kgo.ProducerLinger(5*time.Millisecond))
	for i := range 5000 {
		program, partner := i%40, i%700
		r.links = append(r.links, event.Click{WorkspaceID: fmt.Sprintf("workspace-%d", i%8), WindowMs: 30 * 86400_000,
			TokenStatus: event.TokenAppended, LinkID: fmt.Sprintf("lnk_%08x", uint32(i)*2654435761),
			Domain: fmt.Sprintf("go.shop-%d.example", i%8), Slug: fmt.Sprintf("partner-%d-%d", partner,
				i), Destination: fmt.Sprintf("https://www.shop-%d.example/collections/spring/%d", i%8,
				i), Trigger: event.TriggerLink,
			PartnerID: fmt.Sprintf("prt_%06d", partner), PartnerKey: fmt.Sprintf(
				"media-%d", partner), PartnerName: fmt.Sprintf("Media House %d",
				partner), PartnerRelationship: "approved", PartnerLifecycle: "active",
			ProgramID: fmt.Sprintf("prg_%04d", program), ProgramKey: fmt.Sprintf(
				"spring-%d", program), ProgramName: fmt.Sprintf("Spring Programme %d",
				program), ProgramStatus: "active",
			AssignmentID: fmt.Sprintf("asg_%06d", i), AssignedAt: event.MillisOf(
				time.Now().Add(-1000 * time.Hour)), RewardTerms: "10%", UTMSource: "partner", UTMMedium: "affiliate",
			UTMCampaign: fmt.Sprintf("spring_%d", program), ReferrerHost: []string{"www.youtube.com",
				"news.example.org", "blog.example.net"}[i%3], Country: []string{"DE", "US", "JP", "FR"}[i%4],
			Device: []string{"phone", "desktop"}[i%2], OS: []string{"Android", "Windows", "iOS"}[i%3],
			Browser: []string{"Chrome Mobile", "Firefox", "Safari"}[i%3], CatalogOffset: int64(i)})
	}
	r.tail = tail(r.world)
	return r
}

// visit sends a click of a moment ago, or of long ago.
func (r *recovery) visit(at time.Time) (*event.Click, event.Millis) {
	r.shift = time.Since(at)
	k := r.links[r.Rand.IntN(len(r.links))]
	made := r.Click()
	k.ClickToken, k.ClickedAt = made.ClickToken, made.ClickedAt
	k.Sub1 = k.ClickToken[10:22]
	b, err := codec.AppendClick(make([]byte, 0, 512), &k)
	if err != nil {
		r.Fatal(err)
	}
	r.send(&kgo.Record{
		Topic:     topic.Clicks,
		Partition: r.partition(k.ClickToken),
		Key:       []byte(k.ClickToken),
		Value:     b,
		Timestamp: at,
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	})
	return &k, event.MillisOf(at)
}

// buy sends a sale for a click, and notes both for the oracle.
func (r *recovery) buy(k *event.Click, clicked event.Millis, at time.Time) {
	r.shift = time.Since(at)
	s := r.Sale(k, 1000+r.Rand.Int64N(9000))
	s.WorkspaceID, s.OccurredAt = k.WorkspaceID, event.MillisOf(at)
	s.ContentSHA256 = s.ContentHash()
	b, err := codec.AppendConversion(nil, s)
	if err != nil {
		r.Fatal(err)
	}
	e := &oracle.Event{Conversion: *s, Partition: r.partition(k.ClickToken)}
	r.clicks, r.events = append(r.clicks, oracle.Click{Click: *k, At: clicked}), append(r.events, e)
	r.client.Produce(context.Background(), &kgo.Record{
		Topic:     topic.Conversions,
		Partition: e.Partition,
		Key:       []byte(s.ClickToken),
		Value:     b,
		Timestamp: at,
	}, func(rec *kgo.Record, err error) {
		if err != nil {
			r.Errorf("producing: %v", err)
		}
		e.Offset = rec.Offset
	})
}

// history writes n clicks that end now, and their sales.
func (r *recovery) history(n int) {
	type visit struct {
		click *event.Click
		at    event.Millis
	}
	var open []visit
	began := time.Now().Add(-time.Duration(n) * time.Second / historyRate)
	for i := range n {
		at := began.Add(time.Duration(i) * time.Second / historyRate)
		k, clicked := r.visit(at)
		if i%r.every == 0 {
			open = append(open, visit{k, clicked})
		}
		if len(open) > saleAfter/r.every {
			r.buy(open[0].click, open[0].at, at)
			open = open[1:]
		}
	}
	for _, v := range open {
		r.buy(v.click, v.at, time.Now())
	}
	r.flush()
}

// live sends 300 visits and sales a second until stop is called.
func (r *recovery) live() (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for range 3 {
				k, at := r.visit(time.Now())
				r.buy(k, at, time.Now())
			}
			time.Sleep(10 * time.Millisecond)
		}
		r.flush()
	})
	stop = func() { cancel(); wg.Wait() }
	r.Cleanup(stop)
	return stop
}

// recoveryChild is a processor with default settings in a process of its own.
type recoveryChild struct {
	cmd      *exec.Cmd
	restored chan string // one line when all partitions are: how many records of which topic that took
	life     io.Closer   // the child ends when it is closed, so it does not outlive us
}

func (r *recovery) startChild(env ...string) *recoveryChild {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	c := &recoveryChild{cmd: exec.Command(self), restored: make(chan string, 1)}
	c.cmd.Env = append(append(os.Environ(), "PARTNERS_TEST_RECOVERY="+strings.Join(r.brokers, ","),
		"PARTNERS_TEST_DIR="+r.dir), env...)
	c.cmd.Stderr = os.Stderr
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, c.cmd.Start()); err != nil {
		r.Fatal(err)
	}
	c.life = in
	go func() {
		if lines := bufio.NewScanner(out); lines.Scan() {
			c.restored <- lines.Text()
		}
	}()
	r.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// end signals the child and waits for its end.
func (c *recoveryChild) end(r *recovery, s syscall.Signal) {
	r.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		r.Fatal(err)
	}
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if s == syscall.SIGKILL && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return
	}
	if err != nil {
		r.Fatalf("the child ended with %v", err)
	}
}

// The variables by which a child is told to write a CPU profile, and of what.
const (
	profileRebuild = "PARTNERS_BENCH_PROFILE_REBUILD" // until all partitions are restored
	profileLife    = "PARTNERS_BENCH_PROFILE_LIFE"    // from start to end
)

// recoverChild is what the child does.
func recoverChild(brokers string) {
	k, cfg, reg := kafka.DefaultConfig(), processor.DefaultConfig(), prometheus.NewRegistry()
	k.Brokers = strings.Split(brokers, ",")
	cfg.StateDir, cfg.Instance = os.Getenv("PARTNERS_TEST_DIR"), "slot-0"
	p, err := processor.New(cfg, k, codec, slog.New(slog.NewTextHandler(os.Stderr,
		&slog.HandlerOptions{Level: slog.LevelWarn})), reg)
	if err != nil {
		panic(err)
	}
	if path := cmp.Or(os.Getenv(profileRebuild), os.Getenv(profileLife)); path != "" {
		f, err := os.Create(path)
		if err = errors.Join(err, pprof.StartCPUProfile(f)); err != nil {
			panic(err)
		}
	}
	var n atomic.Int32
	p.SetHook(func(step string) {
		if step == processor.StepRestored && n.Add(1) == kafkatest.Partitions {
			if os.Getenv(profileRebuild) != "" {
				pprof.StopCPUProfile()
			}
			fmt.Println(restoredRecords(reg))
		}
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test is gone
	}()
	if err := p.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pprof.StopCPUProfile()
	os.Exit(0)
}

func restoredRecords(reg *prometheus.Registry) string {
	families, err := reg.Gather()
	if err != nil {
		panic(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() == "partners_processor_restored_records_total" {
			for _, m := range f.GetMetric() {
				out = append(out, fmt.Sprintf("%s %.0f", m.GetLabel()[0].GetValue(), m.GetCounter().GetValue()))
			}
		}
	}
	return strings.Join(out, ", ")
}

// caughtUp waits until everything that was sent is judged and committed.
func (r *recovery) caughtUp() {
	r.Helper()
	adm := kadm.NewClient(r.client)
	for deadline := time.Now().Add(15 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		at, err1 := adm.FetchOffsets(r.Context(), topic.ProcessorGroup)
		ends, err2 := adm.ListEndOffsets(r.Context(), topic.Clicks, topic.Conversions)
		if err := errors.Join(err1, err2); err != nil {
			r.Fatal(err)
		}
		behind := false
		ends.Each(func(e kadm.ListedOffset) {
			o, ok := at.Lookup(e.Topic, e.Partition)
			behind = behind || !ok || o.At < e.Offset
		})
		if !behind {
			return
		}
	}
	r.Fatal("the processor does not catch up")
}

// readPlainly reads topics as fast as one consumer can, and does nothing with them.
func (r *recovery) readPlainly(names ...string) (records, bytes int64, took time.Duration) {
	r.Helper()
	ends, err := kadm.NewClient(r.client).ListEndOffsets(r.Context(), names...)
	if err = errors.Join(err, ends.Error()); err != nil {
		r.Fatal(err)
	}
	left := 0
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(e kadm.ListedOffset) {
		if e.Offset > 0 {
			if from[e.Topic] == nil {
				from[e.Topic] = map[int32]kgo.Offset{}
			}
			from[e.Topic][e.Partition] = kgo.NewOffset().AtStart()
			left++
		}
	})
	began := time.Now()
	cl := kafkatest.Client(r, r.brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(from))
	defer cl.Close()
	for left > 0 {
		cl.PollFetches(r.Context()).EachPartition(func(f kgo.FetchTopicPartition) {
			end, _ := ends.Lookup(f.Topic, f.Partition)
			for _, rec := range f.Records {
				if !rec.Attrs.IsControl() {
					records, bytes = records+1, bytes+int64(len(rec.Key)+len(rec.Value))
				}
				if rec.Offset == end.Offset-1 {
					left--
				}
			}
		})
		if err := r.Context().Err(); err != nil {
			r.Fatal(err)
		}
	}
	return records, bytes, time.Since(began)
}

// writePlainly is the disk's own pace in bytes a second: one file from end to end, and
// durable.
func (r *recovery) writePlainly() float64 {
	r.Helper()
	const size, chunk = 1 << 30, 1 << 20
	path := filepath.Join(r.dir, "plain")
	f, err := os.Create(path)
	if err != nil {
		r.Fatal(err)
	}
	defer os.Remove(path)
	defer f.Close()
	noise := make([]byte, chunk)
	for i := range noise {
		noise[i] = byte(r.Rand.Uint32())
	}
	began := time.Now()
	for range size / chunk {
		if _, err := f.Write(noise); err != nil {
			r.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		r.Fatal(err)
	}
	return size / time.Since(began).Seconds()
}

// sizeOf is the sum of the files below the state directory whose path holds a word.
func (r *recovery) sizeOf(word string) (bytes int64) {
	r.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, word) {
			info, err := d.Info()
			if err != nil {
				return err
			}
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return bytes
}

func (r *recovery) run(n int) {
	b := r.TB.(*testing.B)
	began := time.Now()
	r.history(n)
	wrote := time.Since(began)
	began = time.Now()
	c := r.startChild()
	r.caughtUp()
	joined := time.Since(began)

	// SIGKILL under load, and the time to the first new verdict that a reader sees:
	// anywhere, and in the last partition.
	stop := r.live()
	r.tail.after(r.tail.mark())
	var first, last []time.Duration
	again := ""
	for range recoveryKills {
		c.end(r, syscall.SIGKILL)
		killed, from := time.Now(), r.tail.mark()
		c = r.startChild()
		r.tail.after(from)
		first = append(first, time.Since(killed))
		r.tail.everywhere(from)
		last = append(last, time.Since(killed))
		again = <-c.restored
	}
	stop()
	r.caughtUp()

	// SIGKILL, and nothing is left on the disk.
	c.end(r, syscall.SIGKILL)
	if err := os.RemoveAll(r.dir); err != nil {
		r.Fatal(err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		r.Fatal(err)
	}
	raw := r.writePlainly()
	records, bytes, plain := r.readPlainly(topic.Clicks, topic.Changelog)
	began = time.Now()
	c = r.startChild(profileRebuild + "=" + os.Getenv("PARTNERS_BENCH_PROFILE"))
	read := <-c.restored
	rebuilt := time.Since(began)
	stop = r.live()
	r.tail.everywhere(r.tail.mark())
	stop()
	r.caughtUp()
	c.end(r, syscall.SIGTERM)
	// the clicks of live have a sale each
	all := int64(n) + int64(len(r.events)-(n+clicksPerSale-1)/clicksPerSale)
	clickBytes, journeyBytes := r.sizeOf("/clicks/"), r.sizeOf("/journeys/")

	r.judge()
	if b.Failed() {
		return
	}
	slices.Sort(first)
	slices.Sort(last)
	seconds := func(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
	b.Logf("%d clicks, %d events, ledger is the oracle's (history written in %v, joined in %v)",
		all, len(r.events), wrote.Round(time.Second), joined.Round(100*time.Millisecond))
	b.Logf("SIGKILL, state on disk, %d times: first outcome after %.2f s median, %.2f s worst; in every partition "+
		"%.2f s median, %.2f s worst; read again the last time: %s", recoveryKills,
		seconds(first[recoveryKills/2]), seconds(first[recoveryKills-1]), seconds(last[recoveryKills/2]),
		seconds(last[recoveryKills-1]), again)
	mb := func(x float64) float64 { return x / 1e6 }
	b.Logf("empty disk: %.2f s, %.0f records/s, %.1f MB/s (%s); a plain consumer of the same: %.2f s, %.0f "+
		"records/s, %.1f MB/s", rebuilt.Seconds(), float64(records)/rebuilt.Seconds(), mb(
		float64(bytes))/rebuilt.Seconds(), read,
		plain.Seconds(), float64(records)/plain.Seconds(), mb(float64(bytes))/plain.Seconds())
	b.Logf("state: %.1f B a click (click log %.1f B, of records of %.0f B), %.0f B a journey; written at %.1f "+
		"MB/s, a plain file at %.1f MB/s", float64(clickBytes+journeyBytes)/float64(all), float64(clickBytes)/float64(
		all),
		float64(bytes)/float64(records), float64(journeyBytes)/float64(len(r.events)),
		mb(float64(clickBytes+journeyBytes))/rebuilt.Seconds(), mb(raw))
	b.ReportMetric(seconds(first[recoveryKills/2]), "restart-s")
	b.ReportMetric(seconds(last[recoveryKills-1]), "restart-all-worst-s")
	b.ReportMetric(float64(records)/rebuilt.Seconds(), "rebuild-records/s")
	b.ReportMetric(mb(float64(bytes))/rebuilt.Seconds(), "rebuild-MB/s")
	b.ReportMetric(plain.Seconds()/rebuilt.Seconds(), "of-plain-consumer")
	b.ReportMetric(float64(clickBytes+journeyBytes)/rebuilt.Seconds()/raw, "of-plain-file")
	b.ReportMetric(float64(clickBytes+journeyBytes)/float64(all), "state-B/click")
}

// judge compares all outcomes with the oracle's.
func (r *recovery) judge() {
	r.Helper()
	events := make([]oracle.Event, 0, len(r.events))
	for _, e := range r.events {
		events = append(events, *e)
	}
	want := oracle.Judge(oracle.DefaultConfig(), r.clicks, events, event.MillisOf(time.Now())).Outcomes
	got := r.outcomes()
	if diff := oracle.Diff(want, got); diff != nil {
		r.Errorf("the ledger is not the oracle's (%d rows, want %d):\n%.3000s",
			len(got), len(want), strings.Join(diff, "\n"))
	}
	for i := range got {
		if got[i].Verdict != event.Attributed {
			r.Fatalf("%s is %s %s: the history is not as it was meant", got[i].EventID, got[i].Verdict, got[i].Reason)
		}
	}
}
