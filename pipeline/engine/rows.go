package engine

import (
	"bytes"
	"slices"
	"strings"

	"github.com/nimriz/partners/pipeline/state"
)

// Rows are a partition's rows as the running transaction sees them: what it wrote, and
// below that what is committed. What it wrote goes to the changelog when it ends, each
// changed row once.
type Rows struct {
	store  *state.Store
	tables map[byte]int      // length of the prefix that is scanned together, by table
	rows   map[string][]byte // nil: deleted
	keys   []string          // in the order of their first Put
	// groups holds the same keys by the prefix that is scanned together, each group
	// sorted: a scan costs what it visits, not what the transaction wrote.
	groups map[string][]string
	buf    []byte
}

// NewRows makes rows over a store. tables has, by a key's first byte, the length of the
// prefix within which its rows are scanned.
func NewRows(store *state.Store, tables map[byte]int) *Rows {
	return &Rows{
		store:  store,
		tables: tables,
		rows:   make(map[string][]byte),
		groups: make(map[string][]string),
	}
}

// Changed reports whether the running transaction wrote a row.
func (o *Rows) Changed() bool { return len(o.keys) > 0 }

// Get returns a row's value, nil if there is none; it is valid until the next call.
func (o *Rows) Get(key []byte) ([]byte, error) {
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

// Put writes a row. It copies both; a nil value deletes.
func (o *Rows) Put(key, value []byte) error {
	k := string(key)
	if _, ok := o.rows[k]; !ok {
		o.keys = append(o.keys, k)
		if n := o.tables[k[0]]; n > 0 && len(k) >= n {
			o.groups[k[:n]] = insertSorted(o.groups[k[:n]], k)
		}
	}
	if value == nil {
		o.rows[k] = nil
		return nil
	}
	o.rows[k] = append(make([]byte, 0, len(value)), value...)
	return nil
}

// insertSorted keeps keys sorted. Keys of waiting events come nearly in order, so there
// is little to move.
func insertSorted(keys []string, k string) []string {
	if n := len(keys); n == 0 || keys[n-1] < k {
		return append(keys, k)
	}
	at, _ := slices.BinarySearch(keys, k)
	return slices.Insert(keys, at, k)
}

// Scan yields the rows with the prefix in ascending order, those just put included. The
// prefix is at least as long as its table's. yield must not call Rows, nor keep what it
// is given.
func (o *Rows) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	upper := state.PrefixEnd(prefix)
	candidates := o.groups[string(prefix[:min(o.tables[prefix[0]], len(prefix))])]
	from, _ := slices.BinarySearch(candidates, string(prefix))
	to, _ := slices.BinarySearch(candidates, string(upper))
	mine := candidates[from:to]
	stopped := false
	give := func(k string) bool { return o.rows[k] == nil || yield([]byte(k), o.rows[k]) }
	err := o.store.Scan(prefix, upper, func(key, value []byte) bool {
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

// forgetApplied forgets the rows of a transaction that was applied.
func (o *Rows) forgetApplied() {
	clear(o.rows)
	clear(o.groups)
	o.keys = o.keys[:0]
}
