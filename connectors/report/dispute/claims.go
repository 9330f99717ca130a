package dispute

import (
	"io"

	"github.com/nimriz/partners/connectors/report/sheet"
)

// Claim is one line of a partner's list of orders.
type Claim sheet.Row

// Claims reads a list of claimed orders: a header, order_id or event_id in each line,
// amount, currency and date as far as they are known. Package sheet says how they may be
// written.
type Claims struct{ *sheet.List }

// ReadClaims reads how a list is written. file names it in errors, which are
// *sheet.BadList where the list is to blame.
func ReadClaims(from io.ReadSeeker, file string, opts sheet.Options) (*Claims, error) {
	list, err := sheet.Open(from, file, opts)
	if err != nil {
		return nil, err
	}
	return &Claims{list}, nil
}

// Next returns the next claim; io.EOF at the end, a *sheet.BadList for a line that is
// wrong.
func (c *Claims) Next() (Claim, error) {
	row, err := c.List.Next()
	return Claim(row), err
}

// NextBatch returns the next claims, at most MaxBatch. At the end of the list, and with
// the error of a line that is wrong, it returns the claims before that.
func (c *Claims) NextBatch() (batch []Claim, err error) {
	for len(batch) < MaxBatch {
		claim, err := c.Next()
		if err != nil {
			return batch, err
		}
		batch = append(batch, claim)
	}
	return batch, nil
}
