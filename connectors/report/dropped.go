package report

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/schemas/ledger"
)

// Dropped reads of which months rows are gone. Whoever answers from rows says so: what is
// not among them may have been.
func (r *Reader) Dropped(ctx context.Context) (ledger.Dropped, error) {
	var found []ledger.Dropped
	if err := r.conn.Select(ctx, &found, ledger.DroppedQuery); err != nil {
		return ledger.Dropped{}, fmt.Errorf("reading which months were dropped: %w", err)
	}
	return found[0], nil
}
