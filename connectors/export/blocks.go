package export

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/parquet-go/parquet-go"
)

const (
	// A block has at most so many rows, and ends with the row that takes it beyond so
	// many bytes.
	blockRows  = 1 << 10
	blockBytes = 1 << 20
	// maxEncoders is how many blocks are encoded at once. More would wait: one goroutine
	// reads the rows from ClickHouse, and one writes them.
	maxEncoders = 8
)

// block is a number of rows on their way into the file. It is used again and again.
type block struct {
	rows           []string // as rowSQL has them
	cells          []cell   // of the row that is being encoded
	nets, standing sums     // of the rows
	lines          []byte   // the rows in a CSV
	values         []parquet.Value
	ends           []int      // of the rows in values
	encoded        chan error // has one value once the block is encoded
}

// encoder is the format of a file.
type encoder interface {
	// encode makes of a row, whose cells are decoded, what is written of it. It runs in
	// several goroutines, for a block each.
	encode(*block) error
	// write writes a block, and is called for one after the other, in their order.
	write(*block) error
}

// writeRows writes the rows of an export and sums them up. Blocks of them are encoded on
// all cores and written in order; there are never more blocks than these few.
func (e *exporter) writeRows(ctx context.Context, p plan, s summary, to encoder) (w written, err error) {
	encoders := min(runtime.GOMAXPROCS(0), maxEncoders)
	blocks := 2*encoders + 2
	free, read, inOrder := make(chan *block, blocks), make(chan *block, blocks), make(chan *block, blocks)
	columns := ledger.ColumnsOf(p.version)
	for range blocks {
		free <- &block{cells: make([]cell, len(columns)), nets: sums{}, standing: sums{}, encoded: make(chan error, 1)}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(inOrder)
		defer close(read)
		return e.readBlocks(ctx, p, free, func(b *block) {
			read <- b
			inOrder <- b
		})
	})
	for range encoders {
		group.Go(func() error {
			for b := range read {
				b.encoded <- b.encode(columns, to)
			}
			return nil
		})
	}
	nets, standing := sums{}, sums{}
	group.Go(func() error {
		for b := range inOrder {
			err := <-b.encoded
			if ctx.Err() != nil { // the blocks that are read would still be written
				return context.Cause(ctx)
			}
			if err == nil {
				err = to.write(b)
			}
			if err != nil {
				return err
			}
			before := w.rows
			w.rows += int64(len(b.rows))
			nets.addAll(b.nets)
			standing.addAll(b.standing)
			free <- b
			if w.rows/progressRows > before/progressRows {
				e.reportProgress(w.rows, s.rows)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return w, err
	}
	if w.rows != s.rows {
		return w, fmt.Errorf("%d rows came, %d were counted below the same offsets: rows were removed meanwhile",
			w.rows, s.rows)
	}
	e.reportProgress(w.rows, s.rows)
	w.sums, w.standing = nets.format(), standing.format()
	return w, nil
}

// readBlocks reads the rows of an export into free blocks, and passes each on.
func (e *exporter) readBlocks(ctx context.Context, p plan, free <-chan *block, pass func(*block)) error {
	selected := newSelection(p)
	rows, err := e.conn.Rows(ctx, rowsQuery(selected, p.version), selected.args...)
	if err != nil {
		return fmt.Errorf("reading rows: %w", err)
	}
	defer rows.Close()
	var row string
	for more := rows.Next(); more; {
		var b *block
		select {
		case b = <-free:
		case <-ctx.Done(): // the rows that are buffered would still come
			return context.Cause(ctx)
		}
		b.rows = b.rows[:0]
		for bytes := 0; more && len(b.rows) < blockRows && bytes < blockBytes; more = rows.Next() {
			if err := rows.Scan(&row); err != nil {
				return fmt.Errorf("reading rows: %w", err)
			}
			b.rows = append(b.rows, row)
			bytes += len(row)
		}
		pass(b)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading rows: %w", err)
	}
	return nil
}

// encode encodes the block's rows, and sums them up.
func (b *block) encode(columns []ledger.Column, to encoder) error {
	clear(b.nets)
	clear(b.standing)
	b.lines, b.values, b.ends = b.lines[:0], b.values[:0], b.ends[:0]
	amounts := newSummed(columns)
	for _, row := range b.rows {
		if err := decodeRow(columns, row, b.cells); err != nil {
			return fmt.Errorf("reading rows: %w", err)
		}
		amounts.add(b.cells, b.nets, b.standing)
		if err := to.encode(b); err != nil {
			return err
		}
	}
	return nil
}
