package processor

import (
	"bytes"
	"slices"
	"strings"

	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
)

// overlay is what the rules see: the rows of the running transaction, and below them
// what is committed. It implements attribution.Rows.
type overlay struct {
	store *state.Store
	rows  map[string][]byte // nil: deleted
	keys  []string          // in the order of their first Put
	// byToken and deadlines hold the same keys, sorted: a scan costs what it visits,
	// not what the transaction wrote.
	byToken   map[[20]byte][]string
	deadlines []string
	buf       []byte

	// waiting counts the deadline rows, committed and not: one row per waiting event.
	waiting int64
	// earliest is a lower bound of the first end among the waiting events.
	earliest event.Millis
	// clickWaits holds at least the tokens that have an event waiting for its click. It
	// may hold more: one wrong look-up is all that costs.
	clickWaits map[[20]byte]struct{}
}

const never = event.Millis(1<<63 - 1)

func newOverlay(store *state.Store) *overlay {
	return &overlay{
		store:      store,
		rows:       make(map[string][]byte),
		byToken:    make(map[[20]byte][]string),
		earliest:   never,
		clickWaits: make(map[[20]byte]struct{}),
	}
}

// Get implements attribution.Rows.
func (o *overlay) Get(key []byte) ([]byte, error) {
	if v, ok := o.rows[string(key)]; ok {
		return v, nil
	}
	v, ok, err := o.store.Get(key, o.buf[:0])
	o.buf = v
	if err != nil || !ok {
		return nil, err
	}
	return v, nil
}

// Put implements attribution.Rows.
func (o *overlay) Put(key, value []byte) error {
	if _, _, _, ok := event.ParseDeadline(key); ok {
		old, err := o.Get(key)
		if err != nil {
			return err
		}
		switch {
		case old == nil && value != nil:
			o.waiting++
		case old != nil && value == nil:
			o.waiting--
		}
	}
	k := string(key)
	if _, ok := o.rows[k]; !ok {
		o.keys = append(o.keys, k)
		o.index(k)
	}
	if value == nil {
		o.rows[k] = nil
		return nil
	}
	o.rows[k] = append(make([]byte, 0, len(value)), value...)
	o.note(key)
	return nil
}

// note keeps what is remembered about waiting events besides their rows.
func (o *overlay) note(key []byte) {
	if end, _, _, ok := event.ParseDeadline(key); ok {
		o.earliest = min(o.earliest, end)
	} else if t, kind, ok := event.ParseJourneyKey(key); ok && kind == event.KindWaitClick {
		o.clickWaits[t] = struct{}{}
	}
}

func (o *overlay) index(k string) {
	key := []byte(k)
	if t, _, ok := event.ParseJourneyKey(key); ok {
		o.byToken[t] = insert(o.byToken[t], k)
	} else if _, _, _, ok := event.ParseDeadline(key); ok {
		o.deadlines = insert(o.deadlines, k)
	}
}

// insert keeps keys sorted. Keys of waiting events come nearly in order, so there is
// little to move.
func insert(keys []string, k string) []string {
	if n := len(keys); n == 0 || keys[n-1] < k {
		return append(keys, k)
	}
	at, _ := slices.BinarySearch(keys, k)
	return slices.Insert(keys, at, k)
}

// Scan implements attribution.Rows for prefixes within one journey, and within the
// deadlines.
func (o *overlay) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	return o.scan(prefix, state.PrefixEnd(prefix), yield)
}

// scan merges the rows of the transaction into the committed ones of [lower, upper),
// which lies within one journey or within the deadlines.
func (o *overlay) scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	candidates := o.deadlines
	if t, _, ok := event.ParseJourneyKey(append(lower[:len(lower):len(lower)], 0)); ok {
		candidates = o.byToken[t]
	}
	from, _ := slices.BinarySearch(candidates, string(lower))
	to, _ := slices.BinarySearch(candidates, string(upper))
	mine := candidates[from:to]
	stopped := false
	give := func(k string) bool { return o.rows[k] == nil || yield([]byte(k), o.rows[k]) }
	err := o.store.Scan(lower, upper, func(key, value []byte) bool {
		for len(mine) > 0 && strings.Compare(mine[0], string(key)) < 0 {
			k := mine[0]
			mine = mine[1:]
			if stopped = !give(k); stopped {
				return false
			}
		}
		if len(mine) > 0 && bytes.Equal([]byte(mine[0]), key) {
			return true // the transaction's form of the row comes with the next one
		}
		stopped = !yield(key, value)
		return !stopped
	})
	for ; err == nil && !stopped && len(mine) > 0; mine = mine[1:] {
		stopped = !give(mine[0])
	}
	return err
}

// forget drops a token from clickWaits when no event of it waits for its click any
// more.
func (o *overlay) forget(t *[20]byte) error {
	waits := false
	err := o.Scan(event.AppendJourneyKey(nil, t, event.KindWaitClick, ""), func(_, _ []byte) bool {
		waits = true
		return false
	})
	if err == nil && !waits {
		delete(o.clickWaits, *t)
	}
	return err
}

// reset forgets the rows of a transaction that was applied.
func (o *overlay) reset() {
	clear(o.rows)
	clear(o.byToken)
	o.keys, o.deadlines = o.keys[:0], o.deadlines[:0]
}
