package clickhouse

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	rowsdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is used when the DSN names none.
const DefaultDatabase = "partners"

// Config selects the server.
type Config struct {
	// DSN is the data source name, from -clickhouse, in the form of clickhouse-go:
	// http://user:password@host:8123/partners or
	// clickhouse://user:password@host:9000/partners, with options after a "?"
	// (compress=lz4, max_open_conns=10, dial_timeout=5s, secure=true; see
	// clickhouse-go). A statement may be silent for read_timeout, by default 5 minutes.
	// The DSN holds a password: never log it.
	DSN string
	// CAFile holds, in PEM, the authorities that may sign the server's certificate,
	// from -clickhouse-ca-file; empty: those of this machine. Open reads it.
	CAFile string
}

// Validate checks the form of the DSN, not the server. Its error names the flag.
func (c Config) Validate() error {
	_, err := c.parseDSN()
	return err
}

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	scheme     = regexp.MustCompile(`^(https?|clickhouse|tcp)://`)
)

// parseDSN returns the options in the DSN.
func (c Config) parseDSN() (*driver.Options, error) {
	if c.DSN == "" {
		return nil, errors.New("-clickhouse: missing, expected http://user@host:8123/partners or " +
			"clickhouse://user@host:9000/partners")
	}
	// clickhouse-go would use its native protocol for any other scheme.
	if !scheme.MatchString(c.DSN) {
		return nil, errors.New("-clickhouse: the scheme is neither http, https nor clickhouse")
	}
	opts, err := driver.ParseDSN(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("-clickhouse: %w", err)
	}
	opts.Auth.Database = cmp.Or(opts.Auth.Database, DefaultDatabase)
	if !identifier.MatchString(opts.Auth.Database) {
		return nil, fmt.Errorf("-clickhouse: database %q is not an identifier", opts.Auth.Database)
	}
	if c.CAFile != "" && opts.TLS == nil {
		return nil, errors.New("-clickhouse-ca-file: it has no effect without TLS: -clickhouse needs https:// or " +
			"clickhouse://, and the option secure=true")
	}
	if c.CAFile != "" && opts.TLS.InsecureSkipVerify {
		return nil, errors.New("-clickhouse-ca-file: it has no effect with skip_verify=true in -clickhouse, which " +
			"believes every certificate")
	}
	return opts, nil
}

// trustAuthorities makes a connection accept the authorities in CAFile, and no others.
func (c Config) trustAuthorities(opts *driver.Options) error {
	if c.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return fmt.Errorf("-clickhouse-ca-file: %w", err)
	}
	opts.TLS.RootCAs = x509.NewCertPool()
	if !opts.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("-clickhouse-ca-file: %s holds no certificate in PEM", c.CAFile)
	}
	return nil
}

// Conn is a pool of connections to one database. It is safe for concurrent use.
type Conn struct {
	opts *driver.Options // from the DSN
	pool rowsdriver.Conn

	// mu guards what follows.
	mu sync.Mutex
	// insertSettingNames holds the insert settings that this server knows; nil until
	// the first Insert.
	insertSettingNames map[string]bool
	// typeCache holds the column types of tables that were inserted into: by table,
	// then by column.
	typeCache map[string]map[string]string
}

// Open connects and checks that the server answers. The database may be missing: then
// Migrate creates it, and everything else fails with ErrNoDatabase.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Conn, error) {
	opts, err := cfg.parseDSN()
	if err == nil {
		err = cfg.trustAuthorities(opts)
	}
	if err != nil {
		return nil, err
	}
	pool, err := driver.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("opening ClickHouse at %v: %w", opts.Addr, err)
	}
	switch err := wrapError(pool.Ping(ctx)); {
	case errors.Is(err, ErrNoDatabase):
		log.Info("connected to ClickHouse", "address", opts.Addr, "missing_database", opts.Auth.Database)
	case err != nil:
		pool.Close()
		return nil, fmt.Errorf("connecting to ClickHouse at %v as %q: %w",
			opts.Addr, cmp.Or(opts.Auth.Username, "default"), err)
	default:
		if server, err := pool.ServerVersion(); err == nil {
			log.Info("connected to ClickHouse", "address", opts.Addr, "database", opts.Auth.Database,
				"version", server.Version.String())
		}
	}
	return &Conn{opts: opts, pool: pool, typeCache: map[string]map[string]string{}}, nil
}

// Database returns the name of the database that c works in.
func (c *Conn) Database() string { return c.opts.Auth.Database }

// Close closes the pool; statements still running fail.
func (c *Conn) Close() error {
	if err := c.pool.Close(); err != nil {
		return fmt.Errorf("closing ClickHouse: %w", err)
	}
	return nil
}

// Named is an argument for a {name:Type} placeholder. The server parses the value, so
// nothing in it can become SQL.
func Named(name string, value any) any { return driver.Named(name, value) }

// Exec runs a statement that returns no rows, and waits until it has finished.
func (c *Conn) Exec(ctx context.Context, query string, args ...any) error {
	return wrapError(c.pool.Exec(c.waitForEnd(ctx), query, args...))
}

// waitForEnd makes a server on HTTP answer only after the statement has finished.
// clickhouse-go discards the body of an Exec, and with it an exception that comes after
// the headers.
func (c *Conn) waitForEnd(ctx context.Context) context.Context {
	if c.opts.Protocol != driver.HTTP {
		return ctx
	}
	return driver.Context(ctx, driver.WithSettings(driver.Settings{"wait_end_of_query": 1}))
}

// Select reads all rows into dest, a pointer to a slice of structs with `ch:"column"`
// tags. A column without a field is an error.
func (c *Conn) Select(ctx context.Context, dest any, query string, args ...any) error {
	return wrapError(c.pool.Select(ctx, dest, query, args...))
}

// Rows runs a query whose result may be larger than memory. The caller closes the rows;
// cancelling ctx also ends the query.
func (c *Conn) Rows(ctx context.Context, query string, args ...any) (*Rows, error) {
	ctx, cancel := context.WithCancel(ctx)
	rows, err := c.pool.Query(ctx, query, args...)
	if err != nil {
		cancel()
		return nil, wrapError(err)
	}
	return &Rows{rows: rows, cancel: cancel}, nil
}

// Rows is a result that is read row by row; a few blocks of it are in memory at a time.
// It is not safe for concurrent use.
type Rows struct {
	rows   rowsdriver.Rows
	cancel context.CancelFunc // ends the query
	closed bool
	err    error // what ended the rows; set by Close
}

// Next advances to the next row. It returns false at the end and after an error: see
// Err.
func (r *Rows) Next() bool { return !r.closed && r.rows.Next() }

// Scan copies the current row's columns, in order.
func (r *Rows) Scan(dest ...any) error { return wrapError(r.rows.Scan(dest...)) }

// ScanStruct copies the current row into a struct with `ch:"column"` tags.
func (r *Rows) ScanStruct(dest any) error { return wrapError(r.rows.ScanStruct(dest)) }

// Columns returns the names of the result's columns.
func (r *Rows) Columns() []string { return r.rows.Columns() }

// Err returns the error that ended the rows; nil at their regular end.
func (r *Rows) Err() error {
	if r.closed {
		return r.err
	}
	return wrapError(r.rows.Err())
}

// Close ends the query, also at the server if rows are left, and returns what Err would
// have returned before.
func (r *Rows) Close() error {
	if r.closed {
		return r.err
	}
	r.err = wrapError(r.rows.Err())
	r.closed = true
	// Cancel first: clickhouse-go's Close would otherwise read the rest of the result.
	r.cancel()
	r.rows.Close()
	return r.err
}
