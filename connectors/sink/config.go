package sink

import (
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Config bounds the size of inserts and the time between them.
type Config struct {
	// BatchRows is the maximum number of records of one insert.
	BatchRows int
	// BatchBytes is roughly the maximum size of one insert, in bytes of record values.
	// A partition that is behind holds up to twice this in memory.
	BatchBytes int
	// Linger is the shortest time between two inserts of one partition while it keeps
	// up. It is raised where needed so that a table gets at most 20 inserts a second,
	// and to between one and five seconds for clicks.
	Linger time.Duration
	// SessionTimeout is how long the group waits for a heartbeat before it reassigns
	// this sink's partitions. A sink that was killed waits as long when it starts
	// again.
	SessionTimeout time.Duration
}

// DefaultConfig suits an installation with enough memory, whose ClickHouse keeps up
// with its merges.
func DefaultConfig() Config {
	return Config{
		BatchRows:      50_000,
		BatchBytes:     16 << 20,
		Linger:         250 * time.Millisecond,
		SessionTimeout: 10 * time.Second,
	}
}

// Validate reports a setting that cannot work, by flag.
func (c Config) Validate() error {
	switch {
	case c.BatchRows < 1 || c.BatchRows > clickhouse.MaxInsertRows:
		return fmt.Errorf("BatchRows: %d is not between 1 and %d", c.BatchRows, clickhouse.MaxInsertRows)
	case c.BatchBytes < 1<<10 || c.BatchBytes > 200<<20:
		return fmt.Errorf("BatchBytes: %d is not between 1 kB and 200 MB", c.BatchBytes)
	case c.Linger < time.Millisecond || c.Linger > time.Minute:
		return fmt.Errorf("-linger: %v is not between 1ms and 1m", c.Linger)
	case c.SessionTimeout < time.Second || c.SessionTimeout > 5*time.Minute:
		return fmt.Errorf("-session-timeout: %v is not between 1s and 5m", c.SessionTimeout)
	}
	return nil
}

const (
	// insertsPerSecond is the budget of a table. ClickHouse merges what is inserted,
	// and falls behind if inserts are many and small.
	insertsPerSecond = 20
	// Clicks are many, and the latency of a single one does not matter: their inserts
	// are rarer and larger.
	minClickInterval = time.Second
	maxClickInterval = 5 * time.Second
	// attemptTimeout bounds one attempt at a batch, so that a connection that hangs
	// becomes one that failed.
	attemptTimeout = time.Minute
	// maxCommitAge is how old the newest successful commit may be when an insert is
	// sent. The commit proves that the partition still belongs to this sink.
	maxCommitAge = 10 * time.Second
)

// minInsertInterval is the shortest time between two inserts of one of a topic's
// partitions that keeps all of them within the table's budget.
func minInsertInterval(partitions int) time.Duration {
	return time.Duration(partitions) * time.Second / insertsPerSecond
}
