package sink

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tokensPerQuery is how many tokens one query asks for: a token of 27 characters takes 37 bytes
// of a URL, and ClickHouse takes parameters of 128 KiB (http_max_field_value_size).
const tokensPerQuery = 3_000

// findReplays returns the test by which a click that was sent again is dropped: the same
// token stands earlier in this batch, or in the table at an offset before it. Never at
// or behind its start: rows of this batch that an earlier attempt inserted must not
// change what a repetition forms. It returns nil if nothing in the batch was sent
// again. The test is asked once for each readable record, in order.
func (p *partition) findReplays(ctx context.Context, b *batch) (func(*kgo.Record) bool, error) {
	if !p.mapping.mayReplay {
		return nil, nil
	}
	var asked []string
	for _, r := range b.records {
		if isReplay(r) {
			asked = append(asked, string(r.Key))
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	seen := make(map[string]bool, len(b.records))
	for tokens := asked; len(tokens) > 0; {
		n := min(len(tokens), tokensPerQuery)
		var stored []struct {
			Token string `ch:"click_token"`
		}
		err := p.sink.wh.Select(ctx, &stored, "SELECT DISTINCT click_token FROM "+p.mapping.table+
			" WHERE click_token IN {tokens:Array(String)} AND src_partition = {partition:UInt32} AND src_offset < "+
			"{start:UInt64}",
			clickhouse.Named("tokens", tokens[:n]), clickhouse.Named("partition", b.partition),
			clickhouse.Named("start", uint64(b.start)))
		if err != nil {
			return nil, fmt.Errorf("looking up clicks that were sent again: %w", err)
		}
		for _, s := range stored {
			seen[s.Token] = true
		}
		tokens = tokens[n:]
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
	for _, h := range r.Headers {
		if h.Key == topic.HeaderReplay {
			return true
		}
	}
	return false
}
