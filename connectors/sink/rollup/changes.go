package rollup

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// changesWriter computes the standing changes of one partition of outcomes and inserts
// them into the table of changes.
type changesWriter struct {
	wh           *clickhouse.Conn
	partition    uint32
	gaps         []offsetGap
	approximated *uint64 // rows in which effect × amount stands in

	rows    []tokenRow // of one token
	changes []computedChange
}

// tokenRow is an outcome with effect of any rules version.
type tokenRow struct {
	Workspace string `ch:"workspace_id"`
	Token     string `ch:"click_token"`
	Offset    uint64 `ch:"src_offset"`
	EventID   string `ch:"event_id"`
	ParentID  string `ch:"parent_event_id"`
	Verdict   string `ch:"verdict"`
	Effect    int8   `ch:"effect"`
	Amount    *int64 `ch:"amount_minor"`
	Currency  string `ch:"currency"`
	Exponent  uint8  `ch:"exponent"`
	Basis     string `ch:"standing_basis"`
	Month     uint32 `ch:"month"` // of arrived_at
}

// computedChange is a row of the table of changes.
type computedChange struct {
	month  uint32
	offset uint64
	standingChange
}

// computePart reads the events of the tokens that have pending ones, as far as they
// belong to a part of all tokens, and computes the pending ones.
func (w *changesWriter) computePart(ctx context.Context, part, parts uint64) error {
	rows, err := w.wh.Rows(ctx, `
		SELECT
			workspace_id, click_token, src_offset, event_id, parent_event_id, verdict, effect, amount_minor, currency,
			exponent, standing_basis, toUInt32(toYYYYMM(arrived_at)) AS month
		FROM outcomes
		WHERE src_partition = {partition:UInt32}
			AND effect != 0
			AND cityHash64(click_token) % {parts:UInt64} = {part:UInt64}
			AND click_token IN
			(
				SELECT click_token
				FROM outcomes
				WHERE src_partition = {partition:UInt32}
					AND standing_basis = 'pending'
					AND cityHash64(click_token) % {parts:UInt64} = {part:UInt64}
			)
		ORDER BY workspace_id, click_token, src_offset`,
		clickhouse.Named("partition", w.partition),
		clickhouse.Named("parts", parts),
		clickhouse.Named("part", part))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r tokenRow
		if err := rows.ScanStruct(&r); err != nil {
			return err
		}
		if n := len(w.rows); n > 0 && (w.rows[n-1].Token != r.Token || w.rows[n-1].Workspace != r.Workspace) {
			if err := w.finishToken(ctx); err != nil {
				return err
			}
		}
		w.rows = append(w.rows, r)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := w.finishToken(ctx); err != nil {
		return err
	}
	return w.insertChanges(ctx)
}

// finishToken computes the token whose rows are complete.
func (w *changesWriter) finishToken(ctx context.Context) error {
	chain := make([]chainRow, len(w.rows))
	for i, r := range w.rows {
		chain[i] = chainRow{
			offset:   r.Offset,
			eventID:  r.EventID,
			parentID: r.ParentID,
			positive: r.Verdict == "attributed",
			effect:   r.Effect,
			amount:   r.Amount,
			currency: r.Currency,
			exponent: r.Exponent,
		}
	}
	for i, change := range replayToken(chain, w.gaps) {
		if w.rows[i].Basis != basisPending {
			continue
		}
		if change.basis == basisAmount {
			*w.approximated++
		}
		w.changes = append(w.changes, computedChange{w.rows[i].Month, w.rows[i].Offset, change})
	}
	w.rows = w.rows[:0]
	if len(w.changes) < changesAtOnce {
		return nil
	}
	return w.insertChanges(ctx)
}

func (w *changesWriter) insertChanges(ctx context.Context) error {
	into := clickhouse.Insert{
		Table:   changesTable,
		Columns: []string{"month", "src_partition", "src_offset", "changed_minor", "basis"},
	}
	err := w.wh.Insert(ctx, into, func(b *clickhouse.Batch) error {
		for _, c := range w.changes {
			if err := b.Append(c.month, w.partition, c.offset, c.minor, c.basis); err != nil {
				return fmt.Errorf("offset %d: %w", c.offset, err)
			}
		}
		return nil
	})
	w.changes = w.changes[:0]
	return err
}
