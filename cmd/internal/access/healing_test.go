package access

import (
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// testHealing: a transaction that hangs holds a partition back until a processor has the
// rights of -self-heal, exactly these. One without them waits, and says which one it
// lacks. The transaction is long over, so that its end is in the coordinator's log alone.
func testHealing(t *testing.T, r *rig) {
	const partition = 2
	known := kafkatest.Client(t, r.broker.Brokers())
	unknown := kafkatest.Client(t, r.broker.Brokers(), kgo.MaxVersions(kversion.V3_8_0()))
	id := topic.ProcessorGroup + "-slot-9" // made it, and is gone
	x := kafkatest.BeginRaw(t, known, id)
	x.Put(t, known, topic.Outcomes, 1, "hung", "x")
	x.Put(t, unknown, topic.Outcomes, partition, "hung", "x")
	x.End(t, known, true)
	for range 3 {
		kafkatest.BeginRaw(t, known, id)
	}
	hangs := func() bool {
		t.Helper()
		described, err := kadm.NewClient(known).DescribeProducers(t.Context(),
			kadm.TopicsSet{topic.Outcomes: {partition: {}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range described.SortedProducers() {
			if p.ProducerID == x.Producer && p.CurrentTxnStartOffset >= 0 {
				return true
			}
		}
		return false
	}
	if !hangs() {
		t.Fatal("nothing hangs")
	}
	without := r.start(t, "processor", r.broker.As("exact-processor"))
	without.await(t, "hanging transactions do not heal by themselves.*lacking=.*Read on topic __transaction_state, "+
		"Alter on the cluster")
	without.await(t, "waiting for transactions that hold partitions back.*"+
		`the right to ALTER \(or CLUSTER_ACTION on\) the cluster`)
	without.stop(t)
	if !hangs() {
		t.Error("it was healed without the right")
	}
	with := r.start(t, "processor", r.broker.As("healing-processor"))
	with.await(t, "Kafka had lost markers of a transaction; they are written now.*outcome=commit.*"+
		`known_by="the coordinator's log"`)
	for deadline := time.Now().Add(hang); hangs(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it still hangs")
		}
	}
	with.stop(t)
}
