package verify

import (
	"slices"
	"strings"
)

// maxRun is how many rows a run of journeyRows has before it is split.
const maxRun = 512

// journeyRows are one token's journey in memory, sorted by key: an attribution.Rows. It
// is a list of short sorted runs, so that a row can be put in the middle of a journey of
// 100,000 events.
type journeyRows struct {
	runs [][]journeyRow // none is empty
}

type journeyRow struct {
	key   string
	value []byte
}

func (r *journeyRows) reset() { r.runs = r.runs[:0] }

// clone copies the rows. Values are never changed in place.
func (r *journeyRows) clone() *journeyRows {
	c := &journeyRows{}
	for _, run := range r.runs {
		c.runs = append(c.runs, slices.Clone(run))
	}
	return c
}

// findRow returns where a key is, or would be put.
func (r *journeyRows) findRow(key string) (run, at int, found bool) {
	run, _ = slices.BinarySearchFunc(r.runs, key, func(run []journeyRow, key string) int {
		return strings.Compare(run[len(run)-1].key, key)
	})
	if run == len(r.runs) {
		return run, 0, false
	}
	at, found = slices.BinarySearchFunc(r.runs[run], key, func(row journeyRow, key string) int {
		return strings.Compare(row.key, key)
	})
	return run, at, found
}

// Get implements attribution.Rows.
func (r *journeyRows) Get(key []byte) ([]byte, error) {
	run, at, found := r.findRow(string(key))
	if !found {
		return nil, nil
	}
	return r.runs[run][at].value, nil
}

// Scan implements attribution.Rows.
func (r *journeyRows) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	first := string(prefix)
	run, at, _ := r.findRow(first)
	for ; run < len(r.runs); run, at = run+1, 0 {
		for _, row := range r.runs[run][at:] {
			if !strings.HasPrefix(row.key, first) || !yield([]byte(row.key), row.value) {
				return nil
			}
		}
	}
	return nil
}

// Put implements attribution.Rows.
func (r *journeyRows) Put(key, value []byte) error {
	run, at, found := r.findRow(string(key))
	switch {
	case found && value == nil:
		r.runs[run] = slices.Delete(r.runs[run], at, at+1)
		if len(r.runs[run]) == 0 {
			r.runs = slices.Delete(r.runs, run, run+1)
		}
		return nil
	case value == nil:
		return nil
	case found:
		r.runs[run][at].value = slices.Clone(value)
		return nil
	case run == len(r.runs) && run > 0: // behind the last row
		run--
		at = len(r.runs[run])
	case run == len(r.runs):
		r.runs = append(r.runs, nil)
	}
	r.runs[run] = slices.Insert(r.runs[run], at, journeyRow{string(key), slices.Clone(value)})
	if n := len(r.runs[run]); n > maxRun {
		back := slices.Clone(r.runs[run][n/2:])
		r.runs[run] = slices.Delete(r.runs[run], n/2, n)
		r.runs = slices.Insert(r.runs, run+1, back)
	}
	return nil
}
