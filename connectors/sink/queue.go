package sink

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// queue holds one partition's records between the poll loop, which pushes, and the
// partition's worker, which takes.
type queue struct {
	limitRows, limitBytes int
	changed               chan struct{} // capacity 1: something was pushed

	mu      sync.Mutex
	records []*kgo.Record
	bytes   int
	next    int64 // what was pushed has offsets below
	paused  bool
}

func newQueue(at int64, cfg Config) *queue {
	return &queue{limitRows: cfg.BatchRows, limitBytes: cfg.BatchBytes, changed: make(chan struct{}, 1), next: at}
}

// pushRecords appends records in the order of their offsets and reports whether fetching
// should pause: two batches are waiting. Records that were pushed before are ignored.
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

// fillLevel says how much is waiting: the number of records and whether they fill a batch.
func (q *queue) fillLevel() (records int, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records), len(q.records) >= q.limitRows || q.bytes >= q.limitBytes
}

// takeBatch removes the records of the next batch: as many as the limits allow, at least one
// if there is any. resume says that a paused partition should be fetched again.
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

// takeBelow removes all records below end. It does nothing until they are known to be
// complete: until the last record before end, or one behind it, was pushed.
func (q *queue) takeBelow(end int64) (records []*kgo.Record, resume, complete bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next < end {
		// A batch that is declared may be larger than today's limits: then it must not
		// wait for a fetch that is paused for being over them.
		resume, q.paused = q.paused, false
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

// removeFirst removes the first n records, which have so many bytes. q.mu is held.
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
