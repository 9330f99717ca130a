package attribution_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/internal/mutant"
)

// mutations break one rule each. Every one must make a scenario or TestOracle fail: one
// that survives shows a rule without a test.
var mutations = []struct{ broken, file, old, new string }{
	// rules.go
	{"six minutes of clock skew", "rules.go", `5 * 60_000`, `6 * 60_000`},
	{"a second after the click is too fast", "rules.go", `event.Millis(1000)`, `event.Millis(1001)`},
	{"a click that ApplyClick was not called with stays unseen", "rules.go", `if j.head.WaitClick > 0 {
			// ApplyClick`, `if false {
			// ApplyClick`},
	// verdicts.go: the table of verdicts
	{"an event in the click's millisecond comes after it", "verdicts.go", `ev.EnteredAt > j.clickArrivedAt {`,
		`ev.EnteredAt >= j.clickArrivedAt {`},
	{"a click in the last millisecond of the wait is too late",
		"verdicts.go", `j.clickArrivedAt > j.waitEnd(ev.EnteredAt)`,
		`j.clickArrivedAt >= j.waitEnd(ev.EnteredAt)`},
	{"foreign events are judged", "verdicts.go", `case j.click.WorkspaceID != ev.WorkspaceID:`, `case false:`},
	{"no event id is ever taken", "verdicts.go", `if taken {`, `if taken && false {`},
	{"one event more than the limit", "verdicts.go", `>= j.rules.maxEvents`, `> j.rules.maxEvents`},
	{"what waits takes no place", "verdicts.go", `j.head.Kept+j.head.WaitParent >=`, `j.head.Kept >=`},
	{"a journey with only waiting events is none", "verdicts.go", `if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept`, `if j.head.Kept`},
	{"the last millisecond of the click life", "verdicts.go", `entered > j.clickLifeEnd()`,
		`entered >= j.clickLifeEnd()`},
	{"the first millisecond after the journey life", "verdicts.go", `entered > j.head.LastKept`,
		`entered-1 > j.head.LastKept`},
	{"other content is a duplicate", "verdicts.go", `first.Content == ev.ContentSHA256`, `true`},
	{"the window excludes its end", "verdicts.go", `since <= event.Millis(j.click.WindowMs)`,
		`since < event.Millis(j.click.WindowMs)`},
	{"the window is measured from receipt", "verdicts.go", `since := ev.OccurredAt -`, `since := ev.ReceivedAt -`},
	// verdicts.go: followers
	{"what names a parent waits inside the window, too", "verdicts.go",
		`ev.OccurredAt-j.click.ClickedAt > event.Millis(j.click.WindowMs) && j.click.FollowMs > 0`,
		`j.click.FollowMs > 0`},
	{"every program has follow", "verdicts.go", `j.click.FollowMs > 0 &&`, `true &&`},
	{"a positive follows itself", "verdicts.go", `case p.state == parentIsItself || !p.event.Type.Positive(): // line 8b`,
		`case p.state == parentFound && !p.event.Type.Positive():`},
	{"a positive follows a negative", "verdicts.go", `p.state == parentIsItself || !p.event.Type.Positive(): // line 8b`,
		`p.state == parentIsItself:`},
	{"a positive follows an unattributed one", "verdicts.go", `case p.event.Effect == 0: // line 8d`, `case false:`},
	{"follow excludes its end", "verdicts.go", `> event.Millis(j.click.FollowMs)`, `>= event.Millis(j.click.FollowMs)`},
	{"follow is measured from the one that is named", "verdicts.go", `e.Origin = p.event.OriginAt()`,
		`e.Origin = p.event.OccurredAt`},
	{"follow is measured from the click", "verdicts.go", `ev.OccurredAt-p.event.OriginAt() >`,
		`ev.OccurredAt-j.click.ClickedAt >`},
	{"a follower waits for no parent", "verdicts.go", `return j.waitForParent(ev, src) // line 8c`,
		`return j.settlePositive(ev, src, &parent{event: event.JourneyEvent{Type: event.Sale}})`},
	{"a follower has a flat reward", "reward.go", `case root.Follows:`, `case false:`},
	{"a follower inside the window says what it follows", "verdicts.go", `	var p parent
	if j.follows(ev) {
		if err`, `	var p parent
	if j.follows(ev) || ev.ParentEventID != "" {
		if err`},
	// verdicts.go: repeats
	{"a repeated order is never refused", "verdicts.go", `if repeated && j.click.OneSalePerOrder {`, `if false {`},
	{"a repeated order is always refused", "verdicts.go", `if repeated && j.click.OneSalePerOrder {`, `if repeated {`},
	{"a repeated order is not flagged", "verdicts.go", `event.FlagOrderRepeated, repeated)`,
		`event.FlagOrderRepeated, false)`},
	{"a lead repeats an order", "parent.go", `if ev.Type != event.Sale || o.Attributed.Count == 0 {`,
		`if o.Attributed.Count == 0 {`},
	{"an order is repeated though nothing of it stands", "parent.go", `stands = only.Standing() > 0`, `stands = true`},
	{"of several sales of an order something always stands", "parent.go", `stands := o.Standing > 0`, `stands := true`},
	{"an order's sale that is given back does not stand again", "amounts.go",
		`if !change.root.SharesOrder || by == 0 {`, `if !change.root.SharesOrder || by >= 0 {`},
	{"an order's sale that is taken back stands", "amounts.go",
		`if !change.root.SharesOrder || by == 0 {`, `if !change.root.SharesOrder || by <= 0 {`},
	{"the first of an order is not counted", "parent.go", `		if first.Standing() > 0 {
			o.Standing++
		}
`, ``},
	{"a named parent always excuses a repeat", "parent.go", `return !isOfOrder, err`, `return !(isOfOrder || ok), err`},
	{"a named parent never excuses a repeat", "parent.go", `return !isOfOrder, err`, `return !(isOfOrder && false), err`},
	{"a parent of another order excuses a repeat", "parent.go", ` && named.Order == ev.OrderID`, ``},
	{"an unattributed parent excuses a repeat", "parent.go", ` && named.Effect != 0`, ``},
	{"a conflict never differs in money", "repeats.go",
		`return first.Money != ev.MoneyHash() || isAnotherDay(first.OccurredAt, ev.OccurredAt), nil`, `return false, nil`},
	{"a conflict that is dated otherwise does not differ", "repeats.go",
		`return first.Money != ev.MoneyHash() || isAnotherDay(first.OccurredAt, ev.OccurredAt), nil`,
		`return first.Money != ev.MoneyHash(), nil`},
	{"exactly a day is another one", "repeats.go", `a-b > dayMs || b-a > dayMs`, `a-b >= dayMs || b-a >= dayMs`},
	{"nothing is dated before its parent's day", "repeats.go", `return beforeParent || `, `return beforeParent && false || `},
	{"the same day is before the parent's", "repeats.go", `dayOf(ev.OccurredAt) < dayOf(p.event.OccurredAt)`,
		`ev.OccurredAt < p.event.OccurredAt`},
	{"35 days are long ago", "repeats.go", `ev.ReceivedAt-ev.OccurredAt > longAgo`,
		`ev.ReceivedAt-ev.OccurredAt >= longAgo`},
	{"what has no effect is dated back", "verdicts.go", `reason == "" && isDatedBack(ev, p)`, `isDatedBack(ev, p)`},
	{"what came to nothing is not flagged", "outcome.go", `verdict == event.Unattributed && !ev.Type.Positive()`,
		`false`},
	{"a positive can be without effect", "outcome.go", `verdict == event.Unattributed && !ev.Type.Positive()`,
		`verdict == event.Unattributed`},
	{"a row without click needs no review", "outcome.go", `	setReview(o)
	return j.emit(o, nil)`, `	return j.emit(o, nil)`},
	{"the outcome has no metadata", "outcome.go", `		Metadata:       ev.Metadata,
`, ``},
	// verdicts.go: reversals that name no parent
	{"a second reversal takes on a guess", "verdicts.go", `return p.event.Reversals > 0 || hadAnything`,
		`return hadAnything`},
	{"a reversal of nothing takes on a guess", "verdicts.go", ` || hadAnything && `, ` || false && hadAnything && `},
	{"of a sale of nothing something stood", "verdicts.go", `hadAnything && p.event.Standing() == 0`,
		`(hadAnything || true) && p.event.Standing() == 0`},
	{"a named reversal is a guess", "verdicts.go", ` || ev.ParentEventID != "" || p.state != parentFound`,
		` || p.state != parentFound`},
	{"a refund is a guess", "verdicts.go", `ev.Type != event.Reversal || ev.ParentEventID`, `ev.ParentEventID`},
	{"a reversal that was taken back stands", "amounts.go", `case before > 0 && after == 0:`, `case false:`},
	{"a refund counts as a reversal", "amounts.go", `if c.typ != event.Reversal {
		return 0`, `if false {
		return 0`},
	{"a reversal that takes nothing is not counted", "amounts.go", `if child.isTaken() || child.reversals() != 0 {`,
		`if child.isTaken() {`},
	{"ambiguous and wrong negatives are kept", "verdicts.go",
		`if reason == event.ReasonWrongParent || reason == event.ReasonParentAmbiguous {`, `if false {`},
	{"a wrong negative that waited keeps its id", "verdicts.go", `	if waited {
		if err := j.deleteEvent`, `	if false {
		if err := j.deleteEvent`},
	{"a reversal of a refund is wrong", "verdicts.go", ` && ev.Type != event.Reversal`, ``},
	{"a refund of a refund is right", "verdicts.go", `p.state == parentFound && !p.event.Type.Positive()`,
		`false && !p.event.Type.Positive()`},
	{"something is taken from what was not attributed", "verdicts.go", `case p.event.Effect == 0: // line 13`,
		`case false:`},
	{"the last event is the last in order of record", "journey.go", `max(j.head.LastKept, ev.EnteredAt)`,
		`ev.EnteredAt`},
	{"a link without partner has one under review", "outcome.go", `c.PartnerID != "" &&
		(`, `(`},
	{"a missing amount is reviewed", "outcome.go", `flag != event.FlagAmountMissing`, `true`},
	// parent.go, cascade.go: finding the parent
	{"an event can take back itself", "parent.go", `case ev.ParentEventID == ev.EventID:`, `case false:`},
	{"a waiting parent is good enough", "parent.go", `if ok && !p.event.Waiting {`, `if ok {`},
	{"a refund takes the order's lead", "parent.go", `ev.Type == event.Cancellation && !saleWaits {`,
		`!saleWaits {`},
	{"the order does not matter where there is one sale", "parent.go", `p.event.Order == order`, `true`},
	{"of two sales the parent is not ambiguous", "parent.go", `	p.state = parentAmbiguous
	return nil`, `	return nil`},
	{"the latest of an order is not said to be inferred", "parent.go", `p.inferred = class.Count > 1`,
		`p.inferred = false`},
	{"the first of an order is the parent", "parent.go", `	o.Class(e.Effect).Add(ev.EventID, e.Offset)
	return j.writeOrder(ev.Type`, `	first := *o.Class(e.Effect)
	o.Class(e.Effect).Add(ev.EventID, e.Offset)
	if first.Count > 0 {
		o.Class(e.Effect).Latest = first.Latest
	}
	return j.writeOrder(ev.Type`},
	{"of an order unattributed sales count first", "parent.go", `	class := &o.Attributed
	if class.Count == 0 {
		class = &o.Unattributed`, `	class := &o.Unattributed
	if class.Count == 0 {
		class = &o.Attributed`},
	{"without an order unattributed sales count first", "parent.go", `	class := &from.Attributed
	if class.Count == 0 {
		class = &from.Unattributed`, `	class := &from.Unattributed
	if class.Count == 0 {
		class = &from.Attributed`},
	{"beside an unattributed sale a cancellation takes a lead", "parent.go", `from.Count() == 0 && j.head.WaitSales`,
		`from.Attributed.Count == 0 && j.head.WaitSales`},
	{"beside a waiting sale a cancellation takes a lead", "parent.go", ` && j.head.WaitSales == 0 {
		from`, ` {
		from`},
	{"beside a waiting sale of its order a cancellation takes a lead", "parent.go",
		`ev.Type == event.Cancellation && !saleWaits {`, `ev.Type == event.Cancellation && !(saleWaits && false) {`},
	{"a waiting sale's end wakes no cancellation", "waiting.go",
		`j.wakeForEndedSale(&waits[i].Event)`,
		`j.wakeForEndedSale(&event.Conversion{EventID: waits[i].Event.EventID})`},
	{"a cancellation without order is not woken", "cascade.go", `	if j.head.WaitSales == 0 {
		if err := j.wakeWaiting`, `	if false {
		if err := j.wakeWaiting`},
	{"ends of waits are not told apart", "waiting.go", `w.end >= through || saleEnd >= 0 && w.end > saleEnd`,
		`w.end >= through`},
	{"a sale's end comes before others of its millisecond", "waiting.go", `saleEnd >= 0 && w.end > saleEnd`,
		`saleEnd >= 0`},
	{"a sale that has ended goes on waiting for others", "cascade.go", `j.countWaitingSale(ev.OrderID, -1)`,
		`j.countWaitingSale(ev.OrderID, 0)`},
	{"a lead ends no wait of a cancellation", "cascade.go",
		`	return j.wakeWaiting(event.KindForPositive, order)
`, `	if typ == event.Lead {
		return nil
	}
	return j.wakeWaiting(event.KindForPositive, order)
`},
	{"beside any waiting sale a lead ends no wait of a cancellation", "cascade.go",
		`return saleWaits && sale.state == parentAbsent, err`, `return saleWaits || sale.state == parentAbsent, err`},
	{"what waited is judged last first", "cascade.go", `h[a].offset < h[b].offset`,
		`h[a].offset > h[b].offset`},
	// amounts.go
	{"every reversal is negative", "amounts.go", `= -p.event.Effect`, `= -1`},
	{"a root's change is not that of its standing amount", "amounts.go", `j.standingMinor = change.after - change.before`,
		`j.standingMinor = change.after`},
	{"a chain without amounts has standing changes", "amounts.go", `if change.root.HasAmount {`, `if true {`},
	{"a refund without amount takes the whole sum again", "amounts.go", `setAmount(e, standing,`,
		`setAmount(e, p.event.Amount,`},
	{"nothing taken from a sale of nothing is too much", "amounts.go", `standing == 0 && p.event.Amount > 0`,
		`standing == 0`},
	{"the whole standing amount is too much", "amounts.go", `e.Amount > standing`, `e.Amount >= standing`},
	{"dollars are taken from euros",
		"amounts.go", ` && p.event.Currency == e.Currency && p.event.Exponent == e.Exponent`,
		``},
	{"a mismatch takes from the standing amount", "amounts.go", `return c.takes && c.before != c.after`,
		`return c.before != c.after`},
	{"a child's old share is not given back", "amounts.go", `node.Sum.Replace(child.before, child.after)`,
		`node.Sum.Replace(0, child.after)`},
	// reward.go
	{"half a cent is rounded up", "reward.go", `rest == up && q&1 == 1`, `rest == up`},
	{"a flat reward stays at a standing amount of 0", "reward.go", `case t.flat && standing > 0:`, `case t.flat:`},
	{"percent of nothing known is a reward", "reward.go", `case t.percent && root.HasAmount:`, `case t.percent:`},
	{"a row carries the reward of the whole standing amount", "reward.go", `rewardAfter - rewardBefore`,
		`rewardAfter - 0*rewardBefore`},
	// journey.go, waiting.go: waits
	{"a click whose token was not shown counts", "journey.go", `j.click.TokenStatus != event.TokenAppended || `, ``},
	{"a click that can bring nothing is found", "journey.go", `if !ok || at > j.waitEnd(j.clickLifeEnd()) {`,
		`if !ok {`},
	{"an event after the click life begins a journey", "waiting.go", `if late && j.head.WaitClick == 0 {`,
		`if false {`},
	{"what waits behind an ended wait prolongs it", "waiting.go", `late && j.head.WaitsTo == 0`, `false`},
	{"click waits end a millisecond early", "waiting.go", `w.end < through || w.Behind`,
		`w.end <= through || w.Behind`},
	{"parent waits end a millisecond early", "waiting.go", `w.end >= through || saleEnd`, `w.end > through || saleEnd`},
	{"parent_not_found keeps its id", "waiting.go", `	if err := j.deleteEvent(w.Event.EventID); err != nil {
		return err
	}
`, ``},
	{"waits begin at receipt", "cascade.go", `end := j.waitEnd(ev.EnteredAt)`, `end := j.waitEnd(ev.ReceivedAt)`},
	{"a journey's life is measured from receipt", "journey.go", `max(j.head.LastKept, ev.EnteredAt)`,
		`max(j.head.LastKept, ev.ReceivedAt)`},
	{"waits end by receipt", "verdicts.go", `j.endParentWaits(ev.EnteredAt)`, `j.endParentWaits(ev.ReceivedAt)`},
	// upgrade.go
	{"the reversals of version 1 are forgotten", "upgrade.go", `			parent.Reversals++
`, ``},
	{"the positives of version 1 are forgotten", "upgrade.go",
		`			j.headPositives(e.Type).Class(e.Effect).Add(e.id)
`, ``},
	{"the orders of version 1 are not told apart", "upgrade.go", `		for _, e := range list {
			o.Class(e.Effect).Add(e.id, e.Offset)`, `		for _, e := range list {
			o.Attributed.Add(e.id, e.Offset)`},
	{"what stands of the orders of version 1 is forgotten", "upgrade.go", `			if e.Standing() > 0 {
				o.Standing++
			}
`, ``},
	{"an old order row tells the verdict", "rows.go", `	o.Class(e.Effect).Add(id, e.Offset)
	return nil`, `	o.Attributed.Add(id, e.Offset)
	return nil`},
	{"what version 1 kept differs in all that is unknown", "repeats.go", `return surelyDiffers(ev, first), nil`,
		`return true, nil`},
	{"what version 1 kept never differs", "repeats.go", `return surelyDiffers(ev, first), nil`, `return false, nil`},
	{"waits are closed in the order of their ends", "rows.go", `slices.SortFunc(waits, compareOffsets)`,
		`slices.SortFunc(waits, func(a, b waitingEvent) int { return int(a.end - b.end) })`},
}

// mutationSample are judged by a plain go test, PARTNERS_TEST_LONG=1 judges all.
const mutationSample = 4

// TestMutations builds this package's tests once per mutation, with the changed source
// laid over the real one (go test -overlay: no file is touched), and runs the scenarios
// and one property.
func TestMutations(t *testing.T) {
	every := len(mutations) / mutationSample
	if os.Getenv("PARTNERS_TEST_LONG") == "1" {
		every = 1
	}
	check := []string{"-test.run=^(TestScenarios|TestOracle)$", "-test.timeout=5m", "-rapid.checks=10",
		"-rapid.nofailfile", "-rapid.shrinktime=1ms"}
	if out, err := exec.Command(os.Args[0], check...).CombinedOutput(); err != nil {
		t.Fatalf("without any mutation: %v\n%s", err, out)
	}
	two := make(chan struct{}, 2)
	for i, m := range mutations {
		edit := mutant.Edit{File: m.file, Old: m.old, New: m.new}
		if err := edit.Check(); err != nil {
			t.Errorf("%s: %v", m.broken, err)
			continue
		}
		if i%every != 0 || i/every >= mutationSample && every > 1 {
			continue
		}
		t.Run(strings.ReplaceAll(m.broken, " ", "_"), func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			bin := mutant.Build(t, edit)
			out, err := exec.Command(bin, check...).CombinedOutput()
			var exit *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("%s: nothing fails", m.broken)
			case !errors.As(err, &exit):
				t.Fatal(err)
			case bytes.Contains(out, []byte("panic: test timed out")):
				t.Fatalf("%s: nothing failed in time\n%s", m.broken, out)
			default:
				t.Logf("noticed by %s", strings.Join(failures(out), " "))
			}
		})
	}
}

var failed = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// failures lists the tests that failed: of the scenarios only the files.
func failures(out []byte) (names []string) {
	for _, m := range failed.FindAllSubmatch(out, -1) {
		if name := string(m[1]); name != "TestScenarios" {
			names = append(names, strings.TrimPrefix(name, "TestScenarios/"))
		}
	}
	if len(names) == 0 {
		names = append(names, "a panic") // it stops the first test it meets
	}
	return slices.Compact(names)
}
