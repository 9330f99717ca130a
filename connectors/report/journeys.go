package report

import (
	"context"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// maxJourney is how many rows a journey may have to be read whole. It is less than
// MaxDepth, so no chain within it is cut.
const maxJourney = MaxDepth - 1

// journeys are the rows of tokens that were read whole. A chain lies within one token:
// two questions for each of its events are one question for all.
type journeys struct {
	whole    map[string]bool       // tokens that have all their rows here
	first    map[EventKey]*Event   // what others mean by an id, see readFirst
	children map[EventKey][]*Event // in the order of the log
}

// readJourneys reads the journeys of the events that have a chain.
func (r *Reader) readJourneys(ctx context.Context, workspace string, events []*Event) (*journeys, error) {
	j := &journeys{whole: map[string]bool{}, first: map[EventKey]*Event{}, children: map[EventKey][]*Event{}}
	var tokens []string
	for _, e := range events {
		if hasChain(e) {
			tokens = append(tokens, e.ClickToken)
		}
	}
	rows := map[string]int{}
	err := inChunks(tokens, func(tokens []string) error {
		found, err := r.readOutcomes(ctx, workspace, outcomesOf(ofTokens)+`click_token IN {tokens:Array(String)}
	AND verdict NOT IN ('duplicate', 'conflict')
ORDER BY event_partition, event_offset
LIMIT {n:UInt32} BY click_token`, clickhouse.Named("tokens", tokens), clickhouse.Named("n", maxJourney+1))
		for _, e := range found {
			rows[e.ClickToken]++
			j.addRow(e)
		}
		return err
	})
	for _, token := range tokens {
		j.whole[token] = rows[token] <= maxJourney
	}
	return j, err
}

func (j *journeys) addRow(e *Event) {
	if first := j.first[e.Key()]; first == nil || first.Effect == 0 && e.Effect != 0 {
		j.first[e.Key()] = e
	}
	switch event.Verdict(e.Verdict) {
	case event.Reversed, event.Unattributed:
		j.children[e.parentKey()] = append(j.children[e.parentKey()], e)
	}
}

// chainOf is the chain of an event, as layOutChain wants it. ok is false if its journey
// was not read whole.
func (j *journeys) chainOf(e *Event) (root *Event, children map[EventKey][]*Event, ok bool) {
	if !j.whole[e.ClickToken] {
		return nil, nil, false
	}
	root, _, err := climb(e, func(key EventKey) (*Event, error) { return j.first[key], nil })
	return root, j.children, err == nil
}
