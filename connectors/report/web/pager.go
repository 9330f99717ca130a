package web

import (
	"net/url"
	"strconv"
)

// maxPages bounds the pages of a list; a file has all.
const maxPages = 1000

// pager is one page of a list on a page, with links to those beside it.
type pager struct {
	First, Last uint64 // of the rows shown, from 1
	All         uint64 // rows of all pages; 0: not known
	Previous    string // link; empty: this is the first page
	Next        string // link; empty: this is the last one
}

// parsePageNumber reads the number of a page, from 1.
func parsePageNumber(name, value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxPages {
		return 1, badParameter(name, "%.40q is not a page from 1 to %d", value, maxPages)
	}
	return n, nil
}

// newPager is page number, from 1, with so many rows of size, whose parameters are query
// and whose number is the parameter name. anchor is where the list is. It is nil where all
// is on one page.
func newPager(path string, query url.Values, name, anchor string, number, size, rows int, more bool) *pager {
	if number == 1 && !more {
		return nil
	}
	link := func(number int) string {
		q := url.Values{}
		for key, values := range query {
			q[key] = values
		}
		q.Set(name, strconv.Itoa(number))
		return path + "?" + q.Encode() + "#" + anchor
	}
	p := &pager{First: uint64((number-1)*size + 1), Last: uint64((number-1)*size + rows)}
	if number > 1 {
		p.Previous = link(number - 1)
	}
	if more && number < maxPages {
		p.Next = link(number + 1)
	}
	return p
}

// labelledPager is a pager with a name for those who do not see where it is.
type labelledPager struct {
	Label string
	Pager *pager // nil: nothing is shown
}
