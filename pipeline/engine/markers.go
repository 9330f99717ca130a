package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Topics of Kafka itself.
const (
	offsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
)

const (
	// clockMargin is by how much the clocks of brokers and processors may differ: a
	// marker bears the broker's time, the records before it bear the processor's.
	clockMargin = 5 * time.Minute
	// readLimit bounds the reading of the coordinator's log, and of the markers.
	readLimit = 20 * time.Second
)

// GroupPartition returns the partition of __consumer_offsets that holds a group, and
// that of __transaction_state that holds a transactional id: Kafka takes the absolute
// value of Java's hash of the name (Utils.abs: 0 for the least).
func GroupPartition(name string, partitions int) int32 {
	var hash int32
	for _, c := range []byte(name) { // names of groups and ids are ASCII
		hash = 31*hash + int32(c)
	}
	if hash == math.MinInt32 {
		return 0
	}
	return max(hash, -hash) % int32(partitions)
}

// transactionPartitions are the partitions that our transactions write.
func (s *session) transactionPartitions() kadm.TopicsSet {
	set := make(kadm.TopicsSet)
	for name, n := range s.outputs {
		for p := range int32(n) {
			set.Add(name, p)
		}
	}
	if s.groupPartition >= 0 {
		set.Add(offsetsTopic, s.groupPartition)
	}
	return set
}

// internalPartitions says for one of Kafka's own topics how many partitions it has, and
// whether all are led.
func (s *session) internalPartitions(ctx context.Context, name string) (n int, led bool, err error) {
	have, err := s.adm.ListTopicsWithInternal(ctx, name)
	if err == nil {
		err = have[name].Err
	}
	if err == nil && len(have[name].Partitions) == 0 {
		err = errors.New("it cannot be seen")
	}
	if err != nil {
		return 0, false, fmt.Errorf("reading metadata of %s: %w", name, err)
	}
	led = true
	for _, p := range have[name].Partitions {
		led = led && p.Err == nil && p.Leader >= 0
	}
	return len(have[name].Partitions), led, nil
}

// notBefore is a time before which nothing can be of the transaction.
func (t *hangingTxn) notBefore() time.Time {
	first := t.open[0].LastTimestamp
	for _, p := range t.open {
		first = min(first, p.LastTimestamp)
	}
	return time.UnixMilli(first).Add(-clockMargin)
}

// belongsToGroup reports whether a transaction without an id, in the partition of
// __consumer_offsets that our group shares with others, is of our group: by the offset
// that it begins with.
func (s *session) belongsToGroup(ctx context.Context, t hangingTxn) bool {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	at, group := t.open[0].CurrentTxnStartOffset, ""
	first := []kafka.Range{{Topic: offsetsTopic, Partition: t.open[0].Partition, From: at, To: at + 1}}
	err := s.readUncommitted(ctx, first, func(r *kgo.Record) bool {
		key := kmsg.NewOffsetCommitKey()
		if r.Offset == at && key.ReadFrom(r.Key) == nil {
			group = key.Group
		}
		return true
	})
	if err != nil {
		s.log.Debug("whose transaction it is cannot be seen", "transaction", t.String(), "error", err)
	}
	return group == s.groupName()
}

// readCoordinatorLog looks in __transaction_state for the end of the transaction. Where
// it may not be read, or not now, the next source is asked.
func (s *session) readCoordinatorLog(ctx context.Context, t *hangingTxn) (txnOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	n, _, err := s.internalPartitions(ctx, transactionsTopic)
	if err != nil {
		return txnUndecided, err
	}
	ranges, err := s.listRanges(ctx, transactionsTopic, t.notBefore().Add(-clockMargin))
	if err != nil {
		return txnUndecided, err
	}
	if t.id != "" {
		only := GroupPartition(t.id, n)
		ranges = slices.DeleteFunc(ranges, func(x kafka.Range) bool { return x.Partition != only })
	}
	outcome := txnUndecided
	err = s.readUncommitted(ctx, ranges, func(r *kgo.Record) bool {
		value := kmsg.NewTxnMetadataValue()
		if value.ReadFrom(r.Value) != nil || !t.markedBy(value.ProducerID, value.ProducerEpoch) {
			return true // a tombstone, or another transaction
		}
		switch value.State {
		case kmsg.TransactionStatePrepareCommit, kmsg.TransactionStateCompleteCommit:
			outcome = txnCommit
		case kmsg.TransactionStatePrepareAbort, kmsg.TransactionStateCompleteAbort:
			outcome = txnAbort
		}
		return outcome == txnUndecided
	})
	if outcome == txnUndecided && err == nil {
		err = errors.New("the end of the transaction is not in it any more")
	}
	return outcome, err
}

// searchMarkers looks for a marker of the transaction in every partition that our
// transactions write. That none is there decides too, for abort, if all were read, and
// each from before the transaction on without a gap: where the log begins later, or
// compaction took records, there may have been one.
func (s *session) searchMarkers(ctx context.Context, t *hangingTxn) (txnOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var all []kafka.Range
	runs := make(map[string]map[int32]*contiguousRun)
	var incomplete error
	set := s.transactionPartitions()
	if s.groupPartition < 0 {
		incomplete = fmt.Errorf("%s cannot be seen", offsetsTopic)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		ranges, err := s.listRanges(ctx, name, t.notBefore().Add(-clockMargin))
		if err != nil {
			incomplete = errors.Join(incomplete, err)
			continue
		}
		runs[name] = make(map[int32]*contiguousRun)
		for p := range set[name] {
			i := slices.IndexFunc(ranges, func(x kafka.Range) bool { return x.Partition == p })
			if i < 0 {
				incomplete = errors.Join(incomplete, fmt.Errorf("%s partition %d cannot be read", name, p))
				continue
			}
			all = append(all, ranges[i])
			runs[name][p] = &contiguousRun{next: -1}
		}
	}
	outcome := txnUndecided
	err := s.readUncommitted(ctx, all, func(r *kgo.Record) bool {
		runs[r.Topic][r.Partition].addRecord(r)
		if r.Attrs.IsControl() && t.markedBy(r.ProducerID, r.ProducerEpoch) && len(r.Key) >= 4 {
			switch binary.BigEndian.Uint16(r.Key[2:]) { // version, type
			case 0:
				outcome = txnAbort
			case 1:
				outcome = txnCommit
			}
		}
		return outcome == txnUndecided
	})
	if outcome != txnUndecided {
		return outcome, nil
	}
	incomplete = errors.Join(incomplete, err)
	for _, x := range all {
		if x.To > 0 && !runs[x.Topic][x.Partition].reachesBack(x.To, t.notBefore()) {
			incomplete = errors.Join(incomplete, fmt.Errorf(
				"%s partition %d does not reach back to the transaction's start any more", x.Topic, x.Partition))
		}
	}
	if t.id == "" {
		if _, led, err := s.internalPartitions(ctx, transactionsTopic); err != nil || !led {
			incomplete = errors.Join(incomplete, err,
				fmt.Errorf("its coordinator may be away: %s is not led everywhere, or cannot be seen",
					transactionsTopic))
		}
	}
	if incomplete != nil {
		return txnUndecided, fmt.Errorf("no marker was found, but not everything could be searched: %w", incomplete)
	}
	s.log.Warn("a transaction left no marker anywhere; it counts as aborted", "transaction", t.String())
	return txnAbort, nil
}

// contiguousRun is the newest stretch of a partition's log in which no offset is
// missing.
type contiguousRun struct {
	from, next int64 // next: -1 before the first record
	began      time.Time
}

func (u *contiguousRun) addRecord(r *kgo.Record) {
	if r.Offset != u.next || u.next < 0 {
		u.from, u.began = r.Offset, r.Timestamp
	}
	u.next = r.Offset + 1
}

// reachesBack reports whether the stretch goes from before the given time, or from the
// very beginning of the log, to end.
func (u *contiguousRun) reachesBack(end int64, since time.Time) bool {
	return u.next >= end && (u.from == 0 || !u.began.After(since))
}

// listRanges lists the partitions of a topic, each from the last record before a time
// to its end.
func (s *session) listRanges(ctx context.Context, name string, since time.Time) ([]kafka.Range, error) {
	ranges, err := kafka.ListRangesSince(ctx, s.adm, name, since)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errSlow)
	}
	return ranges, nil
}

// errStopReading ends readUncommitted before the end of its ranges.
var errStopReading = errors.New("stop reading")

// readUncommitted calls do with the records of ranges until all are read or it returns
// false: those of open and aborted transactions and the markers too. Where nothing more
// comes below an end, because the last records were compacted away, it stops at ctx.
func (s *session) readUncommitted(ctx context.Context, ranges []kafka.Range, do func(*kgo.Record) bool) error {
	reader := kafka.RangeReader{
		Kafka:     s.kafka,
		Log:       s.log,
		Isolation: kgo.ReadUncommitted(),
		Markers:   true,
	}
	reader.Kafka.ClientID += "-markers"
	err := reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			if !do(r) {
				return errStopReading
			}
		}
		return nil
	}, ranges...)
	if errors.Is(err, errStopReading) {
		return nil
	}
	return err
}
