package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP answers like ClickHouse's HTTP interface: statements at /, in ?query= or
// the body, and /ping. It accepts and ignores user and password.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if why := refuseForeign(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	switch {
	case r.URL.Path == "/ping", r.URL.Path == "/replicas_status", r.URL.Path == "/" && r.Method == http.MethodGet &&
		r.URL.RawQuery == "":
		io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "the embedded server knows GET and POST", http.StatusMethodNotAllowed)
		return
	}
	req, err := readRequest(r)
	if err == nil {
		err = req.refuseChange(r.Method)
	}
	if err != nil {
		newResponse(w, &request{}).sendError(err)
		return
	}
	w.Header().Set("X-ClickHouse-Query-Id", cmp.Or(req.queryID, rand.Text()))
	w.Header().Set("X-ClickHouse-Server-Display-Name", displayName)
	w.Header().Set("X-ClickHouse-Timezone", s.timezone)
	response := newResponse(w, req)
	if revision, err := strconv.ParseUint(req.revision, 10, 32); err == nil && req.format == "Native" &&
		strings.TrimSpace(req.text) == helloQuery {
		response.writePart(helloBlock(revision, s.version, s.timezone))
		response.finishResult(summary{})
		return
	}
	done, err := s.executeStatement(r.Context(), req, response)
	if err == nil {
		err = response.finishResult(done)
	}
	if err != nil {
		s.log.Debug("statement failed", "keyword", req.keyword, "error", err)
		response.sendError(err)
	}
}

// executeStatement runs a statement and kills it when ctx ends.
func (s *Server) executeStatement(ctx context.Context, req *request, out *response) (done summary, err error) {
	if req.session.id == "" {
		return s.executeInPool(ctx, req, out)
	}
	named, err := s.named.acquire(req.session)
	if err != nil {
		return done, err
	}
	defer s.named.release(named, req.session)
	if named.own == nil && req.leaves == remnantNone {
		return s.executeInPool(ctx, req, out)
	}
	return s.executeInSession(ctx, named, req, out)
}

// executeInPool runs a statement in a session of the pool, which nothing of it must
// outlive. A session that saw any error is not used again: a failed insert can spoil its
// connection, failed settings leave it half-changed, and a killed statement stays in
// system.processes, with what it holds, until its connection runs another one. Nor is
// one with something that cannot be taken back.
func (s *Server) executeInPool(ctx context.Context, req *request, out *response) (done summary, err error) {
	from := s.pool.queries
	if req.insert {
		from = s.pool.inserts
	}
	session, err := s.pool.acquireSession(ctx, from)
	if err != nil {
		return done, err
	}
	defer func() { s.pool.releaseSession(session, err == nil && (req.insert || !req.outlivesRequest())) }()
	req.settings["log_comment"] = session.id
	database := cmp.Or(req.database, defaultDatabase)
	if req.insert {
		// The session's settings and database are in the statement alone.
		req.head = req.insertHead(database, req.settings)
	} else if err := session.applySettings(database, req.settings); err != nil {
		return done, err
	}
	if _, err := session.fillExternal(req.external); err != nil {
		return done, err
	}
	return s.runOn(ctx, session, req, out)
}

// runOn runs a statement on a session whose settings and database are those of the
// request.
func (s *Server) runOn(ctx context.Context, session *session, req *request, out *response) (done summary, err error) {
	defer s.killWhenDone(ctx, session)()
	if req.insert {
		return session.insertFrom(req.head, req.statement.format, req.params, chunkReader(req.body))
	}
	if kind := formatKindOf(req.format); kind != unjoinable {
		join := blockJoiner{format: req.format, kind: kind}
		done, err = session.streamResult(req.text, req.format, req.params, func(block []byte) error {
			return out.writePart(join.documentPart(block))
		})
		if !isNotStreamable(err) {
			return done, err
		}
	}
	return session.runStatement(req.text, req.format, req.params, out.writePart)
}

// isNotStreamable reports whether chDB refused to stream a statement: it streams only
// SELECT, and refuses the others before it runs them.
func isNotStreamable(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "Code: 36. DB::Exception: Streaming query is not supported")
}

// killWhenDone kills the session's statements when ctx is done. It repeats the kill
// until the returned function is called, because the first one can come before the
// statement has begun.
func (s *Server) killWhenDone(ctx context.Context, session *session) (release func()) {
	released := make(chan struct{})
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		select {
		case <-released:
			return
		case <-ctx.Done():
		}
		for {
			if err := s.pool.killStatement(session); err != nil {
				s.log.Warn("killing a statement whose client has gone", "error", err)
			}
			select {
			case <-released:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(released)
		<-exited
	}
}

// chunkReader returns a function that reads body piece by piece, io.EOF with the last.
// A returned chunk is valid until the next call.
func chunkReader(body io.Reader) func() ([]byte, error) {
	buffer := make([]byte, 256<<10)
	return func() ([]byte, error) {
		n := 0
		for n < len(buffer) {
			read, err := body.Read(buffer[n:])
			n += read
			if errors.Is(err, io.EOF) {
				return buffer[:n], io.EOF
			}
			if err != nil {
				return nil, readError(err)
			}
		}
		return buffer, nil
	}
}
