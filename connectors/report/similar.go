package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nimriz/partners/connectors/clickhouse"
	"golang.org/x/text/unicode/norm"
)

// Question is an id of an event or of an order that can be asked about.
type Question struct {
	Column KeyColumn `json:"column"`
	Key    string    `json:"key"`
}

// Words is such as an order "1001".
func (q Question) Words() string {
	kind := "an event"
	if q.Column == ByOrderID {
		kind = "an order"
	}
	return kind + fmt.Sprintf(" %q", q.Key)
}

// readSimilar finds what somebody may have meant whose question has no answer: an order
// who asked about an event, an event who asked about an order; and what looks the same,
// but for blanks at its ends and the form of Unicode.
func (r *Reader) readSimilar(ctx context.Context, workspace string, asked Question) (found []Question, err error) {
	bare := strings.TrimSpace(asked.Key)
	keys := []string{asked.Key, bare, norm.NFC.String(bare), norm.NFD.String(bare)}
	slices.Sort(keys)
	var tables []string
	for _, column := range []KeyColumn{ByEventID, ByOrderID} {
		for table, of := range map[string]string{
			"outcomes":    outcomesOf(ofKeys),
			"conversions": conversionsOf(ofKeys),
			"rejections":  "",
		} {
			tables = append(tables, fmt.Sprintf(`SELECT '%s' AS asked, %s AS id
	FROM %s
	WHERE workspace_id = {w:String} AND %s%s IN {keys:Array(String)}`, column, column, table, of, column))
		}
	}
	var rows []struct {
		Asked string `ch:"asked"`
		ID    string `ch:"id"`
	}
	err = r.conn.Select(ctx, &rows, `
SELECT DISTINCT asked, id
FROM
(
	`+strings.Join(tables, "\n\tUNION ALL ")+`
)
ORDER BY asked, id`, clickhouse.Named("w", workspace), clickhouse.Named("keys", slices.Compact(keys)))
	if err != nil {
		return nil, fmt.Errorf("looking for similar ids: %w", err)
	}
	for _, row := range rows {
		found = append(found, Question{KeyColumn(row.Asked), row.ID})
	}
	return found, nil
}

// recordedID is how many characters the gateway records of an id that it refuses.
const recordedID = 128

// recordedIDs are keys as far as they are in rejections.
func recordedIDs(keys []string) []string {
	recorded := slices.Clone(keys)
	for i, key := range recorded {
		if utf8.RuneCountInString(key) > recordedID {
			recorded[i] = string([]rune(key)[:recordedID])
		}
	}
	return recorded
}
