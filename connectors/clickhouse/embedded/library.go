package embedded

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// queryFunc is a C function that takes a statement, an output or input format and query
// parameters, and returns a result or a stream.
type queryFunc func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr,
	names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer

// library is libchdb.so: the C functions of chdb.h (chDB 26.7) that the server needs.
// Handles are opaque pointers of C. A connection runs one statement at a time.
type library struct {
	connect   func(argc int32, argv unsafe.Pointer) unsafe.Pointer // returns a pointer to the handle
	closeConn func(conn unsafe.Pointer)

	query       queryFunc // returns a result
	streamQuery queryFunc // returns a stream
	fetch       func(conn, stream unsafe.Pointer) unsafe.Pointer
	cancel      func(conn, stream unsafe.Pointer)

	// Functions of a result or a stream of results.
	destroyResult func(result unsafe.Pointer)
	resultBuffer  func(result unsafe.Pointer) unsafe.Pointer
	resultLength  func(result unsafe.Pointer) uintptr
	resultError   func(result unsafe.Pointer) unsafe.Pointer // a C string, or nil
	resultRows    func(result unsafe.Pointer) uint64
	resultBytes   func(result unsafe.Pointer) uint64 // uncompressed, in the engine's own form
	rowsRead      func(result unsafe.Pointer) uint64
	bytesRead     func(result unsafe.Pointer) uint64
	rowsWritten   func(result unsafe.Pointer) uint64
	bytesWritten  func(result unsafe.Pointer) uint64

	insert        queryFunc                                             // returns a stream for data
	insertAppend  func(stream, data unsafe.Pointer, size uintptr) int32 // 0 on success
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer            // returns a result
	insertCancel  func(stream unsafe.Pointer)
	insertError   func(stream unsafe.Pointer) unsafe.Pointer // a C string, or nil
	destroyInsert func(stream unsafe.Pointer)

	setSignalHandlers func(enabled int32) // 0 keeps ClickHouse's crash handlers out
}

// loadLibrary opens the shared object. Loading it again is harmless: the dynamic linker
// returns the one that is loaded.
func loadLibrary(path string) (l *library, err error) {
	err = keepSignalMask(func() error {
		l, err = bindFunctions(path)
		return err
	})
	return l, err
}

// bindFunctions resolves the C functions in the shared object.
func bindFunctions(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", path, err)
	}
	l := &library{}
	for name, function := range map[string]any{
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_with_params_n":         &l.query,
		"chdb_stream_query_with_params_n":  &l.streamQuery,
		"chdb_stream_fetch_result":         &l.fetch,
		"chdb_stream_cancel_query":         &l.cancel,
		"chdb_destroy_query_result":        &l.destroyResult,
		"chdb_result_buffer":               &l.resultBuffer,
		"chdb_result_length":               &l.resultLength,
		"chdb_result_error":                &l.resultError,
		"chdb_result_rows_read":            &l.resultRows,
		"chdb_result_bytes_read":           &l.resultBytes,
		"chdb_result_storage_rows_read":    &l.rowsRead,
		"chdb_result_storage_bytes_read":   &l.bytesRead,
		"chdb_result_rows_written":         &l.rowsWritten,
		"chdb_result_bytes_written":        &l.bytesWritten,
		"chdb_stream_insert_with_params_n": &l.insert,
		"chdb_stream_append":               &l.insertAppend,
		"chdb_stream_done":                 &l.insertDone,
		"chdb_stream_cancel_insert":        &l.insertCancel,
		"chdb_stream_insert_error":         &l.insertError,
		"chdb_destroy_insert_stream":       &l.destroyInsert,
		"chdb_set_signal_handlers_enabled": &l.setSignalHandlers,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("%s is not the libchdb.so of chDB 26.7: %w", path, err)
		}
		purego.RegisterFunc(function, symbol)
	}
	if err := l.disableSignalHandlers(); err != nil {
		return nil, err
	}
	return l, nil
}

// conn is a connection to the process's one data path. It is not safe for concurrent
// use.
type conn struct {
	lib *library
	// handleBox points to the handle, as chdb_connect returned it.
	handleBox unsafe.Pointer
}

// openConn opens the data directory, or another connection to it, with these settings
// beside ClickHouse's defaults.
func (l *library) openConn(dataDir string, settings map[string]string) (*conn, error) {
	args := [][]byte{[]byte("clickhouse\x00"), []byte("--path=" + dataDir + "\x00")}
	for name, value := range settings {
		args = append(args, []byte("--"+name+"="+value+"\x00"))
	}
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
	return &conn{lib: l, handleBox: box}, nil
}

func (c *conn) handle() unsafe.Pointer { return *(*unsafe.Pointer)(c.handleBox) }

func (c *conn) close() { c.lib.closeConn(c.handleBox) }

// summary is the effect of a finished statement.
type summary struct {
	resultRows, resultBytes   uint64
	readRows, readBytes       uint64 // from tables
	writtenRows, writtenBytes uint64
}

// parameters are query parameters in the form that C wants: four arrays.
type parameters struct {
	names, values       []unsafe.Pointer // zero-terminated
	nameLens, valueLens []uintptr        // without the zero
	pin                 runtime.Pinner   // of all of them; the caller unpins
}

func newParameters(from map[string]string) *parameters {
	p := &parameters{}
	for name, value := range from {
		n := append([]byte(name), 0)
		v := append([]byte(value), 0)
		p.pin.Pin(&n[0])
		p.pin.Pin(&v[0])
		p.names = append(p.names, unsafe.Pointer(&n[0]))
		p.nameLens = append(p.nameLens, uintptr(len(name)))
		p.values = append(p.values, unsafe.Pointer(&v[0]))
		p.valueLens = append(p.valueLens, uintptr(len(value)))
	}
	if len(from) > 0 {
		p.pin.Pin(&p.names[0])
		p.pin.Pin(&p.values[0])
	}
	return p
}

// callQuery passes a statement to one of the C functions that take one. A nil result is
// an error. p must stay pinned until the result or stream is destroyed.
func (c *conn) callQuery(call queryFunc, query, format string, p *parameters) (unsafe.Pointer, error) {
	q := []byte(query)
	f := []byte(format)
	result := call(c.handle(), firstElement(q), uintptr(len(q)), firstElement(f), uintptr(len(f)),
		firstElement(p.names), firstElement(p.nameLens), firstElement(p.values), firstElement(p.valueLens),
		uintptr(len(p.names)))
	if result == nil {
		return nil, errNoResult
	}
	return result, nil
}

var errNoResult = errors.New("libchdb returned nothing")

// runStatement executes a statement and passes its whole output to write, in memory of
// C that is valid during the call.
func (c *conn) runStatement(query, format string, params map[string]string, write func([]byte) error) (summary,
	error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	result, err := c.callQuery(c.lib.query, query, format, p)
	if err != nil {
		return summary{}, err
	}
	return c.takeResult(result, write)
}

// execStatement executes a statement and discards its output.
func (c *conn) execStatement(query string) error {
	_, err := c.runStatement(query, "Null", nil, func([]byte) error { return nil })
	return err
}

// takeResult consumes a result: its error, or its output and summary.
func (c *conn) takeResult(result unsafe.Pointer, write func([]byte) error) (summary, error) {
	if result == nil {
		return summary{}, errNoResult
	}
	defer c.lib.destroyResult(result)
	if text := copyCString(c.lib.resultError(result)); text != "" {
		return summary{}, errors.New(text)
	}
	done := summary{
		resultRows:   c.lib.resultRows(result),
		resultBytes:  c.lib.resultBytes(result),
		readRows:     c.lib.rowsRead(result),
		readBytes:    c.lib.bytesRead(result),
		writtenRows:  c.lib.rowsWritten(result),
		writtenBytes: c.lib.bytesWritten(result),
	}
	if size := c.lib.resultLength(result); size > 0 {
		if err := write(unsafe.Slice((*byte)(c.lib.resultBuffer(result)), size)); err != nil {
			return done, err
		}
	}
	return done, nil
}

// streamResult executes a statement and passes its output to write block by block; an
// error of write ends the statement.
func (c *conn) streamResult(query, format string, params map[string]string, write func([]byte) error) (done summary,
	err error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	stream, err := c.callQuery(c.lib.streamQuery, query, format, p)
	if err != nil {
		return done, err
	}
	defer c.lib.destroyResult(stream)
	if text := copyCString(c.lib.resultError(stream)); text != "" {
		return done, errors.New(text)
	}
	for {
		more := false
		part, err := c.takeResult(c.lib.fetch(c.handle(), stream), func(block []byte) error {
			more = true
			return write(block)
		})
		done.resultRows += part.resultRows
		done.resultBytes += part.resultBytes
		done.readRows += part.readRows
		done.readBytes += part.readBytes
		switch {
		case err != nil:
			// A stream occupies the connection until it has ended. Cancelling an ended
			// one does nothing.
			c.lib.cancel(c.handle(), stream)
			return done, err
		case !more:
			return done, nil
		}
	}
}

// insertFrom runs "INSERT INTO t (columns)", without a FORMAT clause, on data in the
// format; next returns the data chunk by chunk, and io.EOF at the end. After any error
// the connection must be closed: a failure inside the pipeline (a materialized view
// that throws) makes all its later inserts fail with QUERY_WAS_CANCELLED.
func (c *conn) insertFrom(query, format string, params map[string]string, next func() ([]byte, error)) (summary,
	error) {
	p := newParameters(params)
	defer p.pin.Unpin()
	stream, err := c.callQuery(c.lib.insert, query, format, p)
	if err != nil {
		return summary{}, err
	}
	defer c.lib.destroyInsert(stream)
	if text := copyCString(c.lib.insertError(stream)); text != "" {
		return summary{}, errors.New(text)
	}
	for {
		chunk, err := next()
		if len(chunk) > 0 && c.lib.insertAppend(stream, firstElement(chunk), uintptr(len(chunk))) != 0 {
			return summary{}, errors.New(copyCString(c.lib.insertError(stream)))
		}
		if errors.Is(err, io.EOF) {
			return c.takeResult(c.lib.insertDone(stream), func([]byte) error { return nil })
		}
		if err != nil {
			c.lib.insertCancel(stream)
			return summary{}, err
		}
	}
}

// firstElement returns the address of a slice's first element, nil if it has none.
func firstElement[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// copyCString copies a C string; nil is empty.
func copyCString(p unsafe.Pointer) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
