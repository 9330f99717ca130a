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

// mutations break one rule each. Every one must make a scenario or TestOracle fail:
// what survives is a rule that nobody would miss.
var mutations = []struct{ broken, file, old, new string }{
	// rules.go
	{"six minutes of clock skew", "rules.go", `5 * 60_000`, `6 * 60_000`},
	{"a second after the click is too fast", "rules.go", `event.Millis(1000)`, `event.Millis(1001)`},
	{"a click that Click was not called with stays unseen", "rules.go", `if j.head.WaitClick > 0 {
			// the click log`, `if false {
			// the click log`},
	// judge.go: the table of verdicts
	{"an event in the click's millisecond stands after it", "judge.go", `ev.ReceivedAt > j.at {`,
		`ev.ReceivedAt >= j.at {`},
	{"a click in the last millisecond of the wait is too late", "judge.go", `j.at > j.waitEnd(ev.ReceivedAt)`,
		`j.at >= j.waitEnd(ev.ReceivedAt)`},
	{"foreign events are judged", "judge.go", `case j.click.WorkspaceID != ev.WorkspaceID:`, `case false:`},
	{"no event id is ever taken", "judge.go", `} else if taken {`, `} else if taken && false {`},
	{"one event more than the limit", "judge.go", `>= j.rules.limit`, `> j.rules.limit`},
	{"what waits takes no place", "judge.go", `j.head.Kept+j.head.WaitParent >=`, `j.head.Kept >=`},
	{"a journey with only waiting events is none", "judge.go", `if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept`, `if j.head.Kept`},
	{"the last millisecond of the click life", "judge.go", `received > j.lifeEnd()`, `received >= j.lifeEnd()`},
	{"the first millisecond after the journey life", "judge.go", `received > j.head.LastKept`,
		`received-1 > j.head.LastKept`},
	{"other content is a duplicate", "judge.go", `first.Content == ev.ContentSHA256`, `true`},
	{"the window excludes its end", "judge.go", `since > event.Millis(j.click.WindowMs)`,
		`since >= event.Millis(j.click.WindowMs)`},
	{"the window is measured from receipt", "judge.go", `since := ev.OccurredAt -`, `since := ev.ReceivedAt -`},
	{"a reversal of a refund is wrong", "judge.go", ` && ev.Type != event.Reversal`, ``},
	{"a refund of a refund is right", "judge.go", `p.state == found && !p.row.Type.Positive()`,
		`false && !p.row.Type.Positive()`},
	{"something is taken from what was not attributed", "judge.go", `case p.row.Effect == 0:`, `case false:`},
	{"the last event is the last in order of record", "judge.go", `max(j.head.LastKept, ev.ReceivedAt)`,
		`ev.ReceivedAt`},
	{"a link without partner has one under review", "judge.go", `c.PartnerID != "" && (`, `(`},
	{"a missing amount is reviewed", "judge.go", `flag != event.FlagAmountMissing`, `true`},
	// parent.go: finding the parent
	{"an event can take back itself", "parent.go", `case ev.ParentEventID == ev.EventID:`, `case false:`},
	{"a waiting parent is good enough", "parent.go", `if ok && !p.row.Waiting {`, `if ok {`},
	{"a refund takes the order's lead", "parent.go", `p.state == absent && ev.Type == event.Cancellation {`,
		`p.state == absent {`},
	{"the order does not matter where there is one sale", "parent.go", `p.row.Order == order`, `true`},
	{"of two sales the parent is not ambiguous", "parent.go", `case j.head.Sales > 1, j.head.Sales == 0`,
		`case j.head.Sales == 0`},
	{"the latest of an order is not said to be inferred", "parent.go", `latest.Latest, latest.Several`,
		`latest.Latest, false`},
	{"the first of an order is the parent", "parent.go", `event.JourneyOrder{Latest: ev.EventID, Several: several}`,
		`event.JourneyOrder{Latest: map[bool]string{true: before.Latest, false: ev.EventID}[several], Several: several}`},
	{"a lead ends no wait of a cancellation", "parent.go", `if err := j.wake(event.KindForPositive, order); err != nil {`, `if ev.Type == event.Lead {
			continue
		}
		if err := j.wake(event.KindForPositive, order); err != nil {`},
	{"what waited is judged last first", "parent.go", `s[child].offset < s[least].offset`,
		`s[child].offset > s[least].offset`},
	// amounts.go
	{"every reversal is negative", "amounts.go", `= -p.row.Effect, p.id`, `= -1, p.id`},
	{"a refund without amount takes the whole sum again", "amounts.go", `true, standing, p.row.Currency`,
		`true, p.row.Amount, p.row.Currency`},
	{"nothing taken from a sale of nothing is too much", "amounts.go", `standing == 0 && p.row.Amount > 0`,
		`standing == 0`},
	{"all that stands is too much", "amounts.go", `e.Amount > standing`, `e.Amount >= standing`},
	{"dollars are taken from euros", "amounts.go", ` || p.row.Currency != e.Currency || p.row.Exponent != e.Exponent`,
		``},
	{"a mismatch takes from what stands", "amounts.go", `if takes && was != now {`, `if was != now {`},
	{"a child's old share is not given back", "amounts.go", `node.Sum.Replace(was, now)`, `node.Sum.Replace(0, now)`},
	// reward.go
	{"half a cent is rounded up", "reward.go", `rest == up && q&1 == 1`, `rest == up`},
	{"a flat reward stays when nothing stands", "reward.go", `case t.flat && x > 0:`, `case t.flat:`},
	{"percent of nothing known is a reward", "reward.go", `case t.percent && root.HasAmount:`, `case t.percent:`},
	{"a row carries the reward of all that stands", "reward.go", `j.reward = a - b`, `j.reward = a - 0*b`},
	// journey.go: waits
	{"a click whose token was not shown counts", "journey.go", `j.click.TokenStatus != event.TokenAppended || `, ``},
	{"a click that can bring nothing is found", "journey.go", `if !ok || at > j.waitEnd(j.lifeEnd()) {`, `if !ok {`},
	{"an event after the click life begins a journey", "journey.go", `if late && j.head.WaitClick == 0 {`,
		`if false {`},
	{"what waits behind an ended wait prolongs it", "journey.go", `late && j.head.WaitsTo == 0`, `false`},
	{"click waits end a millisecond early", "journey.go", `w.end < through || w.Behind`,
		`w.end <= through || w.Behind`},
	{"parent waits end a millisecond early", "journey.go", `return w.end < through })`, `return w.end <= through })`},
	{"parent_not_found keeps its id", "journey.go", `if err := j.rows.Put(j.keyOf(event.KindEvent, w.Event.EventID), nil); err != nil {
			return err
		}
`, ``},
	{"waits are told in the order of their ends", "journey.go", `slices.SortFunc(waits, byOffset)`,
		`slices.SortFunc(waits, func(a, b wait) int { return int(a.end - b.end) })`},
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
