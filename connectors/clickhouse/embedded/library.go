package embedded

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb.so: the C functions of chdb.h (chDB 26.7) that the server needs.
// Handles are opaque pointers of C. A connection runs one statement at a time.
type library struct {
	connect   func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn func(conn unsafe.Pointer)
	query     func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names,
		nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	streamQuery func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names,
		nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	fetch         func(conn, stream unsafe.Pointer) unsafe.Pointer
	cancel        func(conn, stream unsafe.Pointer)
	destroyResult func(result unsafe.Pointer)
	resultBuffer  func(result unsafe.Pointer) unsafe.Pointer
	resultLength  func(result unsafe.Pointer) uintptr
	resultError   func(result unsafe.Pointer) unsafe.Pointer
	rowsRead      func(result unsafe.Pointer) uint64
	rowsWritten   func(result unsafe.Pointer) uint64
	bytesWritten  func(result unsafe.Pointer) uint64
	insert        func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names,
		nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	insertAppend  func(stream, data unsafe.Pointer, size uintptr) int32
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer
	insertCancel  func(stream unsafe.Pointer)
	insertError   func(stream unsafe.Pointer) unsafe.Pointer
	destroyInsert func(stream unsafe.Pointer)
	signals       func(enabled int32)
}

// load opens the shared object. Loading it again is harmless: the dynamic linker
// returns what it has.
func load(path string) (l *library, err error) {
	err = keepSignalMask(func() error {
		l, err = bind(path)
		return err
	})
	return l, err
}

func bind(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", path, err)
	}
	l := &library{}
	for name, function := range map[string]any{
		"chdb_connect": &l.connect, "chdb_close_conn": &l.closeConn,
		"chdb_query_with_params_n": &l.query, "chdb_stream_query_with_params_n": &l.streamQuery,
		"chdb_stream_fetch_result": &l.fetch, "chdb_stream_cancel_query": &l.cancel,
		"chdb_destroy_query_result": &l.destroyResult, "chdb_result_buffer": &l.resultBuffer,
		"chdb_result_length": &l.resultLength, "chdb_result_error": &l.resultError,
		"chdb_result_rows_read": &l.rowsRead, "chdb_result_rows_written": &l.rowsWritten,
		"chdb_result_bytes_written":        &l.bytesWritten,
		"chdb_stream_insert_with_params_n": &l.insert, "chdb_stream_append": &l.insertAppend, "chdb_stream_done": &l.insertDone,
		"chdb_stream_cancel_insert": &l.insertCancel, "chdb_stream_insert_error": &l.insertError,
		"chdb_destroy_insert_stream": &l.destroyInsert, "chdb_set_signal_handlers_enabled": &l.signals,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("%s is not the libchdb.so of chDB 26.7: %w", path, err)
		}
		purego.RegisterFunc(function, symbol)
	}
	if err := l.disownSignals(); err != nil {
		return nil, err
	}
	return l, nil
}

// conn is a connection to the process's one data path. It is not safe for concurrent
// use.
type conn struct {
	lib *library
	// box points to the handle, as chdb_connect returned it.
	box unsafe.Pointer
}

func (l *library) open(dataDir string) (*conn, error) {
	args := [][]byte{[]byte("clickhouse\x00"), []byte("--path=" + dataDir + "\x00")}
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]unsafe.Pointer, len(args)+1)
	for i, arg := range args {
		pin.Pin(&arg[0])
		argv[i] = unsafe.Pointer(&arg[0])
	}
	pin.Pin(&argv[0])
	var box unsafe.Pointer
	err := keepSignalMask(func() error {
		box = l.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if box == nil {
		return nil, fmt.Errorf("opening %s with chDB: another process has it open, this process has another one "+
			"open, or it is damaged", dataDir)
	}
	return &conn{lib: l, box: box}, nil
}

func (c *conn) handle() unsafe.Pointer { return *(*unsafe.Pointer)(c.box) }

func (c *conn) close() { c.lib.closeConn(c.box) }

// summary is what a finished statement did.
type summary struct {
	readRows, writtenRows, writtenBytes uint64
}

// parameters is a map of query parameters as C wants it: four arrays.
type parameters struct {
	names, values       []unsafe.Pointer
	nameLens, valueLens []uintptr
	pin                 runtime.Pinner
}

func newParameters(from map[string]string) *parameters {
	p := &parameters{}
	for name, value := range from {
		n, v := append([]byte(name), 0), append([]byte(value), 0)
		p.pin.Pin(&n[0])
		p.pin.Pin(&v[0])
		p.names, p.nameLens = append(p.names, unsafe.Pointer(&n[0])), append(p.nameLens, uintptr(len(name)))
		p.values, p.valueLens = append(p.values, unsafe.Pointer(&v[0])), append(p.valueLens, uintptr(len(value)))
	}
	if len(from) > 0 {
		p.pin.Pin(&p.names[0])
		p.pin.Pin(&p.values[0])
	}
	return p
}

// run executes a statement and hands its whole output to write, in memory of C that is
// valid during the call.
func (c *conn) run(query, format string, params map[string]string, write func([]byte) error) (summary, error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	q, f := []byte(query), []byte(format)
	return c.take(c.lib.query(c.handle(), start(q), uintptr(len(q)), start(f), uintptr(len(f)),
		start(p.names), start(p.nameLens), start(p.values), start(p.valueLens), uintptr(len(p.names))), write)
}

// exec executes a statement and drops its output.
func (c *conn) exec(query string) error {
	_, err := c.run(query, "Null", nil, func([]byte) error { return nil })
	return err
}

// take consumes a result: its error, or its output and summary.
func (c *conn) take(result unsafe.Pointer, write func([]byte) error) (summary, error) {
	if result == nil {
		return summary{}, errors.New("libchdb returned nothing")
	}
	defer c.lib.destroyResult(result)
	if text := cString(c.lib.resultError(result)); text != "" {
		return summary{}, errors.New(text)
	}
	done := summary{readRows: c.lib.rowsRead(result), writtenRows: c.lib.rowsWritten(result),
		writtenBytes: c.lib.bytesWritten(result)}
	if size := c.lib.resultLength(result); size > 0 {
		if err := write(unsafe.Slice((*byte)(c.lib.resultBuffer(result)), size)); err != nil {
			return done, err
		}
	}
	return done, nil
}

// stream executes a statement and hands its output to write block by block; an error of
// write ends the statement.
func (c *conn) stream(query, format string, params map[string]string, write func([]byte) error) (done summary,
	err error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	q, f := []byte(query), []byte(format)
	stream := c.lib.streamQuery(c.handle(), start(q), uintptr(len(q)), start(f), uintptr(len(f)),
		start(p.names), start(p.nameLens), start(p.values), start(p.valueLens), uintptr(len(p.names)))
	if stream == nil {
		return done, errors.New("libchdb returned nothing")
	}
	defer c.lib.destroyResult(stream)
	if text := cString(c.lib.resultError(stream)); text != "" {
		return done, errors.New(text)
	}
	for {
		more := false
		part, err := c.take(c.lib.fetch(c.handle(), stream), func(block []byte) error {
			more = true
			return write(block)
		})
		done.readRows += part.readRows
		switch {
		case err != nil:
			// The stream holds the connection until it has ended; cancelling an ended
			// one does nothing.
			c.lib.cancel(c.handle(), stream)
			return done, err
		case !more:
			return done, nil
		}
	}
}

// insertFrom runs "INSERT INTO t (columns)", without a FORMAT clause, on data in the
// format; next returns it chunk by chunk and io.EOF at the end. After any error the
// connection must be closed: a failure inside the pipeline (a materialized view that
// throws) makes all its later inserts fail with QUERY_WAS_CANCELLED.
func (c *conn) insertFrom(query, format string, params map[string]string, next func() ([]byte, error)) (summary,
	error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	q, f := []byte(query), []byte(format)
	stream := c.lib.insert(c.handle(), start(q), uintptr(len(q)), start(f), uintptr(len(f)),
		start(p.names), start(p.nameLens), start(p.values), start(p.valueLens), uintptr(len(p.names)))
	if stream == nil {
		return summary{}, errors.New("libchdb returned nothing")
	}
	defer c.lib.destroyInsert(stream)
	if text := cString(c.lib.insertError(stream)); text != "" {
		return summary{}, errors.New(text)
	}
	for {
		chunk, err := next()
		if len(chunk) > 0 && c.lib.insertAppend(stream, start(chunk), uintptr(len(chunk))) != 0 {
			return summary{}, errors.New(cString(c.lib.insertError(stream)))
		}
		if errors.Is(err, io.EOF) {
			return c.take(c.lib.insertDone(stream), func([]byte) error { return nil })
		}
		if err != nil {
			c.lib.insertCancel(stream)
			return summary{}, err
		}
	}
}

// start is the address of a slice's first element, nil if it has none.
func start[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// cString copies a C string; nil is empty.
func cString(p unsafe.Pointer) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
