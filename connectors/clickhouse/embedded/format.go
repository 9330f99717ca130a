package embedded

import (
	"bytes"
	"strings"
)

// formatKind says how the output blocks of chDB become one document in a format. chDB
// writes every block of a streamed result as a document of its own.
type formatKind int

const (
	// unjoinable: the blocks cannot be joined (JSON, Parquet, Pretty, …), or they are
	// empty (Null), which also ends a stream. chDB builds the whole result in memory.
	unjoinable formatKind = iota
	// joinable: the concatenated blocks are the document.
	joinable
	// repeatsHeader: likewise, but every block begins with the header again.
	repeatsHeader
)

func formatKindOf(format string) formatKind {
	name := strings.ToLower(format)
	name = strings.Replace(name, "tabseparated", "tsv", 1)
	switch name {
	case "native", "rowbinary", "csv", "tsv", "tsvraw", "tskv",
		"jsoneachrow", "jsonlines", "ndjson", "jsonstringseachrow", "jsoncompacteachrow", "jsoncompactstringseachrow":
		return joinable
	case "csvwithnames", "csvwithnamesandtypes", "tsvwithnames", "tsvwithnamesandtypes",
		"jsoncompacteachrowwithnames", "jsoncompacteachrowwithnamesandtypes":
		return repeatsHeader
	}
	return unjoinable
}

// headerLen returns the length of the header at the beginning of a block: one line, two
// with types. In CSV a quoted name may contain line feeds; the other formats escape
// them.
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

// blockJoiner turns the blocks of a streamed result into one document.
type blockJoiner struct {
	format string
	kind   formatKind
	header []byte // of the first block
}

// documentPart returns the part of a block that belongs to the document.
func (j *blockJoiner) documentPart(block []byte) []byte {
	if j.kind != repeatsHeader {
		return block
	}
	if j.header == nil {
		j.header = bytes.Clone(block[:headerLen(j.format, block)])
		return block
	}
	return bytes.TrimPrefix(block, j.header)
}

// contentType returns the MIME type that ClickHouse gives a format.
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
