package embedded

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/zstd"
)

// heldBack is how much of a result waits in memory before the status is sent: an error
// until then is a clean HTTP error.
const heldBack = 1 << 20

// response writes a result, or an exception.
type response struct {
	w    http.ResponseWriter
	req  *request
	held bytes.Buffer
	// out is where the result goes once the status is sent; nil before.
	out     io.Writer
	closers []func() error
	tag     string
}

func newResponse(w http.ResponseWriter, req *request) *response {
	return &response{w: w, req: req}
}

// write takes the next part of the result.
func (r *response) write(part []byte) error {
	if r.out == nil {
		if r.req.whole || r.held.Len()+len(part) <= heldBack {
			r.held.Write(part)
			return nil
		}
		if err := r.commit(); err != nil {
			return err
		}
	}
	_, err := r.out.Write(part)
	return err
}

// commit sends status, headers, and what was held back.
func (r *response) commit() error {
	header := r.w.Header()
	header.Set("Content-Type", contentType(r.req.format))
	header.Set("X-ClickHouse-Format", r.req.format)
	r.tag = rand.Text()[:16]
	header.Set("X-ClickHouse-Exception-Tag", r.tag)
	r.out = r.w
	switch r.req.encoding {
	case "gzip":
		zipped, err := gzip.NewWriterLevel(r.w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		r.out, r.closers = zipped, append(r.closers, zipped.Close)
	case "zstd":
		zipped, err := zstd.NewWriter(r.w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		r.out, r.closers = zipped, append(r.closers, zipped.Close)
	}
	if r.req.encoding != "" {
		header.Set("Content-Encoding", r.req.encoding)
		header.Add("Vary", "Accept-Encoding")
	}
	switch r.req.framed {
	case "LZ4":
		r.out = &frames{to: r.out, writer: compress.NewWriter(compress.LevelZero, compress.LZ4)}
	case "ZSTD":
		r.out = &frames{to: r.out, writer: compress.NewWriter(compress.LevelZero, compress.ZSTD)}
	}
	r.w.WriteHeader(http.StatusOK)
	held := r.held.Bytes()
	r.held = bytes.Buffer{}
	_, err := r.out.Write(held)
	return err
}

// finish ends a result that is complete. A small one gets its length and the summary
// into the headers.
func (r *response) finish(done summary) error {
	if r.out == nil {
		r.w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(
			`{"read_rows":"%d","written_rows":"%d","written_bytes":"%d"}`,
			done.readRows, done.writtenRows, done.writtenBytes))
		if r.req.encoding != "" && r.held.Len() == 0 {
			r.req.encoding = ""
		}
		if r.req.encoding == "" && (r.req.framed == "" || r.held.Len() == 0) {
			r.w.Header().Set("Content-Length", strconv.Itoa(r.held.Len()))
		}
		if err := r.commit(); err != nil {
			return err
		}
	}
	for i := len(r.closers) - 1; i >= 0; i-- {
		if err := r.closers[i](); err != nil {
			return err
		}
	}
	return nil
}

// fail reports an error: as HTTP status while nothing was sent, else as exception block
// at the end of the body, whose transfer is then broken off so that no client takes it
// for complete.
func (r *response) fail(err error) {
	code, text := describe(err)
	if r.out == nil {
		r.w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		r.w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
		r.w.WriteHeader(statusOf(code))
		io.WriteString(r.w, text+"\n")
		return
	}
	text = text[:min(len(text), 8<<10)]
	if frames, ok := r.out.(*frames); ok {
		// The block stays outside of ClickHouse's compression, as its reader expects.
		r.out = frames.to
	}
	fmt.Fprintf(r.out, "\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", r.tag, text, len(text)+1, r.tag)
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
	http.NewResponseController(r.w).Flush()
	panic(http.ErrAbortHandler)
}

// frames compresses what is written into ClickHouse's compressed blocks.
type frames struct {
	to     io.Writer
	writer *compress.Writer
}

func (f *frames) Write(p []byte) (int, error) {
	const frame = 1 << 20
	for rest := p; len(rest) > 0; {
		n := min(len(rest), frame)
		if err := f.writer.Compress(rest[:n]); err != nil {
			return 0, fmt.Errorf("compressing the result: %w", err)
		}
		if _, err := f.to.Write(f.writer.Data); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// helloQuery is what clickhouse-go asks first on a connection, to learn the server's
// protocol revision.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// customSerialization is DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION of ClickHouse's
// protocol.
const customSerialization = 54454

// hello is the answer to helloQuery: a Native block as the client's revision wants it.
// It names 0 as the server's revision; every later block is then read without the
// additions that revisions brought, which is how chDB writes it.
func hello(revision uint64, version, timezone string) []byte {
	text := func(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	var b []byte
	if revision > 0 {
		// Block info: field 1 is_overflows = 0, field 2 bucket_num = -1, end.
		b = append(b, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0)
	}
	b = append(b, 4, 1) // columns, rows
	for _, column := range []struct {
		name, kind string
		value      []byte
	}{
		{"displayName()", "String", text(nil, "chdb")},
		{"version()", "String", text(nil, version)},
		{"revision()", "UInt32", []byte{0, 0, 0, 0}},
		{"timezone()", "String", text(nil, timezone)},
	} {
		b = text(text(b, column.name), column.kind)
		if revision >= customSerialization {
			b = append(b, 0)
		}
		b = append(b, column.value...)
	}
	return b
}
