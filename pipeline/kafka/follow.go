package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Follower keeps applying the records of a compacted topic of one partition.
type Follower struct {
	client *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex
	err error
}

// Follow reads topic from its start and calls apply with each record, in order, from
// one goroutine. It returns when everything that the topic held at the call has been
// applied, and goes on in the background until Close. If apply fails, the follower
// stops: see Err.
func Follow(ctx context.Context, cfg Config, log *slog.Logger, topic string, apply func(*kgo.Record) error) (*Follower,
	error) {
	cl, err := NewClient(cfg, log, nil, kgo.ConsumePartitions(
		map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	offsets, err := ListOffsets(ctx, kadm.NewClient(cl), topic)
	var at LogOffsets
	if err == nil {
		at, err = offsets.Of(topic, 0)
	}
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("following %s: %w", topic, err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &Follower{client: cl, cancel: cancel, done: make(chan struct{})}
	caught := make(chan struct{})
	go f.readRecords(run, topic, at.End, caught, apply)
	select {
	case <-caught:
		return f, nil
	case <-f.done:
		return nil, fmt.Errorf("following %s: %w", topic, f.Err())
	case <-ctx.Done():
		f.Close()
		return nil, fmt.Errorf("following %s: %w", topic, context.Cause(ctx))
	}
}

func (f *Follower) readRecords(ctx context.Context, topic string, end int64, caught chan<- struct{},
	apply func(*kgo.Record) error) {
	defer close(f.done)
	defer f.client.Close()
	position := int64(0)
	open := true // caught is not closed yet
	for {
		if open && position >= end {
			close(caught)
			open = false
		}
		fetches := f.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		if err := fetches.Err(); err != nil { // what franz-go retries by itself is not reported
			f.stopWithError(fmt.Errorf("reading %s: %w", topic, err))
			return
		}
		for _, r := range fetches.Records() {
			position = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if err := apply(r); err != nil {
				f.stopWithError(fmt.Errorf("applying %s offset %d: %w", topic, r.Offset, err))
				return
			}
		}
	}
}

func (f *Follower) stopWithError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Err returns why the follower stopped, nil while it runs.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Done returns a channel that is closed when the follower has stopped.
func (f *Follower) Done() <-chan struct{} { return f.done }

// Close stops the follower.
func (f *Follower) Close() {
	f.cancel()
	<-f.done
}
