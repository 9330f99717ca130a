package sink

import (
	"context"
	"fmt"
	"slices"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tokensPerQuery bounds the tokens of one query. A token of 27 characters takes 37
// bytes of a URL, and ClickHouse accepts parameters of 128 KiB
// (http_max_field_value_size).
const tokensPerQuery = 3_000

// findReplays returns a function that reports whether a click is a replay that must be
// dropped: the same token occurs earlier in this batch, or in the table at an offset
// below the batch's start. Rows at or behind the start are ignored: those that an
// earlier attempt inserted must not change what a repetition forms.
//
// The function must be called once for each readable record, in order. It is nil if no
// record of the batch was sent again.
func (p *partition) findReplays(ctx context.Context, b *batch) (func(*kgo.Record) bool, error) {
	if !p.mapping.mayReplay {
		return nil, nil
	}
	var replayed []string
	for _, r := range b.records {
		if isReplay(r) {
			replayed = append(replayed, string(r.Key))
		}
	}
	if len(replayed) == 0 {
		return nil, nil
	}
	seen := make(map[string]bool, len(b.records))
	for tokens := range slices.Chunk(replayed, tokensPerQuery) {
		var stored []struct {
			Token string `ch:"click_token"`
		}
		err := p.sink.wh.Select(ctx, &stored, `
			SELECT DISTINCT click_token
			FROM `+p.mapping.table+`
			WHERE click_token IN {tokens:Array(String)}
				AND src_partition = {partition:UInt32}
				AND src_offset < {start:UInt64}`,
			clickhouse.Named("tokens", tokens),
			clickhouse.Named("partition", b.partition),
			clickhouse.Named("start", uint64(b.start)))
		if err != nil {
			return nil, fmt.Errorf("looking up clicks that were sent again: %w", err)
		}
		for _, s := range stored {
			seen[s.Token] = true
		}
	}
	return func(r *kgo.Record) bool {
		token := string(r.Key)
		if isReplay(r) && seen[token] {
			return true
		}
		seen[token] = true
		return false
	}, nil
}

func isReplay(r *kgo.Record) bool {
	_, ok := kafka.Header(r, topic.HeaderReplay)
	return ok
}
