package embedded

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxHeldBytes is how much of a result waits in memory before the status is sent. An
// error until then becomes a clean HTTP error.
const maxHeldBytes = 1 << 20

// response writes a result, or an exception.
type response struct {
	w   http.ResponseWriter
	req *request
	// held is the start of the result, until the status is sent.
	held bytes.Buffer
	// out takes the result after the status is sent; nil before.
	out io.Writer
	// closers end the Content-Encoding.
	closers []func() error
	began   time.Time
	// exceptionTag marks an exception inside the body.
	exceptionTag string
}

func newResponse(w http.ResponseWriter, req *request) *response {
	return &response{w: w, req: req, began: time.Now()}
}

// writePart takes the next part of the result.
func (r *response) writePart(part []byte) error {
	if r.out == nil {
		if r.req.waitForEnd || r.held.Len()+len(part) <= maxHeldBytes {
			r.held.Write(part)
			return nil
		}
		if err := r.sendHeaders(); err != nil {
			return err
		}
	}
	_, err := r.out.Write(part)
	return err
}

// sendHeaders sends the status, the headers, and the held part of the result.
func (r *response) sendHeaders() error {
	header := r.w.Header()
	header.Set("Content-Type", contentType(r.req.format))
	header.Set("X-ClickHouse-Format", r.req.format)
	r.exceptionTag = rand.Text()[:16]
	header.Set("X-ClickHouse-Exception-Tag", r.exceptionTag)
	r.out = r.w
	if r.req.encoding != "" {
		zipped, err := newEncoder(r.req.encoding, r.w)
		if err != nil {
			return err
		}
		r.out = zipped
		r.closers = append(r.closers, zipped.Close)
		header.Set("Content-Encoding", r.req.encoding)
		header.Add("Vary", "Accept-Encoding")
	}
	switch r.req.blockCompression {
	case "LZ4":
		r.out = &blockCompressor{to: r.out, writer: compress.NewWriter(compress.LevelZero, compress.LZ4)}
	case "ZSTD":
		r.out = &blockCompressor{to: r.out, writer: compress.NewWriter(compress.LevelZero, compress.ZSTD)}
	}
	r.w.WriteHeader(http.StatusOK)
	held := r.held.Bytes()
	r.held = bytes.Buffer{}
	_, err := r.out.Write(held)
	return err
}

// newEncoder compresses with one of encodings.
func newEncoder(encoding string, to io.Writer) (io.WriteCloser, error) {
	switch encoding {
	case "zstd":
		return zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	case "lz4":
		return lz4.NewWriter(to), nil
	case "gzip":
		return gzip.NewWriterLevel(to, gzip.BestSpeed)
	case "deflate":
		return zlib.NewWriterLevel(to, zlib.BestSpeed)
	}
	return nil, fmt.Errorf("compressing the result: unknown encoding %q", encoding)
}

// summaryHeader is the X-ClickHouse-Summary of a finished statement. The Java client
// reads result_rows before it reads a row.
func (s summary) summaryHeader(elapsed time.Duration) string {
	return fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d",`+
		`"total_rows_to_read":"%d","result_rows":"%d","result_bytes":"%d","elapsed_ns":"%d"}`,
		s.readRows, s.readBytes, s.writtenRows, s.writtenBytes, s.readRows, max(s.resultRows, s.writtenRows),
		max(s.resultBytes, s.writtenBytes), elapsed.Nanoseconds())
}

// finishResult ends a complete result. A small one, or one whose end the client waits
// for, gets its length and the summary into the headers.
func (r *response) finishResult(done summary) error {
	if r.out == nil {
		r.w.Header().Set("X-ClickHouse-Summary", done.summaryHeader(time.Since(r.began)))
		if r.req.encoding != "" && r.held.Len() == 0 {
			r.req.encoding = ""
		}
		if r.req.encoding == "" && (r.req.blockCompression == "" || r.held.Len() == 0) {
			r.w.Header().Set("Content-Length", strconv.Itoa(r.held.Len()))
		}
		if err := r.sendHeaders(); err != nil {
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

// sendError reports an error: as HTTP status if nothing was sent yet, else as exception
// block at the end of the body. It then breaks off the transfer, so that no client
// takes the body for complete.
func (r *response) sendError(err error) {
	code, text := describeError(err)
	if r.out == nil {
		r.w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		r.w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
		r.w.WriteHeader(httpStatus(code))
		io.WriteString(r.w, text+"\n")
		return
	}
	text = text[:min(len(text), 8<<10)]
	if compressor, ok := r.out.(*blockCompressor); ok {
		// The exception block is not compressed: ClickHouse's reader expects it so.
		r.out = compressor.to
	}
	fmt.Fprintf(r.out, "\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n",
		r.exceptionTag, text, len(text)+1, r.exceptionTag)
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
	http.NewResponseController(r.w).Flush()
	panic(http.ErrAbortHandler)
}

// blockCompressor compresses what is written into ClickHouse's compressed blocks.
type blockCompressor struct {
	to     io.Writer
	writer *compress.Writer
}

// Write compresses p in frames of at most 1 MiB.
func (f *blockCompressor) Write(p []byte) (int, error) {
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

// displayName is what the server calls itself.
const displayName = "chdb"

// helloQuery is the first query of clickhouse-go on a connection, which asks for the
// server's protocol revision.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// customSerialization is DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION of ClickHouse's
// protocol.
const customSerialization = 54454

// helloBlock is the answer to helloQuery: a Native block as the client's revision wants
// it. It gives 0 as the server's revision. The client then reads every later block
// without the additions of newer revisions, as chDB writes it.
func helloBlock(revision uint64, version, timezone string) []byte {
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
		{"displayName()", "String", text(nil, displayName)},
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
