package embedded

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxStatement limits SQL text, data inline in INSERT … VALUES included. Data that
	// follows a FORMAT clause, or comes as body beside ?query=, is streamed and has no
	// limit.
	maxStatement = 64 << 20
	// maxField limits a URL parameter, as it is encoded: http_max_field_value_size of
	// ClickHouse (HTMLForm::readQuery).
	maxField = 128 << 10
	// peeked is how much of a body is searched for an INSERT's FORMAT clause.
	peeked = 64 << 10
)

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// request is an HTTP request in terms of ClickHouse.
type request struct {
	database string
	settings map[string]string
	params   map[string]string
	// format is that of the result: the statement's own, else the default_format.
	format string
	// revision is the client_protocol_version of clickhouse-go, "" of others.
	revision string
	queryID  string
	// whole: the client wants the result or the error, never the start of one and then
	// the other.
	whole bool
	// framed: "LZ4" or "ZSTD", the blocks that ClickHouse compresses results into; ""
	// for none.
	framed string
	// encoding is the Content-Encoding of the result: "gzip", "zstd" or "".
	encoding string

	statement
	text string
	// body is the data of an INSERT.
	body io.Reader
}

// readRequest reads everything of r but the data of an INSERT.
func readRequest(r *http.Request) (*request, error) {
	for field := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if _, value, _ := strings.Cut(field, "="); len(value) > maxField {
			return nil, exception{pocoException, "HTML Form Exception: Field value too long"}
		}
	}
	values := r.URL.Query()
	req := &request{
		database: defaultDatabase,
		settings: map[string]string{},
		params:   map[string]string{},
		format:   "TabSeparated",
	}
	for _, header := range []struct{ name, value string }{
		{"database", r.Header.Get("X-ClickHouse-Database")}, {"default_format", r.Header.Get("X-ClickHouse-Format")},
	} {
		if header.value != "" && !values.Has(header.name) {
			values.Set(header.name, header.value)
		}
	}
	for name := range values {
		if err := req.parameter(name, values.Get(name)); err != nil {
			return nil, err
		}
	}
	req.encoding = resultEncoding(r, values)
	if values.Get("compress") == "1" {
		req.framed = "LZ4"
		if strings.EqualFold(values.Get("network_compression_method"), "zstd") {
			req.framed = "ZSTD"
		}
	}
	body, err := decoded(r, values.Get("decompress") == "1")
	if err != nil {
		return nil, err
	}
	if err := req.readStatement(values.Get("query"), body); err != nil {
		return nil, err
	}
	if req.statement.format != "" && !req.insert {
		req.format = req.statement.format
	}
	return req, nil
}

// parameter sorts one URL parameter: what is not the protocol's is a setting.
func (req *request) parameter(name, value string) error {
	switch name {
	case "database":
		req.database = cmp.Or(value, defaultDatabase)
	case "default_format":
		req.format = value
	case "client_protocol_version":
		req.revision = value
	case "query_id":
		req.queryID = value
	case "wait_end_of_query":
		req.whole = value == "1" || value == "true"
	case "query", "user", "password", "quota_key", "compress", "decompress", "network_compression_method",
		"network_zstd_compression_level", "buffer_size", "stacktrace", "add_http_cors_header", "close_session":
	case "session_id", "session_check", "session_timeout", "role":
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

// readStatement finds the SQL text: the query parameter and then the body, as one text,
// unless it is an INSERT whose data follows; the data stays unread.
func (req *request) readStatement(query string, body io.Reader) error {
	buffered := bufio.NewReaderSize(body, peeked)
	if query == "" {
		start, err := buffered.Peek(peeked)
		if err != nil && !errors.Is(err, io.EOF) {
			return reading(err)
		}
		req.text = string(start)
		if req.statement = parse(req.text); req.insert && req.statement.format != "Values" {
			if _, err := buffered.Discard(req.data); err != nil {
				return reading(err)
			}
			req.body = buffered
			return nil
		}
	} else if req.statement = parse(query); req.insert && strings.TrimSpace(query[req.data:]) == "" {
		req.text, req.body = query, buffered
		return nil
	}
	rest, err := io.ReadAll(io.LimitReader(buffered, maxStatement+1))
	if err != nil {
		return reading(err)
	}
	if len(query)+len(rest) > maxStatement {
		return exception{requestTooLarge, fmt.Sprintf("a statement has at most %d bytes; stream data with "+
			"INSERT … FORMAT", maxStatement)}
	}
	if query != "" && len(rest) > 0 {
		query += "\n"
	}
	req.text = query + string(rest)
	req.statement = parse(req.text)
	if req.insert && req.statement.format != "Values" {
		req.body = strings.NewReader(req.text[req.data:])
		return nil
	}
	// INSERT … VALUES with its rows inline is an ordinary statement to chDB.
	req.insert = false
	return nil
}

func reading(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return exception{badArguments, "the request broke off"}
	}
	return fmt.Errorf("reading the request: %w", err)
}

// decoded is the body without its Content-Encoding and, if framed, ClickHouse's own
// compression.
func decoded(r *http.Request, framed bool) (io.Reader, error) {
	var body io.Reader = r.Body
	var err error
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "zstd":
		body, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
	default:
		return nil, exception{unknownCompression,
			fmt.Sprintf("Content-Encoding %q is not known; gzip, deflate and zstd are", encoding)}
	}
	if err != nil {
		return nil, exception{unknownCompression, "decoding the body: " + err.Error()}
	}
	if framed {
		body = &sticky{from: compress.NewReader(body)}
	}
	return body, nil
}

// sticky repeats the first error: ch-go's reader, read again after its end, returns its
// last block once more.
type sticky struct {
	from io.Reader
	err  error
}

func (s *sticky) Read(p []byte) (n int, err error) {
	if s.err != nil {
		return 0, s.err
	}
	n, s.err = s.from.Read(p)
	// ch-go wraps the end of the input, which io.ReadFull and bufio compare with ==.
	if errors.Is(s.err, io.EOF) {
		s.err = io.EOF
	}
	return n, s.err
}

func resultEncoding(r *http.Request, values url.Values) string {
	if values.Get("enable_http_compression") == "0" || values.Get("compress") == "1" {
		return ""
	}
	accepted := r.Header.Get("Accept-Encoding")
	for _, encoding := range []string{"gzip", "zstd"} {
		if strings.Contains(accepted, encoding) {
			return encoding
		}
	}
	return ""
}

// foreign says why a request must come from a web page that has no business here: the
// server asks for no password, and a browser on this machine can reach it.
func foreign(r *http.Request) string {
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

// readingKeywords begin the statements that GET may run: they change nothing.
var readingKeywords = map[string]bool{
	"SELECT": true, "WITH": true, "SHOW": true, "DESCRIBE": true, "DESC": true, "EXPLAIN": true, "EXISTS": true, "": true,
}
