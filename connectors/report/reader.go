package report

import "github.com/nimriz/partners/connectors/clickhouse"

// Reader asks the warehouse. It is safe for concurrent use.
type Reader struct{ conn *clickhouse.Conn }

// New returns a Reader on a database that is migrated.
func New(conn *clickhouse.Conn) *Reader { return &Reader{conn} }
