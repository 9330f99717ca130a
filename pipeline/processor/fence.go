package processor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Transactions that others left behind.
//
// A transaction without an owner is ended by initialising its transactional id. That is
// not always the end of it: when every replica of a partition was down, Kafka 4.3 may
// end a transaction (a timeout does it, within the first seconds after a start) while
// the partition has no leader yet, takes the partition for deleted, and never writes
// its marker. The transaction is over for its coordinator and open in the partition: it
// hangs. Whoever reads committed records waits there for ever; worse, the next
// transaction of the same producer closes it with a marker of its own, and rows that
// were aborted become visible, beside their repetition. So no session begins to write
// before it has looked for such transactions and put their markers right, which is what
// kafka-transactions.sh does for an operator.

// ErrHanging: a transaction of ours hangs, and it cannot be known, or the cluster does
// not let us say, how it ended.
var ErrHanging = errors.New("a transaction hangs")

// ending is how a transaction ended, or will.
type ending struct {
	producer int64
	epoch    int16 // that its records were written with
	commit   bool
}

// endingOf reads from a coordinator's state how its newest transaction ends, or has
// ended. The end of a transaction raises the epoch by one (KIP-890, without which a
// cluster is refused), and so does its timeout: the records of one that is over have
// the epoch below.
func endingOf(d kadm.DescribedTransaction) (e ending, known bool) {
	switch d.State {
	case "Ongoing": // initialising the id aborts it
		return ending{d.ProducerID, d.ProducerEpoch, false}, true
	case "PrepareAbort", "CompleteAbort", "PrepareEpochFence":
		return ending{d.ProducerID, d.ProducerEpoch - 1, false}, true
	case "PrepareCommit", "CompleteCommit":
		return ending{d.ProducerID, d.ProducerEpoch - 1, true}, true
	}
	return ending{}, false
}

// endings says, by transactional id, how the newest transaction ended that was seen
// before the id was initialised again: from then on the coordinator no longer knows.
type endings struct {
	mu   sync.Mutex
	seen map[string]ending
}

func (e *endings) note(d kadm.DescribedTransaction) {
	seen, known := endingOf(d)
	if !known {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = make(map[string]ending)
	}
	e.seen[d.TxnID] = seen
}

// of tells how the transaction ended that a partition holds open: no other one of its
// id. d is what the coordinator says of the id now.
func (e *endings) of(held kadm.DescribedProducer, d kadm.DescribedTransaction) (commit, known bool) {
	e.mu.Lock()
	noted, was := e.seen[d.TxnID]
	e.mu.Unlock()
	now, is := endingOf(d)
	for _, x := range []struct {
		ending
		known bool
	}{{now, is}, {noted, was}} {
		if x.known && x.producer == held.ProducerID && x.epoch == held.ProducerEpoch {
			return x.commit, true
		}
	}
	return false, false
}

// initTransactionalID ends what the transactional id has open, and keeps everybody out
// who used it before.
func (s *session) initTransactionalID(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if d, err := s.adm.DescribeTransactions(ctx, id); err == nil && d[id].Err == nil {
		s.endings.note(d[id])
	}
	cl, err := kafka.NewClient(s.kafka, s.log, nil, kgo.TransactionalID(id), kgo.TransactionTimeout(transactionTimeout))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, _, err = cl.ProducerID(ctx)
	return err
}

// freeShared looks after the partitions that all slots write: the dead letters, and the
// group's offsets.
func (s *session) freeShared(ctx context.Context) error {
	if err := s.fence(ctx, s.kafka.Topic(topic.DeadLetters), 0); err != nil {
		return err
	}
	const offsets = "__consumer_offsets"
	have, err := s.adm.ListTopicsWithInternal(ctx, offsets)
	if n := len(have[offsets].Partitions); err == nil && n > 0 {
		return s.fence(ctx, offsets, groupPartition(s.kafka.Group(topic.ProcessorGroup), n))
	}
	return nil
}

// groupPartition is the partition of __consumer_offsets that holds a group's offsets:
// Kafka takes Java's hash of the name, without its sign.
func groupPartition(group string, partitions int) int32 {
	var hash int32
	for _, c := range []byte(group) { // names of groups are ASCII
		hash = 31*hash + int32(c)
	}
	return (hash & 0x7fffffff) % int32(partitions)
}

// fence ends the transactions that hold back a partition that was assigned to us.
// Whoever has one open there is dead or a zombie: a live member revokes only between
// transactions. Of partitions that all slots share it ends none that its coordinator
// knows as ongoing: that is a live one's, or times out. Where the cluster does not let
// us look, the restore waits for the transaction's timeout.
func (s *session) fence(ctx context.Context, name string, id int32) error {
	open, err := s.openIn(ctx, name, id)
	if err != nil {
		s.log.Warn("cannot see who holds a transaction open; waiting for its timeout", "topic", name, "partition", id,
			"error", err)
		return nil
	}
	for _, producer := range open {
		listed, err := s.adm.ListTransactions(ctx, []int64{producer.ProducerID}, nil)
		if err != nil {
			s.log.Warn("cannot list transactions; waiting for their timeout", "topic", name, "partition", id,
				"error", err)
			return nil
		}
		for _, txn := range listed.Sorted() {
			if !strings.HasPrefix(txn.TxnID, s.kafka.Group(topic.ProcessorGroup)+"-") {
				continue
			}
			d, err := s.adm.DescribeTransactions(ctx, txn.TxnID)
			if err != nil || d[txn.TxnID].Err != nil {
				continue
			}
			switch d[txn.TxnID].State {
			case "Ongoing":
				if shared := name == s.kafka.Topic(topic.DeadLetters) || strings.HasPrefix(name, "__"); shared ||
					!holds(d[txn.TxnID], name, id) {
					continue
				}
				if err := s.initTransactionalID(ctx, txn.TxnID); err != nil {
					return fmt.Errorf("ending the transaction of %s: %w", txn.TxnID, err)
				}
				s.log.Info("ended the transaction of the partition's last owner", "topic", name, "partition", id,
					"transactional_id", txn.TxnID)
				if err := s.unhang(ctx, producer, kadm.DescribedTransaction{TxnID: txn.TxnID}); err != nil {
					return err
				}
			case "Empty", "CompleteAbort", "CompleteCommit":
				if err := s.unhang(ctx, producer, d[txn.TxnID]); err != nil {
					return err
				}
			}
			// In PrepareCommit (End answered, markers on their way) the id may belong
			// to a live process, which would be fenced for nothing.
		}
	}
	return nil
}

func holds(d kadm.DescribedTransaction, name string, id int32) bool {
	_, ok := d.Topics[name][id]
	return ok
}

// openIn lists the producers that have a transaction open in a partition.
func (s *session) openIn(ctx context.Context, name string, id int32) (open []kadm.DescribedProducer, err error) {
	described, err := s.adm.DescribeProducers(ctx, kadm.TopicsSet{name: {id: {}}})
	if err != nil {
		return nil, err
	}
	for _, producer := range described.SortedProducers() {
		if producer.CurrentTxnStartOffset >= 0 {
			open = append(open, producer)
		}
	}
	return open, nil
}

// unhang writes the marker of a transaction that is over for its coordinator, which
// says d of its id, if it is still open in the partition.
func (s *session) unhang(ctx context.Context, held kadm.DescribedProducer, d kadm.DescribedTransaction) error {
	open, err := s.openIn(ctx, held.Topic, held.Partition)
	if err != nil {
		return fmt.Errorf("looking again for open transactions of %s partition %d: %w", held.Topic, held.Partition, err)
	}
	hangs := false
	for _, p := range open {
		hangs = hangs || p.ProducerID == held.ProducerID && p.ProducerEpoch == held.ProducerEpoch &&
			p.CurrentTxnStartOffset == held.CurrentTxnStartOffset
	}
	if !hangs {
		return nil // its marker was on the way
	}
	commit, known := s.endings.of(held, d)
	where := fmt.Sprintf("%s partition %d from offset %d, of producer %d (%s)",
		held.Topic, held.Partition, held.CurrentTxnStartOffset, held.ProducerID, d.TxnID)
	if !known {
		return fmt.Errorf("%w: %s: Kafka lost its marker, and how it ended is no longer known. If outcomes or "+
			"changelog hold a commit marker of this producer and epoch, it committed; if not, "+
			"`kafka-transactions.sh abort --topic %s --partition %d --start-offset %d` puts it right",
			ErrHanging, where, held.Topic, held.Partition, held.CurrentTxnStartOffset)
	}
	answers, err := s.adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
		ProducerID:       held.ProducerID,
		ProducerEpoch:    held.ProducerEpoch,
		Commit:           commit,
		CoordinatorEpoch: max(held.CoordinatorEpoch, 0),
		Topics:           kadm.TopicsSet{held.Topic: {held.Partition: {}}},
	})
	for _, a := range answers {
		for _, t := range a.Topics {
			for _, p := range t.Partitions {
				err = errors.Join(err, p.Err)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %s: Kafka lost its marker (commit: %v), and writing it failed: %w: "+
			"`kafka-transactions.sh abort` needs the same rights", ErrHanging, where, commit, err)
	}
	s.m.hanging.Inc()
	s.log.Warn("Kafka had lost the marker of a transaction; it is written now",
		"topic", held.Topic, "partition", held.Partition, "start_offset", held.CurrentTxnStartOffset,
		"transactional_id", d.TxnID, "commit", commit)
	return nil
}
