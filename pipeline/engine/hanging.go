package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Hanging transactions (KIP-664): over for their coordinator, and open in a partition.
//
// When every replica of a partition was down, Kafka 4.3 may end a transaction (a
// timeout does it, within the first seconds after a start) while the partition has no
// leader yet, takes the partition for deleted, and never writes its marker. Readers of
// committed records then wait there without end. Worse, the next transaction of the
// same producer closes it with a marker of its own, and aborted rows become visible
// beside their repetition. So every partition is looked at before anything is written
// into it.
//
// How a hanging transaction ended is decided once, by the first of sources that knows,
// and holds for every partition in which it is open.

// txnKey is one transaction in a partition's log: the end of each raises the producer's
// epoch by one (KIP-890, without which a cluster is refused).
type txnKey struct {
	producer int64
	epoch    int16 // of its records
}

// markedBy reports whether a marker of this producer and epoch is the transaction's
// own. Kafka's carry the epoch after the end, also when a producer id is used up (32766
// is its last transaction, 32767 its last marker). One of the transaction's own epoch
// may be that of the one before.
func (k txnKey) markedBy(producer int64, epoch int16) bool {
	return k.producer == producer && k.epoch+1 == epoch
}

// txnOutcome is how a transaction ended.
type txnOutcome string

const (
	txnUndecided txnOutcome = ""
	txnCommit    txnOutcome = "commit"
	txnAbort     txnOutcome = "abort"
)

// hangingTxn is a transaction, and where it is open.
type hangingTxn struct {
	txnKey
	id   string // the transactional id that has the producer id; empty: none has any more
	open []kadm.DescribedProducer
}

func (t hangingTxn) String() string {
	var open []string
	for _, p := range t.open {
		open = append(open,
			fmt.Sprintf("%s partition %d from offset %d", p.Topic, p.Partition, p.CurrentTxnStartOffset))
	}
	id := t.id
	if id == "" {
		id = "no transactional id"
	}
	return fmt.Sprintf("producer %d epoch %d (%s), open in %s", t.producer, t.epoch, id, strings.Join(open, ", "))
}

func (t *hangingTxn) onlyIn(name string) bool {
	return !slices.ContainsFunc(t.open, func(p kadm.DescribedProducer) bool { return p.Topic != name })
}

// txnOutcomes remembers how transactions ended: what coordinators said before a
// transactional id was initialised again, and what markers were written by.
type txnOutcomes struct {
	mu     sync.Mutex
	known  map[txnKey]txnOutcome
	voided map[voidRow]bool // written
	// open has when a transaction was first seen open whose id is unknown.
	open map[txnKey]time.Time
	// denied has the topics whose producers may not be listed, once that was logged.
	denied map[string]bool
}

// noteDenied reports whether this was called for the topic for the first time.
func (o *txnOutcomes) noteDenied(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.denied == nil {
		o.denied = make(map[string]bool)
	}
	first := !o.denied[name]
	o.denied[name] = true
	return first
}

// firstSeenOpen returns when this was first called for the transaction.
func (o *txnOutcomes) firstSeenOpen(k txnKey) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = make(map[txnKey]time.Time)
	}
	if _, seen := o.open[k]; !seen {
		o.open[k] = time.Now()
	}
	return o.open[k]
}

// noteDescription keeps what a coordinator's state says of the newest transaction of an
// id. Of one that is going on it says nothing, even if we end it: a commit may be on
// its way.
func (o *txnOutcomes) noteDescription(d kadm.DescribedTransaction) {
	key := txnKey{d.ProducerID, d.ProducerEpoch - 1}
	switch d.State {
	case "PrepareAbort", "CompleteAbort":
		o.remember(key, txnAbort)
	case "PrepareCommit", "CompleteCommit":
		o.remember(key, txnCommit)
	}
}

func (o *txnOutcomes) remember(k txnKey, outcome txnOutcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = make(map[txnKey]txnOutcome)
	}
	o.known[k] = outcome
}

// voidRow is the void row of a transaction in one partition of the changelog.
type voidRow struct {
	txnKey
	partition int32
}

func (o *txnOutcomes) isVoided(r voidRow) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.voided[r]
}

func (o *txnOutcomes) markVoided(r voidRow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.voided == nil {
		o.voided = make(map[voidRow]bool)
	}
	o.voided[r] = true
}

func (o *txnOutcomes) outcomeOf(k txnKey) txnOutcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known[k]
}

// outcomeSource is something that may know how a transaction ended. An undecided answer
// comes with the reason.
type outcomeSource struct {
	name string
	ask  func(context.Context, *hangingTxn) (txnOutcome, error)
}

// outcomeSources are what is asked, the surest first.
func (s *session) outcomeSources() []outcomeSource {
	return []outcomeSource{
		{"the coordinator", s.askCoordinator},
		{"the coordinator's log", s.readCoordinatorLog},
		{"the markers in other partitions", s.searchMarkers},
	}
}

// decideOutcome says how a transaction ended, and by which source it is known. silent
// is why those that were asked before do not know.
func (s *session) decideOutcome(ctx context.Context, t *hangingTxn) (outcome txnOutcome, by string, silent error) {
	if outcome = s.ended.outcomeOf(t.txnKey); outcome != txnUndecided {
		return outcome, "what was known before", nil
	}
	for _, source := range s.outcomeSources() {
		outcome, why := source.ask(ctx, t)
		if outcome != txnUndecided {
			return outcome, source.name, silent
		}
		silent = errors.Join(silent, fmt.Errorf("%s: %w", source.name, why))
	}
	return txnUndecided, "", silent
}

// askCoordinator decides by the newest transaction of the id, if it is this one.
func (s *session) askCoordinator(ctx context.Context, t *hangingTxn) (txnOutcome, error) {
	if t.id == "" {
		return txnUndecided, errors.New("no transactional id has the producer id any more")
	}
	described, err := s.adm.DescribeTransactions(ctx, t.id)
	if err == nil {
		err = described[t.id].Err
	}
	if err != nil {
		return txnUndecided, err
	}
	d := described[t.id]
	s.ended.noteDescription(d)
	return s.ended.outcomeOf(t.txnKey), fmt.Errorf("it is past that transaction: %s, producer %d epoch %d",
		d.State, d.ProducerID, d.ProducerEpoch)
}

// healTransaction writes the missing markers of a transaction that is over for its
// coordinator, in every partition. It returns nil if nothing is left to do.
func (s *session) healTransaction(ctx context.Context, t hangingTxn) *blockingTxn {
	// The coordinator was asked after t was found: what is open now, hangs.
	open, _, err := s.listOpenTransactions(ctx, s.transactionPartitions())
	t.open = slices.DeleteFunc(open, func(p kadm.DescribedProducer) bool {
		return t.txnKey != txnKey{p.ProducerID, p.ProducerEpoch}
	})
	if len(t.open) == 0 {
		if err != nil {
			return &blockingTxn{t, true, err}
		}
		return nil // its marker was on the way
	}
	outcome, by, silent := s.decideOutcome(ctx, &t)
	if outcome == txnUndecided {
		return &blockingTxn{t, true, fmt.Errorf("its markers are lost, and nothing says yet how it ended: %w", silent)}
	}
	if outcome == txnAbort {
		err = s.abortTransaction(ctx, &t)
	} else {
		err = s.writeMarkers(ctx, &t, outcome)
	}
	if !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		s.ended.remember(t.txnKey, outcome) // some may be written, whatever a better source says later
	}
	if err != nil {
		return &blockingTxn{t, true, fmt.Errorf("its markers are lost, and to write them (%s, says %s): %w",
			outcome, by, err)}
	}
	s.m.hanging.Add(float64(len(t.open)))
	s.log.Warn("Kafka had lost markers of a transaction; they are written now",
		"transaction", t.String(), "outcome", string(outcome), "known_by", by, "not_by", silent)
	return nil
}

// abortTransaction ends a transaction in every partition where it is open.
//
// A processor may have applied it all the same, after an End that it took for success
// and of which nothing was left. So that this processor finds out, a void row goes into
// each changelog that it is open in. It goes first: a row too many costs a rebuild, one
// too few a wrong state. It is no part of a transaction, which this one would hold
// back.
//
// While the producer id still belongs to the transactional id, a transaction of that id
// that writes into the partitions and aborts closes both, and needs no right that the
// slot had not. But taking the id fences its slot.
func (s *session) abortTransaction(ctx context.Context, t *hangingTxn) error {
	if err := s.writeVoidRows(ctx, t); err != nil {
		return err
	}
	free, err := s.idIsUnused(ctx, t.id)
	if err != nil {
		return err
	}
	if free {
		if err := s.abortAs(ctx, t); !errors.Is(err, errRolledOver) {
			return err
		}
	}
	err = s.writeMarkers(ctx, t, txnAbort)
	if t.id == s.engine.transactionalID() && errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return errors.Join(err, errSession) // the next session may use the id for it, before it joins
	}
	return err
}

// writeVoidRows writes them once, however often the rest fails.
func (s *session) writeVoidRows(ctx context.Context, t *hangingTxn) error {
	var rows []*kgo.Record
	for _, p := range t.open {
		row := voidRow{t.txnKey, p.Partition}
		if p.Topic == s.kafka.Topic(s.topo.Changelog) && !s.ended.isVoided(row) {
			key, value := event.VoidRow(p.CurrentTxnStartOffset)
			rows = append(rows, &kgo.Record{Topic: p.Topic, Partition: p.Partition, Key: key, Value: value})
		}
	}
	for _, r := range s.cl.ProduceSync(ctx, rows...) {
		if r.Err != nil {
			return fmt.Errorf("writing a void row to %s partition %d: %w", r.Record.Topic, r.Record.Partition, r.Err)
		}
		s.ended.markVoided(voidRow{t.txnKey, r.Record.Partition})
	}
	return nil
}

// idIsUnused reports whether no process uses the transactional id: its slot is not in
// the group, or is this one, which has not joined yet.
func (s *session) idIsUnused(ctx context.Context, id string) (bool, error) {
	switch id {
	case "":
		return false, nil
	case s.engine.transactionalID():
		return !s.joining.Load(), nil
	}
	group := s.groupName()
	described, err := s.adm.DescribeGroups(ctx, group)
	if err == nil {
		err = described[group].Err
	}
	if err != nil {
		return false, fmt.Errorf("describing the group: %w", err)
	}
	return !slices.ContainsFunc(described[group].Members, func(m kadm.DescribedGroupMember) bool {
		return m.InstanceID != nil && group+"-"+*m.InstanceID == id
	}), nil
}

// errRolledOver: the transactional id has another producer id by now.
var errRolledOver = errors.New("the transactional id has another producer id")

// abortAs writes one record into each partition in a transaction of the id, and aborts
// it. Readers of committed records see none of them.
func (s *session) abortAs(ctx context.Context, t *hangingTxn) error {
	cl, err := s.newTransactionalClient(t.id)
	if err != nil {
		return err
	}
	defer cl.Close()
	// From here on the coordinator no longer knows of the id's newest transaction.
	if d, err := s.adm.DescribeTransactions(ctx, t.id); err == nil && d[t.id].Err == nil {
		s.ended.noteDescription(d[t.id])
	}
	producer, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("initialising %s: %w", t.id, err)
	}
	if producer != t.producer {
		return errRolledOver
	}
	if err := cl.BeginTransaction(); err != nil {
		return fmt.Errorf("beginning a transaction of %s: %w", t.id, err)
	}
	var records []*kgo.Record
	for _, p := range t.open {
		if p.Topic == offsetsTopic { // no client may write it
			if err := s.commitAs(ctx, cl, t.id, producer, epoch); err != nil {
				return err
			}
			continue
		}
		records = append(records, &kgo.Record{Topic: p.Topic, Partition: p.Partition, Key: []byte("aborted")})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("writing a record to abort: %w", err)
	}
	end := kmsg.NewPtrEndTxnRequest() // the client ends none in which it wrote nothing but offsets
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = t.id, producer, epoch, false
	resp, err := end.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("aborting the transaction of %s: %w", t.id, err)
	}
	return nil
}

// commitAs puts an offset of the group into the transaction, to be aborted with it.
func (s *session) commitAs(ctx context.Context, cl *kgo.Client, id string, producer int64, epoch int16) error {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, producer, epoch
	req.Group = s.groupName()
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.LeaderEpoch = -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.TopicID, t.Partitions = s.leading, s.ids.leading, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("writing an offset to abort: %w", err)
	}
	return nil
}

// writeMarkers writes the markers that Kafka would have written.
func (s *session) writeMarkers(ctx context.Context, t *hangingTxn, outcome txnOutcome) error {
	m := kadm.TxnMarkers{ProducerID: t.producer, ProducerEpoch: t.epoch + 1, Commit: outcome == txnCommit,
		Topics: make(kadm.TopicsSet)}
	for _, p := range t.open {
		m.CoordinatorEpoch = max(m.CoordinatorEpoch, p.CoordinatorEpoch)
		m.Topics.Add(p.Topic, p.Partition)
	}
	answers, err := s.adm.WriteTxnMarkers(ctx, m)
	for _, a := range answers.SortedPartitions() {
		if a.Err != nil {
			err = errors.Join(err, fmt.Errorf("%s partition %d: %w", a.Topic, a.Partition, a.Err))
		}
	}
	if errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return fmt.Errorf("it takes the right to ALTER (or CLUSTER_ACTION on) the cluster: %w", err)
	}
	return err
}
