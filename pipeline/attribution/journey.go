package attribution

import (
	"errors"
	"fmt"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// journey is one call's view of one token. readHead reads the head into memory and
// writeHead writes it back. All other rows are read and written directly.
type journey struct {
	rules *Rules
	rows  Rows     // the partition's rows, given by the caller
	emit  Emit     // receives the outcomes, given by the caller
	token [20]byte // the click token that names the journey
	text  string   // the token in base62; tokenText fills it on first use

	head        event.JourneyHead
	headStored  bool // readHead has found a row
	headChanged bool // head differs from its row

	clickKnown     bool         // findClick has set the four fields below
	click          event.Click  // decoded clickWire
	clickWire      []byte       // wire form, as it is embedded in outcomes
	clickArrivedAt event.Millis // when the click reached Kafka
	terms          rewardTerms  // as frozen on the click

	woken   wokenHeap            // waits whose parent is known now; wakeWaiting adds them
	scanned map[parentIndex]bool // of orders: those that this cascade has read

	// judged are the offsets of woken events that this cascade has judged. Orders that
	// share index rows can wake an event twice before its turn.
	judged map[int64]bool

	outcome       event.Outcome // under construction; it points to the fields below
	flags         [12]string    // room for outcome.Flags
	amountMinor   int64         // of a reversed event; set by takeFromParent
	rewardMinor   int64         // set by setReward
	standingMinor int64         // set by setStandingChange
	firstOffset   int64         // of a duplicate or conflict; set by judgeRepeat

	key   []byte // scratch for the key of the current row
	value []byte // scratch for the value of the current row
}

// reset clears the journey but keeps the buffers for the next call.
func (j *journey) reset() {
	*j = journey{
		clickWire: j.clickWire[:0],
		woken:     j.woken[:0],
		key:       j.key[:0],
		value:     j.value[:0],
	}
}

func (j *journey) readHead() error {
	row, err := j.rows.Get(j.journeyKey(event.KindHead, ""))
	if err != nil || row == nil {
		return err
	}
	if err := event.DecodeHead(row, &j.head); err != nil {
		return err
	}
	j.headStored = true
	if j.head.Click != nil {
		j.clickWire = append(j.clickWire[:0], j.head.Click...) // the next Get invalidates the row
		j.head.Click = j.clickWire
	}
	if j.head.Old {
		return j.indexAnew()
	}
	return nil
}

// writeHead writes the head if it has changed, or deletes it if the journey is empty.
func (j *journey) writeHead() error {
	if j.head.Empty() {
		if !j.headStored {
			return nil
		}
		return j.rows.Put(j.journeyKey(event.KindHead, ""), nil)
	}
	if !j.headChanged {
		return nil
	}
	if j.clickKnown { // otherwise the head keeps its click, if it has one
		j.head.Click, j.head.ClickArrivedAt = j.clickWire, j.clickArrivedAt
	}
	j.value = event.AppendHead(j.value[:0], &j.head)
	return j.rows.Put(j.journeyKey(event.KindHead, ""), j.value)
}

// findClick makes the click known, if there is one: the journey's own, or else the one
// that clicks returns, provided that its token was shown and that it came early enough
// to matter.
func (j *journey) findClick(clicks ClickLookup) (known bool, err error) {
	if j.clickKnown {
		return true, nil
	}
	if j.head.Click != nil {
		if err := j.rules.codec.DecodeClick(j.head.Click, &j.click); err != nil {
			return false, fmt.Errorf("decoding the journey's click: %w", markNewer(err))
		}
		j.setClick(j.head.ClickArrivedAt)
		return true, nil
	}
	if j.head.Kept > 0 || j.head.WaitParent > 0 || clicks == nil {
		return false, fmt.Errorf("%w: a head without click has kept events", event.ErrJourney)
	}
	wire, at, ok, err := clicks(&j.token)
	if err != nil {
		return false, fmt.Errorf("looking up the click: %w", err)
	}
	if !ok || at > j.waitEnd(j.clickLifeEnd()) {
		// A click this late changes nothing: every event that entered within the click
		// life has ended its wait, and every other event finds no journey.
		return false, nil
	}
	if err := j.rules.codec.DecodeClick(wire, &j.click); err != nil {
		if event.Unreadable(err) && !errors.Is(err, event.ErrUnknownSchema) {
			return false, nil // the sink writes its dead letter
		}
		return false, fmt.Errorf("decoding the click: %w", markNewer(err))
	}
	if j.click.TokenStatus != event.TokenAppended || j.click.ClickToken != j.tokenText() {
		return false, nil
	}
	j.clickWire = append(j.clickWire[:0], wire...)
	j.setClick(at)
	return true, nil
}

// markNewer marks the error of a click whose schema id is unknown. Without the click
// its events would be judged as if there were none, for good.
func markNewer(err error) error {
	if errors.Is(err, event.ErrUnknownSchema) {
		return fmt.Errorf("%w, neither built in nor in the file of -schema-ids: %w", err, event.ErrNewer)
	}
	return err
}

func (j *journey) setClick(arrivedAt event.Millis) {
	j.clickKnown = true
	j.clickArrivedAt = arrivedAt
	j.terms = parseTerms(j.click.RewardTerms)
}

func (j *journey) tokenText() string {
	if j.text == "" {
		j.text = token.Text(&j.token)
	}
	return j.text
}

// clickLifeEnd is the last moment at which an event can begin a journey of this token.
func (j *journey) clickLifeEnd() event.Millis {
	return event.MillisOf(token.Time(&j.token)).Add(j.rules.cfg.ClickLife)
}

// waitEnd is the last moment of the wait of an event that entered the log at the given
// time. It is never negative, because wait keys sort by it.
func (j *journey) waitEnd(entered event.Millis) event.Millis {
	return max(0, entered.Add(j.rules.cfg.Grace))
}

// newRow begins the row of an event with what the merchant sent.
func newRow(ev *event.Conversion, src Source) event.JourneyEvent {
	return event.JourneyEvent{
		Type:       ev.Type,
		Offset:     src.Offset,
		Content:    ev.ContentSHA256,
		OccurredAt: ev.OccurredAt,
		Money:      ev.MoneyHash(),
	}
}

// recordEvent makes a judged event part of the journey.
func (j *journey) recordEvent(ev *event.Conversion, e *event.JourneyEvent) error {
	if j.head.Kept == 0 {
		j.head.LastKept = ev.EnteredAt
	}
	j.head.LastKept = max(j.head.LastKept, ev.EnteredAt)
	j.head.Kept++
	j.headChanged = true
	return j.writeEvent(ev.EventID, e)
}
