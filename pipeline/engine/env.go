package engine

import (
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Env is the machine that an engine runs on. A simulation replaces it; tests change it.
type Env struct {
	// FS holds the state directory.
	FS vfs.FS
	// Lock takes a lock file that no other process holds: ErrStateDir if one does.
	Lock func(path string) (io.Closer, error)
	// Now is the wall clock: it dates state and records.
	Now func() time.Time
	// Step is called at each of the steps below, on the goroutine that takes it, before
	// the next thing happens.
	Step func(step string)
	// FlushEvery is how often applied state is made durable: what a crash loses, a
	// restart reads again.
	FlushEvery time.Duration
	// TransactionTimeout is after how long the broker aborts a transaction by itself.
	TransactionTimeout time.Duration
	// StuckAfter is after how long without a poll a session counts as stuck.
	StuckAfter time.Duration
	// PartitionCheckInterval is how often the topics' partition counts are compared with
	// the recorded ones.
	PartitionCheckInterval time.Duration
	// ClientOptions are added to the options of each session's client.
	ClientOptions []kgo.Opt
	// SkipBuffering applies records of the following input as soon as they are polled:
	// nothing but speed may depend on buffering.
	SkipBuffering bool
}

// DefaultEnv is this machine.
func DefaultEnv() Env {
	return Env{
		FS:                     vfs.Default,
		Lock:                   lockFile,
		Now:                    time.Now,
		Step:                   func(string) {},
		FlushEvery:             FlushInterval,
		TransactionTimeout:     TransactionTimeout,
		StuckAfter:             stuckAfter,
		PartitionCheckInterval: partitionCheckInterval,
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

// Steps of an engine's life, in the order in which they come. At any of them a process
// may die.
const (
	StepAssigned  = "assigned"   // partitions were given to us; nothing is open yet
	StepOpened    = "opened"     // a partition's files are open, not yet caught up
	StepRestored  = "restored"   // a partition is caught up, not yet running
	StepPolled    = "polled"     // records were polled, nothing is judged
	StepJudged    = "judged"     // a record of the following input is judged, others of its batch are not
	StepFlushed   = "flushed"    // outputs are acknowledged, the changed rows not yet produced
	StepProduced  = "produced"   // everything is produced, not yet acknowledged
	StepEndFailed = "end-failed" // EndTxn returned an error: it may have been applied or not
	StepEnded     = "ended"      // committed, not yet applied to the state
	StepApplied   = "applied"    // applied, not yet durable
	StepRevoked   = "revoked"    // partitions were taken away; their files are still open
	StepFollowed  = "followed"   // a standby has applied what it read of a partition; at any time
)
