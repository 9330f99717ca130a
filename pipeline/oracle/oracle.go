package oracle

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Click is a record of the topic clicks.
type Click struct {
	event.Click
	At event.Millis // the record's Kafka timestamp
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
	ClickLife   time.Duration // how long after the token's mint time a first event may come
	JourneyLife time.Duration // how long after its last event, by received_at, a journey accepts more
	MaxEvents   int           // how many events a journey may have, kept or waiting; 0 means 100,000
}

// DefaultConfig returns the durations of a processor's default configuration.
func DefaultConfig() Config {
	return Config{
		Grace:       72 * time.Hour,
		ClickLife:   40 * 24 * time.Hour,
		JourneyLife: 400 * 24 * time.Hour,
		MaxEvents:   defaultMaxEvents,
	}
}

const defaultMaxEvents = 100_000

// Money is an amount. An event without amount counts as one unit: then Currency is
// empty and Minor is 1 or 0.
type Money struct {
	Minor    int64  // minor units
	Currency string // ISO 4217
	Exponent int32  // decimals of Currency
}

// Result is the truth about a log.
type Result struct {
	Outcomes []event.Outcome    // of each event that does not wait, by position; DecidedAt is 0
	Waiting  []Event            // by position
	Standing map[Position]Money // the final standing amount of each event with effect
}

// Judge applies the rules to all events. Events may be in any order, because Judge
// sorts them by position. Clicks with the same token must be in order of record. Judge
// closes the waits that ended before through, as a timer does in production.
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
		j.playHistory(first[tok], own, through)
		r.Outcomes = append(r.Outcomes, j.outcomes...)
		r.Waiting = append(r.Waiting, j.waiting...)
		for _, k := range j.kept {
			if k.Effect != 0 {
				m := Money{Minor: j.standingAmount(k), Currency: k.Currency, Exponent: k.Exponent}
				r.Standing[Position{k.EventPartition, k.EventOffset}] = m
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
	base62     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	ksuidEpoch = 1_400_000_000 // unix seconds
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
	return event.Millis((n.Rsh(n, 128).Int64() + ksuidEpoch) * 1000)
}
