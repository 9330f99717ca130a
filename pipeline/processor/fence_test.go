package processor

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// A marker is written by what is known of the very transaction that hangs: what an
// earlier or later one of the same id came to would show aborted rows, or hide
// committed ones.
func TestEndingOfTheOneThatHangs(t *testing.T) {
	const producer = 7
	describe := func(state string, epoch int16) kadm.DescribedTransaction {
		return kadm.DescribedTransaction{TxnID: "id", State: state, ProducerID: producer, ProducerEpoch: epoch}
	}
	for _, c := range []struct {
		name          string
		noted, now    kadm.DescribedTransaction
		commit, known bool
	}{
		{"it was ongoing, and aborted by initialising", describe("Ongoing", 4), describe("Empty", 5), false, true},
		{"it had committed before", describe("CompleteCommit", 5), describe("Empty", 6), true, true},
		{"it was about to commit", describe("PrepareCommit", 5), describe("Empty", 6), true, true},
		{"it timed out", describe("PrepareEpochFence", 5), describe("CompleteAbort", 5), false, true},
		{"the coordinator still says so", describe("CompleteAbort", 4), describe("CompleteCommit", 5), true, true},
		{"the one before it is all that was seen", describe("CompleteCommit", 4), describe("Empty", 5), false, false},
		{"the next one has committed", describe("CompleteAbort", 4), describe("CompleteCommit", 6), false, false},
		{"the next one is under way", describe("Empty", 4), describe("Ongoing", 5), false, false},
		{"the epochs ran out, and another producer took over", kadm.DescribedTransaction{
			TxnID:         "id",
			State:         "CompleteCommit",
			ProducerID:    producer + 1,
			ProducerEpoch: 5,
		}, describe("Empty", 0), false, false},
	} {
		var e endings
		e.note(c.noted)
		commit, known := e.of(kadm.DescribedProducer{ProducerID: producer, ProducerEpoch: 4}, c.now)
		if commit != c.commit || known != c.known {
			t.Errorf("%s: commit %v (known: %v), want %v (%v)", c.name, commit, known, c.commit, c.known)
		}
	}
	var none endings
	if _, known := none.of(kadm.DescribedProducer{}, kadm.DescribedTransaction{TxnID: "id", State: "Empty"}); known {
		t.Error("of the first transaction of a cluster's first producer nothing was seen, and something is known")
	}
}
