package engine

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topology is what an Engine runs. Topics are named without the installation's prefix.
type Topology struct {
	// Name is part of the metrics' names: partners_NAME_….
	Name string
	// Group is the consumer group. A slot's transactional id is GROUP-INSTANCE.
	Group string
	// Leading and Following are the inputs, co-partitioned: partition p of both belongs
	// to one task. Records of Following are buffered until Leading was read up to their
	// time.
	Leading, Following Input
	// Owned are the outputs whose partition p only the owner of the inputs' partition p
	// writes.
	Owned []string
	// Shared are the outputs that every slot writes.
	Shared []string
	// Changelog is the compacted topic from which state is rebuilt: one record for each
	// changed row, in partition p.
	Changelog string
	// Margin is how far a watermark stays behind the time at which end offsets were
	// listed: for clocks that differ and requests under way.
	Margin time.Duration
	// Tables has, by the first byte of a row's key, the length of the prefix within
	// which rows of that table are scanned.
	Tables map[byte]int
	// Index adds to a batch what is derived from a row of a partition's changelog and is
	// not part of it, such as an expiry index. The task may not be open yet.
	Index func(p *Partition, b *state.Batch, key, value []byte) error
	// Open opens a partition's side log in its directory and returns its task.
	Open func(p *Partition) (Task, error)
	// WipeSideLog deletes the closed side log below a partition's directory.
	WipeSideLog func(fs vfs.FS, dir string) error
}

// Input is a topic that a topology reads.
type Input struct {
	// Topic is its name.
	Topic string
	// Retention is how long the topic must keep its records; 0: not checked.
	Retention time.Duration
	// RetentionHint says in an error which setting needs it and what to run.
	RetentionHint string
}

// Task is what a topology does with one partition. The engine calls one function at a
// time. An error ends the session; one that wraps ErrCorrupt also wipes the partition's
// files.
type Task struct {
	// SideLog keeps the records of the leading input.
	SideLog SideLog
	// Restored reads from the rows what the task keeps in memory.
	Restored func() error
	// Ready reports whether a record of the following input, polled at a time, can be
	// applied yet; if not, it and what follows it in its partition wait. Apply of that
	// record comes next. nil: every record can.
	Ready func(r *kgo.Record, polled time.Time) bool
	// Apply judges one record of an input. A record may come again after an aborted
	// transaction.
	Apply func(tx *Tx, r *kgo.Record) error
	// Tick acts on the partition's watermark, once in each transaction, records or not.
	Tick func(tx *Tx) error
	// Finish writes last rows and records. Everything produced before it is
	// acknowledged.
	Finish func(tx *Tx) error
	// Committed runs behind a commit: what no aborted transaction may do, such as
	// deleting what an input could ask for again.
	Committed func() error
	// Followed runs in a standby every second, behind what it has applied: it deletes
	// what the owner deletes without a row. Apply has never run, nor Restored. nil:
	// there is nothing to delete.
	Followed func() error
	// Close closes the side log. The task may be half restored.
	Close func() error
}

// SideLog stores records of the leading input outside of the state, in order of offset.
// It needs no changelog: its topic is one. It rejects nothing: a record that cannot be
// used only moves Next.
type SideLog struct {
	// Next is the offset after the newest record that it has, or −1 if there is none.
	Next func() int64
	// Keep stores a record, unless it is stored already. Control records are passed
	// too.
	Keep func(r *kgo.Record) error
}
