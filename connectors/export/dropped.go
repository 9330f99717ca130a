package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/schemas/ledger"
)

// ErrDropped: rows that the file needs were dropped with their month.
var ErrDropped = errors.New("rows are gone")

// checkNotDropped returns ErrDropped if rows of the plan's days were dropped: the file
// would look complete and lack them. A statement adds up what is left of dropped rows, so
// only that of a month of which all are gone lacks something: what it is made of.
func (e *exporter) checkNotDropped(ctx context.Context, p plan) error {
	var found []ledger.Dropped
	if err := e.conn.Select(ctx, &found, ledger.DroppedQuery); err != nil {
		return fmt.Errorf("reading which months were dropped: %w", err)
	}
	dropped := found[0]
	if p.filters.Statement != "" && p.filters.Statement >= dropped.Month() || !p.start.Before(dropped.RowsFrom) {
		return nil
	}
	if !dropped.Any() {
		return nil
	}
	return fmt.Errorf("%w: -from: the days begin %s, and %s", ErrDropped, p.start.Format(time.RFC3339),
		dropped.Words())
}
