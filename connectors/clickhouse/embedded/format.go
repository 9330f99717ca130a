package embedded

import (
	"bytes"
	"strings"
)

// formatKind says how chDB's output blocks in a format become one document. chDB writes
// every block of a streamed result as a document of its own.
type formatKind int

const (
	// whole: blocks cannot be joined (JSON, Parquet, Pretty, …), or are empty (Null),
	// which is how a stream ends: the result is made as a whole, in memory.
	whole formatKind = iota
	// joined: blocks one after another are the document.
	joined
	// headed: the same, but every block begins with the header again.
	headed
)

func kindOf(format string) formatKind {
	name := strings.ToLower(format)
	name = strings.Replace(name, "tabseparated", "tsv", 1)
	switch name {
	case "native", "rowbinary", "csv", "tsv", "tsvraw", "tskv",
		"jsoneachrow", "jsonlines", "ndjson", "jsonstringseachrow", "jsoncompacteachrow", "jsoncompactstringseachrow":
		return joined
	case "csvwithnames", "csvwithnamesandtypes", "tsvwithnames", "tsvwithnamesandtypes",
		"jsoncompacteachrowwithnames", "jsoncompacteachrowwithnamesandtypes":
		return headed
	}
	return whole
}

// headerLen is the length of the header that begins a block: one line, two with types.
// In CSV a quoted name may contain line feeds; the others escape them.
func headerLen(format string, block []byte) int {
	lines := 1
	name := strings.ToLower(format)
	if strings.HasSuffix(name, "andtypes") {
		lines = 2
	}
	csv := strings.HasPrefix(name, "csv")
	quoted := false
	for i, c := range block {
		switch {
		case c == '"' && csv:
			quoted = !quoted
		case c == '\n' && !quoted:
			if lines--; lines == 0 {
				return i + 1
			}
		}
	}
	return len(block)
}

// joiner turns the blocks of a streamed result into one document.
type joiner struct {
	format string
	kind   formatKind
	header []byte
}

// next returns what of a block belongs into the document.
func (j *joiner) next(block []byte) []byte {
	if j.kind != headed {
		return block
	}
	if j.header == nil {
		j.header = bytes.Clone(block[:headerLen(j.format, block)])
		return block
	}
	return bytes.TrimPrefix(block, j.header)
}

// contentType is the MIME type that ClickHouse gives a format.
func contentType(format string) string {
	name := strings.ToLower(format)
	switch {
	case strings.HasPrefix(name, "csv"):
		return "text/csv; charset=UTF-8"
	case strings.HasPrefix(name, "tabseparated"), strings.HasPrefix(name, "tsv"):
		return "text/tab-separated-values; charset=UTF-8"
	case name == "jsoneachrow", name == "jsonlines", name == "ndjson":
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(name, "json"):
		return "application/json; charset=UTF-8"
	case strings.HasPrefix(name, "pretty"), strings.HasPrefix(name, "vertical"), name == "markdown", name == "values":
		return "text/plain; charset=UTF-8"
	}
	return "application/octet-stream"
}
