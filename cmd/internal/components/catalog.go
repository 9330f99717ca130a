package components

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// retryUntilDone calls try until it succeeds or ctx ends: Kafka and ClickHouse may start after
// us. An attempt ends ten seconds after it last called alive.
func retryUntilDone(ctx context.Context, watch *outage.Watch, what string, try func(ctx context.Context,
	alive func()) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		attempt, cancel := context.WithCancel(ctx)
		const patience = 10 * time.Second
		silent := time.AfterFunc(patience, cancel)
		err := try(attempt, func() { silent.Reset(patience) })
		silent.Stop()
		cancel()
		if err == nil || ctx.Err() != nil {
			watch.Clear(what)
			return err
		}
		watch.Failed(what, wait, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// emptyCatalogWait is how long to wait before looking again whether somebody has
// applied a catalog.
const emptyCatalogWait = time.Second

// errCatalogEmpty: nobody has applied one, or the topic was made anew.
var errCatalogEmpty = errors.New("the catalog topic is empty: run `ctl catalog apply`")

// errCatalogRecreated: the catalog's offsets went back.
var errCatalogRecreated = errors.New("the catalog topic was deleted and created again")

// followCatalog keeps view up to date from the catalog topic. It calls caught when the view
// holds what the topic held at the start. Each start reads the topic from its beginning
// into another view, so that nothing is left of a topic that was there before under
// this name: its offsets, kept on disk, would be larger than those of the records that
// count. While the topic is empty, what view holds is not touched: a redirector goes on
// with the catalog it kept, a gateway does not begin to refuse every workspace.
func followCatalog(ctx context.Context, d Deps, view *catalog.View, caught func()) error {
	applied := outage.New(d.Log, "a catalog")
	for ctx.Err() == nil {
		var (
			f    *kafka.Follower
			mu   sync.Mutex
			into *catalog.View
		)
		err := retryUntilDone(ctx, d.Kafka.Watch, "reading the catalog", func(ctx context.Context, alive func()) (err error) {
			into = catalog.NewView()
			last := int64(-1)
			f, err = kafka.Follow(ctx, d.Kafka, d.Log, d.Kafka.Topic(topic.Catalog), func(r *kgo.Record) error {
				alive() // a large catalog takes longer than an attempt may be silent
				mu.Lock()
				defer mu.Unlock()
				if r.Offset <= last {
					return errCatalogRecreated
				}
				last = r.Offset
				if err := into.Apply(string(r.Key), r.Value, r.Offset); err != nil {
					// One bad record must not stop all other links: it is refused,
					// everything else stays usable.
					d.Log.Error("a catalog record is refused", "offset", r.Offset, "error", err)
				}
				return nil
			})
			return err
		})
		if err != nil {
			break
		}
		mu.Lock()
		empty := into.Offset() < 0
		if !empty {
			view.Replace(into)
			into = view
		}
		mu.Unlock()
		if empty {
			f.Close()
			applied.Failed("reading topic "+d.Kafka.Topic(topic.Catalog), emptyCatalogWait,
				fmt.Errorf("%w; what serves meanwhile is the catalog of offset %d", errCatalogEmpty, view.Offset()))
			select {
			case <-ctx.Done():
			case <-time.After(emptyCatalogWait):
			}
			continue
		}
		applied.Clear("reading topic " + d.Kafka.Topic(topic.Catalog))
		caught()
		select {
		case <-ctx.Done():
		case <-f.Done():
			d.Log.Error("following the catalog stopped; starting over", "error", f.Err())
		}
		f.Close()
	}
	return nil
}

// readEpochs reads the partition count that tokens are bound to.
func readEpochs(ctx context.Context, d Deps, cl *kgo.Client) (e topic.Epochs, err error) {
	err = retryUntilDone(ctx, d.Kafka.Watch, "reading topic metadata", func(ctx context.Context, _ func()) error {
		n, err := kafka.Partitions(ctx, cl, d.Kafka.Topic(topic.Clicks))
		e = topic.OneEpoch(n)
		return err
	})
	return e, err
}
