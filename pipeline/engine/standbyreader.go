package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// standbyReader reads for a standby, with one client for all partitions.
type standbyReader struct {
	*standby
	cl                 *kgo.Client
	adm                *kadm.Client
	changelog, leading string // full topic names
	ids                topicIDs
	// read are the followers that the client fetches for. Only this reader's goroutine
	// polls, adds and removes, and a removal drops what was fetched: so what a poll
	// returns is for these.
	read map[int32]*follower
}

// follow follows until ctx is done, or until an error says that reading has to begin
// anew. Followers stay open. It calls reached whenever Kafka has answered.
func (y *standby) follow(ctx context.Context, reached func()) error {
	cfg := y.engine.kafka
	cfg.ClientID += "-standby"
	cl, err := kafka.NewClient(cfg, y.engine.log, nil,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// An offset that the log no longer has is an error, not a reason to skip
		// records.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// Only markers show that an aborted end has been passed.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(standbyFetch),
		kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	r := &standbyReader{
		standby:   y,
		cl:        cl,
		adm:       kadm.NewClient(cl),
		changelog: cfg.Topic(y.engine.topo.Changelog),
		leading:   cfg.Topic(y.engine.topo.Leading.Topic),
		read:      make(map[int32]*follower),
	}
	// Close alone would race, within kgo v1.22, with a fetch of partitions that were added
	// a moment ago.
	defer cl.Close()
	defer cl.PurgeTopicsFromConsuming(r.changelog, r.leading)
	var looked time.Time
	for ctx.Err() == nil {
		if time.Since(looked) >= standbyInterval {
			if err := r.lookAtPartitions(ctx); err != nil {
				return err
			}
			looked = time.Now()
			reached()
		}
		if err := r.pollOnce(ctx, looked.Add(standbyInterval)); err != nil {
			return err
		}
	}
	return nil
}

// errTopics ends a reader because a topic was created again: its client may know the
// former one.
var errTopics = errors.New("a topic that a standby follows was created again")

// readIDs reads what the topics' offsets are offsets of.
func (r *standbyReader) readIDs(ctx context.Context) (ids topicIDs, partitions []int32, err error) {
	meta, err := r.adm.Metadata(ctx, r.changelog, r.leading)
	if err != nil {
		return ids, nil, fmt.Errorf("reading metadata: %w", err)
	}
	changelog, leading := meta.Topics[r.changelog], meta.Topics[r.leading]
	if err := errors.Join(changelog.Err, leading.Err); err != nil {
		return ids, nil, fmt.Errorf("reading metadata of %s and %s: %w", r.changelog, r.leading, err)
	}
	ids = topicIDs{cluster: meta.Cluster, changelog: changelog.ID, leading: leading.ID}
	for _, p := range changelog.Partitions.Sorted() {
		if _, ok := leading.Partitions[p.Partition]; ok {
			partitions = append(partitions, p.Partition)
		}
	}
	return ids, partitions, nil
}

// lookAtPartitions lists where the logs end, and opens what nobody has open here.
func (r *standbyReader) lookAtPartitions(ctx context.Context) error {
	request, cancel := context.WithTimeout(ctx, EndTimeout)
	defer cancel()
	ids, partitions, err := r.readIDs(request)
	if err != nil {
		return err
	}
	if r.ids != (topicIDs{}) && r.ids != ids {
		return errTopics
	}
	r.ids = ids
	// Before the listing: what a session closes after it may be ahead of it.
	free := r.mayOpen(partitions)
	listed := r.engine.env.Now()
	offsets, err := kafka.ListOffsets(request, r.adm, r.changelog, r.leading)
	if err != nil {
		return err
	}
	for _, id := range partitions {
		changelog, err := offsets.Of(r.changelog, id)
		if err != nil {
			continue // it holds up only itself
		}
		leading, err := offsets.Of(r.leading, id)
		if err != nil {
			continue
		}
		r.lookAt(id, free[id], changelog, leading, listed)
	}
	r.setGauges(partitions)
	return nil
}

// lookAt looks at one partition: it opens it if it may, reads it if it does not yet, and
// takes note of where its logs end.
func (r *standbyReader) lookAt(id int32, mayOpen bool, changelog, leading kafka.LogOffsets, listed time.Time) {
	r.mu.Lock()
	f := r.all[id]
	r.mu.Unlock()
	var err error
	switch {
	case f != nil:
		if !r.hold(f) {
			return
		}
		if f.ids != r.ids {
			err = fmt.Errorf("%w: %w", errStale, errTopics)
		}
	case mayOpen:
		if f = r.begin(id, r.ids); f == nil {
			return
		}
		err = f.open(changelog, leading)
	default:
		return
	}
	defer f.release()
	if err == nil {
		r.startReading(f)
		err = f.noteEnds(changelogEnd{offset: changelog.End, listed: listed}, leading.End)
	}
	if err != nil {
		r.giveUp(f, err)
	} else if f.warm {
		delete(r.retries, id)
	}
}

// startReading fetches for a follower that is held, from where it is, unless it does
// already.
func (r *standbyReader) startReading(f *follower) {
	id := f.p.ID
	if r.read[id] == f {
		return
	}
	r.stopReading(id)
	r.read[id] = f
	r.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{
		r.changelog: {id: kgo.NewOffset().At(f.p.identity.Position)},
		r.leading:   {id: kgo.NewOffset().At(f.next())},
	})
}

func (r *standbyReader) stopReading(id int32) {
	if r.read[id] == nil {
		return
	}
	delete(r.read, id)
	r.cl.RemoveConsumePartitions(map[string][]int32{r.changelog: {id}, r.leading: {id}})
}

// pollOnce applies what was fetched, and returns when there is nothing until a time.
func (r *standbyReader) pollOnce(ctx context.Context, until time.Time) error {
	r.mu.Lock()
	var gone []int32
	for id, f := range r.read {
		if r.all[id] != f {
			gone = append(gone, id)
		}
	}
	r.mu.Unlock()
	for _, id := range gone {
		r.stopReading(id)
	}
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	fetches := r.cl.PollRecords(wait, maxPoll)
	if fetches.IsClientClosed() {
		return kgo.ErrClientClosed
	}
	for _, e := range fetches.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		f := r.read[e.Partition]
		if e.Topic == "" || f == nil {
			return fmt.Errorf("polling: %w", e.Err)
		}
		if r.hold(f) {
			r.giveUp(f, fmt.Errorf("polling %s partition %d: %w", e.Topic, e.Partition, e.Err))
			f.release()
		}
	}
	fetches.EachPartition(r.applyFetched)
	return nil
}

// applyFetched applies what was fetched of one partition, unless it was taken away.
func (r *standbyReader) applyFetched(fetched kgo.FetchTopicPartition) {
	f := r.read[fetched.Partition]
	if f == nil || len(fetched.Records) == 0 || !r.hold(f) {
		return
	}
	name := r.engine.topo.Changelog
	if fetched.Topic == r.leading {
		name = r.engine.topo.Leading.Topic
	}
	err := f.applyFollowed(fetched.Records, fetched.Topic == r.leading)
	if err != nil {
		r.giveUp(f, err)
	}
	f.release()
	r.engine.m.standbyRecords.WithLabelValues(name).Add(float64(len(fetched.Records)))
	r.engine.env.Step(StepFollowed)
}

// setGauges counts the partitions of others by how well they are followed.
func (r *standbyReader) setGauges(partitions []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{standbyWarm: 0, standbyBehind: 0, standbyClosed: 0}
	for _, id := range partitions {
		f := r.all[id]
		switch {
		case f == nil && r.owned[id]:
			continue
		case f == nil:
			counts[standbyClosed]++
			continue
		case f.warm:
			counts[standbyWarm]++
		default:
			counts[standbyBehind]++
		}
		r.engine.m.setStandbyLag(r.engine.topo.Changelog, id, f.changelog.offset-f.p.identity.Position)
		r.engine.m.setStandbyLag(r.engine.topo.Leading.Topic, id, f.leading-f.next())
	}
	for state, n := range counts {
		r.engine.m.standby.WithLabelValues(state).Set(float64(n))
	}
}
