package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Server is a ClickHouse engine in this process, behind ClickHouse's HTTP protocol on a
// loopback address.
type Server struct {
	pool     *pool
	named    *namedSessions
	log      *slog.Logger
	listener net.Listener
	http     *http.Server
	timezone string // of the engine
	version  string // of the engine

	stop      context.CancelFunc // ends the running statements
	served    chan struct{}      // closed when http no longer serves
	closeOnce sync.Once
}

// Start loads cfg.Library (see Prepare), opens DataDir, which it creates if it is
// missing, and serves. A process can have one Server at a time, and a data directory
// can be open in one process.
func Start(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("embedded warehouse: %w", err)
	}
	if cfg.Library == "" {
		return nil, errors.New("embedded warehouse: no library: call Prepare first")
	}
	dataDir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("embedded warehouse: data directory: %w", err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the warehouse's data directory: %w", err)
	}
	lib, err := loadLibrary(cfg.Library)
	if err != nil {
		return nil, err
	}
	listener := cfg.Listener
	if listener == nil {
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("listening for the embedded warehouse: %w", err)
		}
	}
	pool, err := newPool(lib, dataDir, cfg.Settings)
	if err != nil {
		listener.Close()
		return nil, err
	}
	s := &Server{pool: pool, log: log, listener: listener, served: make(chan struct{})}
	s.named = newNamedSessions(pool, log)
	if err := s.readVersion(); err != nil {
		listener.Close()
		pool.close()
		return nil, err
	}
	if err := skipDestructors(); err != nil {
		listener.Close()
		pool.close()
		return nil, err
	}
	s.startServing()
	return s, nil
}

// readVersion asks the engine for its version and time zone.
func (s *Server) readVersion() error {
	session, err := s.pool.acquireSession(context.Background(), s.pool.queries)
	if err != nil {
		return err
	}
	defer s.pool.releaseSession(session, true)
	for query, text := range map[string]*string{"SELECT version()": &s.version, "SELECT timezone()": &s.timezone} {
		_, err := session.runStatement(query, "TSVRaw", nil, func(line []byte) error {
			*text = string(line[:len(line)-1])
			return nil
		})
		if err != nil {
			return fmt.Errorf("asking chDB with %s: %w", query, err)
		}
	}
	return nil
}

// startServing answers requests in the background, until Close.
func (s *Server) startServing() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("embedded warehouse stopped serving", "error", err)
		}
	}()
}

// Addr returns the address that the server listens on, "127.0.0.1:PORT".
func (s *Server) Addr() string { return s.listener.Addr().String() }

// DSN returns the data source name of a database, for connectors/clickhouse.
func (s *Server) DSN(database string) string {
	dsn := url.URL{Scheme: "http", User: url.User("default"), Host: s.Addr(), Path: "/" + database}
	return dsn.String()
}

// Close kills the running statements, closes their connections, and then the engine,
// which writes what it holds in memory. A second call does nothing.
func (s *Server) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.stop()
		err = s.http.Close()
		<-s.served
		// close waits for the statements: each returns its session when it is killed.
		s.named.close()
		s.pool.close()
	})
	if err != nil {
		return fmt.Errorf("closing the embedded warehouse: %w", err)
	}
	return nil
}
