package processor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partition is one owned partition. Between a poll and AllowRebalance the session's
// goroutine owns it; before it is ready its restore does; a revocation, which cannot
// come in between, closes it.
type partition struct {
	id    int32
	meta  meta
	fresh bool // the disk held nothing of it
	// what is on disk turned out to be damaged: closing wipes it, and the next restore
	// makes it anew
	broken bool
	store  *state.Store
	clicks *clicklog.Log
	view   *overlay

	totals, applied totals // of the running transaction, and of what is committed

	// positions are the next offsets to judge; of conversions, what is held lies above.
	clicksPosition, conversionsPosition int64
	newestClick, newestConversion       event.Millis // largest Kafka timestamps judged
	// as last committed, to know whether a transaction has anything to say
	committedClicks, committedConversions int64
	held                                  []held
	paused                                bool // conversions, because too many are held

	// horizon: every click and conversion that reached Kafka before it has been judged.
	// Dies with the session.
	horizon  event.Millis
	caughtUp bool

	// Ends of the topics after what this process produced; set by produce promises,
	// read after a flush.
	outcomesEnd, changelogEnd atomic.Int64
	lastProgress              time.Time
	lastFlush                 time.Time
	// How far, in the log's time, clicks and journeys were last expired.
	clicksExpired, journeysExpired event.Millis
	progressDirty                  bool

	wire  []byte // scratch of lookup
	label string
}

// held is a conversion that was polled, and when.
type held struct {
	record *kgo.Record
	polled time.Time
}

func newPartition(id int32) *partition {
	return &partition{id: id, label: strconv.Itoa(int(id)), lastFlush: time.Now()}
}

// lookup implements attribution.Clicks.
func (p *partition) lookup(t *[20]byte) (wire []byte, at event.Millis, ok bool, err error) {
	wire, ms, err := p.clicks.Get(t, p.wire[:0])
	p.wire = wire
	if errors.Is(err, clicklog.ErrNotFound) {
		return nil, 0, false, nil
	}
	return wire, event.Millis(ms), err == nil, err
}

// keep puts a click into the log. token is the key's, if the click was shown and can be
// used: nobody can present a token that was not shown.
func (p *partition) keep(r *kgo.Record) (t [20]byte, shown bool, err error) {
	if r.Attrs.IsControl() { // somebody writes clicks in transactions
		p.clicks.Skip(r.Offset)
		return t, false, nil
	}
	if shown, _ := header(r, topic.HeaderToken); shown != "1" || len(r.Value) < event.HeadLen || r.Value[0] != 0 {
		p.clicks.Skip(r.Offset)
		return t, false, nil
	}
	t, err = token.Parse(string(r.Key))
	if err != nil {
		p.clicks.Skip(r.Offset) // the sink, which decodes every click, makes it a dead letter
		return t, false, nil
	}
	if _, replay := header(r, topic.HeaderReplay); replay && (p.clicks.Next() < 0 || r.Offset >= p.clicks.Next()) {
		_, _, found, err := p.lookup(&t)
		if err != nil {
			return t, false, err
		}
		if found { // sent twice: the first in the log counts
			p.clicks.Skip(r.Offset)
			return t, true, nil
		}
	}
	err = p.clicks.Put(&t, r.Timestamp.UnixMilli(), r.Value, r.Offset)
	if errors.Is(err, clicklog.ErrTooLarge) {
		p.clicks.Skip(r.Offset)
		return t, false, nil
	}
	return t, true, err
}

// header returns a header's value, and whether it is there: `replay` and `waited` carry
// no value, their presence is the message.
func header(r *kgo.Record, key string) (value string, ok bool) {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return string(r.Headers[i].Value), true
		}
	}
	return "", false
}

// moved reports whether the running transaction has something to commit besides
// progress.
func (p *partition) moved() bool {
	return p.clicksPosition != p.committedClicks || p.conversionsPosition != p.committedConversions ||
		len(p.view.keys) > 0
}

// finishRows adds the totals to the rows of the running transaction, if they changed.
func (p *partition) finishRows() error {
	p.totals.outcomesEnd = max(p.totals.outcomesEnd, p.outcomesEnd.Load())
	if p.totals == p.applied {
		return nil
	}
	return p.view.Put(totalsKey, p.totals.append(nil))
}

// apply writes what the transaction committed into Pebble: the rows, the changelog
// position behind them, and hints for expiry, in one batch.
func (p *partition) apply(now time.Time) error {
	if len(p.view.keys) > 0 {
		b := p.store.NewBatch()
		for _, k := range p.view.keys {
			if err := setRow(b, []byte(k), p.view.rows[k]); err != nil {
				return err
			}
		}
		p.meta.Position, p.meta.At = p.changelogEnd.Load(), now.UnixMilli()
		p.meta.Input = &starts{p.clicksPosition, p.conversionsPosition}
		if err := p.meta.put(b); err != nil {
			return err
		}
		if err := b.Commit(); err != nil {
			return err
		}
		p.view.reset()
	}
	p.applied = p.totals
	p.committedClicks, p.committedConversions = p.clicksPosition, p.conversionsPosition
	return nil
}

// setRow writes one row of the changelog into a batch, with the hint that lets expiry
// find a journey by its last event.
func setRow(b *state.Batch, key, value []byte) error {
	if value == nil {
		return b.Delete(key)
	}
	if t, kind, ok := event.ParseJourneyKey(key); ok && kind == event.KindHead {
		var h event.JourneyHead
		if err := event.DecodeHead(value, &h); err != nil {
			return err
		}
		if last, ok := h.Last(); ok {
			if err := b.Set(hintKey(last, &t), nil); err != nil {
				return err
			}
		}
	}
	return b.Set(key, value)
}

// hintTable lists journeys by the day of their last event: key 'X', days since 1970 (4
// B, big-endian), raw token. Hints are only written, so a journey has one for each day
// on which it had an event; whoever reads one asks the head. They are not in the
// changelog: a restore makes them again.
const hintTable = 'X'

const dayMs = 24 * 60 * 60 * 1000

func hintDay(day event.Millis) []byte {
	return binary.BigEndian.AppendUint32([]byte{hintTable}, uint32(day/dayMs))
}

func hintKey(last event.Millis, t *[20]byte) []byte { return append(hintDay(last), t[:]...) }

// condemn notes whether err says that the files are damaged.
func (p *partition) condemn(err error) error {
	p.broken = p.broken || rebuildable(err)
	return err
}

// close makes everything durable and closes the files. It may be called on a partition
// whose restore failed half-way.
func (p *partition) close() error {
	var errs []error
	if p.clicks != nil {
		if err := p.clicks.Seal(); err != nil && !errors.Is(err, clicklog.ErrClosed) {
			errs = append(errs, err)
		}
		errs = append(errs, p.clicks.Close())
		p.clicks = nil
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
		p.store = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing partition %d: %w", p.id, err)
	}
	return nil
}
