package ingest

import (
	"bytes"
	"fmt"
)

// maxDepth is how many objects and lists a decoder reads within one another.
const maxDepth = 10_000

// flatten returns text with a number in place of each value that is nested more deeply
// than a decoder reads, as long as the value has the form of JSON, and where the first
// such value begins; -1 without one. It leaves text itself as it is.
func flatten(text []byte) (flat []byte, first int) {
	flat, first = text, -1
	depth := 0       // how many brackets are open, whether or not they match
	var begins []int // of the open values whose depth is a multiple of maxDepth, plus 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth > 0 && depth%maxDepth == 0 {
				begins = append(begins, i)
				if first < 0 {
					flat, first = bytes.Clone(text), i
				}
			}
			depth++
		case '}', ']':
			if depth--; depth > 0 && depth%maxDepth == 0 {
				// What is deeper in it is a number by now.
				value := flat[begins[len(begins)-1] : i+1]
				begins = begins[:len(begins)-1]
				if checkLexical(value) != nil {
					return flat, first
				}
				writeNumber(value)
			}
		}
	}
	return flat, first
}

// writeNumber writes a number over a value, as long as it was.
func writeNumber(value []byte) {
	value[0] = '0'
	for i := range value[1:] {
		value[1+i] = ' '
	}
}

// parseItem reads an event of a batch that was flattened from the bytes that were sent.
// It begins at byte start of the body.
func parseItem(flat, sent []byte, start int64) draft {
	d := parseDraft(flat, start, false)
	for i := range flat {
		if flat[i] == sent[i] {
			continue
		}
		if at := start + int64(i); d.fault == nil || d.fault.offset > at {
			d.fault = &fault{detail: depthDetail(at), field: memberAt(flat, int64(i)), offset: at}
		}
		break
	}
	return d
}

func depthDetail(offset int64) string {
	return fmt.Sprintf("nested too deeply, at byte %d of the body", offset)
}

// memberAt returns the field of an event in whose value a byte of it lies.
func memberAt(text []byte, offset int64) (member string) {
	dec := newLenientDecoder(text)
	if dec.PeekKind() != '{' {
		return ""
	}
	// It has the form of JSON, since its neighbours were read.
	_ = eachLenientMember(dec, func(name string) error {
		before := dec.InputOffset()
		err := dec.SkipValue()
		if f, ok := fieldOf(name); ok && before <= offset && offset < dec.InputOffset() {
			member = f.String()
		}
		return err
	})
	return member
}
