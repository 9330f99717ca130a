package sink

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxMetadataBytes is what a broker accepts as commit metadata by default
// (offset.metadata.max.bytes). It refuses more, and closes the connection at far more.
const maxMetadataBytes = 4096

// intent declares which batch is inserted next (a write intent). It is in the metadata of
// the commit of the batch's start, and is written before the insert, so that after a
// crash the next owner of the partition forms exactly this batch again.
type intent struct {
	topicID    string
	start, end int64     // offsets of the batch
	declaredAt time.Time // when the batch was first declared
}

// commitNote is the metadata of a commit: into which warehouse the group's records go,
// and what is inserted next.
//
//	v2 WAREHOUSE-ID TOPIC-ID START END UNIX-MILLISECONDS
//	v2 WAREHOUSE-ID                                       nothing is declared
//	v1 TOPIC-ID START END UNIX-MILLISECONDS               of earlier releases
type commitNote struct {
	warehouse string  // its id; empty: of an earlier release, or nobody has written
	intent    *intent // nil: none
}

func (n commitNote) encodeMetadata() string {
	switch {
	case n.intent == nil && n.warehouse == "":
		return ""
	case n.intent == nil:
		return "v2 " + n.warehouse
	}
	version := "v1"
	if n.warehouse != "" {
		version = "v2 " + n.warehouse
	}
	return fmt.Sprintf("%s %s %d %d %d", version, n.intent.topicID, n.intent.start, n.intent.end,
		n.intent.declaredAt.UnixMilli())
}

// parseCommitNote reads the metadata of a commit, which is empty after a fresh install or
// an operator's reset.
func parseCommitNote(metadata string) (n commitNote, err error) {
	if metadata == "" {
		return n, nil
	}
	words := strings.Split(metadata, " ")
	switch {
	case words[0] == "v2" && len(words) > 1 && words[1] != "":
		n.warehouse = words[1]
		words = words[2:]
	case words[0] == "v1" && len(words) > 1:
		words = words[1:]
	default:
		words = []string{""} // neither
	}
	if len(words) == 0 {
		return n, nil
	}
	if n.intent = parseIntent(words); n.intent == nil {
		return commitNote{}, fmt.Errorf("%w: commit metadata %q: expected \"v2 WAREHOUSE-ID TOPIC-ID START END "+
			"MILLISECONDS\"; was it written by a newer version?", ErrIntent, metadata[:min(len(metadata), 200)])
	}
	return n, nil
}

// parseIntent reads TOPIC-ID START END MILLISECONDS. It returns nil if the words are
// something else.
func parseIntent(words []string) *intent {
	if len(words) != 4 || words[0] == "" {
		return nil
	}
	var numbers [3]int64
	for n := range numbers {
		v, err := strconv.ParseInt(words[1+n], 10, 64)
		if err != nil || v < 0 || strconv.FormatInt(v, 10) != words[1+n] {
			return nil
		}
		numbers[n] = v
	}
	i := &intent{
		topicID:    words[0],
		start:      numbers[0],
		end:        numbers[1],
		declaredAt: time.UnixMilli(numbers[2]).UTC(),
	}
	if i.start >= i.end {
		return nil
	}
	return i
}

// topicIDText prints a topic id as Kafka's own tools do.
func topicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
