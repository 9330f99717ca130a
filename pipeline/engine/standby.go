package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// standby keeps the state of partitions that this process does not own as near to what
// is committed as it can, so that the restore of one that moves here has little to
// read. It only reads: it is no member of the group, and writes nothing to Kafka.
//
// What it has applied is never ahead of the group's committed offsets. It reads
// committed records, so it passes a record only when the marker of its transaction is
// written; that transaction's offsets are committed then, or pending, and the session
// that fetches offsets waits for pending ones. The side log may be: it is of an input,
// and keeps nothing twice.
//
// One goroutine opens, follows and closes. A restore takes a partition away from it,
// with its files open.
type standby struct {
	engine *Engine
	log    *slog.Logger
	// told is closed when the group has said for the first time what we own.
	told chan struct{}
	done chan struct{}

	mu    sync.Mutex
	owned map[int32]bool // nil until the group has said it
	all   map[int32]*follower

	retries map[int32]*standbyRetry // of the goroutine
}

// standbyRetry is when a partition may be opened again that could not be followed.
type standbyRetry struct {
	outage.Backoff
	at time.Time
}

// follower is one partition of a standby.
type follower struct {
	p    *Partition
	ids  topicIDs
	busy chan struct{} // holds one while somebody works on the partition

	// Of the standby's goroutine.
	from      int64 // the leading input was read from here on
	changelog changelogEnd
	leading   int64 // end of the leading input, listed with changelog
	warm      bool  // both were read to the ends that were listed the time before
}

const (
	// standbyInterval is how often a standby lists where the logs end, and looks for
	// partitions to open and for rows to delete.
	standbyInterval = time.Second
	// minStandbyRetry and maxStandbyRetry are after how long a partition is opened again
	// that could not be followed.
	minStandbyRetry = 5 * time.Second
	maxStandbyRetry = 5 * time.Minute
	// maxStandbyPause is the longest between two attempts to reach Kafka.
	maxStandbyPause = 10 * time.Second
	// standbyFetch bounds the bytes that one broker sends at once.
	standbyFetch = 16 << 20
)

func newStandby(e *Engine) *standby {
	return &standby{
		engine:  e,
		log:     e.log.With("client", "standby"),
		told:    make(chan struct{}),
		done:    make(chan struct{}),
		all:     make(map[int32]*follower),
		retries: make(map[int32]*standbyRetry),
	}
}

// followOthers is told which partitions the group gave to this process. What it owned
// before is closed. From here on every other partition is followed, until the group says
// something else.
func (y *standby) followOthers(owned []int32) {
	if y == nil {
		return
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.owned == nil {
		close(y.told)
	}
	y.owned = make(map[int32]bool)
	for _, id := range owned {
		y.owned[id] = true
	}
}

// takePartition returns a partition for its restore: with open files, if a standby has
// followed it.
func (e *Engine) takePartition(ctx context.Context, id int32) (*Partition, error) {
	var p *Partition
	if e.standby != nil {
		var err error
		if p, err = e.standby.takePartition(ctx, id); err != nil {
			return nil, err
		}
	}
	if p == nil {
		p = newPartition(e, id)
	}
	p.transition(restoring)
	return p, nil
}

// takePartition returns nil for a partition that is not open here. The standby's
// goroutine may be writing to the partition's files, which does not end on a full disk.
func (y *standby) takePartition(ctx context.Context, id int32) (*Partition, error) {
	y.mu.Lock()
	f := y.all[id]
	y.mu.Unlock()
	if f == nil {
		return nil, nil
	}
	select {
	case f.busy <- struct{}{}:
		defer func() { <-f.busy }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(y.engine.env.StuckAfter):
		return nil, fmt.Errorf("%w: the standby of partition %d does not let go of it", ErrStuck, id)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.all[id] != f {
		return nil, nil
	}
	delete(y.all, id)
	y.engine.m.forgetStandby(id)
	return f.p, nil
}

// hold waits until nobody else works on a follower, and reports whether it is still
// followed; then release ends it.
func (y *standby) hold(f *follower) bool {
	f.busy <- struct{}{}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.all[f.p.ID] == f {
		return true
	}
	<-f.busy
	return false
}

func (f *follower) release() { <-f.busy }

// run follows until ctx is done, and closes everything then.
func (y *standby) run(ctx context.Context) {
	defer close(y.done)
	defer y.closeAll()
	const trying = "following partitions in standby"
	pauses := outage.Backoff{Min: minRestartPause, Max: maxStandbyPause}
	select {
	case <-y.told:
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		err := y.follow(ctx, func() {
			pauses.Reset()
			y.engine.kafka.Watch.Clear(trying)
		})
		if ctx.Err() != nil {
			return
		}
		pause := pauses.Next()
		if kafka.Retryable(err) {
			y.engine.kafka.Watch.Failed(trying, pause, err)
		} else {
			y.log.Warn("standby cannot follow", "error", err, "again_in", pause)
		}
		outage.Sleep(ctx, pause)
	}
}

// close waits until everything is closed. On a full disk Pebble repeats a flush without
// end.
func (y *standby) close() error {
	select {
	case <-y.done:
		return nil
	case <-time.After(y.engine.env.StuckAfter):
		return fmt.Errorf("%w: the standby does not close its partitions", ErrStuck)
	}
}

func (y *standby) closeAll() {
	y.mu.Lock()
	all := slices.Collect(maps.Values(y.all))
	y.mu.Unlock()
	for _, f := range all {
		if y.hold(f) {
			if err := y.drop(f); err != nil {
				y.log.Warn("closing a standby partition", "partition", f.p.ID, "error", err)
			}
			f.release()
		}
	}
}

// drop closes a follower that is held, and wipes it if its files turned out to be
// useless. Only then is it gone: a restore that begins meanwhile waits for it, and does
// not open files that are being closed or deleted.
func (y *standby) drop(f *follower) error {
	f.p.transition(givenBack)
	err := f.p.closePartition()
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.all, f.p.ID)
	y.engine.m.forgetStandby(f.p.ID)
	return err
}

// giveUp drops a follower that is held, because of an error. It is opened again later:
// from nothing if its state is of no use.
func (y *standby) giveUp(f *follower, err error) {
	retry := y.retries[f.p.ID]
	if retry == nil {
		retry = &standbyRetry{Backoff: outage.Backoff{Min: minStandbyRetry, Max: maxStandbyRetry}}
		y.retries[f.p.ID] = retry
	}
	pause := retry.Next()
	retry.at = time.Now().Add(pause)
	_ = f.p.markCorrupt(err)
	y.log.Warn("a standby partition cannot be followed; it is opened again", "partition", f.p.ID,
		"from_nothing", f.p.corrupt, "in", pause, "error", err)
	if err := y.drop(f); err != nil {
		y.log.Warn("closing a standby partition", "partition", f.p.ID, "error", err)
	}
}

// mayOpen are the partitions of which nobody in this process has files open now.
func (y *standby) mayOpen(partitions []int32) map[int32]bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	free := make(map[int32]bool)
	for _, id := range partitions {
		retry := y.retries[id]
		free[id] = !y.owned[id] && y.all[id] == nil && (retry == nil || time.Now().After(retry.at))
	}
	return free
}

// begin adds a follower, held, unless the partition was given to us meanwhile.
func (y *standby) begin(id int32, ids topicIDs) *follower {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.owned[id] {
		return nil
	}
	f := &follower{p: newPartition(y.engine, id), ids: ids, busy: make(chan struct{}, 1)}
	f.p.transition(following)
	f.busy <- struct{}{}
	y.all[id] = f
	return f
}

// open opens a follower's files, and finds out from where on they lack what is
// committed.
func (f *follower) open(changelog, leading kafka.LogOffsets) error {
	enter := func() (err error) {
		if err = f.p.enterChangelog(changelog); err == nil {
			f.from, err = f.p.enterLeading(leading)
		}
		return err
	}
	err := f.p.openFiles(f.ids)
	if err == nil {
		err = enter()
	}
	if needsRebuild(err) {
		f.p.engine.log.Warn("rebuilding a standby partition's state from the log", "partition", f.p.ID, "reason", err)
		if err = f.p.rebuildFiles(f.ids); err == nil {
			err = enter()
		}
	}
	return err
}

// next is the next offset of the leading input to read.
func (f *follower) next() int64 { return max(f.from, f.p.task.SideLog.Next()) }

// applyFollowed applies what was polled of the changelog or of the leading input.
func (f *follower) applyFollowed(records []*kgo.Record, fromLeading bool) error {
	if !fromLeading {
		_, err := f.p.applyChangelog(records, f.changelog)
		return err
	}
	for _, r := range records {
		f.p.leading.newest = max(f.p.leading.newest, event.MillisOf(r.Timestamp))
		if err := f.p.task.SideLog.Keep(r); err != nil {
			return fmt.Errorf("keeping %s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
	}
	return nil
}

// noteEnds takes note of where the logs end, lets the task delete what is old, and makes
// durable what is due.
func (f *follower) noteEnds(changelog changelogEnd, leading int64) error {
	p := f.p
	f.warm = f.changelog.listed != (time.Time{}) && p.identity.Position >= f.changelog.offset && f.next() >= f.leading
	f.changelog, f.leading = changelog, leading
	if p.identity.Position >= changelog.offset {
		p.identity.At = changelog.listed.UnixMilli()
	}
	if err := p.identity.checkContinues(p.wantedIdentity(f.ids), p.engine.env.Now()); err != nil {
		return err
	}
	if p.task.Followed != nil {
		if err := p.task.Followed(); err != nil {
			return fmt.Errorf("cleaning up partition %d: %w", p.ID, err)
		}
	}
	if time.Since(p.lastFlush) < p.engine.env.FlushEvery {
		return nil
	}
	p.lastFlush = time.Now()
	b := p.Store.NewBatch()
	return errors.Join(p.identity.putRow(b), b.Commit(), p.Store.Flush())
}
