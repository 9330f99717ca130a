package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Config says what is compared.
type Config struct {
	// Workspace is whose events are verified.
	Workspace string
	// From and To bound the occurred_at of the events that are compared; To is not
	// included. Zero times: no bound.
	From, To time.Time
	// Table gives the rows of the warehouse; nil: they are not compared.
	Table *Table
	// Export is a CSV that is compared; nil: none is.
	Export *Export
	// TempDir takes some hundred bytes for each event while Run runs; empty: the
	// system's directory for temporary files.
	TempDir string
	// Progress, if not nil, is called now and then with what is being done and how much
	// of it is.
	Progress func(step string, done, of int64)
}

// Validate reports a setting that cannot be, by flag.
func (c Config) Validate() error {
	switch {
	case c.Workspace == "":
		return errors.New("-workspace is required")
	case !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To):
		return errors.New("-from: it is after -to")
	}
	return nil
}

// isInRange reports whether an event that occurred then is compared.
func (c *Config) isInRange(occurred event.Millis) bool {
	return (c.From.IsZero() || occurred >= event.MillisOf(c.From)) &&
		(c.To.IsZero() || occurred < event.MillisOf(c.To))
}

func (c *Config) reportProgress(step string, done, of int64) {
	if c.Progress != nil {
		c.Progress(step, done, of)
	}
}

// Table gives the rows of the table outcomes.
type Table struct {
	// Ends are the offsets behind the last row of outcomes that the sink has inserted,
	// by partition.
	Ends map[int32]int64
	// Dropped are the ends of what the warehouse has dropped because of its age, by
	// partition: rows before Rows, and those of events before Events.
	Dropped map[int32]DroppedEnds
	// Each calls do with the rows of the workspace whose record is in a partition of
	// outcomes, in any order, each with its place there. Rows of a partition that the
	// source does not have come with its first. The outcome is valid during the call.
	Each func(ctx context.Context, partition int32, do func(place Place, o *event.Outcome) error) error
}

// DroppedEnds are offsets of outcomes and of conversions.
type DroppedEnds struct{ Rows, Events int64 }

// Place is where a record is in its topic.
type Place struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

// String writes partition/offset.
func (p Place) String() string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }

// Source is where records come from: the topics (OpenTopics), or a bundle (OpenBundle).
type Source struct {
	// Partitions say how far each partition is judged, and by which times.
	Partitions []Partition
	// Unjudged is how many records of conversions, of all workspaces, no processor has
	// read yet. They are not verified.
	Unjudged int64
	// Unread is how many records of outcomes, of all workspaces, are in partitions of which
	// progress has no record. They are not verified.
	Unread int64
	// Each calls do with the records of a partition's topic, within its extent and in
	// order of offset.
	Each func(ctx context.Context, topic string, partition int32, do func(*Record) error) error
}

// Record is a record of clicks, conversions or outcomes. Its bytes are valid during the
// call.
type Record struct {
	Offset     int64
	At         event.Millis // Kafka's timestamp
	Key, Value []byte
	Shown      bool // of a click: the visitor got the token
	Replay     bool // of a click: it may have been sent before
}

// Partition is the state in which one transaction of the processor left a partition:
// all that was read, and all that was written.
type Partition struct {
	ID int32 `json:"partition"`
	// Watermark: waits that ended before it have their row.
	Watermark   event.Millis `json:"watermark_ms"`
	Clicks      Extent       `json:"clicks"`
	Conversions Extent       `json:"conversions"`
	Outcomes    Extent       `json:"outcomes"`
	// Times are the durations of the rules that Progress has named, oldest first.
	Times []Times `json:"times"`
	// OlderRules is behind the last event that rows of an earlier rules version are
	// about, as far as the warehouse knows; 0: no row is.
	OlderRules int64 `json:"older_rules"`
	// IsGivenUp reports whether a token was given up; nil: none was. A bundle says it of
	// the partner's tokens: BundleHeader.GivenUp.
	IsGivenUp func(token string) bool `json:"-"`
}

// Extent is the part of a partition's log that is there and processed: [Start, End).
type Extent struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	// FirstAt is the time of the first record that is left, if Start is not 0: what came
	// before may be deleted.
	FirstAt event.Millis `json:"first_at_ms"`
}

// Times are durations of the rules, and where in the logs they were in force for sure:
// from the first Progress that named them to the last.
type Times struct {
	GraceMs       int64 `json:"grace_ms"`
	ClickLifeMs   int64 `json:"click_life_ms"`   // 0: not known
	JourneyLifeMs int64 `json:"journey_life_ms"` // 0: not known
	First         int64 `json:"first"`           // conversions_position
	Last          int64 `json:"last"`            // conversions_position
	LastOutcomes  int64 `json:"last_outcomes"`   // outcomes_end
}

// sameTimes reports whether both have the same durations.
func (t *Times) sameTimes(u *Times) bool {
	return t.GraceMs == u.GraceMs && t.ClickLifeMs == u.ClickLifeMs && t.JourneyLifeMs == u.JourneyLifeMs
}

// mergeTimes adds what another witness says about the times in force.
func mergeTimes(known []Times, more ...Times) []Times {
	for _, t := range more {
		i := slices.IndexFunc(known, func(k Times) bool { return k.sameTimes(&t) })
		if i < 0 {
			known = append(known, t)
			continue
		}
		k := &known[i]
		k.First = min(k.First, t.First)
		k.Last = max(k.Last, t.Last)
		k.LastOutcomes = max(k.LastOutcomes, t.LastOutcomes)
	}
	slices.SortFunc(known, func(a, b Times) int { return int(min(max(a.First-b.First, -1), 1)) })
	return known
}

// AddTimes adds what the warehouse knows: times that Progress named before compaction
// or age removed it from the topic, and the end of the events that rows of an earlier
// rules version are about.
func (p *Partition) AddTimes(olderRules int64, times ...Times) {
	p.OlderRules = max(p.OlderRules, olderRules)
	p.Times = mergeTimes(p.Times, times...)
}

// timesOf returns the index of the times that were in force for events from first to
// last. ok is false if they were not the same all the way, or that is not known.
func (p *Partition) timesOf(first, last int64) (index int, ok bool) {
	index = -1
	for i := range p.Times {
		t := &p.Times[i]
		isOldest, isNewest := i == 0, t.Last == p.newestPosition()
		covers := (isOldest || first >= t.First) && (isNewest || last < t.Last)
		touches := (isOldest || last >= t.First) && (isNewest || first < t.Last)
		switch {
		case covers && index < 0:
			index = i
		case touches:
			return 0, false
		}
	}
	return index, index >= 0
}

// newestPosition is the conversions_position of the newest Progress.
func (p *Partition) newestPosition() (last int64) {
	for _, t := range p.Times {
		last = max(last, t.Last)
	}
	return last
}
