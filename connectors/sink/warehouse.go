package sink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// warehouse is what a database says of itself, in the table of that name.
type warehouse struct {
	ID    string `ch:"id"`
	Group string `ch:"sink_group"` // full name of the group that fills it; empty: none has yet
}

// takeOver is the end of every refusal to fill a warehouse.
const takeOver = "a second warehouse has a group of its own: give its sinks and commands -group-suffix NAME; if this " +
	"warehouse takes the place of another, or goes to another group, stop the sinks and run `ctl warehouse repair " +
	"-take-group`"

// readWarehouse reads which warehouse the database is. The id is empty if the table is.
func readWarehouse(ctx context.Context, wh *clickhouse.Conn) (warehouse, error) {
	var found []warehouse
	err := wh.Select(ctx, &found, `
		SELECT id, argMax(warehouse.sink_group, written_at) AS sink_group
		FROM warehouse
		GROUP BY id
		ORDER BY id
		LIMIT 1
		SETTINGS select_sequential_consistency = 1`)
	if clickhouse.Code(err) == unknownTable {
		return warehouse{}, fmt.Errorf("reading which warehouse this is: run `ctl migrate`: %w", err)
	}
	if err != nil {
		return warehouse{}, fmt.Errorf("reading which warehouse this is: %w", err)
	}
	if len(found) == 0 {
		return warehouse{}, nil
	}
	return found[0], nil
}

// unknownTable is ClickHouse's error code for it.
const unknownTable = 60

// identify reads which warehouse the tables are, and which group fills them.
func (s *Sink) identify(ctx context.Context) (err error) {
	if s.warehouse, err = readWarehouse(ctx, s.wh); err != nil {
		return err
	}
	if s.warehouse.ID == "" {
		return fmt.Errorf("%w: table warehouse is empty, `ctl migrate` has written a row: restore it from a backup, "+
			"or stop the sinks and run `ctl warehouse repair -take-group`, which makes a new one", ErrOtherWarehouse)
	}
	return nil
}

// checkOwner returns ErrOtherWarehouse if the group fills another warehouse, or another
// group fills this one. It asks both again: either may have changed.
func (s *Sink) checkOwner(ctx context.Context) (now warehouse, err error) {
	if now, err = readWarehouse(ctx, s.wh); err != nil {
		return now, err
	}
	if now.ID != s.warehouse.ID {
		return now, fmt.Errorf("%w: -clickhouse was warehouse %s at first and is %s now: another database has its "+
			"address, or it was restored; start again", ErrOtherWarehouse, s.warehouse.ID, now.ID)
	}
	if group := s.kafka.SinkGroup(); now.Group != "" && now.Group != group {
		return now, fmt.Errorf("%w: -clickhouse is warehouse %s, which group %s fills, and this is group %s: is "+
			"-clickhouse right? %s", ErrOtherWarehouse, now.ID, now.Group, group, takeOver)
	}
	commits, err := s.fetchCommits(ctx)
	if err != nil {
		return now, err
	}
	for name := range s.mappings {
		for id := range int32(s.partitionCounts[name]) {
			commit, ok := commits.Lookup(s.kafka.Topic(name), id)
			if !ok {
				continue
			}
			note, err := parseCommitNote(commit.Metadata)
			if err != nil {
				return now, fmt.Errorf("%s partition %d: %w", name, id, err)
			}
			if err := s.checkNote(note); err != nil {
				return now, fmt.Errorf("%s partition %d: %w", name, id, err)
			}
		}
	}
	return now, nil
}

// fetchCommits reads all commits of the group; one that does not exist has none.
func (s *Sink) fetchCommits(ctx context.Context) (kadm.OffsetResponses, error) {
	commits, err := kadm.NewClient(s.client).FetchOffsets(ctx, s.kafka.SinkGroup())
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("%w: reading the group's commits: %w", errKafka, err)
	}
	return commits, nil
}

// checkNote returns ErrOtherWarehouse if a commit names another warehouse. One of an
// earlier release names none: the first sink that repeats it adopts it.
func (s *Sink) checkNote(note commitNote) error {
	if note.warehouse == "" || note.warehouse == s.warehouse.ID {
		return nil
	}
	return fmt.Errorf("%w: group %s fills warehouse %s, and -clickhouse is warehouse %s: is -clickhouse right? %s",
		ErrOtherWarehouse, s.kafka.SinkGroup(), note.warehouse, s.warehouse.ID, takeOver)
}

// adopt makes sure that the group and the warehouse belong together, and writes the group
// into the warehouse if it has none.
func (s *Sink) adopt(ctx context.Context) error {
	now, err := s.checkOwner(ctx)
	if err != nil || now.Group != "" {
		return err
	}
	return s.writeGroup(ctx)
}

// writeGroup writes into the warehouse which group fills it.
func (s *Sink) writeGroup(ctx context.Context) error {
	into := clickhouse.Insert{Table: "warehouse", Columns: []string{"id", "sink_group"}}
	err := s.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
		return row.Append(s.warehouse.ID, s.kafka.SinkGroup())
	})
	if err != nil {
		return fmt.Errorf("writing which group fills the warehouse: %w", err)
	}
	return nil
}

// takeGroup commits the ends of all tables with the warehouse's id where the group has no
// commit, or one for another warehouse, and writes the group into the warehouse. Killed
// between, it is repeated.
func (r *repairer) takeGroup(ctx context.Context, claims []*partitionClaim) error {
	if err := r.readFinishedBatches(ctx, claims); err != nil {
		return err
	}
	metadata := commitNote{warehouse: r.warehouse.ID}.encodeMetadata()
	var taken kadm.Offsets
	for _, c := range claims {
		if c.committed >= 0 && (c.commitNote.warehouse == r.warehouse.ID || !r.take) {
			continue
		}
		taken.Add(kadm.Offset{Topic: r.kafka.Topic(c.mapping.topic), Partition: c.partition,
			At: max(c.contiguousEnd, c.logStart), LeaderEpoch: -1, Metadata: metadata})
	}
	if len(taken) > 0 {
		if err := kadm.NewClient(r.client).CommitAllOffsets(ctx, r.kafka.SinkGroup(), taken); err != nil {
			return fmt.Errorf("committing for group %s: %w", r.kafka.SinkGroup(), err)
		}
	}
	if err := r.afterStep("group-committed"); err != nil {
		return err
	}
	return r.writeGroup(ctx)
}

// claimWarehouse identifies the warehouse of a repair. With take it may belong to another
// group, which has no members, or have no id, and the group may fill another one. Members
// that join later wait for the end of the repair, and then find another group's warehouse.
func (r *repairer) claimWarehouse(ctx context.Context, take bool) error {
	if !take {
		if err := r.identify(ctx); err != nil {
			return err
		}
		_, err := r.checkOwner(ctx)
		return err
	}
	var err error
	if r.warehouse, err = readWarehouse(ctx, r.wh); err != nil {
		return err
	}
	if other := r.warehouse.Group; other != "" && other != r.kafka.SinkGroup() {
		if err := checkNoMembers(ctx, r.client, other, leaveGroup); err != nil {
			return fmt.Errorf("-take-group: this warehouse would go from group %s to group %s: %w", other,
				r.kafka.SinkGroup(), err)
		}
	}
	if r.warehouse.ID == "" {
		r.warehouse.ID = "wh_" + rand.Text()
		return r.writeGroup(ctx)
	}
	return nil
}

// leaveGroup is what to do about sinks of the group that a warehouse would leave. Those of
// the original, where the warehouse is a copy, look the same.
const leaveGroup = "stop the sinks of that group first, they fill this warehouse; if it is a copy and they fill the " +
	"original, run `TRUNCATE TABLE warehouse` in the copy instead, and it gets an id of its own"
