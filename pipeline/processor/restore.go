package processor

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// restore brings one partition from what is on disk to what is committed: the group's
// committed offsets, as the session fetched them. It runs beside the session; nothing
// else touches the partition meanwhile.
func (s *session) restore(ctx context.Context, p *partition, committed starts) error {
	began := time.Now()
	err := s.open(p)
	if err == nil {
		s.hook(StepOpened)
		err = s.catchUp(ctx, p, committed)
	}
	if rebuildable(err) {
		s.log.Warn("rebuilding a partition's state from the log", "partition", p.id, "reason", err)
		if err = s.rebuild(p); err == nil {
			err = s.catchUp(ctx, p, committed)
		}
	}
	if err != nil {
		return err
	}
	p.clicksPosition, p.conversionsPosition = committed.Clicks, committed.Conversions
	p.committedClicks, p.committedConversions = committed.Clicks, committed.Conversions
	s.hook(StepRestored)
	took := time.Since(began)
	s.m.restore.Observe(took.Seconds())
	s.log.Info("partition restored", "partition", p.id, "took", took.Round(time.Millisecond),
		"changelog_position", p.meta.Position, "clicks_next", p.clicks.Next(), "waiting", p.view.waiting)
	return nil
}

func (s *session) dir(p *partition, what string) string {
	return filepath.Join(s.cfg.StateDir, partitionDir(p.id), what)
}

func partitionDir(id int32) string { return fmt.Sprintf("p%05d", id) }

// open opens what is on disk, and checks that it is this partition's and young enough.
func (s *session) open(p *partition) error {
	if err := s.fs.MkdirAll(s.dir(p, ""), 0o755); err != nil {
		return fmt.Errorf("opening partition %d: %w", p.id, err)
	}
	store, err := state.Open(s.fs, s.dir(p, "journeys"), s.cache, s.log)
	if err != nil {
		return fmt.Errorf("opening partition %d: %w", p.id, err)
	}
	p.store = store
	want := meta{
		Version:   1,
		Cluster:   s.ids.cluster,
		Changelog: hex.EncodeToString(s.ids.changelog[:]),
		Clicks:    hex.EncodeToString(s.ids.clicks[:]),
		Partition: p.id,
	}
	have, ok, err := readMeta(store)
	if err != nil {
		return err
	}
	if ok {
		if err := have.continues(want, s.now()); err != nil {
			return err
		}
		want = have
	}
	p.meta, p.fresh = want, !ok
	cfg := clicklog.DefaultConfig()
	cfg.SlabBytes = s.slabBytes()
	p.clicks, err = clicklog.Open(s.fs, s.dir(p, "clicks"), clicklog.Identity{Cluster: s.ids.cluster,
		Topic: s.ids.clicks, Partition: p.id}, cfg, lateClicks{store}, s.now)
	if err != nil {
		return fmt.Errorf("opening partition %d: %w", p.id, err)
	}
	if p.fresh && p.clicks.Next() >= 0 {
		return fmt.Errorf("%w: there is a click log without the Pebble that holds its late clicks", errStale)
	}
	p.view = newOverlay(store)
	if !p.fresh {
		return nil
	}
	p.meta.At = s.now().UnixMilli()
	b := store.NewBatch()
	if err := errors.Join(p.meta.put(b), b.Commit()); err != nil {
		return err
	}
	return store.Flush()
}

// rebuild wipes a partition's Pebble and click log together (late clicks are in the
// one, the offset that vouches for them in the other) and opens them empty.
func (s *session) rebuild(p *partition) error {
	if p.clicks != nil {
		p.clicks.Close() // what it would say is of no use any more
	}
	store := p.store
	p.clicks, p.store = nil, nil // closed once, whatever comes of it
	if store != nil {
		if err := store.Close(); err != nil {
			return err
		}
	}
	if err := errors.Join(clicklog.Wipe(s.fs, s.dir(p, "clicks")), state.Wipe(s.fs, s.dir(p, "journeys"))); err != nil {
		return fmt.Errorf("rebuilding partition %d: %w", p.id, err)
	}
	return s.open(p)
}

// catchUp reads what the state on disk lacks, and counts what waits. Damage may show
// only in the scan that counts: it must lead to a rebuild like damage that shows in
// opening, or the partition fails the same way in every session from then on.
func (s *session) catchUp(ctx context.Context, p *partition, committed starts) error {
	if err := p.meta.ahead(committed); err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.id, err)
	}
	if err := s.free(ctx, p); err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.id, err)
	}
	if err := s.catchUpChangelog(ctx, p, committed); err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.id, err)
	}
	if err := s.catchUpClicks(ctx, p, committed.Clicks); err != nil {
		return fmt.Errorf("restoring partition %d: %w", p.id, err)
	}
	return p.count()
}

// ends are a partition's offsets as the broker lists them.
type ends struct{ start, stable, end int64 }

func (s *session) list(ctx context.Context, name string, id int32) (e ends, err error) {
	for _, x := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		into *int64
	}{{s.adm.ListStartOffsets, &e.start}, {s.adm.ListCommittedOffsets, &e.stable}, {s.adm.ListEndOffsets, &e.end}} {
		listed, err := x.list(ctx, name)
		o, ok := listed.Lookup(name, id) // an error of another partition is not ours
		if !ok || o.Err != nil {
			return e, fmt.Errorf("listing offsets of %s partition %d: %w",
				name, id, errors.Join(err, o.Err, errSession))
		}
		*x.into = o.Offset
	}
	return e, nil
}

// catchUpChangelog applies the changelog from Pebble's position to its high watermark.
// The last stable offset would be too low: a transaction that committed a moment ago
// may not have moved it yet. Every transaction that can still commit wrote before this
// assignment, so it lies below the watermark.
func (s *session) catchUpChangelog(ctx context.Context, p *partition, committed starts) error {
	name, listed := s.kafka.Topic(topic.Changelog), s.now()
	at, err := s.list(ctx, name, p.id)
	if err != nil {
		return err
	}
	switch {
	case p.meta.Position < at.start && !p.fresh:
		return fmt.Errorf("%w: it stands at %d, the changelog begins at %d", errStale, p.meta.Position, at.start)
	case p.meta.Position > at.end:
		return fmt.Errorf("%w: it stands at %d, the changelog ends at %d", errStale, p.meta.Position, at.end)
	}
	p.meta.Position = max(p.meta.Position, at.start)
	p.changelogEnd.Store(p.meta.Position)
	if p.meta.Position >= at.end {
		p.meta.Input = &committed
		return nil
	}
	stood := p.meta.Position
	return s.read(ctx, name, p.id, p.meta.Position, at.end, func(records []*kgo.Record) error {
		b := p.store.NewBatch()
		for _, r := range records {
			p.meta.Position = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if from, ok := event.ParseVoid(r.Key); ok {
				if from < stood && !p.fresh {
					return fmt.Errorf("%w: it stood at %d, and what was written from %d on was aborted",
						errStale, stood, from)
				}
				continue
			}
			if err := setRow(b, r.Key, r.Value); err != nil {
				return fmt.Errorf("%s offset %d: %w", name, r.Offset, err)
			}
			s.m.restored.WithLabelValues(topic.Changelog).Inc()
		}
		if p.meta.Position >= at.end {
			// until then the state is as old as it was: rows may be missing whose
			// tombstones are gone next time
			p.meta.At = listed.UnixMilli()
			p.meta.Input = &committed
		}
		p.changelogEnd.Store(p.meta.Position)
		if err := p.meta.put(b); err != nil {
			return err
		}
		return b.Commit()
	})
}

// catchUpClicks puts the clicks that were committed and that the log lacks: what was in
// memory when the process ended, or everything.
func (s *session) catchUpClicks(ctx context.Context, p *partition, committed int64) error {
	name := s.kafka.Topic(topic.Clicks)
	at, err := s.list(ctx, name, p.id)
	if err != nil {
		return err
	}
	from := p.clicks.Next()
	switch {
	case from > at.end:
		return fmt.Errorf("%w: the click log stands at %d, clicks ends at %d", errStale, from, at.end)
	case from >= 0 && from < at.start:
		return fmt.Errorf("%w: the click log stands at %d, clicks begins at %d", errStale, from, at.start)
	}
	from = max(from, at.start)
	if from >= committed {
		return nil
	}
	return s.read(ctx, name, p.id, from, committed, func(records []*kgo.Record) error {
		for _, r := range records {
			if r.Attrs.IsControl() {
				p.clicks.Skip(r.Offset)
				continue
			}
			if _, _, err := p.keep(r); err != nil {
				return err
			}
		}
		s.m.restored.WithLabelValues(topic.Clicks).Add(float64(len(records)))
		return nil
	})
}

// read hands all records of [from, to) to apply, in order, control records included:
// only they show that an aborted end has been passed.
func (s *session) read(ctx context.Context, name string, id int32, from, to int64,
	apply func([]*kgo.Record) error) error {
	cfg := s.kafka
	cfg.ClientID += "-restore"
	cl, err := kafka.NewClient(cfg, s.log, nil, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {id: kgo.NewOffset().At(from)}}))
	if err != nil {
		return err
	}
	defer cl.Close()
	began, told := time.Now(), time.Now()
	for at := from; at < to; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s partition %d from %d: %w", name, id, at, err)
		}
		records := fetches.Records()
		for len(records) > 0 && records[len(records)-1].Offset >= to {
			records = records[:len(records)-1]
			at = to // the log has passed the end
		}
		if len(records) > 0 {
			if err := apply(records); err != nil {
				return err
			}
			at = max(at, records[len(records)-1].Offset+1)
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			s.log.Info("restoring", "topic", name, "partition", id, "offset", at, "of", to,
				"per_second", int64(float64(at-from)/time.Since(began).Seconds()))
		}
	}
	return nil
}

// count reads what the rows say about waiting events and totals.
func (p *partition) count() error {
	p.totals = totals{}
	var broken error
	err := p.store.Scan([]byte{'D'}, []byte{'E'}, func(key, value []byte) bool {
		end, t, _, ok := event.ParseDeadline(key)
		if !ok || len(value) != 1 {
			broken = fmt.Errorf("deadline row %x %x", key, value)
			return false
		}
		p.view.waiting++
		p.view.earliest = min(p.view.earliest, end)
		if value[0] == event.KindWaitClick {
			p.view.clickWaits[t] = struct{}{}
		}
		return true
	})
	if err := errors.Join(err, broken); err != nil {
		return fmt.Errorf("counting waiting events of partition %d: %w", p.id, err)
	}
	v, ok, err := p.store.Get(totalsKey, nil)
	if err == nil && ok {
		err = p.totals.parse(v)
	}
	if err != nil {
		return fmt.Errorf("reading totals of partition %d: %w", p.id, err)
	}
	p.applied = p.totals
	p.outcomesEnd.Store(p.totals.outcomesEnd)
	return nil
}
