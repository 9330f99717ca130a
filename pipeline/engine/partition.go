package engine

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partitionState is where a partition is in its life here.
type partitionState int

const (
	assigned  partitionState = iota // given to us; nothing is open
	following                       // another process owns it; a standby keeps its state here
	restoring                       // its files are open, and it catches up with the log
	running                         // the session's goroutine applies records
	givenBack                       // given back; its files are closed
)

// String names the state as metrics and logs do.
func (s partitionState) String() string {
	return [...]string{"assigned", "following", "restoring", "running", "closed"}[s]
}

// inputPosition is how far one input of a partition has been applied.
type inputPosition struct {
	next      int64        // next offset to apply; of the following input, buffered records lie above
	committed int64        // next as last committed
	newest    event.Millis // largest Kafka timestamp applied
}

// Partition is one owned partition, as a task sees it. Between a poll and
// AllowRebalance the session's goroutine owns it; before it runs, its restore does; a
// revocation, which cannot come in between, closes it.
type Partition struct {
	// ID is the partition's number, the same in all co-partitioned topics.
	ID int32
	// Dir is the partition's directory below the state directory.
	Dir string
	// Label is ID as a metric label.
	Label string
	// Identity says whose state it is.
	Identity Identity
	// Store is the state on disk. A task may write rows to it that are in no changelog.
	Store *state.Store
	// Rows are the rows of the running transaction over those in Store.
	Rows *Rows

	engine   *Engine
	state    partitionState
	task     Task
	identity stateIdentity
	fresh    bool // the disk held nothing of it, and no changelog was read yet
	wasEmpty bool // the disk held nothing of it when its files were opened, by a standby maybe
	hasRows  bool // rows were found in its changelog since then
	// readFrom is the position at which the files were opened. What they hold of the
	// changelog from there on was read as committed; what lies before may have been
	// applied because End was answered, and only a void row says that it was aborted.
	readFrom int64
	corrupt  bool // closing wipes the files, and the next restore rebuilds them

	leading   inputPosition
	following inputPosition
	buffered  []bufferedRecord
	paused    bool // fetching of the following input, because too much is buffered

	watermark event.Millis
	caughtUp  bool

	// Offsets after what this process produced; set by produce promises, read after a
	// flush.
	changelogEnd atomic.Int64
	ownedEnd     atomic.Int64 // of the first owned output
	lastFlush    time.Time
}

// bufferedRecord is a record of the following input, and when it was polled.
type bufferedRecord struct {
	record *kgo.Record
	polled time.Time
}

func newPartition(e *Engine, id int32) *Partition {
	return &Partition{
		ID:        id,
		Label:     strconv.Itoa(int(id)),
		Dir:       e.env.FS.PathJoin(e.cfg.StateDir, PartitionDir(id)),
		engine:    e,
		lastFlush: time.Now(),
	}
}

// transition moves the partition to another state.
func (p *Partition) transition(to partitionState) {
	if p.state == restoring || p.state == running {
		p.engine.m.partitions.WithLabelValues(p.state.String()).Dec()
	}
	if to == restoring || to == running {
		p.engine.m.partitions.WithLabelValues(to.String()).Inc()
	}
	p.engine.log.Debug("partition", "partition", p.ID, "from", p.state.String(), "to", to.String())
	p.state = to
}

// LeadingNext is the next offset of the leading input to apply.
func (p *Partition) LeadingNext() int64 { return p.leading.next }

// FollowingNext is the next offset of the following input to apply.
func (p *Partition) FollowingNext() int64 { return p.following.next }

// LeadingNewest is the largest Kafka timestamp of the leading input that was applied.
func (p *Partition) LeadingNewest() event.Millis { return p.leading.newest }

// FollowingNewest is the largest Kafka timestamp of the following input that was
// applied.
func (p *Partition) FollowingNewest() event.Millis { return p.following.newest }

// Watermark is a time: everything that reached the partition's inputs before it has
// been applied. It is lost with the session, as offsets may go back when a new one
// begins.
func (p *Partition) Watermark() event.Millis { return p.watermark }

// CaughtUp reports whether both inputs were applied to the ends of a snapshot that is
// younger than three seconds.
func (p *Partition) CaughtUp() bool { return p.caughtUp }

// OwnedEnd is the offset after the newest acknowledged record of the first owned
// output, 0 before the first.
func (p *Partition) OwnedEnd() int64 { return p.ownedEnd.Load() }

// Moved reports whether the running transaction has something to commit.
func (p *Partition) Moved() bool {
	return p.leading.next != p.leading.committed || p.following.next != p.following.committed || p.Rows.Changed()
}

// Install follows the record of the installation.
func (p *Partition) Install() *kafka.InstallFollower { return p.engine.install }

// Sharers is over how many partitions this process splits its memory: those that it
// owns, and with a standby all, wherever they are.
func (p *Partition) Sharers() int64 {
	n := p.engine.owned.Load()
	if p.engine.standby != nil {
		n = max(n, p.engine.partitions.Load())
	}
	return max(n, 1)
}

// applyCommit writes what the transaction committed into the state: the rows, what is
// derived from them, and the changelog position behind them, in one batch.
func (p *Partition) applyCommit(now time.Time) error {
	if p.Rows.Changed() {
		b := p.Store.NewBatch()
		for _, k := range p.Rows.keys {
			if err := p.setRow(b, []byte(k), p.Rows.rows[k]); err != nil {
				return err
			}
		}
		p.identity.Position, p.identity.At = p.changelogEnd.Load(), now.UnixMilli()
		p.identity.Input = &inputOffsets{p.leading.next, p.following.next}
		if err := p.identity.putRow(b); err != nil {
			return err
		}
		if err := b.Commit(); err != nil {
			return err
		}
		p.Rows.forgetApplied()
	}
	p.leading.committed = p.leading.next
	p.following.committed = p.following.next
	return nil
}

// setRow writes one row of the changelog into a batch; nil deletes it.
func (p *Partition) setRow(b *state.Batch, key, value []byte) error {
	if value == nil {
		return b.Delete(key)
	}
	if err := p.engine.topo.Index(p, b, key, value); err != nil {
		return err
	}
	return b.Set(key, value)
}

// markCorrupt records that the partition's files must be rebuilt if err is a corruption
// error. It returns err.
func (p *Partition) markCorrupt(err error) error {
	p.corrupt = p.corrupt || needsRebuild(err)
	return err
}

// closeFiles makes everything durable and closes the files. The restore may have failed
// half-way.
func (p *Partition) closeFiles() error {
	var errs []error
	if p.task.Close != nil {
		errs = append(errs, p.task.Close())
	}
	if p.Store != nil {
		errs = append(errs, p.Store.Close())
		p.Store = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing partition %d: %w", p.ID, err)
	}
	return nil
}

// closePartition closes a partition, and wipes it if its files turned out to be
// damaged.
func (p *Partition) closePartition() error {
	err := p.closeFiles()
	if !p.corrupt {
		return err
	}
	p.engine.log.Warn("wiping a partition's damaged state; it is rebuilt from the log", "partition", p.ID)
	return p.wipeFiles()
}
