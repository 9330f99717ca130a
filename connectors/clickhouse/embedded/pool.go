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

// sessions is how many queries, and how many inserts, run at a time; more wait.
const sessions = 16

// session is a connection and what the requests before have left set on it.
type session struct {
	*conn
	// home is where the session comes back to.
	home chan *session
	// id is the log_comment of its statements, by which they can be killed.
	id       string
	database string
	settings map[string]string
}

const defaultDatabase = "default"

// prepare selects the database and makes exactly these settings differ from their
// defaults.
func (s *session) prepare(database string, settings map[string]string) error {
	if database != s.database {
		if err := s.exec("USE " + quoteIdentifier(database)); err != nil {
			return err
		}
		s.database = database
	}
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		if _, stays := settings[name]; !stays {
			changes = append(changes, name+" = DEFAULT")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if now, set := s.settings[name]; !set || now != settings[name] {
			changes = append(changes, name+" = "+quoteString(settings[name]))
		}
	}
	if len(changes) > 0 {
		if err := s.exec("SET " + strings.Join(changes, ", ")); err != nil {
			return err
		}
	}
	s.settings = settings
	return nil
}

// pool hands out sessions and opens them when needed. Inserts have sessions of their
// own, which never see another statement: after one, chDB 26.7 answers
// QUERY_WAS_CANCELLED to every streamed insert that passes a materialized view with a
// scalar subquery. So their database and settings are written into the statement.
type pool struct {
	lib     *library
	dataDir string
	opened  atomic.Int64
	// An entry for each session that nobody uses; nil is one that is not open.
	queries, inserts chan *session

	// killer is apart from the sessions, so that a full pool can be cleared.
	killing sync.Mutex
	killer  *conn
}

func newPool(lib *library, dataDir string) (*pool, error) {
	killer, err := lib.open(dataDir)
	if err != nil {
		return nil, err
	}
	p := &pool{
		lib:     lib,
		dataDir: dataDir,
		queries: make(chan *session, sessions),
		inserts: make(chan *session, sessions),
		killer:  killer,
	}
	for range sessions {
		p.queries <- nil
		p.inserts <- nil
	}
	return p, nil
}

// take waits for one of the pool's queries or inserts. Every session taken is given
// back with give.
func (p *pool) take(ctx context.Context, from chan *session) (*session, error) {
	var s *session
	select {
	case s = <-from:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for one of %d sessions: %w", sessions, ctx.Err())
	}
	if s != nil {
		return s, nil
	}
	opened, err := p.lib.open(p.dataDir)
	if err != nil {
		from <- nil
		return nil, err
	}
	return &session{
		conn:     opened,
		home:     from,
		id:       "embedded-" + strconv.FormatInt(p.opened.Add(1), 10),
		database: defaultDatabase,
	}, nil
}

// give returns a session. One that is not usable is closed, and opened afresh by the
// next taker; that costs a millisecond.
func (p *pool) give(s *session, usable bool) {
	home := s.home
	if !usable {
		s.close()
		s = nil
	}
	home <- s
}

// kill ends the statement that the session runs, if any. ASYNC because SYNC hangs in
// chDB 26.7 while the statement is inside an aggregation.
func (p *pool) kill(s *session) error {
	p.killing.Lock()
	defer p.killing.Unlock()
	return p.killer.exec("KILL QUERY WHERE Settings['log_comment'] = " + quoteString(s.id) + " ASYNC")
}

// close waits for the sessions in use and closes all.
func (p *pool) close() {
	for _, slots := range []chan *session{p.queries, p.inserts} {
		for range sessions {
			if s := <-slots; s != nil {
				s.close()
			}
		}
	}
	p.killing.Lock()
	defer p.killing.Unlock()
	p.killer.close()
}

func quoteIdentifier(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

func quoteString(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
