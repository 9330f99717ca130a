package embedded

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// maxSessions is how many queries, and how many inserts, run at a time; more wait.
const maxSessions = 16

// session is a connection, with what earlier requests have set on it.
type session struct {
	*conn
	// returnTo is the queue of the pool that the session belongs to; nil for one of a
	// client's session.
	returnTo chan *session
	// id is the log_comment of its statements, by which they can be killed.
	id string
	// database is the selected one.
	database string
	// settings differ from their defaults.
	settings map[string]string
	// defaults are those of a new connection that are not ClickHouse's.
	defaults map[string]string
}

// defaultOf returns what a setting is set to, to take it back.
func (s *session) defaultOf(name string) string {
	if value, ours := s.defaults[name]; ours {
		return quoteString(value)
	}
	return "DEFAULT"
}

const defaultDatabase = "default"

// applySettings selects the database, and makes exactly these settings differ from
// their defaults.
func (s *session) applySettings(database string, settings map[string]string) error {
	if database != s.database {
		if err := s.execStatement("USE " + quoteIdentifier(database)); err != nil {
			return err
		}
		s.database = database
	}
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		if _, stays := settings[name]; !stays {
			changes = append(changes, name+" = "+s.defaultOf(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if now, set := s.settings[name]; !set || now != settings[name] {
			changes = append(changes, name+" = "+quoteString(settings[name]))
		}
	}
	if len(changes) > 0 {
		if err := s.execStatement("SET " + strings.Join(changes, ", ")); err != nil {
			return err
		}
	}
	s.settings = settings
	return nil
}

// pool hands out sessions, and opens them when needed. Inserts have sessions of their
// own, which never run another statement: after one, chDB 26.7 answers
// QUERY_WAS_CANCELLED to every streamed insert that passes a materialized view with a
// scalar subquery. So their database and settings are written into the statement.
type pool struct {
	lib     *library
	dataDir string
	given   map[string]string // Config.Settings
	// defaults are the settings that a new connection has beside ClickHouse's: chDB's,
	// and those given.
	defaults map[string]string
	opened   atomic.Int64 // sessions so far; numbers their ids
	// queries and inserts hold the idle sessions; nil means one that is not open.
	queries, inserts chan *session

	// killConn is apart from the sessions, so that statements can be killed while all
	// sessions are in use. killMu guards it.
	killMu   sync.Mutex
	killConn *conn
}

func newPool(lib *library, dataDir string, settings map[string]string) (*pool, error) {
	killConn, err := lib.openConn(dataDir, settings)
	if err != nil {
		return nil, err
	}
	p := &pool{
		lib:      lib,
		dataDir:  dataDir,
		given:    settings,
		queries:  make(chan *session, maxSessions),
		inserts:  make(chan *session, maxSessions),
		killConn: killConn,
	}
	if p.defaults, err = (&session{conn: killConn}).changedSettings(); err != nil {
		killConn.close()
		return nil, err
	}
	for range maxSessions {
		p.queries <- nil
		p.inserts <- nil
	}
	return p, nil
}

// acquireSession waits for a session of the pool's queries or inserts. The caller
// returns it with releaseSession.
func (p *pool) acquireSession(ctx context.Context, from chan *session) (*session, error) {
	var s *session
	select {
	case s = <-from:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for one of %d sessions: %w", maxSessions, ctx.Err())
	}
	if s != nil {
		return s, nil
	}
	s, err := p.openSession()
	if err != nil {
		from <- nil
		return nil, err
	}
	s.returnTo = from
	return s, nil
}

// openSession opens a session that belongs to no queue.
func (p *pool) openSession() (*session, error) {
	opened, err := p.lib.openConn(p.dataDir, p.given)
	if err != nil {
		return nil, err
	}
	return &session{
		conn:     opened,
		id:       "embedded-" + strconv.FormatInt(p.opened.Add(1), 10),
		database: defaultDatabase,
		defaults: p.defaults,
	}, nil
}

// releaseSession returns a session. It closes one that is not usable, and the next
// caller of acquireSession opens another; that costs a millisecond.
func (p *pool) releaseSession(s *session, usable bool) {
	idle := s.returnTo
	if !usable {
		s.close()
		s = nil
	}
	idle <- s
}

// killStatement ends the statement that the session runs, if any. It uses ASYNC because
// SYNC hangs in chDB 26.7 while the statement is inside an aggregation.
func (p *pool) killStatement(s *session) error {
	p.killMu.Lock()
	defer p.killMu.Unlock()
	return p.killConn.execStatement("KILL QUERY WHERE Settings['log_comment'] = " + quoteString(s.id) + " ASYNC")
}

// close waits for the sessions in use and closes all of them.
func (p *pool) close() {
	for _, slots := range []chan *session{p.queries, p.inserts} {
		for range maxSessions {
			if s := <-slots; s != nil {
				s.close()
			}
		}
	}
	p.killMu.Lock()
	defer p.killMu.Unlock()
	p.killConn.close()
}

func quoteIdentifier(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

func quoteString(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
