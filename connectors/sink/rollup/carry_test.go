package rollup

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/connectors/clickhouse"
)

// fillOldDatabase makes whole chains and broken ones, in January to April, and drops
// the rows of January, whose sums stay.
func fillOldDatabase(r *rig) {
	r.t.Helper()
	for _, month := range []string{"01", "03", "04"} {
		r.clicks("2026-"+month+"-10 09:50:00", 90)
	}
	for _, o := range []outcome{
		// Of this chain only what is taken back in March has a row.
		{"t1", "old", "", "sale", "2026-01-15 10:20:00", "5000 EUR", 1, ""},
		{"t1", "old-2", "old", "refund", "2026-01-31 23:59:59", "1000 EUR", -1, ""},
		{"t1", "late", "old", "refund", "2026-03-02 10:00:00", "1500 EUR", -1, ""},
		{"t1", "later", "late", "reversal", "2026-03-02 10:00:00", "1500 EUR", 1, ""},
		// The second takes less than it says, the reversal of it gives less back.
		{"t2", "s", "", "sale", "2026-03-02 10:14:59", "10000 EUR", 1, ""},
		{"t2", "r1", "s", "refund", "2026-03-02 10:15:00", "6000 EUR", -1, ""},
		{"t3", "s", "", "sale", "2026-03-02 10:15:00", "10000 EUR", 1, ""}, // the same id under another token
		{"t2", "r2", "s", "refund", "2026-03-31 10:15:00", "6000 EUR", -1, ""},
		{"t2", "v", "r2", "reversal", "2026-04-01 10:15:00", "6000 EUR", 1, ""},
		// A cancellation of a sale and a refund of what is cancelled.
		{"t3", "x", "s", "cancellation", "2026-04-01 10:15:00", "10000 EUR", -1, ""},
		{"t3", "r", "s", "refund", "2026-04-01 10:15:00", "4000 EUR", -1, ""},
		// Dollars take nothing of euros, nor does what takes them back.
		{"t4", "s", "", "sale", "2026-04-02 00:00:00", "10000 EUR", 1, ""},
		{"t4", "r", "s", "refund", "2026-04-02 00:00:00", "5000 USD", -1, ""},
		{"t4", "v", "r", "reversal", "2026-04-02 00:00:00", "5000 USD", 1, ""},
		// A lead without an amount counts as one unit, and nothing of it is money.
		{"t5", "l", "", "lead", "2026-04-02 00:00:00", "", 1, ""},
		{"t5", "x", "l", "cancellation", "2026-04-02 00:00:00", "", -1, ""},
		{"t5", "r", "l", "refund", "2026-04-02 00:00:00", "5000 EUR", -1, ""},
		{"t6", "n", "", "sale", "2026-04-03 00:00:00", "100 EUR", 0, ""}, // no effect
	} {
		r.outcome(o)
		r.record()
	}
	r.exec("ALTER TABLE clicks DROP PARTITION ID '202601'", "ALTER TABLE outcomes DROP PARTITION ID '202601'")
}

const standingQuery = `
	SELECT concatWithSeparator(' ', click_token, event_id, ifNull(toString(standing_change_minor), 'null'),
		standing_basis) AS line
	FROM outcomes
	ORDER BY src_offset`

const wantStanding = `t1 late -1500 amount
t1 later 1500 amount
t2 s 10000 chain
t2 r1 -6000 chain
t3 s 10000 chain
t2 r2 -4000 chain
t2 v 4000 chain
t3 x -10000 chain
t3 r 0 chain
t4 s 10000 chain
t4 r 0 chain
t4 v 0 chain
t5 l null chain
t5 x null chain
t5 r null chain
t6 n null 
`

// carriedState is all that CarryOver makes, in words.
func (r *rig) carriedState() string {
	r.t.Helper()
	return r.lines(standingQuery) + r.sums("true")
}

// No sum that was shown changes, sums without rows stay and are marked, and what stands
// is computed from the chains that are whole.
func TestCarryOver(t *testing.T) {
	r := newRig(t)
	fillOldDatabase(r)
	sums, outcomes := r.dailySums(), r.outcomes()
	if pending, err := Pending(t.Context(), r.wh); err != nil || !pending {
		t.Fatalf("an old database: pending %t, %v", pending, err)
	}
	r.migrateUpToTheSums()
	if got := r.dailySums(); got != sums {
		t.Errorf("before the sums are carried over, the views show others (-was +is):\n%s", cmp.Diff(sums, got))
	}
	var first string
	for range 2 {
		got := r.carryOver()
		if got.Months != 3 || got.CarriedLines != 7 {
			t.Errorf("carried over: %+v", got)
		}
		if first == "" {
			first = r.carriedState()
			if want := (Result{Months: 3, Standing: 15, Approximated: 2, CarriedLines: 7}); got != want {
				t.Errorf("carried over: %+v, want %+v", got, want)
			}
		}
		if again := r.carriedState(); again != first {
			t.Errorf("carried over again (-first +again):\n%s", cmp.Diff(first, again))
		}
	}
	r.finishMigration()
	if got := r.dailySums(); got != sums {
		t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
	}
	if got := r.outcomes(); got != outcomes {
		t.Errorf("outcomes (-was +is):\n%s", cmp.Diff(outcomes, got))
	}
	if got := r.lines(standingQuery); got != wantStanding {
		t.Errorf("standing changes (-want +got):\n%s", cmp.Diff(wantStanding, got))
	}
	want := `2026-01-10 09:00:00  carried-over 0 10 0 0 0 0 0 0 0 0 0 0
2026-01-10 10:00:00  carried-over 0 60 0 0 0 0 0 0 0 0 0 0
2026-01-10 11:00:00  carried-over 0 20 0 0 0 0 0 0 0 0 0 0
2026-01-15 10:00:00 EUR carried-over 0 0 0 1 0 0 0 5000 0 5000 0 0
2026-01-15 10:00:00 USD carried-over 0 0 0 0 0 0 0 0 0 0 7 0
2026-01-31 23:00:00 EUR carried-over 0 0 0 0 1 0 0 0 -1000 -1000 0 1
2026-01-31 23:00:00 USD carried-over 0 0 0 0 0 0 0 0 0 0 7 0
`
	got := r.sums("src_topic = 'carried-over'")
	if got != want {
		t.Errorf("sums without rows (-want +got):\n%s", cmp.Diff(want, got))
	}
	if got := r.lines(`
		SELECT concatWithSeparator(' ', toString(quarter_hour), toString(sum(gross_minor)), toString(sum(negative_minor)),
			toString(sum(standing_minor)), toString(sum(approximated_events))) AS line
		FROM ` + Table + `
		WHERE src_topic = 'outcomes' AND src_partition = 3 AND currency = 'EUR' AND quarter_hour < '2026-03-03 00:00:00'
		GROUP BY quarter_hour
		ORDER BY quarter_hour`); got != "2026-03-02 10:00:00 10000 0 10000 2\n2026-03-02 10:15:00 10000 -6000 4000 0\n" {
		t.Errorf("quarters of an hour:\n%s", got)
	}
	if pending, err := Pending(t.Context(), r.wh); err != nil || pending {
		t.Errorf("afterwards: pending %t, %v", pending, err)
	}
	if left := r.lines("SELECT name AS line FROM system.tables WHERE database = currentDatabase() AND " +
		"(name LIKE '%rebuilt%' OR name = '" + changesTable + "' OR name LIKE 'partner_hourly_from%')"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// A month of outcomes is never dropped, and never replaced with a copy that another run
// has emptied or that lacks rows.
func TestMonthsOfOutcomesAreNotDropped(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.outcome(outcome{"t", fmt.Sprint("s", i), "", "sale", "2026-01-10 10:00:00", "100 EUR", 1, ""})
	}
	r.record()
	shadow := func() *clickhouse.Shadow {
		t.Helper()
		s, err := r.wh.NewShadow(t.Context(), "outcomes", "arrived_at", "MergeTree")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := shadow()
	r.exec("INSERT INTO " + first.Name + " SELECT * FROM outcomes")
	second := shadow() // of another run
	if err := second.ReplaceCopiedMonth(t.Context(), "202601"); !errors.Is(err, clickhouse.ErrRowCount) {
		t.Errorf("an empty copy: %v", err)
	}
	r.exec("INSERT INTO " + second.Name + " SELECT * FROM outcomes LIMIT 2")
	if err := second.ReplaceCopiedMonth(t.Context(), "202601"); !errors.Is(err, clickhouse.ErrRowCount) {
		t.Errorf("a copy that lacks a row: %v", err)
	}
	if err := first.ReplaceCopiedMonth(t.Context(), "202601"); err != nil {
		t.Errorf("a whole copy: %v", err)
	}
	if n := r.lines("SELECT toString(count()) AS line FROM outcomes"); n != "3\n" {
		t.Errorf("rows: %s, want 3", n)
	}
}

// Two runs at once may fail; no row is lost.
func TestTwoRuns(t *testing.T) {
	r := newRig(t)
	for month := range 6 {
		at := fmt.Sprintf("2026-0%d-10 10:00:00", month+1)
		r.outcome(outcome{"t" + at, "s", "", "sale", at, "100 EUR", 1, ""})
	}
	r.record()
	r.migrateUpToTheSums()
	outcomes := r.outcomes()
	ended := make(chan error)
	for range 2 {
		go func() {
			_, err := r.carrier().carryOver(t.Context())
			ended <- err
		}()
	}
	t.Log(errors.Join(<-ended, <-ended))
	if got := r.outcomes(); got != outcomes {
		t.Errorf("outcomes (-was +is):\n%s", cmp.Diff(outcomes, got))
	}
	r.carryOver()
	r.finishMigration()
	if got := r.outcomes(); got != outcomes {
		t.Errorf("outcomes, after a third run (-was +is):\n%s", cmp.Diff(outcomes, got))
	}
}

var errKilled = errors.New("killed")

// A run that ends before any of its steps is repeated with the same result, and until
// it is complete the old sums are shown.
func TestCarryOverKilledAtEachStep(t *testing.T) {
	whole := newRig(t)
	fillOldDatabase(whole)
	whole.migrateUpToTheSums()
	steps := 0
	c := whole.carrier()
	c.eventsAtOnce = 5
	c.beforeStep = func(string) error { steps++; return nil }
	if _, err := c.carryOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := whole.carriedState()

	r := newRig(t)
	fillOldDatabase(r)
	sums := r.dailySums()
	killed := map[string]bool{}
	for killing := true; killing; {
		r.migrateUpToTheSums()
		c := r.carrier()
		c.eventsAtOnce = 5
		c.beforeStep = func(step string) error {
			if killed[step] {
				return nil
			}
			killed[step] = true
			return fmt.Errorf("%w before %q", errKilled, step)
		}
		_, err := c.carryOver(t.Context())
		if killing = errors.Is(err, errKilled); err != nil && !killing {
			t.Fatalf("after %d kills: %v", len(killed), err)
		}
		if got := r.dailySums(); got != sums {
			t.Fatalf("%v: the views show other sums (-was +is):\n%s", err, cmp.Diff(sums, got))
		}
	}
	if len(killed) < steps || steps < 10 {
		t.Errorf("%d kills in %d steps", len(killed), steps)
	}
	if got := r.carriedState(); got != want {
		t.Errorf("killed and repeated (-want +got):\n%s", cmp.Diff(want, got))
	}
	r.finishMigration()
	if got := r.dailySums(); got != sums {
		t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
	}
}

// The switch is not taken back once the first view of the old rollup is gone, though
// the new one goes on to grow.
func TestKilledInTheSwitch(t *testing.T) {
	r := newRig(t)
	fillOldDatabase(r)
	r.migrateUpToTheSums()
	r.carryOver()
	r.clicks("2026-04-11 00:00:00", 10) // summed in both
	sums := r.dailySums()
	r.exec("DROP VIEW partner_hourly_from_clicks")
	r.clicks("2026-04-12 00:00:00", 10) // summed in the new one
	if pending, err := Pending(t.Context(), r.wh); err != nil || pending {
		t.Errorf("pending %t, %v", pending, err)
	}
	r.finishMigration()
	if got := r.lines("SELECT toString(clicks) AS line FROM partner_daily WHERE day = '2026-04-12'"); got != "10\n" {
		t.Errorf("clicks: %s, want 10", got)
	}
	r.exec("DELETE FROM " + Table + " WHERE toDate(quarter_hour) = '2026-04-12'")
	if got := r.dailySums(); got != sums {
		t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
	}
}

// Sums that are not those of the rows are refused, and stay in use.
func TestCarryOverRefuses(t *testing.T) {
	for name, x := range map[string]struct{ damage, want string }{
		"doubled": {
			"INSERT INTO partner_hourly_state (workspace_id, hour, link_id, clicks) " +
				"VALUES ('acme', '2026-03-10 10:00:00', 'lnk', 1)",
			"1 lines of partner_hourly_state are not the sums of the rows of clicks and outcomes, the first at " +
				"2026-03-10 10:00:00 UTC, workspace acme, link lnk: run `ctl rollup rebuild` of the release",
		},
		"missing": {
			"DELETE FROM partner_hourly_state WHERE hour = '2026-03-10 10:00:00'",
			"1 lines of partner_hourly_state are not the sums",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.clicks("2026-03-10 09:50:00", 90)
			r.exec(x.damage)
			sums := r.dailySums()
			r.migrateUpToTheSums()
			if _, err := r.carrier().carryOver(t.Context()); !errors.Is(err, ErrDiffers) ||
				!strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want %q", err, x.want)
			}
			r.migrateUpToTheSums()
			if got := r.dailySums(); got != sums {
				t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
			}
		})
	}
}

// Where rows are gone, a sum that is smaller than that of the rows is refused all the
// same.
func TestCarryOverRefusesTooLittle(t *testing.T) {
	r := newRig(t)
	fillOldDatabase(r)
	r.exec("DELETE FROM partner_hourly_state WHERE hour = '2026-03-10 10:00:00'")
	r.migrateUpToTheSums()
	if _, err := r.carrier().carryOver(t.Context()); !errors.Is(err, ErrDiffers) {
		t.Errorf("got %v", err)
	}
}

// Inserts of the release before, between a run that was given up and the one that is
// finished, are in no sum twice and missing from none.
func TestInsertsBetweenRuns(t *testing.T) {
	r := newRig(t)
	fillOldDatabase(r)
	r.migrateUpToTheSums()
	r.carryOver()
	r.clicks("2026-04-10 09:50:00", 30)
	r.clicks("2026-05-01 00:00:00", 30)
	r.outcome(outcome{"t4", "r-2", "s", "refund", "2026-05-01 00:00:00", "20000 EUR", -1, ""})
	r.record()
	sums := r.dailySums()
	r.migrateUpToTheSums() // though the sums of both tables are the same
	r.carryOver()
	r.finishMigration()
	if got := r.dailySums(); got != sums {
		t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
	}
	if got := r.lines(standingQuery); got != wantStanding+"t4 r-2 -10000 chain\n" {
		t.Errorf("standing changes:\n%s", got)
	}
}

// Events of rules version 1 that arrive later stand in by effect × amount until they
// are computed, with the events of their chain that were there; a rebuild keeps sums
// without rows.
func TestLateEvents(t *testing.T) {
	r := newRig(t)
	fillOldDatabase(r)
	r.migrateUpToTheSums()
	r.carryOver()
	r.finishMigration()
	r.outcome(outcome{"t4", "r-2", "s", "refund", "2026-04-05 00:00:00", "20000 EUR", -1, "-20000"})
	r.record()
	sums := r.dailySums()
	of := func() string {
		return r.lines("SELECT concat(toString(standing_minor), ' ', toString(approximated_events)) AS line FROM " +
			"partner_daily WHERE day = '2026-04-05' AND currency = 'EUR'")
	}
	if got := of(); got != "-20000 1\n" {
		t.Errorf("before: %s", got)
	}
	n, err := CompleteStanding(t.Context(), r.wh, r.carrier().log)
	if err != nil || n != 1 {
		t.Fatalf("computed %d events, %v", n, err)
	}
	work := Rebuild()
	work.DropMissing = true
	if _, err := r.wh.Rebuild(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	if got := of(); got != "-10000 0\n" {
		t.Errorf("afterwards: %s", got)
	}
	if got := r.dailySums(); got != sums {
		t.Errorf("sums (-was +is):\n%s", cmp.Diff(sums, got))
	}
}

// A partition of outcomes in which rows are missing: only chains that they may belong
// to are approximated.
func TestGaps(t *testing.T) {
	r := newRig(t)
	at := "2026-03-02 10:00:00"
	for i := range 4 { // t0 ends before the gap, t1 goes over it, t2 begins behind it
		token := fmt.Sprint("t", i)
		if i == 1 || i == 2 {
			continue
		}
		r.outcome(outcome{token, "s", "", "sale", at, "100 EUR", 1, ""})
	}
	r.outcome(outcome{"t0", "r", "s", "refund", at, "150 EUR", -1, ""})
	r.record()
	r.offset += 10
	r.exec(fmt.Sprintf("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows, lost) VALUES "+
		"('id', 'outcomes', 3, %d, %d, 0, 10)", r.offset-11, r.offset))
	r.outcome(outcome{"t3", "r", "s", "refund", at, "150 EUR", -1, ""})
	r.outcome(outcome{"t2", "s", "", "sale", at, "100 EUR", 1, ""})
	r.outcome(outcome{"t2", "r", "s", "refund", at, "150 EUR", -1, ""})
	r.record()
	r.migrateUpToTheSums()
	r.carryOver()
	want := "t0 s 100 chain\nt3 s 100 chain\nt0 r -100 chain\nt3 r -150 amount\nt2 s 100 chain\nt2 r -100 chain\n"
	if got := r.lines(standingQuery); got != want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
	}
}

// A database that is new, or not there yet, has nothing to carry over.
func TestNothingPending(t *testing.T) {
	r := newRig(t)
	if pending, err := Pending(t.Context(), r.wh); err != nil || pending {
		t.Errorf("without rows: pending %t, %v", pending, err)
	}
	r.finishMigration()
	r.exec("INSERT INTO clicks (workspace_id, clicked_at) VALUES ('acme', '2026-03-02 10:00:00')")
	if pending, err := Pending(t.Context(), r.wh); err != nil || pending {
		t.Errorf("a new database with rows: pending %t, %v", pending, err)
	}
	r.exec("DROP DATABASE " + r.wh.Database())
	if pending, err := Pending(t.Context(), r.wh); err != nil || pending {
		t.Errorf("no database: pending %t, %v", pending, err)
	}
}
