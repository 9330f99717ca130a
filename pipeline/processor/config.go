package processor

import (
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// Config is what an operator decides.
type Config struct {
	// StateDir holds a directory for each partition that was ever owned or followed
	// here. It may be lost: it is rebuilt from Kafka.
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
	// over the owned partitions; with Standby over all.
	ClickMemory int64
	// JourneyCache is the memory in bytes for blocks of journeys that were read from
	// disk, shared by all partitions.
	JourneyCache int64
	// SessionTimeout is after how long without a heartbeat the group gives this slot's
	// partitions away.
	SessionTimeout time.Duration
	// Standby keeps the state of all partitions that other processes own, too, so that
	// one that moves here needs no rebuild.
	Standby bool
}

// DefaultConfig has no state directory and no instance: they must be given.
func DefaultConfig() Config {
	rules, e := attribution.DefaultConfig(), engine.DefaultConfig()
	return Config{
		CommitInterval: e.CommitInterval,
		Grace:          rules.Grace,
		ClickLife:      topic.DefaultClickLife,
		ClickMemory:    256 << 20,
		JourneyCache:   e.StateCache,
		SessionTimeout: e.SessionTimeout,
	}
}

// engine is the engine's part of the configuration.
func (c Config) engine() engine.Config {
	return engine.Config{
		StateDir:       c.StateDir,
		Instance:       c.Instance,
		CommitInterval: c.CommitInterval,
		StateCache:     c.JourneyCache,
		SessionTimeout: c.SessionTimeout,
		Standby:        c.Standby,
	}
}

// Validate reports a setting that cannot be, by flag.
func (c Config) Validate() error {
	if err := c.engine().Validate(); err != nil {
		return err
	}
	switch {
	case c.Grace < time.Second:
		return fmt.Errorf("-grace: %v is under a second", c.Grace)
	case c.ClickLife < time.Hour:
		return fmt.Errorf("-click-life: %v is under an hour", c.ClickLife)
	case c.ClickMemory < 4<<20:
		return fmt.Errorf("-click-memory: %d bytes are under 4 MiB", c.ClickMemory)
	}
	return nil
}

// watermarkMargin is for what is under way when end offsets are listed: clocks that
// differ, a request between its timestamp and its acknowledgement.
func (c Config) watermarkMargin() time.Duration { return min(c.Grace/10, topic.DeliveryLimit) }

// Errors that end Run: a person has to change something.
var (
	// ErrInstance: another process runs with this instance name.
	ErrInstance = engine.ErrInstance
	// ErrRetention: the clicks topic is deleted before the click life is over.
	ErrRetention = engine.ErrRetention
	// ErrStateDir: another process uses this state directory.
	ErrStateDir = engine.ErrStateDir
	// ErrStuck: the Kafka client did not come back from a call. Only a new process
	// helps.
	ErrStuck = engine.ErrStuck
	// ErrNewer: a newer version of the program wrote a click or a journey row.
	ErrNewer = engine.ErrNewer
)

// Fatal reports whether err needs a person, or a new process: trying again here would
// not help.
func Fatal(err error) bool { return engine.Fatal(err) }

// markCorrupt marks an error that says that a click or a journey on disk is damaged, or
// that a newer version of the program wrote it.
func markCorrupt(err error) error {
	switch {
	case errors.Is(err, event.ErrNewer):
		return fmt.Errorf("%w: %w", engine.ErrNewer, err)
	case clicklog.NeedsRebuild(err) || errors.Is(err, event.ErrJourney):
		return fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
	}
	return err
}
