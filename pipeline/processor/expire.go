package processor

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// Clicks and journeys are deleted a day after the rules stopped asking for them, every
// hour. The clock of that is the log's: the older of both inputs' newest times, so that
// a stopped redirector or a wrong wall clock deletes nothing.

const (
	// maxExpire is how many journeys one transaction deletes.
	maxExpire = 500
	// expiryDelay keeps rows for a day beyond what the rules can ask for.
	expiryDelay = 24 * time.Hour
	// expiryInterval is how often rows are expired, in the log's time.
	expiryInterval = event.Millis(time.Hour / time.Millisecond)
)

// expiryTable is the expiry index, which lists journeys by the day of their last event:
// key 'X', days since 1970 (4 B, big-endian), raw token. Its rows are only written, so
// a journey has one for each day on which it had an event; readers then ask the
// journey's head. They are not in the changelog: a restore writes them again.
const expiryTable = 'X'

const dayMs = 24 * 60 * 60 * 1000

func expiryDay(day event.Millis) []byte {
	return binary.BigEndian.AppendUint32([]byte{expiryTable}, uint32(day/dayMs))
}

func expiryKey(last event.Millis, t *[20]byte) []byte { return append(expiryDay(last), t[:]...) }

// indexExpiry adds the row of the expiry index that belongs to a journey's head. A head
// that cannot be read stops the partition, until its token is given up: then it has no
// row, and its journey ends with the next event or wait of the token.
func indexExpiry(part *engine.Partition, b *state.Batch, key, value []byte) error {
	t, kind, ok := event.ParseJourneyKey(key)
	if !ok || kind != event.KindHead {
		return nil
	}
	var h event.JourneyHead
	if err := event.DecodeHead(value, &h); err != nil {
		if part.Install().IsGivenUp(token.Text(&t)) {
			return nil
		}
		return markCorrupt(nameWayOn(&t, err))
	}
	if last, ok := h.Last(); ok {
		return b.Set(expiryKey(last, &t), nil)
	}
	return nil
}

// logTime is the clock of expiry.
func (t *task) logTime() event.Millis {
	return min(t.part.LeadingNewest(), t.part.FollowingNewest())
}

// expireClicks deletes clicks, by whole segments.
func (t *task) expireClicks(now event.Millis) error {
	seconds := token.SecondsOf(int64(now.Add(-t.cfg.ClickLife - expiryDelay)))
	if now-t.clicksExpired < expiryInterval || seconds == 0 {
		return nil
	}
	t.clicksExpired = now
	if err := t.clicks.log.Expire(seconds); err != nil {
		return err
	}
	b := t.part.Store.NewBatch()
	upper := binary.BigEndian.AppendUint32([]byte{outOfOrderTable}, seconds)
	return errors.Join(b.DeleteRange([]byte{outOfOrderTable}, upper), b.Commit())
}

// expireJourneys deletes journeys within the transaction: their rows become tombstones
// in the changelog.
func (t *task) expireJourneys(tx *engine.Tx) error {
	now := t.logTime()
	if now-t.journeysExpired < expiryInterval {
		return nil
	}
	done, err := t.dropOldJourneys(tx, now.Add(-t.journeyLife-expiryDelay))
	if err == nil && done {
		t.journeysExpired = now
	}
	return err
}

// dropOldJourneys deletes journeys whose last event is older than cutoff, at most
// maxExpire in one transaction. It reports whether none is left.
func (t *task) dropOldJourneys(tx *engine.Tx, cutoff event.Millis) (done bool, err error) {
	if cutoff <= 0 {
		return true, nil
	}
	var entries [][]byte
	if err := t.part.Store.Scan([]byte{expiryTable}, expiryDay(cutoff), func(key, _ []byte) bool {
		entries = append(entries, append([]byte(nil), key...))
		return len(entries) < maxExpire
	}); err != nil {
		return false, err
	}
	b := t.part.Store.NewBatch()
	for _, key := range entries {
		tok := [20]byte(key[5:])
		if err := t.dropOldJourney(tx, b, key, &tok, cutoff); err != nil {
			return false, err
		}
	}
	return len(entries) < maxExpire, b.Commit()
}

// dropOldJourney deletes the journey of a row of the expiry index, or that row alone if the
// journey is gone or had a later event.
func (t *task) dropOldJourney(tx *engine.Tx, b *state.Batch, key []byte, tok *[20]byte, cutoff event.Millis) error {
	old, err := t.lastEventBefore(tok, cutoff)
	isGivenUp := err != nil && t.isGivenUp(tok)
	switch {
	case err != nil && !isGivenUp:
		return nameWayOn(tok, err)
	case err == nil && !old:
		return b.Delete(key)
	}
	if err := tx.Begin(); err != nil {
		return err
	}
	if isGivenUp {
		return t.rules.GiveUp(t.rows, t.rereadEvent(tx, tok), tok, t.emitTo(tx, noOffset))
	}
	return t.rows.dropJourney(tok)
}

// dropExpiredEntries deletes entries of the expiry index, in a standby: those whose
// journey is gone, or has an entry of a later day. One whose journey is there stays,
// however old: the owner is about to delete the journey, or will do it by this entry.
func (t *task) dropExpiredEntries(now event.Millis) error {
	cutoff := now.Add(-t.journeyLife - expiryDelay)
	if now-t.journeysExpired < expiryInterval || cutoff <= 0 {
		return nil
	}
	b := t.part.Store.NewBatch()
	dropped, kept := 0, 0
	var failed error
	err := t.part.Store.Scan([]byte{expiryTable}, expiryDay(cutoff), func(key, _ []byte) bool {
		tok := [20]byte(key[5:])
		old, err := t.lastEventBefore(&tok, cutoff)
		switch {
		case err != nil && !t.isGivenUp(&tok):
			failed = nameWayOn(&tok, err)
		case err != nil, old:
			kept++
		default:
			failed = b.Delete(key)
			dropped++
		}
		return failed == nil && dropped < maxExpire && kept < maxExpire
	})
	if err = errors.Join(err, failed, b.Commit()); err == nil && dropped < maxExpire && kept == 0 {
		t.journeysExpired = now
	}
	return err
}

// lastEventBefore reports whether a journey is there and its last event is older than
// cutoff.
func (t *task) lastEventBefore(tok *[20]byte, cutoff event.Millis) (bool, error) {
	value, err := t.rows.Get(event.HeadKey(tok))
	if err != nil || value == nil {
		return false, err
	}
	var head event.JourneyHead
	if err := event.DecodeHead(value, &head); err != nil {
		return false, err
	}
	last, ok := head.Last()
	return ok && last < cutoff, nil
}
