package processor

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
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
	// Grace is how long an event may wait for its click or parent.
	Grace time.Duration
	// ClickLife is how long a click can bring conversions; the retention of clicks must
	// be longer.
	ClickLife time.Duration
	// ClickMemory is the memory in bytes for clicks that are not on disk yet, split
	// over the owned partitions.
	ClickMemory int64
	// JourneyCache is the memory in bytes for blocks of journeys that were read from
	// disk, shared by all partitions.
	JourneyCache int64
	// SessionTimeout is after how long without a heartbeat the group gives this slot's
	// partitions away.
	SessionTimeout time.Duration
}

// DefaultConfig has no state directory and no instance: they must be given.
func DefaultConfig() Config {
	rules := attribution.DefaultConfig()
	return Config{
		CommitInterval: 100 * time.Millisecond,
		Grace:          rules.Grace,
		ClickLife:      topic.DefaultClickLife,
		ClickMemory:    256 << 20,
		JourneyCache:   256 << 20,
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
	case c.Grace < time.Second:
		return fmt.Errorf("-grace: %v is under a second", c.Grace)
	case c.ClickLife < time.Hour:
		return fmt.Errorf("-click-life: %v is under an hour", c.ClickLife)
	case c.ClickMemory < 4<<20:
		return fmt.Errorf("-click-memory: %d bytes are under 4 MiB", c.ClickMemory)
	case c.JourneyCache < 1<<20:
		return fmt.Errorf("-journey-cache: %d bytes are under 1 MiB", c.JourneyCache)
	case c.SessionTimeout < time.Second:
		return fmt.Errorf("-session-timeout: %v is under a second", c.SessionTimeout)
	}
	return nil
}

// margin is for what is under way when an end is listed: clocks that differ, a request
// between its timestamp and its acknowledgement.
func (c Config) margin() time.Duration { return min(c.Grace/10, topic.DeliveryLimit) }

const (
	transactionTimeout = 10 * time.Second
	// endTimeout bounds End and Close: its expiry is "outcome unknown".
	endTimeout = 5 * time.Second
	// maxHeld is how many conversions a partition holds for its clicks before their
	// fetching is paused.
	maxHeld = 20_000
	// awake is how long what is stuck must be seen to be stuck: a process that was
	// stopped (SIGSTOP, a paused machine) finds all its deadlines passed at once, and
	// needs a moment to notice each.
	awake = 3 * time.Second
	// stuckAfter is how long a session may go without a poll.
	stuckAfter = time.Minute
	// maxRows ends a transaction before its commit interval.
	maxRows = 200_000
	// maxRequest bounds what a produce request weighs before compression. A request of
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
	// clockError is by how much the clocks may have differed that dated the state and
	// that reads the date.
	clockError = 12 * time.Hour
)

// Errors that end Run: a person has to change something.
var (
	// ErrInstance: another process runs with this instance name.
	ErrInstance = errors.New("another process uses this -instance")
	// ErrRetention: the clicks topic forgets before the click life is over.
	ErrRetention = errors.New("retention of clicks is too short")
	// ErrStateDir: another process uses this state directory.
	ErrStateDir = errors.New("another process uses this -state-dir")
	// ErrStuck: the client did not come back from a call long after its deadline. Only
	// a new process helps.
	ErrStuck = errors.New("the Kafka client is stuck")
)

// errSession ends a session; the next one starts over from what the broker says.
var errSession = errors.New("session over")

// Fatal reports whether err needs a person, or a new process: trying again here would
// not help.
func Fatal(err error) bool {
	for _, f := range []error{ErrInstance, ErrRetention, ErrStateDir, ErrStuck, kafka.ErrOffsets, kafka.ErrPartitions,
		kafka.ErrTransactions, kafka.ErrUnclean,
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.SaslAuthenticationFailed, kerr.InvalidSessionTimeout, kerr.InvalidTransactionTimeout} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// rebuildable reports whether err says that state on disk cannot be used, but can be
// made anew.
func rebuildable(err error) bool {
	return clicklog.NeedsRebuild(err) || errors.Is(err, state.ErrCorrupt) || errors.Is(err, event.ErrJourney) ||
		errors.Is(err, errStale)
}

// errStale: state on disk that the log no longer reaches back to, or that belongs to
// something else.
var errStale = errors.New("state cannot be continued from the log")
