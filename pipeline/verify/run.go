package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// Run derives every row of the workspace again and compares it with the ledger. The
// error is of reading, never of what was read: see Report.OK.
func Run(ctx context.Context, cfg Config, source *Source, codec *event.Codec) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.TempDir, "partners-verify-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	v := &verifier{
		Config:   cfg,
		source:   source,
		codec:    codec.Aliasing(),
		dir:      dir,
		report:   &Report{},
		outcomes: &Tally{Name: "outcomes"},
	}
	v.digester.codec = codec
	v.report.Tallies = append(v.report.Tallies, v.outcomes)
	if cfg.Table != nil {
		v.table = &Tally{Name: "ClickHouse"}
		v.report.Tallies = append(v.report.Tallies, v.table)
	}
	if cfg.Export != nil {
		if err := v.openExport(ctx); err != nil {
			return nil, err
		}
		v.report.Tallies = append(v.report.Tallies, v.export.tally)
	}
	for i := range source.Partitions {
		if err := v.verifyPartition(ctx, &source.Partitions[i]); err != nil {
			return nil, fmt.Errorf("verifying partition %d: %w", source.Partitions[i].ID, err)
		}
	}
	if v.export != nil {
		if err := v.export.describeLines(); err != nil {
			return nil, err
		}
	}
	return v.report, nil
}

// verifier is one run.
type verifier struct {
	Config
	source   *Source
	codec    *event.Codec // whose texts point into the record
	digester digester
	dir      string // for temporary files
	report   *Report
	outcomes *Tally
	table    *Tally      // nil: not compared
	export   *exportFile // nil: not compared
}

// entry is an event of the workspace, and what became of it.
type entry struct {
	event  int64  // its offset in conversions
	row    int64  // offset of its row in outcomes; −1: none was seen
	first  int64  // offset of the first event of its token
	want   digest // of what was derived
	why    Reason // it cannot be derived, or Derivable
	bucket uint8
	times  uint8 // index of Partition.Times
	marks  marks
	// how often the event was seen there, up to 2
	seenRow, seenTable, seenLine uint8
}

// marks are what is true of an entry.
type marks uint8

const (
	inRange  marks = 1 << iota // it is compared
	isDue                      // it must have a row
	isOld                      // its row may be in the part of outcomes that is deleted
	isLate                     // its row is that of a record that came too late
	isChosen                   // the CSV's filters, but those by offset, select its row
)

func (e *entry) has(m marks) bool { return e.marks&m != 0 }

// partitionRun is one partition of a run.
type partitionRun struct {
	*verifier
	part     *Partition
	deriver  *deriver
	spill    *spill
	own      int      // readable events of the workspace
	wanted   []uint64 // tokenKey of the tokens that are derived, sorted
	entries  []entry  // by event
	lines    []digest // of an entry's line in the CSV, by index of the entry
	suspects []int    // entries whose row is not what was derived
	unheld   int64    // rows that are not either, beyond what suspects holds
	late     map[int64]*event.Outcome
}

// verifyPartition compares one partition. All records of a token are in one.
func (v *verifier) verifyPartition(ctx context.Context, p *Partition) (err error) {
	r := &partitionRun{verifier: v, part: p, late: make(map[int64]*event.Outcome)}
	if r.deriver, err = newDeriver(p, v.digester.codec, v.codec); err != nil {
		return err
	}
	if r.spill, err = newSpill(v.dir, p.Conversions.End-p.Conversions.Start); err != nil {
		return fmt.Errorf("making temporary files: %w", err)
	}
	defer func() { err = errors.Join(err, r.spill.close()) }()
	for _, step := range []func(context.Context) error{
		r.readConversions,
		r.readClicks,
		r.deriveAll,
		r.compareOutcomes,
		r.explainSuspects,
		r.countMissing,
		r.compareTable,
		r.compareExport,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stepName names what is done, for Config.Progress.
func (r *partitionRun) stepName(what string) string {
	return fmt.Sprintf("partition %d of %d: %s", r.part.ID, len(r.source.Partitions), what)
}

// progressRecords is how many records are read between two reports of progress.
const progressRecords = 1 << 14

// eachRecord reads a topic of the partition.
func (r *partitionRun) eachRecord(ctx context.Context, name string, do func(*Record) error) error {
	extent := r.part.extents()[name]
	read := 0
	err := r.source.Each(ctx, name, r.part.ID, func(record *Record) error {
		if read++; read%progressRecords == 0 {
			r.reportProgress(r.stepName("reading "+name), record.Offset-extent.Start, extent.End-extent.Start)
		}
		return do(record)
	})
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// readConversions spills all readable events, and notes the tokens that have one of the
// workspace within the days.
func (r *partitionRun) readConversions(ctx context.Context) error {
	var ev event.Conversion
	err := r.eachRecord(ctx, topic.Conversions, func(record *Record) error {
		raw, ok, err := r.decodeEvent(record, &ev)
		if err != nil || !ok {
			return err
		}
		if ev.WorkspaceID == r.Workspace {
			r.own++
			if r.isInRange(ev.OccurredAt) {
				r.wanted = append(r.wanted, tokenKey(&raw))
			}
		}
		return r.spill.addRecord(r.spill.conversions, &raw, record)
	})
	r.sortWanted()
	return err
}

func (r *partitionRun) sortWanted() {
	slices.Sort(r.wanted)
	r.wanted = slices.Compact(r.wanted)
}

// decodeEvent reads an event as the processor does: what it dead-letters is not ok.
func (v *verifier) decodeEvent(record *Record, ev *event.Conversion) (raw token.Raw, ok bool, err error) {
	if err := v.codec.DecodeConversion(record.Value, ev); err != nil {
		if event.Unreadable(err) {
			return raw, false, nil
		}
		return raw, false, err
	}
	if string(record.Key) != ev.ClickToken {
		return raw, false, nil
	}
	raw, err = token.Parse(ev.ClickToken)
	return raw, err == nil, nil
}

func (r *partitionRun) isWanted(t *token.Raw) bool {
	_, found := slices.BinarySearch(r.wanted, tokenKey(t))
	return found
}

// readClicks spills the clicks of the tokens that are derived, if the processor keeps
// them: those of which the visitor got the token.
func (r *partitionRun) readClicks(ctx context.Context) error {
	return r.eachRecord(ctx, topic.Clicks, func(record *Record) error {
		raw, ok := shownToken(record)
		if !ok || !r.isWanted(&raw) {
			return nil
		}
		return r.spill.addRecord(r.spill.clicks, &raw, record)
	})
}

// shownToken returns the token of a click that can bring events. Like the processor, it
// looks at the record, and not into it.
func shownToken(record *Record) (raw token.Raw, ok bool) {
	if !record.Shown || len(record.Value) < event.FramingLen || record.Value[0] != 0 {
		return raw, false
	}
	raw, err := token.Parse(string(record.Key))
	return raw, err == nil
}

// deriveAll derives every token that has an event of the workspace within the days.
func (r *partitionRun) deriveAll(ctx context.Context) error {
	r.entries = make([]entry, 0, r.own)
	for bucket := range r.spill.conversions {
		r.reportProgress(r.stepName("deriving"), int64(bucket), int64(len(r.spill.conversions)))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.spill.eachHistory(bucket, func(h *history) error {
			if !r.isWanted(&h.token) {
				return nil
			}
			return r.addToken(h, bucket)
		}); err != nil {
			return err
		}
	}
	if r.Export == nil {
		slices.SortFunc(r.entries, func(a, b entry) int { return cmp.Compare(a.event, b.event) })
		return nil
	}
	// Two lists in step: sort their order, then both.
	order := make([]int, len(r.entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(r.entries[a].event, r.entries[b].event) })
	entries, lines := make([]entry, len(order)), make([]digest, len(order))
	for i, from := range order {
		entries[i], lines[i] = r.entries[from], r.lines[from]
	}
	r.entries, r.lines = entries, lines
	return nil
}

// addToken adds the entries of a token's events, with what is derived of them.
func (r *partitionRun) addToken(h *history, bucket int) error {
	times, why := r.deriver.classify(h)
	base := len(r.entries)
	var ev event.Conversion
	for i := range h.events {
		if err := r.codec.DecodeConversion(h.events[i].value, &ev); err != nil {
			return err
		}
		if ev.WorkspaceID != r.Workspace {
			continue
		}
		e := entry{
			event:  h.events[i].offset,
			row:    -1,
			first:  h.events[0].offset,
			why:    why,
			bucket: uint8(bucket),
			times:  uint8(times),
		}
		if r.isInRange(ev.OccurredAt) {
			e.marks |= inRange
			r.report.Events++
		}
		if x := r.part.Outcomes; x.Start > 0 && ev.EnteredAt <= x.FirstAt+clockSlack {
			e.marks |= isOld
		}
		r.entries = append(r.entries, e)
		if r.Export != nil {
			r.lines = append(r.lines, digest{})
		}
	}
	if why != Derivable {
		return nil
	}
	token := r.entries[base:]
	return r.deriver.deriveToken(h, times, func(o *event.Outcome, click []byte, due bool) error {
		i, found := findEvent(token, o.EventOffset)
		if !found {
			return nil // of another workspace
		}
		e := &token[i]
		if due {
			e.marks |= isDue
		}
		var err error
		if e.want, err = r.digester.digestOutcome(o, click); err != nil || r.Export == nil {
			return err
		}
		return r.deriveLine(e, &r.lines[base+i], o, click)
	})
}

// findEvent returns the index of the entry of an event.
func findEvent(entries []entry, offset int64) (index int, found bool) {
	return slices.BinarySearchFunc(entries, offset, func(e entry, offset int64) int {
		return cmp.Compare(e.event, offset)
	})
}

// deriveEvent derives one event's row once more, to show it.
func (r *partitionRun) deriveEvent(e *entry) (derived *event.Outcome, err error) {
	if o := r.late[e.event]; o != nil {
		return o, nil
	}
	err = r.spill.eachHistory(int(e.bucket), func(h *history) error {
		if h.events[0].offset != e.first {
			return nil
		}
		return r.deriver.deriveToken(h, int(e.times), func(o *event.Outcome, click []byte, _ bool) (err error) {
			if o.EventOffset == e.event {
				derived, err = copyOutcome(r.codec, o, click)
			}
			return err
		})
	})
	if err == nil && derived == nil {
		err = fmt.Errorf("deriving the event at offset %d of conversions again: there is no such event", e.event)
	}
	return derived, err
}

func (r *partitionRun) eventPlace(e *entry) *Place { return &Place{r.part.ID, e.event} }
