package oracle

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Click is a record of the topic clicks. Clicks are given in order of record.
type Click struct {
	event.Click
	At event.Millis // Kafka timestamp of the record
}

// Event is a record of the topic conversions.
type Event struct {
	event.Conversion
	Partition int32
	Offset    int64
}

// Position names a record of the topic conversions.
type Position struct {
	Partition int32
	Offset    int64
}

// Config holds the durations that the rules leave to the operator.
type Config struct {
	Grace       time.Duration // how long after received_at an event may wait
	ClickLife   time.Duration // after a token's mint time
	JourneyLife time.Duration // after a journey's last event, by received_at
	MaxEvents   int           // kept or waiting in one journey; 0 means 100,000
}

// DefaultConfig is what a processor runs with.
func DefaultConfig() Config {
	return Config{
		Grace:       72 * time.Hour,
		ClickLife:   40 * 24 * time.Hour,
		JourneyLife: 400 * 24 * time.Hour,
		MaxEvents:   defaultMaxEvents,
	}
}

const defaultMaxEvents = 100_000

// Money is an amount in minor units. An event without amount counts as one unit:
// Currency is empty and Minor 1 or 0.
type Money struct {
	Minor    int64
	Currency string
	Exponent int32
}

// Result is the truth about a log.
type Result struct {
	// one for each event that does not wait, by partition and offset; DecidedAt is 0
	Outcomes []event.Outcome
	Waiting  []Event            // by partition and offset
	Standing map[Position]Money // what stands in the end of each event with effect
}

// Judge applies the rules to all events. Events may come in any order: they are sorted
// by partition and offset; clicks must be in order of record, as far as they have the
// same token. Waits that ended before through are closed even if nothing else closes
// them; in production a timer does that.
func Judge(cfg Config, clicks []Click, events []Event, through event.Millis) Result {
	if cfg.MaxEvents == 0 {
		cfg.MaxEvents = defaultMaxEvents
	}
	first := make(map[string]*Click)
	for i := range clicks {
		c := &clicks[i]
		if c.TokenStatus == event.TokenAppended && first[c.ClickToken] == nil {
			first[c.ClickToken] = c
		}
	}
	byToken := make(map[string][]Event)
	for _, e := range events {
		byToken[e.ClickToken] = append(byToken[e.ClickToken], e)
	}

	r := Result{Standing: make(map[Position]Money)}
	for tok, own := range byToken {
		slices.SortFunc(own, compareEvents)
		j := &journey{cfg: cfg, minted: mintTime(tok)}
		j.play(first[tok], own, through)
		r.Outcomes = append(r.Outcomes, j.out...)
		r.Waiting = append(r.Waiting, j.waiting...)
		for _, k := range j.kept {
			if k.Effect != 0 {
				r.Standing[Position{k.EventPartition, k.EventOffset}] = Money{j.standing(k), k.Currency, k.Exponent}
			}
		}
	}
	slices.SortFunc(r.Outcomes, compareOutcomes)
	slices.SortFunc(r.Waiting, compareEvents)
	return r
}

func compareEvents(a, b Event) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

func compareOutcomes(a, b event.Outcome) int {
	return cmp.Or(cmp.Compare(a.EventPartition, b.EventPartition), cmp.Compare(a.EventOffset, b.EventOffset))
}

const (
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	ksuidTime = 1_400_000_000 // unix seconds
)

// mintTime reads the time in a KSUID (https://github.com/segmentio/ksuid): 27 base62
// digits are a number of 160 bits, its upper 32 are seconds.
func mintTime(tok string) event.Millis {
	n := new(big.Int)
	for _, r := range tok {
		digit := strings.IndexRune(base62, r)
		if digit < 0 {
			n.SetInt64(0)
			break
		}
		n.Mul(n, big.NewInt(62)).Add(n, big.NewInt(int64(digit)))
	}
	if len(tok) != 27 || n.BitLen() > 160 {
		n.SetInt64(0)
	}
	return event.Millis((n.Rsh(n, 128).Int64() + ksuidTime) * 1000)
}
