package embedded

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const (
	// maxStatement limits SQL text in bytes, including the data in INSERT … VALUES.
	// Data that follows a FORMAT clause, or comes as body beside ?query=, is streamed
	// and has no limit.
	maxStatement = 64 << 20
	// maxField limits an encoded URL parameter in bytes: http_max_field_value_size of
	// ClickHouse (HTMLForm::readQuery).
	maxField = 128 << 10
	// maxWindow limits what a body compressed as zstd may refer back to, which is held in
	// memory: 8 MB is what every decoder must take, 128 MB what zstd --ultra uses.
	maxWindow = 128 << 20
	// peekBytes is how much of a body is searched for an INSERT's FORMAT clause.
	peekBytes = 64 << 10
)

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// request is an HTTP request in terms of ClickHouse.
type request struct {
	database string            // "" if the request names none
	settings map[string]string // all URL parameters that the protocol does not define
	params   map[string]string // query parameters, without "param_"
	// format is the format of the result: the statement's own, else the default_format.
	format string
	// revision is the client_protocol_version of clickhouse-go, "" of other clients.
	revision string
	queryID  string // sent back in a header
	session  sessionParameters
	// waitForEnd: the client wants either the result or the error, never the start of
	// one and then the other.
	waitForEnd bool
	// blockCompression is the method, "LZ4" or "ZSTD", of the compressed blocks that
	// ClickHouse sends as a result; "" for none.
	blockCompression string
	// encoding is the Content-Encoding of the result, one of encodings, or "".
	encoding string

	// external are the tables that came with it.
	external []externalTable

	statement
	// text is the SQL text.
	text string
	// body is the data of an INSERT.
	body io.Reader
}

// readRequest reads everything in r except the data of an INSERT.
func readRequest(r *http.Request) (*request, error) {
	for field := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if _, value, _ := strings.Cut(field, "="); len(value) > maxField {
			return nil, exception{pocoException, "HTML Form Exception: Field value too long"}
		}
	}
	values := r.URL.Query()
	req := &request{
		session:  sessionParameters{timeout: defaultSessionTimeout},
		settings: map[string]string{},
		params:   map[string]string{},
		format:   "TabSeparated",
	}
	var err error
	if req.external, err = readForm(r, values); err != nil {
		return nil, err
	}
	setDefault(values, "database", r.Header.Get("X-ClickHouse-Database"))
	setDefault(values, "default_format", r.Header.Get("X-ClickHouse-Format"))
	for name := range values {
		if err := req.applyParameter(name, values.Get(name)); err != nil {
			return nil, err
		}
	}
	req.encoding = resultEncoding(r, values)
	if values.Get("compress") == "1" {
		req.blockCompression = "LZ4"
		if strings.EqualFold(values.Get("network_compression_method"), "zstd") {
			req.blockCompression = "ZSTD"
		}
	}
	body, err := decodeBody(r, values.Get("decompress") == "1")
	if err != nil {
		return nil, err
	}
	if err := req.readStatement(values.Get("query"), body); err != nil {
		return nil, err
	}
	if req.statement.format != "" && !req.insert {
		req.format = req.statement.format
	}
	if req.insert && len(req.external) > 0 {
		// They would have to be made on a connection for inserts, which spoils it: see pool.
		return nil, exception{notImplemented, "the embedded server takes no external tables with an INSERT that has " +
			"data: use INSERT … SELECT from the table"}
	}
	return req, nil
}

// setDefault sets a URL parameter that is missing, unless value is empty.
func setDefault(values url.Values, name, value string) {
	if value != "" && !values.Has(name) {
		values.Set(name, value)
	}
}

// applyParameter stores one URL parameter. A name that the protocol does not define is
// a setting.
func (req *request) applyParameter(name, value string) error {
	switch name {
	case "database":
		req.database = value
	case "default_format":
		req.format = value
	case "client_protocol_version":
		req.revision = value
	case "query_id":
		req.queryID = value
	case "wait_end_of_query":
		req.waitForEnd = value == "1" || value == "true"
	case "query", "user", "password", "quota_key", "compress", "decompress", "network_compression_method",
		"network_zstd_compression_level", "buffer_size", "stacktrace", "add_http_cors_header":
	case "session_id":
		req.session.id = value
	case "session_check":
		req.session.check = value == "1"
	case "close_session":
		req.session.close = value == "1"
	case "session_timeout":
		return req.session.setTimeout(value)
	case "role":
		return exception{notImplemented, "the embedded server knows no " + name}
	default:
		if param, ok := strings.CutPrefix(name, "param_"); ok {
			req.params[param] = value
		} else if !settingName.MatchString(name) {
			return exception{unknownSetting, fmt.Sprintf("%q is not the name of a setting", name)}
		} else {
			req.settings[name] = value
		}
	}
	return nil
}

// readStatement finds the SQL text: the query parameter and then the body, as one text.
// If the text is an INSERT whose data follows, the data stays unread.
func (req *request) readStatement(query string, body io.Reader) error {
	buffered := bufio.NewReaderSize(body, peekBytes)
	if query == "" {
		start, err := buffered.Peek(peekBytes)
		if err != nil && !errors.Is(err, io.EOF) {
			return readError(err)
		}
		req.text = string(start)
		if req.statement = parseStatement(req.text); req.insert && req.statement.format != "Values" {
			if _, err := buffered.Discard(req.dataAt); err != nil {
				return readError(err)
			}
			req.body = buffered
			return nil
		}
	} else if req.statement = parseStatement(query); req.insert && strings.TrimSpace(query[req.dataAt:]) == "" {
		req.text = query
		req.body = buffered
		return nil
	}
	rest, err := io.ReadAll(io.LimitReader(buffered, maxStatement+1))
	if err != nil {
		return readError(err)
	}
	if len(query)+len(rest) > maxStatement {
		return exception{requestTooLarge, fmt.Sprintf("a statement has at most %d bytes; stream data with "+
			"INSERT … FORMAT", maxStatement)}
	}
	if query != "" && len(rest) > 0 {
		query += "\n"
	}
	req.text = query + string(rest)
	req.statement = parseStatement(req.text)
	if req.insert && req.statement.format != "Values" {
		req.body = strings.NewReader(req.text[req.dataAt:])
		return nil
	}
	// For chDB, INSERT … VALUES with its rows inline is an ordinary statement.
	req.insert = false
	return nil
}

// readError describes a failure to read the request.
func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return exception{badArguments, "the request broke off"}
	}
	return fmt.Errorf("reading the request: %w", err)
}

// decodeBody returns the body without its Content-Encoding and, if framed, without
// ClickHouse's own compression.
func decodeBody(r *http.Request, framed bool) (io.Reader, error) {
	var body io.Reader = r.Body
	var err error
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "zstd":
		body, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	case "lz4":
		body = lz4.NewReader(body)
	default:
		return nil, exception{unknownCompression,
			fmt.Sprintf("Content-Encoding %q is not known; zstd, lz4, gzip and deflate are", encoding)}
	}
	if err != nil {
		return nil, exception{unknownCompression, "decoding the body: " + err.Error()}
	}
	if framed {
		body = &stickyErrorReader{from: compress.NewReader(body)}
	}
	return body, nil
}

// stickyErrorReader repeats the first error. ch-go's reader, read again after its end,
// returns its last block once more.
type stickyErrorReader struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (s *stickyErrorReader) Read(p []byte) (n int, err error) {
	if s.err != nil {
		return 0, s.err
	}
	n, s.err = s.from.Read(p)
	// ch-go wraps io.EOF, which io.ReadFull and bufio compare with ==.
	if errors.Is(s.err, io.EOF) {
		s.err = io.EOF
	}
	return n, s.err
}

// resultEncoding chooses the Content-Encoding of the result.
func resultEncoding(r *http.Request, values url.Values) string {
	if values.Get("enable_http_compression") == "0" || values.Get("compress") == "1" {
		return ""
	}
	accepted := map[string]bool{}
	for name := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(name, ";")
		_, q, _ := strings.Cut(weight, "=")
		quality, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		accepted[strings.ToLower(strings.TrimSpace(name))] = err != nil || quality > 0
	}
	for _, encoding := range encodings {
		if accepted[encoding] {
			return encoding
		}
	}
	return ""
}

// encodings are the Content-Encodings of results, the preferred first. lz4 is that of
// LZ4 frames, as ClickHouse and its clients use the name.
var encodings = []string{"zstd", "lz4", "gzip", "deflate"}

// refuseForeign returns why a request must come from a web page that may not use the
// server, or "". The server asks for no password, and a browser on this machine can
// reach it.
func refuseForeign(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Sprintf("Host %q is not this machine's loopback", r.Host)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return "the request comes from another site's page"
	}
	return ""
}

// refuseChange returns an error if a request by its method, or with readonly, would change
// something. What readonly forbids beyond that, and SET and its like that change a session
// alone, is left to ClickHouse, which writes files under readonly.
func (req *request) refuseChange(method string) error {
	switch value := req.settings["readonly"]; {
	case method == http.MethodGet && !req.reads() && req.leaves == remnantNone:
		return exception{readonly, "Cannot execute query in readonly mode. For queries over HTTP, method GET " +
			"implies readonly. You should use method POST for modifying queries."}
	case value != "" && value != "0" && req.outfile:
		return errReadonly
	}
	return nil
}

// errReadonly is what ClickHouse answers under readonly.
var errReadonly = exception{readonly, "Cannot execute query in readonly mode. (READONLY)"}

// reads reports whether a statement changes nothing and writes no file, so that GET may
// run it.
func (s *statement) reads() bool { return readingKeywords[s.keyword] && !s.outfile }

// readingKeywords are those of the statements that change nothing.
var readingKeywords = map[string]bool{
	"SELECT":   true,
	"SHOW":     true,
	"DESCRIBE": true,
	"DESC":     true,
	"EXPLAIN":  true,
	"EXISTS":   true,
	"":         true,
}
