package processor_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// registryIDs are the ids of a registry that others had used before it was adopted.
func registryIDs(from uint32) (ids []event.ID) {
	for i, id := range event.DefaultIDs() {
		ids = append(ids, event.ID{ID: from + uint32(i), Record: id.Record, Version: id.Version})
	}
	return ids
}

// withoutClicks are ids with which the clicks of before cannot be read. The built-in ones
// are last, so that the test can read what is written.
func withoutClicks() []event.ID {
	return append(registryIDs(101), slices.DeleteFunc(event.DefaultIDs(),
		func(id event.ID) bool { return id.Record == "Click" })...)
}

func newCodec(t *testing.T, ids []event.ID) *event.Codec {
	t.Helper()
	c, err := event.NewCodec(ids)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A registry is adopted with an ids file that lacks the built-in ids. The journeys of
// before then stop the processor with a message that names the id, the file and the way on
// for one token. With the built-in ids before the registry's everything goes on.
func TestRegistryAdoptedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	stop := start(t, newProcessor(t, w.brokers, cfg))
	k := w.Click()
	sale := w.Sale(k, 4000)
	w.sendClick(k)
	w.sendEvent(sale)
	w.flush()
	eventually(t, "the sale is judged", func() bool { return len(w.outcomes()) == 1 })
	stop()
	w.sendEvent(w.Refund(sale, 400)) // by a gateway that has both
	w.flush()

	err := runToEnd(t, newKnowingProcessor(t, w, cfg, newCodec(t, withoutClicks())))
	checkNewer(t, err, "unknown schema id 6", "-schema-ids", "`ctl token give-up "+k.ClickToken+"`")
	if rows := w.outcomes(); len(rows) != 1 {
		t.Errorf("it has written %d rows", len(rows))
	}

	start(t, newKnowingProcessor(t, w, cfg, newCodec(t, append(registryIDs(101), event.DefaultIDs()...))))
	eventually(t, "the refund is judged", func() bool { return len(w.outcomes()) == 2 })
	for _, o := range w.outcomes() {
		if o.Type == event.Refund && o.Verdict != event.Reversed {
			t.Errorf("the refund is %s %s", o.Verdict, o.Reason)
		}
	}
}

// giveUp writes what `ctl token give-up` writes.
func (w *world) giveUp(tok string) {
	w.Helper()
	value, err := json.Marshal(topic.GivenUp{At: time.Now(), Reason: "a test"})
	if err != nil {
		w.Fatal(err)
	}
	kafkatest.Produce(w, w.brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.GivenUpPrefix + tok),
		Value: value})
}

// A journey that cannot be read stops the processor until its token is given up. Then each
// of its events, waiting or new, has one row, and those of others are judged as ever.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	k, other := w.Click(), w.Click()
	for w.partition(other.ClickToken) != w.partition(k.ClickToken) {
		other = w.Click()
	}
	sale := w.Sale(k, 1000)
	stop := start(t, newProcessor(t, w.brokers, cfg))
	w.sendClick(k)
	w.sendClick(other)
	w.sendEvent(sale)
	orphan := w.Refund(sale, 100)
	orphan.ParentEventID = "never-sent"
	w.sendEvent(orphan)
	w.flush()
	eventually(t, "the sale is judged, and a refund waits", func() bool {
		return len(w.outcomes()) == 1 && w.progress()[w.partition(k.ClickToken)].Waiting == 1
	})
	stop()
	w.sendEvent(w.Refund(sale, 100))
	w.sendEvent(w.Sale(other, 1000))
	w.flush()
	lacking := newCodec(t, withoutClicks())
	checkNewer(t, runToEnd(t, newKnowingProcessor(t, w, cfg, lacking)), "unknown schema id 6")
	w.giveUp(k.ClickToken)
	w.giveUp(other.ClickToken)
	stop = start(t, newKnowingProcessor(t, w, cfg, lacking))
	eventually(t, "all events have a row", func() bool { return len(w.outcomes()) == 4 })
	w.sendEvent(w.Sale(k, 500))
	w.flush()
	eventually(t, "a later event has its row", func() bool { return len(w.outcomes()) == 5 })
	w.passes(grace)
	w.conserved()
	stop()
	given := 0
	for _, o := range w.outcomes() {
		switch {
		case o.EventID == sale.EventID:
			if o.Verdict != event.Attributed {
				t.Errorf("what was judged before: %v", o)
			}
		case o.Verdict == event.Unattributed && o.Reason == event.ReasonGivenUp && o.Click == nil:
			given++
		default:
			t.Errorf("%s is %s %s", o.EventID, o.Verdict, o.Reason)
		}
	}
	if given != 4 {
		t.Errorf("%d events are given up", given)
	}
	// A processor that could read the journey after all judges none of its events anew.
	w.sendEvent(sale)
	w.flush()
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "the repeat has a row", func() bool { return len(w.outcomes()) == 6 })
	if o := w.outcomes(); !slices.ContainsFunc(o, func(o event.Outcome) bool {
		return o.EventID == sale.EventID && strings.HasPrefix(o.Reason, "given")
	}) {
		t.Errorf("the sale was judged again: %v", o)
	}
	w.conserved()
}

// What of a waiting event cannot be read is its row alone: the event is read from
// conversions again, or is a dead letter if that has it no longer. Either way it is
// accounted for, and the partition goes on.
func TestGiveUpOfDamagedWaits(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	cfg := config(t.TempDir())
	k := w.Click()
	partition := w.partition(k.ClickToken)
	// The record at offset 0 waits, and is deleted later.
	deleted, damaged, newer, good := w.Sale(k, 1), w.Sale(k, 2), w.Sale(k, 3), w.Sale(k, 4)
	for _, ev := range []*event.Conversion{deleted, damaged, newer, good} {
		w.sendEvent(ev)
		w.flush()
	}
	stop := start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "all wait", func() bool { return w.progress()[partition].Waiting == 4 })
	stop()
	for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
		_, offset, err := event.ParseWaitKey(r.Key)
		if _, kind, _ := event.ParseJourneyKey(r.Key); err != nil || kind != event.KindWaitClick || offset == 3 {
			continue
		}
		value := [][]byte{{2}, {2}, {99, 1, 2}}[offset]
		w.send(&kgo.Record{Topic: topic.Changelog, Partition: partition, Key: r.Key, Value: value})
	}
	w.flush()
	if err := cluster.DeleteRecords(topic.Conversions, partition, 1); err != nil {
		t.Fatal(err)
	}
	w.giveUp(k.ClickToken)
	w.sendClick(k)
	w.flush()
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "nothing waits any more", func() bool { return w.progress()[partition].Waiting == 0 })
	got := make(map[string]bool)
	for _, o := range w.outcomes() {
		if o.Reason != event.ReasonGivenUp || o.AmountMinor == nil || o.EventPartition != partition {
			t.Errorf("%v", o)
		}
		got[o.EventID] = true
	}
	if len(got) != 3 || got[deleted.EventID] {
		t.Errorf("outcomes of %v", got)
	}
	p := w.progress()[partition]
	if p.Read != 4 || p.Unattributed != 3 || p.Unreadable != 1 {
		t.Errorf("%+v", p)
	}
	dead := kafkatest.Consume(t, w.brokers, topic.DeadLetters)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	letter, err := kafka.ParseDeadLetter(dead[0])
	if err != nil || letter.Source.Offset != 0 || string(letter.Record.Key) != k.ClickToken ||
		!strings.Contains(letter.Error, "given up while it waited") {
		t.Errorf("%+v %v", letter, err)
	}
}

// A head that cannot be read stops the processor when it is restored, and names its token.
// Given up, the partition goes on: with the events that waited, whose rows do not even say
// by their keys which they are, and with later ones.
func TestGiveUpOfUnreadableHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	k, other := w.Click(), w.Click()
	partition := w.partition(k.ClickToken)
	for w.partition(other.ClickToken) != partition {
		other = w.Click()
	}
	stop := start(t, newProcessor(t, w.brokers, cfg))
	w.sendClick(k)
	sale := w.Sale(k, 1000)
	w.sendEvent(sale)
	orphan := w.Refund(sale, 100)
	orphan.ParentEventID = "never-sent"
	w.sendEvent(orphan)
	w.flush()
	eventually(t, "a refund waits", func() bool { return w.progress()[partition].Waiting == 1 })
	stop()
	for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
		damaged := &kgo.Record{Topic: topic.Changelog, Partition: partition, Key: r.Key, Timestamp: r.Timestamp}
		switch _, kind, _ := event.ParseJourneyKey(r.Key); {
		case r.Partition != partition:
		case kind == event.KindHead:
			damaged.Value = []byte{99, 0}
			w.send(damaged)
		case kind == event.KindWaitParent:
			w.send(damaged) // deleted
			nameless := *damaged
			nameless.Key, nameless.Value = r.Key[:len(r.Key)-3], r.Value
			w.send(&nameless)
		}
	}
	w.sendClick(other)
	w.sendEvent(w.Sale(other, 1000))
	w.sendEvent(w.Sale(k, 500))
	w.flush()
	checkNewer(t, runToEnd(t, newProcessor(t, w.brokers, cfg)), "`ctl token give-up "+k.ClickToken+"`")
	w.giveUp(k.ClickToken)
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "all events have a row", func() bool { return len(w.outcomes()) == 4 })
	eventually(t, "nothing waits", func() bool { return w.progress()[partition].Waiting == 0 })
	got := map[string]string{}
	for _, o := range w.outcomes() {
		got[o.EventID] = string(o.Verdict) + " " + o.Reason
	}
	if got[sale.EventID] != "attributed " || got[orphan.EventID] != "unattributed "+event.ReasonGivenUp {
		t.Errorf("%v", got)
	}
	w.passes(grace)
	w.conserved()
}

// A head that nobody can read is found again by the expiry index when its journey is old.
// Given up, the journey is deleted like any other, and its partition goes on.
func TestGiveUpOfOldHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	w.shift = 600 * 24 * time.Hour
	k := w.Click()
	partition := w.partition(k.ClickToken)
	stop := start(t, newProcessor(t, w.brokers, cfg))
	w.sendClick(k)
	w.sendEvent(w.Sale(k, 1000))
	w.flush()
	w.judged()
	stop()
	var head []byte
	for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
		if _, kind, ok := event.ParseJourneyKey(r.Key); ok && kind == event.KindHead && head == nil {
			head = r.Key
			w.send(&kgo.Record{Topic: topic.Changelog, Partition: partition, Key: head, Value: []byte{99, 0}})
		}
	}
	w.giveUp(k.ClickToken)
	w.shift = 0
	young := w.Click()
	for w.partition(young.ClickToken) != partition {
		young = w.Click()
	}
	w.sendClick(young)
	w.sendEvent(w.Sale(young, 2000))
	w.flush()
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "the old journey is deleted", func() bool {
		isDeleted := false
		for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
			isDeleted = isDeleted || bytes.Equal(r.Key, head) && r.Value == nil
		}
		return isDeleted
	})
	w.judged()
	w.conserved()
}
