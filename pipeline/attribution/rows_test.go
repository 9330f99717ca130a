package attribution_test

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// rowMap is the obvious Rows: a map, and a sorted list of the keys that are ever
// scanned. It is as unkind as the contract allows: what Get and Scan give is
// overwritten by the next call.
type rowMap struct {
	values   map[string][]byte
	scanned  []string
	lent     []byte
	scanning bool
	puts     int
	gets     int
	visited  int
}

func newRows() *rowMap { return &rowMap{values: make(map[string][]byte)} }

func (m *rowMap) call() {
	if m.scanning {
		panic("Rows was called from yield")
	}
	for i := range m.lent {
		m.lent[i] = 0xEE
	}
}

func (m *rowMap) lend(b []byte) []byte {
	m.lent = append(m.lent[:0], b...)
	return m.lent
}

func (m *rowMap) Get(key []byte) ([]byte, error) {
	m.call()
	m.gets++
	v, ok := m.values[string(key)]
	if !ok {
		return nil, nil
	}
	return m.lend(v), nil
}

func (m *rowMap) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	m.call()
	m.scanning = true
	defer func() { m.scanning = false }()
	i := sort.SearchStrings(m.scanned, string(prefix))
	for ; i < len(m.scanned) && strings.HasPrefix(m.scanned[i], string(prefix)); i++ {
		m.visited++
		k, v := []byte(m.scanned[i]), bytes.Clone(m.values[m.scanned[i]])
		more := yield(k, v)
		clear(k)
		clear(v)
		if !more {
			break
		}
	}
	return nil
}

func (m *rowMap) Put(key, value []byte) error {
	m.call()
	m.puts++
	k := string(key)
	_, had := m.values[k]
	if value == nil {
		delete(m.values, k)
	} else {
		m.values[k] = bytes.Clone(value)
	}
	if _, kind, ok := event.ParseJourneyKey(key); ok && strings.IndexByte("heo", kind) >= 0 {
		return nil
	}
	i, _ := slices.BinarySearch(m.scanned, k)
	switch {
	case had && value == nil:
		m.scanned = slices.Delete(m.scanned, i, i+1)
	case !had && value != nil:
		m.scanned = slices.Insert(m.scanned, i, k)
	}
	return nil
}

// dump prints all rows, to compare two stores.
func (m *rowMap) dump() map[string]string {
	out := make(map[string]string, len(m.values))
	for k, v := range m.values {
		out[k] = string(v)
	}
	return out
}

// deadlines lists the deadline index.
func (m *rowMap) deadlines() (ends []event.Millis) {
	for k := range m.values {
		if end, _, _, ok := event.ParseDeadline([]byte(k)); ok {
			ends = append(ends, end)
		}
	}
	slices.Sort(ends)
	return ends
}
