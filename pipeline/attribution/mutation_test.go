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
	{"an event in the click's millisecond comes after it", "verdicts.go", `ev.ReceivedAt > j.clickArrivedAt {`,
		`ev.ReceivedAt >= j.clickArrivedAt {`},
	{"a click in the last millisecond of the wait is too late",
		"verdicts.go", `j.clickArrivedAt > j.waitEnd(ev.ReceivedAt)`,
		`j.clickArrivedAt >= j.waitEnd(ev.ReceivedAt)`},
	{"foreign events are judged", "verdicts.go", `case j.click.WorkspaceID != ev.WorkspaceID:`, `case false:`},
	{"no event id is ever taken", "verdicts.go", `if taken {`, `if taken && false {`},
	{"one event more than the limit", "verdicts.go", `>= j.rules.maxEvents`, `> j.rules.maxEvents`},
	{"what waits takes no place", "verdicts.go", `j.head.Kept+j.head.WaitParent >=`, `j.head.Kept >=`},
	{"a journey with only waiting events is none", "verdicts.go", `if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept`, `if j.head.Kept`},
	{"the last millisecond of the click life", "verdicts.go", `received > j.clickLifeEnd()`,
		`received >= j.clickLifeEnd()`},
	{"the first millisecond after the journey life", "verdicts.go", `received > j.head.LastKept`,
		`received-1 > j.head.LastKept`},
	{"other content is a duplicate", "verdicts.go", `first.Content == ev.ContentSHA256`, `true`},
	{"the window excludes its end", "verdicts.go", `since > event.Millis(j.click.WindowMs)`,
		`since >= event.Millis(j.click.WindowMs)`},
	{"the window is measured from receipt", "verdicts.go", `since := ev.OccurredAt -`, `since := ev.ReceivedAt -`},
	{"a reversal of a refund is wrong", "verdicts.go", ` && ev.Type != event.Reversal`, ``},
	{"a refund of a refund is right", "verdicts.go", `p.state == parentFound && !p.event.Type.Positive()`,
		`false && !p.event.Type.Positive()`},
	{"something is taken from what was not attributed", "verdicts.go", `case p.event.Effect == 0:`, `case false:`},
	{"the last event is the last in order of record", "journey.go", `max(j.head.LastKept, ev.ReceivedAt)`,
		`ev.ReceivedAt`},
	{"a link without partner has one under review", "outcome.go", `c.PartnerID != "" &&
		(`, `(`},
	{"a missing amount is reviewed", "outcome.go", `flag != event.FlagAmountMissing`, `true`},
	// parent.go, cascade.go: finding the parent
	{"an event can take back itself", "parent.go", `case ev.ParentEventID == ev.EventID:`, `case false:`},
	{"a waiting parent is good enough", "parent.go", `if ok && !p.event.Waiting {`, `if ok {`},
	{"a refund takes the order's lead", "parent.go", `p.state == parentAbsent && ev.Type == event.Cancellation {`,
		`p.state == parentAbsent {`},
	{"the order does not matter where there is one sale", "parent.go", `p.event.Order == order`, `true`},
	{"of two sales the parent is not ambiguous", "parent.go", `case j.head.Sales > 1, j.head.Sales == 0`,
		`case j.head.Sales == 0`},
	{"the latest of an order is not said to be inferred", "parent.go", `p.inferred = latest.Several`,
		`p.inferred = false`},
	{"the first of an order is the parent", "parent.go", `event.JourneyOrder{Latest: ev.EventID, Several: several}`,
		`event.JourneyOrder{Latest: map[bool]string{true: before.Latest, false: ev.EventID}[several], Several: several}`},
	{"a lead ends no wait of a cancellation", "cascade.go",
		`if err := j.wakeWaiting(event.KindForPositive, order); err != nil {`, `if typ == event.Lead {
		return nil
	}
	if err := j.wakeWaiting(event.KindForPositive, order); err != nil {`},
	{"what waited is judged last first", "cascade.go", `h[a].offset < h[b].offset`,
		`h[a].offset > h[b].offset`},
	// amounts.go
	{"every reversal is negative", "amounts.go", `= -p.event.Effect`, `= -1`},
	{"a refund without amount takes the whole sum again", "amounts.go", `setAmount(e, standing,`,
		`setAmount(e, p.event.Amount,`},
	{"nothing taken from a sale of nothing is too much", "amounts.go", `standing == 0 && p.event.Amount > 0`,
		`standing == 0`},
	{"the whole standing amount is too much", "amounts.go", `e.Amount > standing`, `e.Amount >= standing`},
	{"dollars are taken from euros",
		"amounts.go", ` && p.event.Currency == e.Currency && p.event.Exponent == e.Exponent`,
		``},
	{"a mismatch takes from the standing amount", "amounts.go", `if takes && childBefore != childAfter {`,
		`if childBefore != childAfter {`},
	{"a child's old share is not given back", "amounts.go", `node.Sum.Replace(childBefore, childAfter)`,
		`node.Sum.Replace(0, childAfter)`},
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
	{"parent waits end a millisecond early", "waiting.go", `return w.end < through }`, `return w.end <= through }`},
	{"parent_not_found keeps its id", "waiting.go", `if err := j.deleteEvent(w.Event.EventID); err != nil {
			return err
		}
`, ``},
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
