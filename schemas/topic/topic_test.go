package topic

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The vectors of Kafka's UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	f := func(key string, want int32) {
		t.Helper()
		if got := int32(murmur2(key)); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	f("21", -973932308)
	f("foobar", -790332482)
	f("a-little-bit-long-string", -985981536)
	f("a-little-bit-longer-string", -1486304829)
	f("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971)
	f("abc", 479470107)
}

// What the partitioner of Apache Kafka 4.3.1 for Java prints (examples/Partitions.java);
// a test of package kafka compares thousands of keys where there is Java.
func TestPartitionGolden(t *testing.T) {
	golden := func(token string, of6, of12, of17 int32) {
		t.Helper()
		for count, want := range map[int32]int32{6: of6, 12: of12, 17: of17} {
			if got := OneEpoch(count).Partition(token, time.Time{}); got != want {
				t.Errorf("%s: partition %d of %d, want %d", token, got, count, want)
			}
		}
	}
	golden("3MWgyD5yf6kfC92HIBeU6RXBUYB", 0, 0, 9)
	golden("000000000000000000000000000", 4, 10, 6)
	golden("aWgEPTl1tmebfsQzFP4bxwgy80V", 5, 5, 3)
}

// Kafka's own producers, which an operator may use to repair a topic, must put a token
// where the daemons put it. franz-go's default partitioner takes their place.
func TestPartitionIsKafkas(t *testing.T) {
	kafkas := kgo.StickyKeyPartitioner(nil).ForTopic(Clicks)
	for i := range 1000 {
		token := fmt.Sprintf("%027d", i*i)
		r := &kgo.Record{Key: []byte(token)}
		got, want := OneEpoch(6).Partition(token, time.Time{}), kafkas.Partition(r, 6)
		if int(got) != want {
			t.Fatalf("%s: partition %d, Kafka's partitioner has %d", token, got, want)
		}
	}
}

// A token keeps its partition when partitions are added after it was minted.
func TestEpochs(t *testing.T) {
	grow := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	one, two := OneEpoch(6), Epochs{{Partitions: 6}, {From: grow, Partitions: 12}}
	if err := two.Validate(); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for i := range 200 {
		token := strings.Repeat("x", 20) + string(rune('a'+i%26)) + string(rune('a'+i/26))
		if one.Partition(token, grow.Add(-time.Second)) != two.Partition(token, grow.Add(-time.Second)) {
			t.Errorf("%s, minted before the growth, moved", token)
		}
		if p := two.Partition(token, grow); p < 0 || p >= 12 {
			t.Errorf("%s: partition %d of 12", token, p)
		} else if p >= 6 {
			moved++
		}
	}
	if moved == 0 {
		t.Error("no token of the new epoch uses a new partition")
	}
	if one.Now() != 6 || two.Now() != 12 {
		t.Errorf("today's counts: %d, %d", one.Now(), two.Now())
	}
	bad := func(e Epochs, want string) {
		t.Helper()
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want …%s…", e, err, want)
		}
	}
	bad(nil, "zero time")
	bad(Epochs{{From: grow, Partitions: 6}}, "zero time")
	bad(Epochs{{Partitions: 0}}, "0 partitions")
	bad(Epochs{{Partitions: 6}, {From: grow, Partitions: 6}}, "more partitions")
}

func TestSpecs(t *testing.T) {
	for _, s := range Specs("eu.", 6, DefaultClickLife) {
		if !strings.HasPrefix(s.Name, "eu.") || s.Partitioned != (s.Partitions == 6) {
			t.Errorf("%+v", s)
		}
		if s.Name == "eu.clicks" && s.Config["retention.ms"] != "3888000000" { // 45 days
			t.Errorf("clicks are kept %s ms", s.Config["retention.ms"])
		}
	}
}
