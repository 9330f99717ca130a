package engine

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Config is what an operator decides.
type Config struct {
	// StateDir holds a directory for each partition that was ever owned here. It may be
	// lost: it is rebuilt from Kafka.
	StateDir string
	// Instance is the stable name of this slot: static group member and transactional
	// id. Two processes with one name fence each other.
	Instance string
	// CommitInterval is how long a transaction stays open.
	CommitInterval time.Duration
	// StateCache is the memory in bytes for blocks of state that were read from disk,
	// shared by all partitions.
	StateCache int64
	// SessionTimeout is after how long without a heartbeat the group gives this slot's
	// partitions away.
	SessionTimeout time.Duration
	// Standby keeps the state of all partitions that other processes own, too, so that
	// one that moves here needs no rebuild.
	Standby bool
}

// DefaultConfig has no state directory and no instance: they must be given.
func DefaultConfig() Config {
	return Config{
		CommitInterval: 100 * time.Millisecond,
		StateCache:     256 << 20,
		SessionTimeout: 10 * time.Second,
	}
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

// Validate reports a setting that cannot be, by flag.
func (c Config) Validate() error {
	switch {
	case c.StateDir == "":
		return errors.New("-state-dir: a directory is required")
	case !instanceName.MatchString(c.Instance):
		return fmt.Errorf("-instance: %q is not a name of 1 to 100 letters, digits, dots, dashes and underscores",
			c.Instance)
	case c.CommitInterval < time.Millisecond || c.CommitInterval > 5*time.Second:
		return fmt.Errorf("-commit-interval: %v is not between 1ms and 5s", c.CommitInterval)
	case c.StateCache < 1<<20:
		return fmt.Errorf("-journey-cache: %d bytes are under 1 MiB", c.StateCache)
	case c.SessionTimeout < time.Second:
		return fmt.Errorf("-session-timeout: %v is under a second", c.SessionTimeout)
	}
	return nil
}

const (
	// TransactionTimeout is after how long the broker aborts a transaction by itself.
	TransactionTimeout = 10 * time.Second
	// EndTimeout bounds End and Close: its expiry means "outcome unknown".
	EndTimeout = 5 * time.Second
	// FlushInterval is how often applied state is made durable.
	FlushInterval = 30 * time.Second
	// maxBuffered is how many records of the following input a partition buffers before
	// their fetching is paused.
	maxBuffered = 20_000
	// stuckGrace is how long the watchdog must keep seeing a stuck session before it
	// acts. After SIGSTOP or a pause of the machine every deadline has expired at once,
	// so one observation proves nothing.
	stuckGrace = 3 * time.Second
	// partitionCheckInterval is how often partition counts are looked at.
	partitionCheckInterval = 5 * time.Second
	// stuckAfter is how long a session may go without a poll.
	stuckAfter = time.Minute
	// maxRows ends a transaction before its commit interval.
	maxRows = 200_000
	// maxRequest bounds the bytes of a produce request before compression. A request of
	// more than half a heap region (1 MiB with the broker's usual gigabyte) is
	// "humongous" to G1, and each one may start a marking cycle: without this, a
	// quarter of a broker's time in a backlog went there. It is the least that the
	// client takes: the largest batch must fit.
	maxRequest = 1 << 20
	// maxPoll is the number of records of one poll.
	maxPoll = 20_000
	// tombstoneLife is the changelog's delete.retention.ms: state that is older may
	// hold rows whose tombstones are gone.
	tombstoneLife = 7 * 24 * time.Hour
	// clockError bounds the difference between the clock that dated the state and the
	// one that reads the date.
	clockError = 12 * time.Hour
)

// Errors that end Run: a person has to change something.
var (
	// ErrInstance: another process runs with this instance name.
	ErrInstance = errors.New("another process uses this -instance")
	// ErrRetention: an input is deleted before the topology may stop asking for it.
	ErrRetention = errors.New("retention of clicks is too short")
	// ErrStateDir: another process uses this state directory.
	ErrStateDir = errors.New("another process uses this -state-dir")
	// ErrStuck: the client did not come back from a call long after its deadline. Only
	// a new process helps.
	ErrStuck = errors.New("the Kafka client is stuck")
	// ErrNewer marks what a newer version of the program has written and this one
	// cannot read. It is no damage: to rebuild the state would bring it back.
	ErrNewer = errors.New("this version of the program is too old")
)

// ErrCorrupt marks files of a partition that cannot be used and can be rebuilt.
var ErrCorrupt = errors.New("state is corrupt")

// errSession ends a session; the next one starts over from what the broker says.
var errSession = errors.New("session over")

// errStale: state on disk that the log no longer reaches back to, or that belongs to
// something else.
var errStale = errors.New("state cannot be continued from the log")

// Fatal reports whether err needs a person, or a new process: trying again here would
// not help. A login that fails and a right that lacks are retried: a person mends them
// at the cluster.
func Fatal(err error) bool {
	for _, f := range []error{ErrInstance, ErrRetention, ErrStateDir, ErrStuck, ErrNewer, kafka.ErrOffsets,
		kafka.ErrPartitions, kafka.ErrTransactions, kafka.ErrUnclean, kerr.InvalidSessionTimeout,
		kerr.InvalidTransactionTimeout} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// needsRebuild reports whether err says that state on disk cannot be used, but can be
// rebuilt.
func needsRebuild(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, state.ErrCorrupt) || errors.Is(err, errStale)
}
