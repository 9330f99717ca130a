package processor

import (
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/gofrs/flock"
)

// Env is the machine that a processor stands on. A simulation stands in for it.
type Env struct {
	// FS holds the state directory.
	FS vfs.FS
	// Lock takes a lock file that no other process holds: ErrStateDir if one does.
	Lock func(path string) (io.Closer, error)
	// Now is the wall clock: it stamps rows, ages state and says when an ended wait is
	// written.
	Now func() time.Time
	// Step is called at each of Steps, on the goroutine that takes it, before the next
	// thing happens.
	Step func(step string)
	// FlushEvery is how often what was applied is made durable: what a crash loses, a
	// restart reads again.
	FlushEvery time.Duration
	// SlabBytes is how much of a partition's clicks gathers in memory before it becomes
	// a segment; 0 is its share of Config.ClickMemory.
	SlabBytes int64
	// TransactionTimeout is after how long the broker aborts a transaction that nobody
	// ends.
	TransactionTimeout time.Duration
}

// DefaultEnv is this machine.
func DefaultEnv() Env {
	return Env{
		FS:                 vfs.Default,
		Lock:               lockFile,
		Now:                time.Now,
		Step:               func(string) {},
		FlushEvery:         flushInterval,
		TransactionTimeout: transactionTimeout,
	}
}

func lockFile(path string) (io.Closer, error) {
	lock := flock.New(path)
	if ok, err := lock.TryLock(); err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	} else if !ok {
		return nil, fmt.Errorf("%w: %s", ErrStateDir, path)
	}
	return lock, nil
}

// Steps of a processor's life, in the order in which they come. At any of them a
// process may die.
const (
	StepAssigned  = "assigned"   // partitions were given to us; nothing is open yet
	StepOpened    = "opened"     // a partition's files are open, not yet caught up
	StepRestored  = "restored"   // a partition is caught up, not yet running
	StepPolled    = "polled"     // records were polled, nothing judged
	StepJudged    = "judged"     // a conversion is judged, others of its batch are not
	StepFlushed   = "flushed"    // outcomes are acknowledged, the changed rows not yet produced
	StepProduced  = "produced"   // everything is produced, not yet acknowledged
	StepEndFailed = "end-failed" // EndTxn came to an error: nobody here knows whether it was applied
	StepEnded     = "ended"      // committed, not yet applied to the state
	StepApplied   = "applied"    // applied, not yet durable
	StepRevoked   = "revoked"    // partitions were taken away; their files are still open
)
