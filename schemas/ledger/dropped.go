package ledger

import (
	"fmt"
	"time"
)

// Dropped says which rows of the base tables are gone because their month was dropped.
type Dropped struct {
	// RowsFrom is the first instant of the first month (UTC) of which the rows are there;
	// 1970: nothing was dropped.
	RowsFrom time.Time `ch:"rows_from"`
}

// DroppedQuery is a query for the Dropped.
const DroppedQuery = "SELECT rows_from FROM dropped_until"

// Any reports whether anything was dropped.
func (d Dropped) Any() bool { return d.RowsFrom.Unix() > 0 }

// Month is the first month of which the rows are there, such as 2026-02.
func (d Dropped) Month() string { return d.RowsFrom.UTC().Format("2006-01") }

// Words says what cannot be known; empty if nothing was dropped.
func (d Dropped) Words() string {
	if !d.Any() {
		return ""
	}
	return fmt.Sprintf("rows before %s were dropped: what was received before cannot be known", d.Month())
}
