package kafka_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// examples are the programs of schemas/topic/README.md.
const examples = "../../schemas/topic/examples"

// outcomeLine is what both examples print of a record.
func outcomeLine(r *kgo.Record, o *event.Outcome) string {
	return fmt.Sprintf("%d\t%d\t%s\t%s\t%s\t%s", r.Partition, r.Offset, r.Key, o.EventID, o.Verdict, o.Reason)
}

// firstVersion is an outcome as the first release wrote it, from its golden file.
func firstVersion(t *testing.T) (value []byte, o *event.Outcome) {
	t.Helper()
	text, err := os.ReadFile("../../schemas/event/testdata/outcome.v1.golden")
	if err != nil {
		t.Fatal(err)
	}
	dump, _, _ := strings.Cut(string(text), "\n\n") // JSON follows
	for line := range strings.Lines(dump) {
		if len(line) < 58 {
			continue // the length
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		value = append(value, b...)
	}
	o = new(event.Outcome)
	if err := event.DefaultCodec().DecodeOutcome(value, o); err != nil {
		t.Fatal(err)
	}
	return value, o
}

// The examples for other consumers, in Java and in Python with their usual clients, print
// the committed outcomes and no others, of both versions of the schema.
func TestStrangersReadOutcomes(t *testing.T) {
	b := kafkatest.Real(t)
	kafkatest.Topics(t, b.Brokers())
	cl := kafkatest.Client(t, b.Brokers(), kgo.TransactionalID("strangers"))
	codec := event.DefaultCodec()
	var want []string
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var records []*kgo.Record
		var outcomes []*event.Outcome
		for n := range 40 {
			raw, err := token.Unsigned(time.Now(), rand.NewChaCha8([32]byte{byte(i), byte(n)}))
			if err != nil {
				t.Fatal(err)
			}
			o := &event.Outcome{ClickToken: token.Text(&raw), WorkspaceID: "acme", Verdict: event.Unattributed,
				Reason: event.ReasonClickNotFound, EventID: fmt.Sprintf("é%d/%d", i, n), Review: event.ReviewClear,
				Type: event.Sale}
			value, err := codec.AppendOutcome(nil, o, nil)
			if err != nil {
				t.Fatal(err)
			}
			partition := topic.OneEpoch(kafkatest.Partitions).Partition(o.ClickToken, time.Time{})
			outcomes = append(outcomes, o)
			records = append(records, &kgo.Record{Topic: topic.Outcomes, Partition: partition,
				Key: []byte(o.ClickToken), Value: value})
		}
		if i == 0 {
			value, o := firstVersion(t)
			outcomes = append(outcomes, o)
			records = append(records, &kgo.Record{Topic: topic.Outcomes, Key: []byte(o.ClickToken), Value: value})
		}
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for n, r := range records {
			if end == kgo.TryCommit {
				want = append(want, outcomeLine(r, outcomes[n]))
			}
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	args := []string{strings.Join(b.Brokers(), ","), topic.Outcomes, "../../schemas/event"}
	compare := func(name, printed string) {
		t.Helper()
		got := strings.Split(strings.TrimSpace(printed), "\n")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s printed %d lines, want %d:\n%s", name, len(got), len(want), strings.Join(got, "\n"))
		}
	}
	t.Run("Java", func(t *testing.T) {
		compare("Java", kafkatest.RunJava(t, "", filepath.Join(examples, "Outcomes.java"), args...))
	})
	t.Run("Python", func(t *testing.T) {
		compare("Python", kafkatest.RunPython(t, filepath.Join(examples, "outcomes.py"), args...))
	})
}

// Kafka's own partitioner puts a key where we do: tokens, and bytes of any kind and length.
func TestPartitionIsJavas(t *testing.T) {
	random := rand.New(rand.NewPCG(17, 4))
	var keys []string
	for range 2000 {
		raw := token.Raw{}
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		keys = append(keys, token.Text(&raw))
	}
	for n := range 2000 {
		key := make([]byte, 1+n%61)
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		keys = append(keys, string(key))
	}
	var in strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&in, base64.StdEncoding.EncodeToString([]byte(key)))
	}
	got := strings.Split(kafkatest.RunJava(t, in.String(), filepath.Join(examples, "Partitions.java"), "6", "17"), "\n")
	if len(got) != len(keys)+1 {
		t.Fatalf("%d lines for %d keys", len(got), len(keys))
	}
	for i, key := range keys {
		want := fmt.Sprint(topic.OneEpoch(6).Partition(key, time.Time{}), " ",
			topic.OneEpoch(17).Partition(key, time.Time{}), " ")
		if got[i] != want {
			t.Fatalf("key %q of 6 and of 17 partitions: Kafka says %s, we say %s", key, got[i], want)
		}
	}
}
