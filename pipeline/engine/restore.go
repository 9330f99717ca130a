package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// restorePartition brings one partition from what is on disk to what is committed: the
// group's committed offsets, as the session fetched them. It runs beside the session;
// nothing else touches the partition meanwhile.
func (s *session) restorePartition(ctx context.Context, p *Partition, at groupOffsets) error {
	committed, began := at.inputOffsets, time.Now()
	// What its former owner knew of given-up tokens, this session must know.
	if err := s.engine.install.Await(ctx, began); err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.ID, err)
	}
	err := p.openFiles(s.ids)
	if err == nil && at.starts && !p.wasEmpty {
		err = fmt.Errorf("%w: the partition was added, and nothing of it is committed", errStale)
	}
	if err == nil {
		s.env.Step(StepOpened)
		err = s.catchUp(ctx, p, committed)
	}
	if needsRebuild(err) {
		s.log.Warn("rebuilding a partition's state from the log", "partition", p.ID, "reason", err)
		if err = p.rebuildFiles(s.ids); err == nil {
			err = s.catchUp(ctx, p, committed)
		}
	}
	if err == nil && at.starts {
		err = s.checkStart(ctx, p)
	}
	if err != nil {
		return err
	}
	p.leading = inputPosition{next: committed.Leading, committed: committed.Leading}
	p.following = inputPosition{next: committed.Following, committed: committed.Following}
	s.env.Step(StepRestored)
	took := time.Since(began)
	s.m.restore.Observe(took.Seconds())
	s.log.Info("partition restored", "partition", p.ID, "took", took.Round(time.Millisecond),
		"changelog_position", p.identity.Position, "side_log_next", p.task.SideLog.Next())
	return nil
}

// checkStart returns kafka.ErrOffsets unless a partition without a commit is at its start.
// With the first transaction of a partition its offsets are committed, so one whose
// changelog has a row has lost its commit: judged anew, its events would count twice.
func (s *session) checkStart(ctx context.Context, p *Partition) error {
	if p.hasRows {
		return fmt.Errorf("%w: group %s has no committed offset of partition %d, which was added, and its changelog "+
			"has rows: set it with kafka-consumer-groups --reset-offsets to where the group was", kafka.ErrOffsets,
			s.groupName(), p.ID)
	}
	for _, name := range []string{s.leading, s.following} {
		at, err := s.listOffsets(ctx, name, p.ID)
		if err != nil {
			return err
		}
		if at.Start > 0 {
			return fmt.Errorf("%w: group %s has no committed offset of %s partition %d, which was added, and its "+
				"records [0, %d) are gone", kafka.ErrOffsets, s.groupName(), name, p.ID, at.Start)
		}
	}
	return nil
}

// StoreDir is the name of the store's directory below a partition's. It is older than
// the engine.
const StoreDir = "journeys"

func (p *Partition) stateDir() string { return p.engine.env.FS.PathJoin(p.Dir, StoreDir) }

// openFiles opens what is on disk, and checks that it is this partition's and young
// enough. Files that a standby has open are only checked: the topics may have been
// created again since it opened them.
func (p *Partition) openFiles(ids topicIDs) error {
	if p.Store != nil {
		return p.identity.checkContinues(p.wantedIdentity(ids), p.engine.env.Now())
	}
	fs := p.engine.env.FS
	if err := fs.MkdirAll(p.Dir, 0o755); err != nil {
		return fmt.Errorf("opening partition %d: %w", p.ID, err)
	}
	store, err := state.Open(fs, p.stateDir(), p.engine.cache, p.engine.log)
	if err != nil {
		return fmt.Errorf("opening partition %d: %w", p.ID, err)
	}
	p.Store = store
	want := p.wantedIdentity(ids)
	have, ok, err := readIdentity(store)
	if err != nil {
		return err
	}
	if ok {
		if err := have.checkContinues(want, p.engine.env.Now()); err != nil {
			return err
		}
		want = have
	}
	p.identity, p.fresh, p.wasEmpty, p.readFrom = want, !ok, !ok, want.Position
	p.Identity = Identity{Cluster: ids.cluster, Leading: ids.leading, Partition: p.ID}
	p.Rows = NewRows(store, p.engine.topo.Tables)
	if p.task, err = p.engine.topo.Open(p); err != nil {
		return fmt.Errorf("opening partition %d: %w", p.ID, err)
	}
	if p.fresh && p.task.SideLog.Next() >= 0 {
		return fmt.Errorf("%w: there is a side log without the store beside it", errStale)
	}
	if !p.fresh {
		return nil
	}
	p.identity.At = p.engine.env.Now().UnixMilli()
	b := store.NewBatch()
	if err := errors.Join(p.identity.putRow(b), b.Commit()); err != nil {
		return err
	}
	return store.Flush()
}

// wantedIdentity is the identity of an empty state of the partition.
func (p *Partition) wantedIdentity(ids topicIDs) stateIdentity {
	return stateIdentity{
		Version:   1,
		Cluster:   ids.cluster,
		Changelog: hex.EncodeToString(ids.changelog[:]),
		Clicks:    hex.EncodeToString(ids.leading[:]),
		Partition: p.ID,
	}
}

// rebuildFiles wipes a partition's store and side log together and opens them empty:
// the side log may keep records in the store, and vouches for them by its next offset.
func (p *Partition) rebuildFiles(ids topicIDs) error {
	if p.task.Close != nil {
		_ = p.task.Close() // its files are deleted next
	}
	store := p.Store
	p.task, p.Store = Task{}, nil // closed once, whatever comes of it
	if store != nil {
		if err := store.Close(); err != nil {
			return err
		}
	}
	if err := p.wipeFiles(); err != nil {
		return fmt.Errorf("rebuilding partition %d: %w", p.ID, err)
	}
	return p.openFiles(ids)
}

// wipeFiles deletes a partition's closed files.
func (p *Partition) wipeFiles() error {
	fs := p.engine.env.FS
	return errors.Join(p.engine.topo.WipeSideLog(fs, p.Dir), state.Wipe(fs, p.stateDir()))
}

// catchUp reads what the state on disk lacks, and lets the task read its rows. Damage
// may show only then: it must lead to a rebuild like damage that shows in opening, or
// the partition fails the same way in every session from then on.
func (s *session) catchUp(ctx context.Context, p *Partition, committed inputOffsets) error {
	err := p.identity.checkCommitted(committed)
	if err == nil {
		err = s.endBlockers(ctx, p)
	}
	if err == nil {
		err = s.catchUpChangelog(ctx, p, committed)
	}
	if err == nil {
		err = s.catchUpSideLog(ctx, p, committed.Leading)
	}
	if err == nil {
		err = p.task.Restored()
	}
	if err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.ID, err)
	}
	return nil
}

// listOffsets lists a partition's offsets. An error of another partition is not
// reported.
func (s *session) listOffsets(ctx context.Context, name string, id int32) (at kafka.LogOffsets, err error) {
	offsets, err := kafka.ListOffsets(ctx, s.adm, name)
	if err == nil {
		at, err = offsets.Of(name, id)
	}
	if err != nil {
		return at, fmt.Errorf("%w: %w", err, errSession)
	}
	return at, nil
}

// catchUpChangelog applies the changelog from the state's position to its high
// watermark. The last stable offset would be too low: a transaction that committed a
// moment ago may not have moved it yet. Every transaction that can still commit wrote
// before this assignment, so it lies below the watermark.
func (s *session) catchUpChangelog(ctx context.Context, p *Partition, committed inputOffsets) error {
	name, listed := s.kafka.Topic(s.topo.Changelog), s.env.Now()
	at, err := s.listOffsets(ctx, name, p.ID)
	if err != nil {
		return err
	}
	if err := p.enterChangelog(at); err != nil {
		return err
	}
	if p.identity.Position >= at.End {
		p.identity.Input = &committed
		return nil
	}
	end := changelogEnd{offset: at.End, listed: listed, input: &committed}
	return s.readRange(ctx, name, p.ID, p.identity.Position, at.End, func(records []*kgo.Record) error {
		rows, err := p.applyChangelog(records, end)
		s.m.restored.WithLabelValues(s.topo.Changelog).Add(float64(rows))
		return err
	})
}

// enterChangelog returns errStale unless the changelog can be read on from the state's
// position.
func (p *Partition) enterChangelog(at kafka.LogOffsets) error {
	switch {
	case p.identity.Position < at.Start && !p.fresh:
		return fmt.Errorf("%w: its position is %d, the changelog begins at %d", errStale, p.identity.Position, at.Start)
	case p.identity.Position > at.End:
		return fmt.Errorf("%w: its position is %d, the changelog ends at %d", errStale, p.identity.Position, at.End)
	}
	p.identity.Position = max(p.identity.Position, at.Start)
	p.changelogEnd.Store(p.identity.Position)
	p.fresh = false
	return nil
}

// changelogEnd is where the changelog of a partition ended at a time.
type changelogEnd struct {
	offset int64
	listed time.Time     // before that no row behind offset was written
	input  *inputOffsets // the committed offsets that belong to it; nil: not known
}

// applyChangelog applies committed records of the changelog to the state, in one batch
// with the position behind them. It returns how many rows they were.
func (p *Partition) applyChangelog(records []*kgo.Record, end changelogEnd) (rows int, err error) {
	b := p.Store.NewBatch()
	for _, r := range records {
		p.identity.Position = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		if from, ok := event.ParseVoid(r.Key); ok {
			if from < p.readFrom {
				return rows, fmt.Errorf("%w: its position was %d, and what was written from %d on was aborted",
					errStale, p.readFrom, from)
			}
			continue
		}
		p.hasRows = true
		if err := p.setRow(b, r.Key, r.Value); err != nil {
			return rows, fmt.Errorf("%s offset %d: %w", r.Topic, r.Offset, err)
		}
		rows++
	}
	if p.identity.Position >= end.offset {
		// Only now: until the end is reached the state is as old as it was, and rows may
		// be missing whose tombstones are gone next time.
		p.identity.At = end.listed.UnixMilli()
		if end.input != nil {
			p.identity.Input = end.input
		}
	}
	p.changelogEnd.Store(p.identity.Position)
	return rows, errors.Join(p.identity.putRow(b), b.Commit())
}

// catchUpSideLog keeps the records of the leading input that were committed and that
// the side log lacks: what was in memory when the process ended, or everything.
func (s *session) catchUpSideLog(ctx context.Context, p *Partition, committed int64) error {
	at, err := s.listOffsets(ctx, s.leading, p.ID)
	if err != nil {
		return err
	}
	from, err := p.enterLeading(at)
	if err != nil || from >= committed {
		return err
	}
	return s.readRange(ctx, s.leading, p.ID, from, committed, func(records []*kgo.Record) error {
		for _, r := range records {
			if err := p.task.SideLog.Keep(r); err != nil {
				return err
			}
		}
		s.m.restored.WithLabelValues(s.topo.Leading.Topic).Add(float64(len(records)))
		return nil
	})
}

// enterLeading returns from where on the side log lacks the leading input, or errStale
// if the topic does not have all of that.
func (p *Partition) enterLeading(at kafka.LogOffsets) (from int64, err error) {
	name := p.engine.topo.Leading.Topic
	from = p.task.SideLog.Next()
	switch {
	case from > at.End:
		return 0, fmt.Errorf("%w: the side log's next offset is %d, %s ends at %d", errStale, from, name, at.End)
	case from >= 0 && from < at.Start:
		return 0, fmt.Errorf("%w: the side log's next offset is %d, %s begins at %d", errStale, from, name, at.Start)
	}
	return max(from, at.Start), nil
}

// readRange calls apply with all records of [from, to), in order, with control records:
// if the range ends in an aborted transaction, only its marker shows that the end has
// been reached.
func (s *session) readRange(ctx context.Context, name string, id int32, from, to int64,
	apply func([]*kgo.Record) error) error {
	reader := kafka.RangeReader{
		Kafka:     s.kafka,
		Log:       s.log,
		Isolation: kgo.ReadCommitted(),
		Markers:   true,
	}
	reader.Kafka.ClientID += "-restore"
	return reader.Each(ctx, apply, kafka.Range{Topic: name, Partition: id, From: from, To: to})
}
