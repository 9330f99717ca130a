package attribution_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/attribution"
)

// runLines plays lines of the scenarios' language, those with * n times, with the count
// so far in place of <n>.
func (s *scriptPlayer) runLines(n int, lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		many, isMany := strings.CutPrefix(line, "* ")
		count := 1
		if isMany {
			line, count = many, n
		}
		for i := range count {
			text := strings.NewReplacer("<n>", fmt.Sprint(i), "<n+1>", fmt.Sprint(i+1)).Replace(line)
			if err := s.runLine(splitLine(strings.Fields(text))); err != nil {
				s.t.Fatalf("%s: %v", text, err)
			}
		}
	}
}

func (s *scriptPlayer) touched() int { return s.rows.puts + s.rows.gets + s.rows.visited }

// However many events wait, each touches few rows until it is judged: four times as many
// events touch four times as many rows. Lines with * are played n times.
func TestCascadesTouchFewRows(t *testing.T) {
	for name, lines := range map[string][]string{
		"a chain of leads, and cancellations": {
			"* lead F<n+1> of=F<n> at=32d", "* cancellation X<n> at=32d", "lead F0 at=32d occurred=1h"},
		"cancellations, and a chain of leads": {
			"* cancellation X<n> at=32d", "* lead F<n+1> of=F<n> at=32d", "lead F0 at=32d occurred=1h"},
		"a chain of leads and cancellations of one order": {
			"* lead F<n+1> of=F<n> order=o at=32d", "* cancellation X<n> order=o at=32d",
			"lead F0 order=o at=32d occurred=1h"},
		"a chain of sales and refunds of one order, and refunds": {
			"* sale F<n+1> 1 of=F<n> order=o at=32d", "* refund X<n> order=o at=32d", "* refund Y<n> at=32d",
			"sale F0 1 order=o at=32d occurred=1h"},
		"a chain of leads and cancellations beside a sale that waits": {
			"sale S 1 of=none at=32d", "* lead F<n+1> of=F<n> at=32d", "* cancellation X<n> at=32d",
			"lead F0 at=32d occurred=1h"},
		"a chain of leads and cancellations beside a sale of their order that waits": {
			"sale S 1 of=none order=o at=32d", "* lead F<n+1> of=F<n> order=o at=32d",
			"* cancellation X<n> order=o at=32d", "lead F0 order=o at=32d occurred=1h"},
		"leads and cancellations beside a sale that waits": {
			"sale S 1 of=none at=32d", "* cancellation X<n> at=32d", "* lead L<n> at=32d occurred=1h"},
		"leads and cancellations beside a sale of their order that waits": {
			"sale S 1 of=none order=o at=32d", "* cancellation X<n> order=o at=32d",
			"* lead L<n> order=o at=32d occurred=1h"},
		"leads and cancellations beside a sale of their order that waits, and another sale": {
			"sale P 1 order=p at=32d occurred=1h", "sale S 1 of=none order=o at=32d",
			"* cancellation X<n> order=o at=32d", "* lead L<n> order=o at=32d occurred=1h"},
		"ends in one millisecond": {
			"lead L at=1h", "* sale F<n> 1 of=none at=32d", "* cancellation X<n> at=33d", "due 35d+1ms"},
		"ends in one millisecond, of one order": {
			"lead L order=o at=1h", "sale S 1 of=none at=33d", "* sale F<n> 1 of=none order=o at=32d",
			"* cancellation X<n> order=o at=33d", "due 35d+1ms"},
		"ends of many milliseconds": {
			"lead L at=1h", "* sale F<n> 1 of=none at=32d+<n>ms", "* cancellation X<n> at=33d", "due 35d+1m"},
		"ends of many milliseconds, of one order": {
			"lead L order=o at=1h", "sale S 1 of=none at=33d", "* sale F<n> 1 of=none order=o at=32d+<n>ms",
			"* cancellation X<n> order=o at=33d", "due 35d+1m"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			play := func(n int) *scriptPlayer {
				s := newScriptPlayer(t, attribution.DefaultConfig())
				s.runLines(n, "click follow=365d")
				s.runLines(n, lines...)
				return s
			}
			few, many := play(50).touched(), play(200).touched()
			if many > 4*few {
				t.Errorf("50 touch %d rows, 200 touch %d", few, many)
			}
			t.Logf("50 touch %d rows, 200 touch %d", few, many)
		})
	}
}

// Orders that are the same in their first 255 bytes share index rows: an event may be
// woken twice, or before its order has a sale, and is judged once, when it has.
func TestLongOrders(t *testing.T) {
	long := strings.Repeat("€", 127)
	for name, lines := range map[string][]string{
		"the follower first": {"sale F 1 of=S at=32d order=" + long + "f",
			"cancellation X of= at=32d order=" + long + "s", "cancellation Y of= at=32d order=" + long + "f"},
		"the follower last": {"cancellation X of= at=32d order=" + long + "s",
			"cancellation Y of= at=32d order=" + long + "f", "sale F 1 of=S at=32d order=" + long + "f"},
	} {
		s := newScriptPlayer(t, attribution.DefaultConfig())
		s.runLines(1, "click follow=365d")
		s.runLines(1, lines...)
		s.runLines(1, "sale S 1 at=32d occurred=1h order="+long+"s")
		answer := s.finishAnswer()
		for _, want := range []string{"X reversed -1.00 EUR of sale S", "Y reversed -1.00 EUR of sale F"} {
			if strings.Count(answer, want) != 1 {
				t.Errorf("%s: want %q once in\n%s", name, want, answer)
			}
		}
	}
}
