package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// initTransactionalID ends the transaction that the id has open, and fences every
// process that used the id before.
func (s *session) initTransactionalID(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, EndTimeout)
	defer cancel()
	// From here on the coordinator no longer knows of the transaction before.
	if d, err := s.adm.DescribeTransactions(ctx, id); err == nil && d[id].Err == nil {
		s.ended.noteDescription(d[id])
	}
	cl, err := s.newTransactionalClient(id)
	if err != nil {
		return err
	}
	defer cl.Close()
	_, _, err = cl.ProducerID(ctx)
	return err
}

// newTransactionalClient makes a client that takes the transactional id with its first
// request.
func (s *session) newTransactionalClient(id string) (*kgo.Client, error) {
	return kafka.NewClient(s.kafka, s.log, nil, kgo.TransactionalID(id),
		kgo.TransactionTimeout(s.env.TransactionTimeout))
}

// blockingTxn is a transaction of our group that holds partitions back and is not over
// yet.
type blockingTxn struct {
	hangingTxn
	hangs bool  // over for its coordinator; otherwise it is under way
	why   error // it is still there
}

func (b blockingTxn) Error() string { return fmt.Sprintf("%v: %v", b.hangingTxn, b.why) }

// endAllBlockers looks at every partition that our transactions write, before this slot
// writes into any: its next transaction would close what an earlier one left open with
// its own marker. It waits for what hangs in partitions that every slot shares; for
// what hangs elsewhere, the partition's owner waits.
func (s *session) endAllBlockers(ctx context.Context) error {
	return s.waitForBlockers(ctx, s.transactionPartitions(), false, func(b blockingTxn) bool {
		return b.hangs && slices.ContainsFunc(b.open, func(p kadm.DescribedProducer) bool {
			return p.Topic == offsetsTopic || s.isShared(p.Topic) && b.id == s.engine.transactionalID()
		})
	})
}

// endBlockers ends transactions that hold back what this partition's outputs and
// changelog say. Their owner may have died between one and the other: without this
// readers would not see our rows, which come after its own, until it times out.
func (s *session) endBlockers(ctx context.Context, p *Partition) error {
	held := make(kadm.TopicsSet)
	for _, name := range append([]string{s.topo.Changelog}, s.topo.Owned...) {
		at, err := s.listOffsets(ctx, s.kafka.Topic(name), p.ID)
		if err != nil {
			return err
		}
		if at.Stable < at.End {
			held.Add(s.kafka.Topic(name), p.ID)
		}
	}
	if len(held) == 0 {
		return nil
	}
	return s.waitForBlockers(ctx, held, true, func(blockingTxn) bool { return true })
}

const (
	// lookPause is the longest pause between two looks at a partition that is held
	// back.
	lookPause = 10 * time.Second
	// logPause is how often a wait is logged.
	logPause = time.Minute
)

// waitForBlockers looks at partitions until nothing is left there that matters. It
// never gives up: what a person has to do is in the log, once a minute.
func (s *session) waitForBlockers(ctx context.Context, partitions kadm.TopicsSet, owned bool,
	matters func(blockingTxn) bool) error {
	var began, loggedAt time.Time
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, lookPause) {
		blockers, err := s.lookForBlockers(ctx, partitions, owned)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var left []error
		for _, b := range blockers {
			if errors.Is(b.why, errSession) {
				return fmt.Errorf("%v: %w", b, errSession) // what else it wraps is no reason to give up
			}
			if matters(b) {
				left = append(left, b)
			}
		}
		if err != nil {
			left = append(left, err)
		}
		if left == nil {
			if !began.IsZero() {
				s.log.Info("no transaction holds the partitions back any more",
					"partitions", partitionsText(partitions), "after", time.Since(began).Round(time.Millisecond))
			}
			return nil
		}
		now := time.Now()
		if began.IsZero() {
			began, loggedAt = now, now.Add(time.Second-logPause) // most are over within a moment
			s.m.heldBack.Inc()
			defer s.m.heldBack.Dec()
		}
		if now.Sub(loggedAt) >= logPause {
			loggedAt = now
			s.log.Warn("waiting for transactions that hold partitions back; looking again",
				"partitions", partitionsText(partitions), "since", began.UTC(), "error", errors.Join(left...))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// lookForBlockers ends what it can of the transactions of our group that hold
// partitions back, and returns those that it could not. owned says that the partitions
// were assigned to us: then the owner of a transaction that is open there is dead or a
// zombie, because a live member gives partitions back only between transactions. In
// other partitions a running transaction may belong to a live process.
func (s *session) lookForBlockers(ctx context.Context, partitions kadm.TopicsSet, owned bool) (blockers []blockingTxn,
	err error) {
	select { // restores run side by side, and one transaction is open in several partitions
	case s.healing <- struct{}{}:
		defer func() { <-s.healing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errSlow)
	defer cancel()
	open, unseen, err := s.listOpenTransactions(ctx, partitions)
	if owned && err != nil || s.writesShared(unseen) {
		return nil, err
	}
	txns := groupByTransaction(open)
	if len(txns) == 0 {
		return nil, nil
	}
	owners, err := s.describeOwners(ctx, txns)
	if err != nil {
		return nil, err
	}
	for _, t := range txns {
		d, known := owners[t.producer]
		t.id = d.TxnID
		switch {
		case known && !strings.HasPrefix(t.id, s.groupName()+"-"):
			continue // another program's, in the partition of the group's offsets
		case !known && t.onlyIn(offsetsTopic) && !s.belongsToGroup(ctx, t):
			continue
		case known && d.State == "Ongoing" && d.ProducerEpoch == t.epoch:
			if !owned {
				continue
			}
			if !coordinatorCounts(d, t.open) {
				blockers = append(blockers, blockingTxn{t, false,
					errors.New("its coordinator says that it goes on, but not here")})
			} else if err := s.initTransactionalID(ctx, t.id); err != nil {
				blockers = append(blockers, blockingTxn{t, false, fmt.Errorf("ending it for its last owner: %w", err)})
			} else {
				s.log.Info("ended the transaction of the partition's last owner", "transaction", t.String())
				blockers = append(blockers, blockingTxn{t, false, errors.New("its markers are on their way")})
			}
		case known && strings.HasPrefix(d.State, "Prepare") && t.markedBy(d.ProducerID, d.ProducerEpoch):
			// The id may belong to a live process, which would be fenced for nothing.
			if owned {
				blockers = append(blockers, blockingTxn{t, false, errors.New("its markers are on their way")})
			}
		case !known && !s.mustHaveEnded(t.txnKey):
			blockers = append(blockers, blockingTxn{t, true,
				errors.New("no transactional id is seen to have its producer; it may still be running")})
		default:
			if b := s.healTransaction(ctx, t); b != nil {
				blockers = append(blockers, *b)
			}
		}
	}
	return blockers, nil
}

// abortDelay is how much later than its timeout a broker may abort a transaction: it looks
// every ten seconds (transaction.abort.timed.out.transaction.cleanup.interval.ms).
const abortDelay = 10 * time.Second

// mustHaveEnded reports whether a transaction has been seen open for longer than any
// transaction of ours can run. A listing may lack the id of a transaction that runs: ids
// that we may not describe are left out, and so are those of a coordinator that has not
// loaded its log yet. Only an id that rolled over to another producer is really gone.
func (s *session) mustHaveEnded(k txnKey) bool {
	return time.Since(s.ended.firstSeenOpen(k)) > s.env.TransactionTimeout+abortDelay
}

// errSlow: looking took too long. The next look starts over.
var errSlow = errors.New("the brokers answer slowly")

// isShared reports whether every slot writes the topic, given by its full name.
func (s *session) isShared(name string) bool {
	return slices.ContainsFunc(s.topo.Shared, func(shared string) bool { return s.kafka.Topic(shared) == name })
}

// writesShared reports whether one of the partitions is written by every slot: the dead
// letters, or the group's offsets.
func (s *session) writesShared(partitions kadm.TopicsSet) bool {
	for name, of := range partitions {
		if len(of) > 0 && (name == offsetsTopic || s.isShared(name)) {
			return true
		}
	}
	return false
}

// listOpenTransactions lists the producers that have a transaction open in partitions,
// and the partitions that it could not see, with the reason. Where the cluster does not
// let us look, nothing is open: restores then wait for a transaction's timeout.
func (s *session) listOpenTransactions(ctx context.Context, partitions kadm.TopicsSet) (
	open []kadm.DescribedProducer, unseen kadm.TopicsSet, err error) {
	unseen = make(kadm.TopicsSet)
	// one at a time: a right that lacks for one topic hides them all
	for _, one := range partitions.IntoList() {
		described, e := s.adm.DescribeProducers(ctx, kadm.TopicsList{one}.IntoSet())
		if denied := new(kadm.AuthError); errors.As(e, &denied) {
			level := slog.LevelDebug
			if s.ended.noteDenied(one.Topic) {
				level = slog.LevelWarn
			}
			s.log.Log(ctx, level, "who has a transaction open in a topic cannot be seen, so what hangs there does not "+
				"heal: it takes the right to READ the topic", "topic", one.Topic, "error", e)
			continue
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("listing the producers of %s: %w", one.Topic, e))
			unseen.Add(one.Topic, one.Partitions...)
			continue
		}
		for _, p := range described[one.Topic].Partitions.Sorted() {
			if p.Err != nil {
				err = errors.Join(err,
					fmt.Errorf("listing the producers of %s partition %d: %w", p.Topic, p.Partition, p.Err))
				unseen.Add(p.Topic, p.Partition)
			}
			for _, producer := range p.ActiveProducers.Sorted() {
				if producer.CurrentTxnStartOffset >= 0 {
					open = append(open, producer)
				}
			}
		}
	}
	return open, unseen, err
}

// describeOwners says, by producer id, which transactional id it belongs to, and what
// the coordinator says of that. A producer id that rolled over belongs to none.
func (s *session) describeOwners(ctx context.Context, txns []hangingTxn) (map[int64]kadm.DescribedTransaction, error) {
	var producers []int64
	for _, t := range txns {
		producers = append(producers, t.producer)
	}
	listed, err := s.adm.ListTransactions(ctx, producers, nil)
	if err != nil {
		return nil, fmt.Errorf("listing transactions: %w", err)
	}
	owners := make(map[int64]kadm.DescribedTransaction)
	if len(listed) == 0 {
		return owners, nil
	}
	described, err := s.adm.DescribeTransactions(ctx, listed.TransactionalIDs()...)
	if err != nil {
		return nil, fmt.Errorf("describing transactions: %w", err)
	}
	for _, d := range described.Sorted() {
		if d.Err != nil && !errors.Is(d.Err, kerr.TransactionalIDNotFound) {
			return nil, fmt.Errorf("describing the transaction of %s: %w", d.TxnID, d.Err)
		}
		if d.Err == nil {
			owners[listed[d.TxnID].ProducerID] = d
		}
	}
	return owners, nil
}

// groupByTransaction gathers what is open by transaction, in order.
func groupByTransaction(open []kadm.DescribedProducer) (txns []hangingTxn) {
	for _, p := range open {
		key := txnKey{p.ProducerID, p.ProducerEpoch}
		i := slices.IndexFunc(txns, func(t hangingTxn) bool { return t.txnKey == key })
		if i < 0 {
			i = len(txns)
			txns = append(txns, hangingTxn{txnKey: key})
		}
		txns[i].open = append(txns[i].open, p)
	}
	slices.SortFunc(txns, func(a, b hangingTxn) int {
		return cmp.Or(cmp.Compare(a.producer, b.producer), cmp.Compare(a.epoch, b.epoch))
	})
	return txns
}

// coordinatorCounts reports whether the coordinator counts one of the partitions to the
// transaction.
func coordinatorCounts(d kadm.DescribedTransaction, open []kadm.DescribedProducer) bool {
	return slices.ContainsFunc(open, func(p kadm.DescribedProducer) bool {
		_, ok := d.Topics[p.Topic][p.Partition]
		return ok
	})
}

func partitionsText(partitions kadm.TopicsSet) string {
	var text []string
	for _, t := range partitions.IntoList() {
		slices.Sort(t.Partitions)
		text = append(text, fmt.Sprint(t.Topic, t.Partitions))
	}
	slices.Sort(text)
	return strings.Join(text, " ")
}
