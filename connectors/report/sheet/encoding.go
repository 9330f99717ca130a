package sheet

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	encodings "golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// encoding is how a list's bytes are to be read.
type encoding int

const (
	utf8Text encoding = iota
	utf16LE
	utf16BE
	windows1252 // what Excel saves as CSV without further words
)

// byteOrderMarks tell the encodings that have one. The first that fits counts.
var byteOrderMarks = []struct {
	mark     string
	encoding encoding
}{
	{"\xef\xbb\xbf", utf8Text},
	{"\xff\xfe", utf16LE},
	{"\xfe\xff", utf16BE},
}

// otherFiles begin as no CSV does. The texts say what a user has in hand.
var otherFiles = []struct{ start, text string }{
	{"PK\x03\x04", "this is a workbook (.xlsx, .ods) or an archive: save it as CSV UTF-8"},
	{"\xd0\xcf\x11\xe0", "this is a workbook (.xls): save it as CSV UTF-8"},
	{"%PDF", "this is a PDF: ask for a CSV"},
	{"\x1f\x8b", "this is compressed: unpack it"},
	{"\xff\xfe\x00\x00", "this is UTF-32: save it as CSV UTF-8"},
}

// errEncoding is a file that cannot be read as text.
type errEncoding string

func (e errEncoding) Error() string { return string(e) }

// detectEncoding reads until the encoding is known: all of it, if no mark tells.
func detectEncoding(from io.Reader) (encoding, error) {
	in := bufio.NewReaderSize(from, 64<<10)
	start, err := in.Peek(64 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return utf8Text, err
	}
	for _, other := range otherFiles {
		if bytes.HasPrefix(start, []byte(other.start)) {
			return utf8Text, errEncoding(other.text)
		}
	}
	for _, known := range byteOrderMarks {
		if bytes.HasPrefix(start, []byte(known.mark)) {
			return known.encoding, nil
		}
	}
	if bytes.IndexByte(start, 0) >= 0 {
		return utf8Text, errEncoding("it has NUL bytes, as UTF-16 without a byte order mark: save it as CSV UTF-8")
	}
	_, err = io.Copy(io.Discard, transform.NewReader(in, encodings.UTF8Validator))
	if errors.Is(err, encodings.ErrInvalidUTF8) {
		return windows1252, nil
	}
	return utf8Text, err
}

// decode reads text of an encoding as UTF-8, without byte order mark.
func decode(from io.Reader, e encoding) io.Reader {
	switch e {
	case utf16LE:
		return transform.NewReader(from, unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder())
	case utf16BE:
		return transform.NewReader(from, unicode.UTF16(unicode.BigEndian, unicode.ExpectBOM).NewDecoder())
	case windows1252:
		return transform.NewReader(from, charmap.Windows1252.NewDecoder())
	}
	return transform.NewReader(from, unicode.UTF8BOM.NewDecoder())
}
