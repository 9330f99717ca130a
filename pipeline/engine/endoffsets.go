package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// endOffsetPoller lists the end offsets of both inputs beside the session, one listing
// at a time.
type endOffsetPoller struct {
	adm       *kadm.Client
	now       func() time.Time
	leading   string // full topic names
	following string
	latest    atomic.Pointer[endOffsetSnapshot]
	wanted    chan struct{}
	cancel    context.CancelFunc
	done      chan struct{}
}

// endOffsetSnapshot is where both inputs ended, as far as the brokers told. Everything
// that was in Kafka at the time of the request lies below the ends.
type endOffsetSnapshot struct {
	at        time.Time // of the request, to compare with other times of this process
	wall      time.Time // the same moment on the wall clock, to compare with times in the log
	leading   map[int32]int64
	following map[int32]int64
}

func newEndOffsetPoller(adm *kadm.Client, now func() time.Time, leading, following string) *endOffsetPoller {
	ctx, cancel := context.WithCancel(context.Background())
	l := &endOffsetPoller{
		adm:       adm,
		now:       now,
		leading:   leading,
		following: following,
		wanted:    make(chan struct{}, 1),
		cancel:    cancel,
		done:      make(chan struct{}),
	}
	go l.pollOnRequest(ctx)
	return l
}

// hasReached reports whether offset has come to the end in ends; not if that is
// unknown.
func hasReached(ends map[int32]int64, partition int32, offset int64) bool {
	end, ok := ends[partition]
	return ok && offset >= end
}

// listingPause bounds the requests that a steady stream of buffered records can cause.
const listingPause = 5 * time.Millisecond

// requestSnapshot wants a snapshot that begins after now.
func (l *endOffsetPoller) requestSnapshot() {
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

func (l *endOffsetPoller) pollOnRequest(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wanted:
		}
		pause := listingPause
		if !l.takeSnapshot(ctx) {
			pause *= 20 // the session asks again
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// takeSnapshot takes a snapshot. It reports whether the brokers answered.
func (l *endOffsetPoller) takeSnapshot(ctx context.Context) bool {
	snapshot := &endOffsetSnapshot{
		at:        time.Now(),
		wall:      l.now(),
		leading:   make(map[int32]int64),
		following: make(map[int32]int64),
	}
	request, cancel := context.WithTimeout(ctx, EndTimeout)
	defer cancel()
	ends, err := l.adm.ListEndOffsets(request, l.leading, l.following)
	if err != nil && len(ends) == 0 {
		return false
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err != nil { // a partition without leader holds up only itself
			return
		}
		if o.Topic == l.leading {
			snapshot.leading[o.Partition] = o.Offset
		} else {
			snapshot.following[o.Partition] = o.Offset
		}
	})
	l.latest.Store(snapshot)
	return true
}

func (l *endOffsetPoller) closePoller() {
	l.cancel()
	<-l.done
}
