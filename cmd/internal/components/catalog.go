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

// attemptTimeout ends an attempt that shows no progress.
const attemptTimeout = 10 * time.Second

// retryUntilDone calls try until it succeeds or ctx ends: Kafka and ClickHouse may
// start after this process. An attempt ends attemptTimeout after its last call of
// progressed.
func retryUntilDone(ctx context.Context, watch *outage.Watch, what string,
	try func(ctx context.Context, progressed func()) error) error {
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for {
		attempt, cancel := context.WithCancel(ctx)
		timeout := time.AfterFunc(attemptTimeout, cancel)
		err := try(attempt, func() { timeout.Reset(attemptTimeout) })
		timeout.Stop()
		cancel()
		if err == nil || ctx.Err() != nil {
			watch.Clear(what)
			return err
		}
		pause := pauses.Next()
		watch.Failed(what, pause, err)
		if !outage.Sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// emptyCatalogWait is the interval between two looks at an empty catalog topic.
const emptyCatalogWait = time.Second

// errCatalogEmpty means that no catalog was applied yet, or that the topic was
// recreated.
var errCatalogEmpty = errors.New("the catalog topic is empty: run `ctl catalog apply`")

// errCatalogRecreated means that the catalog's offsets went back.
var errCatalogRecreated = errors.New("the catalog topic was deleted and created again")

// followCatalog keeps view up to date from the catalog topic. It calls caughtUp when
// the view holds what the topic held at the start.
//
// A topic that was deleted and created again has smaller offsets than the catalog on
// disk. Each start therefore reads the topic from its beginning into a fresh view, so
// that no record of the old topic survives.
//
// An empty topic leaves view unchanged: a redirector continues with the catalog that it
// stored, and a gateway does not start to refuse every workspace.
func followCatalog(ctx context.Context, d Deps, view *catalog.View, caughtUp func()) error {
	absence := outage.New(d.Log, "a catalog")
	what := "reading topic " + d.Kafka.Topic(topic.Catalog)
	for ctx.Err() == nil {
		r := &catalogReader{Deps: d}
		if err := retryUntilDone(ctx, d.Kafka.Watch, "reading the catalog", r.readToEnd); err != nil {
			break
		}
		if !r.moveInto(view) {
			r.follower.Close()
			absence.Failed(what, emptyCatalogWait, fmt.Errorf("%w; until then the catalog of offset %d is served",
				errCatalogEmpty, view.Offset()))
			select {
			case <-ctx.Done():
			case <-time.After(emptyCatalogWait):
			}
			continue
		}
		absence.Clear(what)
		caughtUp()
		select {
		case <-ctx.Done():
		case <-r.follower.Done():
			d.Log.Error("following the catalog stopped; starting over", "error", r.follower.Err())
		}
		r.follower.Close()
	}
	return nil
}

// catalogReader applies the records of the catalog topic to a view.
type catalogReader struct {
	Deps
	follower *kafka.Follower // set by readToEnd

	mu         sync.Mutex
	target     *catalog.View // a fresh one until moveInto
	lastOffset int64         // of the record applied last, -1 before the first
}

// readToEnd reads the topic into a fresh view up to its present end, and goes on
// reading in the background.
func (r *catalogReader) readToEnd(ctx context.Context, progressed func()) (err error) {
	r.mu.Lock()
	r.target = catalog.NewView()
	r.lastOffset = -1
	r.mu.Unlock()
	name := r.Kafka.Topic(topic.Catalog)
	r.follower, err = kafka.Follow(ctx, r.Kafka, r.Log, name, func(record *kgo.Record) error {
		progressed() // a large catalog takes longer than attemptTimeout
		return r.applyRecord(record)
	})
	return err
}

// applyRecord skips a record that cannot be used: one bad record must not stop all
// other links.
func (r *catalogReader) applyRecord(record *kgo.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.Offset <= r.lastOffset {
		return errCatalogRecreated
	}
	r.lastOffset = record.Offset
	if err := r.target.Apply(string(record.Key), record.Value, record.Offset); err != nil {
		r.Log.Error("a catalog record is refused", "offset", record.Offset, "error", err)
	}
	return nil
}

// moveInto replaces the contents of view by what was read, and applies later records to
// view. It reports false, and changes nothing, if nothing was read.
func (r *catalogReader) moveInto(view *catalog.View) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.target.Offset() < 0 {
		return false
	}
	view.Replace(r.target)
	r.target = view
	return true
}
