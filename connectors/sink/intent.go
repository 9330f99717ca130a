package sink

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxMetadataBytes is what a broker accepts as commit metadata by default
// (offset.metadata.max.bytes). More is refused, and far more closes the connection.
const maxMetadataBytes = 4096

// batchID is [start, end) of one partition of one topic: what one insert holds.
type batchID struct {
	topicID    string
	partition  int32
	start, end int64
}

// deduplicationToken is the batch's insert_deduplication_token. It names exactly these records: the
// same token with other records would lose them.
func (b batchID) deduplicationToken() string {
	return fmt.Sprintf("%s/%d/%d/%d", b.topicID, b.partition, b.start, b.end)
}

// intent says which batch is inserted next. It is written into the metadata of the
// commit of the batch's start before the insert, so that whoever comes after a crash
// forms exactly this batch again.
//
//	v1 TOPIC-ID START END UNIX-MILLISECONDS
type intent struct {
	topicID    string
	start, end int64
	declaredAt time.Time
}

func (i intent) encodeMetadata() string {
	return fmt.Sprintf("v1 %s %d %d %d", i.topicID, i.start, i.end, i.declaredAt.UnixMilli())
}

// parseIntent reads metadata; none was declared if it is empty, as in the commit of a
// fresh install or of an operator's tool.
func parseIntent(metadata string) (*intent, error) {
	if metadata == "" {
		return nil, nil
	}
	bad := func() (*intent, error) {
		return nil, fmt.Errorf("%w: commit metadata %q: expected \"v1 TOPIC-ID START END MILLISECONDS\"; was it "+
			"written by a newer version?", ErrIntent, metadata[:min(len(metadata), 200)])
	}
	words := strings.Split(metadata, " ")
	if len(words) != 5 || words[0] != "v1" || words[1] == "" {
		return bad()
	}
	var numbers [3]int64
	for n := range numbers {
		v, err := strconv.ParseInt(words[2+n], 10, 64)
		if err != nil || v < 0 || strconv.FormatInt(v, 10) != words[2+n] {
			return bad()
		}
		numbers[n] = v
	}
	i := &intent{topicID: words[1], start: numbers[0], end: numbers[1], declaredAt: time.UnixMilli(numbers[2]).UTC()}
	if i.start >= i.end {
		return bad()
	}
	return i, nil
}

// topicIDText prints a topic id as Kafka's own tools do.
func topicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
