package engine

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A marker is written by what is known of the very transaction that hangs: what an
// earlier or later one of the same id came to would show aborted rows, or hide
// committed ones.
func TestOutcomeOfTheOneThatHangs(t *testing.T) {
	const producer = 7
	type noted = []kadm.DescribedTransaction
	describe := func(state string, epoch int16) kadm.DescribedTransaction {
		return kadm.DescribedTransaction{TxnID: "id", State: state, ProducerID: producer, ProducerEpoch: epoch}
	}
	another := describe("CompleteCommit", 5)
	another.ProducerID++
	for _, c := range []struct {
		name  string
		noted []kadm.DescribedTransaction
		want  txnOutcome
	}{
		{"it is going on, and its commit may be on the way",
			noted{describe("Ongoing", 4), describe("Empty", 6)}, txnUndecided},
		{"it had committed before",
			noted{describe("CompleteCommit", 5), describe("Empty", 6)}, txnCommit},
		{"it was about to commit",
			noted{describe("PrepareCommit", 5), describe("Empty", 6)}, txnCommit},
		{"it timed out",
			noted{describe("PrepareAbort", 5), describe("CompleteAbort", 5)}, txnAbort},
		{"the one before it is all that was seen",
			noted{describe("CompleteCommit", 4), describe("Empty", 5)}, txnUndecided},
		{"the next one has committed",
			noted{describe("CompleteAbort", 4), describe("CompleteCommit", 6)}, txnUndecided},
		{"the next one is under way",
			noted{describe("Empty", 4), describe("Ongoing", 5)}, txnUndecided},
		{"the epochs ran out, and another producer took over",
			noted{another}, txnUndecided},
		{"nothing was seen",
			nil, txnUndecided},
	} {
		var o txnOutcomes
		for _, d := range c.noted {
			o.noteDescription(d)
		}
		if got := o.outcomeOf(txnKey{producer, 4}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if (txnKey{producer, 32766}).markedBy(producer, -32768) || !(txnKey{producer, 32766}).markedBy(producer, 32767) {
		t.Error("the last marker of a producer id has epoch 32767")
	}
}

// That a partition holds no marker says something only if it was read from before the
// transaction on without a gap.
func TestUnbrokenLog(t *testing.T) {
	start := time.UnixMilli(1_800_000_000_000)
	for _, c := range []struct {
		name    string
		offsets []int64 // a second apart, the first a second before the transaction
		end     int64
		want    bool
	}{
		{"all of it", []int64{10, 11, 12, 13}, 14, true},
		{"from its very first record on, though that is younger", []int64{0, 1, 2}, 3, true},
		{"nothing at all", nil, 14, false},
		{"not to the end", []int64{10, 11, 12}, 14, false},
		{"compacted after the start", []int64{10, 11, 13}, 14, false},
		{"compacted between two records before the start", []int64{7, 10, 11, 12, 13}, 14, true},
	} {
		u := contiguousRun{next: -1}
		at := start.Add(-time.Second)
		if len(c.offsets) > 1 && c.offsets[1] != c.offsets[0]+1 {
			at = at.Add(-time.Second)
		}
		if len(c.offsets) > 0 && c.offsets[0] == 0 {
			at = start.Add(time.Hour)
		}
		for _, o := range c.offsets {
			u.addRecord(&kgo.Record{Offset: o, Timestamp: at})
			at = at.Add(time.Second)
		}
		if got := u.reachesBack(c.end, start); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	late := contiguousRun{next: -1} // the log begins after the transaction did
	for o := range int64(4) {
		late.addRecord(&kgo.Record{Offset: 10 + o, Timestamp: start.Add(time.Second)})
	}
	if late.reachesBack(14, start) {
		t.Error("what begins after the transaction does not cover it")
	}
}

// A state directory says which inputs it has applied; one from before that was kept
// opens too.
func TestStateInput(t *testing.T) {
	old := `{"version":1,"cluster":"c","changelog":"01","clicks":"02","partition":3,"position":44,"at":1800000000000}`
	now := strings.TrimSuffix(old, "}") + `,"input":{"clicks":7,"conversions":9}}`
	for _, c := range []struct {
		row       string
		committed inputOffsets
		stale     bool
	}{
		{old, inputOffsets{0, 0}, false},
		{now, inputOffsets{7, 9}, false},
		{now, inputOffsets{8, 10}, false},
		{now, inputOffsets{6, 9}, true},
		{now, inputOffsets{7, 8}, true},
	} {
		var m stateIdentity
		if err := json.Unmarshal([]byte(c.row), &m); err != nil {
			t.Fatal(err)
		}
		if written, err := json.Marshal(m); err != nil || string(written) != c.row {
			t.Errorf("%s is written again as %s: %v", c.row, written, err)
		}
		if err := m.checkCommitted(c.committed); errors.Is(err, errStale) != c.stale || (err != nil) != c.stale {
			t.Errorf("%s, committed %+v: %v", c.row, c.committed, err)
		}
	}
}
