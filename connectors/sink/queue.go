package sink

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// queue holds one partition's records between the poll loop, which pushes them, and the
// partition's goroutine, which takes them.
type queue struct {
	limitRows  int           // of one batch
	limitBytes int           // of the record values of one batch
	changed    chan struct{} // capacity 1: records were pushed

	mu      sync.Mutex
	records []*kgo.Record
	bytes   int   // of the values of records
	next    int64 // all records below this offset were pushed
	paused  bool  // fetching is paused
}

func newQueue(at int64, cfg Config) *queue {
	return &queue{limitRows: cfg.BatchRows, limitBytes: cfg.BatchBytes, changed: make(chan struct{}, 1), next: at}
}

// pushRecords appends records in the order of their offsets. It returns true if
// fetching must pause because two batches are waiting. Records that were pushed before
// are ignored.
func (q *queue) pushRecords(records []*kgo.Record) (pause bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range records {
		if r.Offset < q.next {
			continue
		}
		q.records = append(q.records, r)
		q.bytes += len(r.Value)
		q.next = r.Offset + 1
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
	if !q.paused && (len(q.records) >= 2*q.limitRows || q.bytes >= 2*q.limitBytes) {
		q.paused = true
		return true
	}
	return false
}

// fillLevel returns the number of waiting records, and whether they fill a batch.
func (q *queue) fillLevel() (records int, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records), len(q.records) >= q.limitRows || q.bytes >= q.limitBytes
}

// takeBatch removes the records of the next batch: as many as the limits allow, but at
// least one if there is any. resume is true if fetching was paused and must go on.
func (q *queue) takeBatch() (records []*kgo.Record, resume bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.records) && n < q.limitRows && (n == 0 || bytes+len(q.records[n].Value) <= q.limitBytes) {
		bytes += len(q.records[n].Value)
		n++
	}
	return q.removeFirst(n, bytes)
}

// takeBelow removes all records below end. It does nothing until they are complete:
// until the last record below end, or one behind it, was pushed.
func (q *queue) takeBelow(end int64) (records []*kgo.Record, resume, complete bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next < end {
		// A batch that was declared may be larger than the limits of this process. It
		// must not wait for a fetch that is paused because of them.
		resume = q.paused
		q.paused = false
		return nil, resume, false
	}
	n, bytes := 0, 0
	for n < len(q.records) && q.records[n].Offset < end {
		bytes += len(q.records[n].Value)
		n++
	}
	records, resume = q.removeFirst(n, bytes)
	return records, resume, true
}

// removeFirst removes the first n records, whose values have so many bytes. The caller
// holds q.mu.
func (q *queue) removeFirst(n, bytes int) (records []*kgo.Record, resume bool) {
	records = q.records[:n:n]
	q.records = q.records[n:]
	q.bytes -= bytes
	if q.paused && len(q.records) < q.limitRows && q.bytes < q.limitBytes {
		q.paused = false
		resume = true
	}
	return records, resume
}
