package sheet

import (
	"fmt"

	"golang.org/x/text/transform"
)

const (
	// maxQuoted is how long a quoted text may be, in bytes. A quote that is never closed
	// takes all that follows for its cell, and encoding/csv would hold that in memory.
	maxQuoted = 64 << 10
	// maxLine is how long a line may be, in bytes, with the line breaks in its cells.
	maxLine = 1 << 20
)

// lineEnds makes a LF of each CR outside of quotes that no LF follows. encoding/csv takes
// such a CR for a part of its cell, so a list of Excel's "CSV (Macintosh)" would be a
// header and nothing else. It refuses a quote that is not closed, and a line without end.
//
// Each quote begins or ends a quoted text. Where that is not so, encoding/csv refuses the
// quote before anything else matters.
type lineEnds struct {
	file string // in errors

	line   int // that is read, from 1
	column int // of the next byte, from 1
	length int // of the line so far, in bytes; here it ends outside of quotes only
	lone   int // the first line that a CR alone ends; 0: none

	quoted      bool // the next byte is within quotes
	closed      bool // the last byte ended a quoted text: with a quote it goes on
	quoteLine   int  // where the quoted text began
	quoteColumn int  // in that line, from 1
	quoteLength int  // of the quoted text so far, in bytes
}

// Reset implements transform.Transformer.
func (l *lineEnds) Reset() { *l = lineEnds{file: l.file, line: 1, column: 1} }

// Transform implements transform.Transformer.
func (l *lineEnds) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if nDst == len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		b := src[nSrc]
		if b == '\r' && !l.quoted {
			if nSrc+1 == len(src) && !atEOF {
				return nDst, nSrc, transform.ErrShortSrc
			}
			if nSrc+1 == len(src) || src[nSrc+1] != '\n' {
				b = '\n'
				if l.lone == 0 {
					l.lone = l.line
				}
			}
		}
		if err := l.count(b); err != nil {
			return nDst, nSrc, err
		}
		dst[nDst] = b
		nDst++
		nSrc++
	}
	if atEOF && l.quoted {
		return nDst, nSrc, l.unclosed("is never closed")
	}
	return nDst, nSrc, nil
}

// count takes in the next byte.
func (l *lineEnds) count(b byte) error {
	if b == '"' {
		if l.quoted = !l.quoted; l.quoted && !l.closed {
			l.quoteLine, l.quoteColumn, l.quoteLength = l.line, l.column, 0
		}
		l.closed = !l.quoted
	} else {
		l.closed = false
	}
	l.length++
	l.column++
	l.quoteLength++
	if b == '\n' {
		l.line++
		l.column = 1
		if !l.quoted {
			l.length = 0
		}
	}
	if l.quoted && l.quoteLength > maxQuoted {
		return l.unclosed(fmt.Sprintf("is not closed within %d KiB", maxQuoted>>10))
	}
	if l.length > maxLine {
		return &BadList{l.file, l.line, 1, "", fmt.Sprintf("a line of more than %d KiB", maxLine>>10)}
	}
	return nil
}

func (l *lineEnds) unclosed(text string) error {
	return &BadList{l.file, l.quoteLine, l.quoteColumn, "", "the quote that begins here " + text}
}
