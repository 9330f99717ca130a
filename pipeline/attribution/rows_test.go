package attribution_test

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// memoryRows is the obvious Rows: a map, and a sorted list of the keys that are ever
// scanned. It is as strict as the contract allows: the next call overwrites what Get
// and Scan have returned.
type memoryRows struct {
	values   map[string][]byte
	scanned  []string // keys of all kinds that are often scanned, sorted
	borrowed []byte   // the value that the last Get returned
	scanning bool     // Scan is running
	puts     int
	gets     int
	visited  int // rows that Scan has yielded
}

func newRows() *memoryRows { return &memoryRows{values: make(map[string][]byte)} }

func (m *memoryRows) startCall() {
	if m.scanning {
		panic("Rows was called from yield")
	}
	for i := range m.borrowed {
		m.borrowed[i] = 0xEE
	}
}

func (m *memoryRows) borrow(b []byte) []byte {
	m.borrowed = append(m.borrowed[:0], b...)
	return m.borrowed
}

func (m *memoryRows) Get(key []byte) ([]byte, error) {
	m.startCall()
	m.gets++
	v, ok := m.values[string(key)]
	if !ok {
		return nil, nil
	}
	return m.borrow(v), nil
}

func (m *memoryRows) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	m.startCall()
	m.scanning = true
	defer func() { m.scanning = false }()
	keys := m.scanned
	if _, kind, ok := event.ParseJourneyKey(prefix); ok && isSeldomScanned(kind) {
		keys = slices.Sorted(maps.Keys(m.values))
	}
	i := sort.SearchStrings(keys, string(prefix))
	for ; i < len(keys) && strings.HasPrefix(keys[i], string(prefix)); i++ {
		m.visited++
		k, v := []byte(keys[i]), bytes.Clone(m.values[keys[i]])
		more := yield(k, v)
		clear(k)
		clear(v)
		if !more {
			break
		}
	}
	return nil
}

func (m *memoryRows) Put(key, value []byte) error {
	m.startCall()
	m.puts++
	k := string(key)
	_, had := m.values[k]
	if value == nil {
		delete(m.values, k)
	} else {
		m.values[k] = bytes.Clone(value)
	}
	if _, kind, ok := event.ParseJourneyKey(key); ok && isSeldomScanned(kind) {
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

// isSeldomScanned reports whether rows of a kind are kept out of the sorted list.
func isSeldomScanned(kind byte) bool { return strings.IndexByte("heo", kind) >= 0 }

// contents copies all rows, to compare two stores.
func (m *memoryRows) contents() map[string]string {
	out := make(map[string]string, len(m.values))
	for k, v := range m.values {
		out[k] = string(v)
	}
	return out
}

// deadlines lists the deadline index.
func (m *memoryRows) deadlines() (ends []event.Millis) {
	for k := range m.values {
		if end, _, _, ok := event.ParseDeadline([]byte(k)); ok {
			ends = append(ends, end)
		}
	}
	slices.Sort(ends)
	return ends
}
