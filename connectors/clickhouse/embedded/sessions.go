package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxOwnConns is how many sessions of clients have a connection of their own at a
	// time: those with settings, a database or temporary tables.
	maxOwnConns = 32
	// maxNamedSessions is how many sessions of clients there are at a time.
	maxNamedSessions = 10_000
	// defaultSessionTimeout and maxSessionTimeout are those of ClickHouse.
	defaultSessionTimeout = time.Minute
	maxSessionTimeout     = time.Hour
)

// namedSession is what a client calls a session: the requests with one session_id, one
// at a time. It gets a connection of its own by the first statement that leaves
// something behind (SET, USE, CREATE TEMPORARY TABLE); until then its requests are like
// any other's.
type namedSession struct {
	id string
	// own is the session's connection; nil without one.
	own *session
	// temporary: a temporary table has been made on own.
	temporary bool

	// The following are guarded by namedSessions.mu.
	busy     bool        // a request is using it
	deadline time.Time   // it ends then, unless it is used before
	expiry   *time.Timer // ends it
}

// namedSessions are the sessions of clients.
type namedSessions struct {
	pool *pool
	log  *slog.Logger
	// slots has a place for each connection of a session that may still be opened.
	slots chan struct{}

	mu     sync.Mutex
	byID   map[string]*namedSession
	closed bool
}

func newNamedSessions(pool *pool, log *slog.Logger) *namedSessions {
	n := &namedSessions{pool: pool, log: log, byID: map[string]*namedSession{}, slots: make(chan struct{}, maxOwnConns)}
	for range maxOwnConns {
		n.slots <- struct{}{}
	}
	return n
}

// sessionParameters are the parameters of a request that concern its session.
type sessionParameters struct {
	id      string // "": no session
	timeout time.Duration
	check   bool // the session must be there already
	close   bool // the session ends with the request
}

// setTimeout reads session_timeout, in seconds.
func (p *sessionParameters) setTimeout(value string) error {
	seconds, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return exception{invalidSessionTimeout, fmt.Sprintf("Invalid session timeout: '%s'", value)}
	}
	p.timeout = time.Duration(seconds) * time.Second
	if p.timeout > maxSessionTimeout {
		return exception{invalidSessionTimeout, fmt.Sprintf("Session timeout '%s' is larger than "+
			"max_session_timeout: %d", value, int(maxSessionTimeout.Seconds()))}
	}
	return nil
}

// acquire returns the session of a request, a new one if need be, and locks it: two
// requests of one session cannot run at a time.
func (n *namedSessions) acquire(p sessionParameters) (*namedSession, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.byID[p.id]
	switch {
	case s == nil && p.check:
		return nil, exception{sessionNotFound, fmt.Sprintf("Session %s not found", p.id)}
	case s == nil && len(n.byID) >= maxNamedSessions:
		return nil, exception{tooManyQueries, fmt.Sprintf("the embedded server keeps at most %d sessions: end some "+
			"with close_session=1, or leave out session_id", maxNamedSessions)}
	case s == nil:
		s = &namedSession{id: p.id}
		n.byID[p.id] = s
	case s.busy:
		return nil, exception{sessionIsLocked, fmt.Sprintf("Session %s is locked by a concurrent client", p.id)}
	case s.expiry != nil:
		s.expiry.Stop()
	}
	s.busy = true
	return s, nil
}

// release ends a request of a session.
func (n *namedSessions) release(s *namedSession, p sessionParameters) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.busy = false
	if p.close || n.closed {
		n.end(s)
		return
	}
	s.deadline = time.Now().Add(p.timeout)
	s.expiry = time.AfterFunc(p.timeout, func() { n.expire(s) })
}

// expire ends a session that was not used for its timeout.
func (n *namedSessions) expire(s *namedSession) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !s.busy && n.byID[s.id] == s && !time.Now().Before(s.deadline) {
		n.end(s)
	}
}

// end forgets a session. The caller holds mu.
func (n *namedSessions) end(s *namedSession) {
	n.dropConn(s)
	delete(n.byID, s.id)
}

// dropConn closes a session's connection, and with it all that the session keeps.
func (n *namedSessions) dropConn(s *namedSession) {
	if s.own != nil {
		s.own.close()
		s.own, s.temporary = nil, false
		n.slots <- struct{}{}
	}
}

// openOwn gives a session its connection, if it has none.
func (n *namedSessions) openOwn(s *namedSession) error {
	if s.own != nil {
		return nil
	}
	select {
	case <-n.slots:
	default:
		return exception{tooManyQueries, fmt.Sprintf("the embedded server keeps at most %d sessions with settings or "+
			"temporary tables of their own: end some with close_session=1, or wait for their session_timeout",
			maxOwnConns)}
	}
	own, err := n.pool.openSession()
	if err != nil {
		n.slots <- struct{}{}
		return err
	}
	s.own = own
	if err := own.execStatement("SET log_comment = " + quoteString(own.id)); err != nil {
		n.dropConn(s)
		return err
	}
	return nil
}

// close ends all sessions, and waits for those in use: their statements must be killed.
func (n *namedSessions) close() {
	n.mu.Lock()
	n.closed = true
	for _, s := range slices.Collect(maps.Values(n.byID)) {
		if s.expiry != nil {
			s.expiry.Stop()
		}
		if !s.busy {
			n.end(s)
		}
	}
	n.mu.Unlock()
	for range maxOwnConns {
		<-n.slots
	}
}

// irrevocable are settings that cannot be taken back on a connection: readonly forbids
// it, and the other two change many settings, which stay changed.
var irrevocable = []string{"readonly", "profile", "compatibility"}

// irrevocableSetting returns such a setting of the request.
func (req *request) irrevocableSetting() (name string, set bool) {
	for _, name := range irrevocable {
		if _, set := req.settings[name]; set {
			return name, true
		}
	}
	return "", false
}

// outlivesRequest reports whether something stays on the connection that no later
// request can take back.
func (req *request) outlivesRequest() bool {
	_, set := req.irrevocableSetting()
	return set || req.leaves != remnantNone || len(req.external) > 0
}

// executeInSession runs a statement of a session that has a connection of its own, or
// gets one by it. Beside temporary tables readonly is held here: a connection could not
// take it back, and another one has not the tables.
func (s *Server) executeInSession(ctx context.Context, named *namedSession, req *request, out *response) (done summary,
	err error) {
	if err := s.named.openOwn(named); err != nil {
		return done, err
	}
	own := named.own
	if value, set := req.settings["readonly"]; set && named.temporary {
		if value != "0" && !req.reads() {
			return done, errReadonly
		}
		delete(req.settings, "readonly")
	}
	delete(req.settings, "log_comment") // ours, by which the statement is killed
	if err := own.refuseOutfile(req); err != nil {
		return done, err
	}
	elsewhere, err := named.runsElsewhere(req)
	if err != nil {
		return done, err
	}
	if elsewhere {
		if err := own.addSessionState(req); err != nil {
			return done, err
		}
		return s.executeInPool(ctx, req, out)
	}
	restore, err := own.lendSettings(req)
	created := 0
	if err == nil {
		created, err = own.fillExternal(req.external)
	}
	for _, table := range req.external[:created] {
		restore = append(restore, "DROP TEMPORARY TABLE IF EXISTS "+quoteIdentifier(table.name))
	}
	if err == nil {
		done, err = s.runOn(ctx, own, req, out)
	}
	named.temporary = named.temporary || err == nil && req.leaves == remnantTable
	if req.leaves == remnantSetting {
		restore = append(restore, "SET log_comment = "+quoteString(own.id))
	}
	for _, statement := range restore {
		if failed := own.execStatement(statement); failed != nil {
			s.log.Warn("a session ends because a request's settings could not be taken back",
				"session", named.id, "error", failed)
			s.named.dropConn(named)
			if err == nil && req.leaves == remnantSetting {
				err = exception{badArguments, "the session has ended: with readonly its log_comment, which the " +
					"embedded server needs, cannot be SET back"}
			}
			break
		}
	}
	return done, err
}

// refuseOutfile returns an error if a statement would write a file in a session that was
// SET readonly.
func (s *session) refuseOutfile(req *request) error {
	if !req.outfile {
		return nil
	}
	value, err := s.readText("SELECT getSetting('readonly')", "TSVRaw")
	if err == nil && value != "0\n" {
		err = errReadonly
	}
	return err
}

// runsElsewhere reports whether a statement runs on a connection of the pool that is
// given the session's state: an INSERT into a table that stays, for what pool says, and a
// request with a setting that cannot be taken back. The latter cannot see temporary
// tables.
func (n *namedSession) runsElsewhere(req *request) (bool, error) {
	if name, set := req.irrevocableSetting(); set && n.temporary {
		return false, exception{notImplemented, fmt.Sprintf("the embedded server cannot take %s back at the end of a "+
			"request in a session with temporary tables: leave out session_id, or SET it for the session", name)}
	} else if set {
		return req.leaves == remnantNone, nil
	}
	if !req.insert {
		return false, nil
	}
	temporary, err := n.isTemporary(req.table)
	return !temporary, err
}

// isTemporary reports whether a session has a temporary table of a name, given as it
// stands in a statement.
func (n *namedSession) isTemporary(table string) (bool, error) {
	if !n.temporary || table == "" {
		return false, nil
	}
	answer, err := n.own.readText("EXISTS TEMPORARY TABLE "+table, "TSV")
	return answer == "1\n", err
}

// readText returns the output of a statement.
func (s *session) readText(query, format string) (string, error) {
	var out strings.Builder
	_, err := s.runStatement(query, format, nil, func(part []byte) error { out.Write(part); return nil })
	return out.String(), err
}

// changedSettings returns the session's settings that are not the server's defaults, but
// for log_comment, which is the server's own.
func (s *session) changedSettings() (map[string]string, error) {
	text, err := s.readText("SELECT name, value FROM system.settings WHERE changed AND name != 'log_comment'",
		"JSONCompactEachRow")
	if err != nil {
		return nil, fmt.Errorf("reading the session's settings: %w", err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		var row [2]string
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, fmt.Errorf("reading the session's settings: %w", err)
		}
		settings[row[0]] = row[1]
	}
	return settings, nil
}

// addSessionState gives a request that runs on another connection the session's database
// and settings, where it has none of its own.
func (s *session) addSessionState(req *request) error {
	if req.database == "" {
		database, err := s.readText("SELECT currentDatabase()", "TSVRaw")
		if err != nil {
			return fmt.Errorf("reading the session's database: %w", err)
		}
		req.database = strings.TrimSuffix(database, "\n")
	}
	settings, err := s.changedSettings()
	if err != nil {
		return err
	}
	maps.DeleteFunc(settings, func(name, value string) bool { return s.defaults[name] == value })
	maps.Copy(settings, req.settings)
	req.settings = settings
	return nil
}

// lendSettings applies the database and the settings of one request, and returns the
// statements that take them back, of which the caller runs all. SET and USE change the
// session, so nothing is lent to them.
func (s *session) lendSettings(req *request) (restore []string, err error) {
	// A killed statement is listed until its connection runs another one.
	restore = []string{"SELECT 1"}
	if req.leaves == remnantSetting || req.leaves == remnantDatabase {
		return restore, nil
	}
	if req.database != "" {
		before, err := s.readText("SELECT currentDatabase()", "TSVRaw")
		if err != nil {
			return restore, fmt.Errorf("reading the session's database: %w", err)
		}
		if err := s.execStatement("USE " + quoteIdentifier(req.database)); err != nil {
			return restore, err
		}
		restore = append(restore, "USE "+quoteIdentifier(strings.TrimSuffix(before, "\n")))
	}
	if len(req.settings) == 0 {
		return restore, nil
	}
	before, err := s.changedSettings()
	if err != nil {
		return restore, err
	}
	// One by one: of a list with a bad setting ClickHouse applies some.
	for _, name := range slices.Sorted(maps.Keys(req.settings)) {
		if err := s.execStatement("SET " + name + " = " + quoteString(req.settings[name])); err != nil {
			return restore, err
		}
		old := s.defaultOf(name)
		if value, changed := before[name]; changed {
			old = quoteString(value)
		}
		restore = append(restore, "SET "+name+" = "+old)
	}
	return restore, nil
}
