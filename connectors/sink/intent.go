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

// intent declares which batch is inserted next (a write intent). It is the metadata of
// the commit of the batch's start, and is written before the insert, so that after a
// crash the next owner of the partition forms exactly this batch again.
//
//	v1 TOPIC-ID START END UNIX-MILLISECONDS
type intent struct {
	topicID    string
	start, end int64     // offsets of the batch
	declaredAt time.Time // when the batch was first declared
}

func (i intent) encodeMetadata() string {
	return fmt.Sprintf("v1 %s %d %d %d", i.topicID, i.start, i.end, i.declaredAt.UnixMilli())
}

// parseIntent reads the metadata of a commit. It returns nil if the metadata is empty,
// as after a fresh install or an operator's reset.
func parseIntent(metadata string) (*intent, error) {
	if metadata == "" {
		return nil, nil
	}
	malformed := func() (*intent, error) {
		return nil, fmt.Errorf("%w: commit metadata %q: expected \"v1 TOPIC-ID START END MILLISECONDS\"; was it "+
			"written by a newer version?", ErrIntent, metadata[:min(len(metadata), 200)])
	}
	words := strings.Split(metadata, " ")
	if len(words) != 5 || words[0] != "v1" || words[1] == "" {
		return malformed()
	}
	var numbers [3]int64
	for n := range numbers {
		v, err := strconv.ParseInt(words[2+n], 10, 64)
		if err != nil || v < 0 || strconv.FormatInt(v, 10) != words[2+n] {
			return malformed()
		}
		numbers[n] = v
	}
	i := &intent{
		topicID:    words[1],
		start:      numbers[0],
		end:        numbers[1],
		declaredAt: time.UnixMilli(numbers[2]).UTC(),
	}
	if i.start >= i.end {
		return malformed()
	}
	return i, nil
}

// topicIDText prints a topic id as Kafka's own tools do.
func topicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
