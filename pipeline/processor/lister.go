package processor

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// lister lists the ends of both inputs beside the session, at most one listing at a
// time.
type lister struct {
	adm                 *kadm.Client
	now                 func() time.Time
	clicks, conversions string
	latest              atomic.Pointer[listing]
	want                chan struct{}
	cancel              context.CancelFunc
	done                chan struct{}
}

// listing is where both inputs ended, as far as the brokers told. Everything that was
// in Kafka at the time of the request lies below the ends.
type listing struct {
	at                  time.Time // of the request, to compare with other times of this process
	wall                time.Time // the same moment on the wall clock, to compare with times in the log
	clicks, conversions map[int32]int64
}

func newLister(adm *kadm.Client, now func() time.Time, clicks, conversions string) *lister {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lister{
		adm:         adm,
		now:         now,
		clicks:      clicks,
		conversions: conversions,
		want:        make(chan struct{}, 1),
		cancel:      cancel,
		done:        make(chan struct{}),
	}
	go l.run(ctx)
	return l
}

// reached reports whether position has come to the end in ends; not if that is not
// known.
func reached(ends map[int32]int64, partition int32, position int64) bool {
	end, ok := ends[partition]
	return ok && position >= end
}

// listGap bounds the requests that a steady stream of held conversions can cause.
const listGap = 5 * time.Millisecond

// ask wants a listing that begins after now.
func (l *lister) ask() {
	select {
	case l.want <- struct{}{}:
	default:
	}
}

func (l *lister) run(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.want:
		}
		at, wall := time.Now(), l.now()
		request, cancel := context.WithTimeout(ctx, endTimeout)
		ends, err := l.adm.ListEndOffsets(request, l.clicks, l.conversions)
		cancel()
		if err != nil && len(ends) == 0 {
			select { // whoever waits for it asks again
			case <-ctx.Done():
			case <-time.After(20 * listGap):
			}
			continue
		}
		x := &listing{at: at, wall: wall, clicks: make(map[int32]int64), conversions: make(map[int32]int64)}
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err != nil { // a partition without leader holds up itself and no other
				return
			}
			if o.Topic == l.clicks {
				x.clicks[o.Partition] = o.Offset
			} else {
				x.conversions[o.Partition] = o.Offset
			}
		})
		l.latest.Store(x)
		select {
		case <-ctx.Done():
		case <-time.After(listGap):
		}
	}
}

func (l *lister) close() {
	l.cancel()
	<-l.done
}
