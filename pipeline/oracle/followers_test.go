package oracle_test

import "testing"

// The worked examples 1 and 2 of followers, and what borders on them.
func TestFollowers(t *testing.T) {
	checkScript(t, "a sale after the window follows a lead", `click follow=365d
		L lead at=1d
		S sale 100 of=L at=33d`,
		`L attributed +1
		 S attributed +100.00EUR reward 10.00EUR of lead L
		 standing 1 100.00`)
	checkScript(t, "without follow", `L lead at=1d
		S sale 100 of=L at=33d`,
		`L attributed +1
		 S unattributed outside_window
		 standing 1`)
	checkScript(t, "without a parent", `click follow=365d
		L lead at=1d
		S sale 100 at=33d`,
		`L attributed +1
		 S unattributed outside_window
		 standing 1`)
	checkScript(t, "the sale before the lead", `click follow=365d
		S sale 100 of=L at=33d
		L lead at=1d rx=34d`,
		`S attributed +100.00EUR reward 10.00EUR of lead L
		 L attributed +1
		 standing 100.00 1`)
	checkScript(t, "inside the window a named parent decides nothing, and nothing waits for it", `click follow=365d
		S sale 100 of=typo at=2d`,
		`S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "after the window it waits", `click follow=365d
		S sale 100 of=typo at=33d
		through=36d`,
		`S waits`)
	checkScript(t, "and in vain; it leaves no trace, so it can be sent again, mended", `click follow=365d
		L lead at=1d
		S sale 100 of=typo at=33d
		S sale 100 of=L at=37d`,
		`L attributed +1
		 S unattributed parent_not_found
		 S attributed +100.00EUR reward 10.00EUR of lead L
		 standing 1 100.00`)
	checkScript(t, "taking back from one of them changes nothing for the others", `click follow=365d
		S1 sale 100 at=1d
		S2 sale 100 of=S1 at=31d
		S3 sale 100 of=S2 at=62d
		R refund 100 of=S2 at=63d
		R1 refund 100 of=S1 at=64d
		S4 sale 100 of=S3 at=366d
		S5 sale 100 of=S3 at=366d1ms`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +100.00EUR reward 10.00EUR of sale S1
		 S3 attributed +100.00EUR reward 10.00EUR of sale S2
		 R reversed -100.00EUR reward -10.00EUR of sale S2
		 R1 reversed -100.00EUR reward -10.00EUR of sale S1
		 S4 attributed +100.00EUR reward 10.00EUR of sale S3
		 S5 unattributed outside_window of sale S3
		 standing 0.00 0.00 100.00 100.00 100.00 100.00`)
	checkScript(t, "the origin of a positive inside the window is itself, whatever it names", `click follow=10d
		A sale 1 at=1d
		B sale 1 of=A at=29d
		C sale 1 of=B at=39d
		D sale 1 of=C at=39d1ms`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR
		 C attributed +1.00EUR reward 0.10EUR of sale B
		 D unattributed outside_window of sale C
		 standing 1.00 1.00 1.00`)
	checkScript(t, "the window's end is inclusive, and decides before any parent", `click follow=365d
		A sale 1 of=typo at=30d
		B sale 1 of=A at=30d1ms`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR of sale A
		 standing 1.00 1.00`)
	checkScript(t, "before the click it follows nothing", `click follow=365d
		L lead
		S sale 1 of=L at=-6m rx=2m`,
		`L attributed +1
		 S unattributed before_click too_fast
		 standing 1`)
	checkScript(t, "itself, and a negative, are wrong; they are kept", `click follow=365d
		S sale 100
		R refund 10 of=S
		A sale 1 of=A at=31d
		A sale 1 of=A at=31d
		B sale 1 of=R at=31d
		B sale 1 of=R at=31d`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -10.00EUR reward -1.00EUR of sale S
		 A unattributed wrong_parent
		 A duplicate first 2
		 B unattributed wrong_parent of refund R
		 B duplicate first 4
		 standing 90.00 10.00`)
	checkScript(t, "a negative that waits is not yet wrong", `click follow=365d
		R refund 10 of=S at=31d
		B sale 1 of=R at=31d
		through=32d`,
		`R waits
		 B waits`)
	checkScript(t, "following what is unattributed", `click follow=365d
		S sale 100 at=31d
		F sale 100 of=S at=32d
		G sale 100 of=F at=32d`,
		`S unattributed outside_window
		 F unattributed parent_unattributed of sale S
		 G unattributed parent_unattributed of sale F`)
	checkScript(t, "followers of each other", `click follow=365d
		A sale 1 of=B at=31d
		B sale 1 of=A at=31d
		through=35d`,
		`A unattributed parent_not_found
		 B unattributed parent_not_found`)
	checkScript(t, "a chain of followers in reverse order, and a refund before all", `click follow=365d
		life=90d
		R refund 10 of=S3 at=62d
		S3 sale 100 of=S2 at=62d
		S2 sale 100 of=S1 at=62d
		S1 sale 100 at=1d rx=62d`,
		`R reversed -10.00EUR reward -1.00EUR of sale S3
		 S3 attributed +100.00EUR reward 10.00EUR of sale S2
		 S2 attributed +100.00EUR reward 10.00EUR of sale S1
		 S1 attributed +100.00EUR reward 10.00EUR dated_back !
		 standing 10.00 90.00 100.00 100.00`)
	checkScript(t, "followers have no flat reward, and nobody takes it back from them", `click follow=365d terms=5.00_EUR
		L lead at=1d
		S sale 100 of=L at=33d
		R refund 100 of=S at=34d`,
		`L attributed +1 reward 5.00EUR
		 S attributed +100.00EUR of lead L
		 R reversed -100.00EUR of sale S
		 standing 1 0.00 100.00`)
	checkScript(t, "a waiting follower has its id, and its place among the journey's events", `click follow=365d
		max=2
		A sale 1
		F sale 1 of=typo at=31d
		F sale 2 of=typo at=31d
		F sale 1 of=typo at=31d
		B sale 1 at=2h rx=32d
		through=33d`,
		`A attributed +1.00EUR reward 0.10EUR
		 F conflict first 1 money_differs !
		 F duplicate first 1
		 B unattributed token_full
		 F waits
		 standing 1.00`)
}

// The worked example 3: one order, two sales.
func TestRepeatedOrders(t *testing.T) {
	checkScript(t, "two sales of one order", `S1 sale 100 order=o
		S2 sale 100 order=o`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +100.00EUR reward 10.00EUR order_repeated !
		 standing 100.00 100.00`)
	checkScript(t, "also if the second names a lead, a typo or itself", `L lead order=o
		S1 sale 100 order=o
		S2 sale 1 order=o of=L
		S3 sale 1 order=o of=typo
		S4 sale 1 order=o of=S4`,
		`L attributed +1
		 S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +1.00EUR reward 0.10EUR order_repeated !
		 S3 attributed +1.00EUR reward 0.10EUR order_repeated !
		 S4 attributed +1.00EUR reward 0.10EUR order_repeated !
		 standing 1 100.00 1.00 1.00 1.00`)
	checkScript(t, "a second shipment names the first, or an earlier one of its order", `S1 sale 100 order=o
		S2 sale 50 order=o of=S1
		S3 sale 50 order=o of=S2
		S4 sale 50 order=p of=S2
		S5 sale 50 order=p of=S1`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +50.00EUR reward 5.00EUR
		 S3 attributed +50.00EUR reward 5.00EUR
		 S4 attributed +50.00EUR reward 5.00EUR
		 S5 attributed +50.00EUR reward 5.00EUR order_repeated !
		 standing 100.00 50.00 50.00 50.00 50.00`)
	checkScript(t, "where nothing stands any more nothing is repeated", `S1 sale 100 order=o
		X cancellation order=o
		S2 sale 100 order=o`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 X reversed -100.00EUR reward -10.00EUR of sale S1 amount_missing
		 S2 attributed +100.00EUR reward 10.00EUR
		 standing 0.00 100.00 100.00`)
	checkScript(t, "a unit stands too; leads repeat nothing", `L1 lead order=o
		L2 lead order=o
		S1 sale order=o
		S2 sale order=o
		S3 sale
		S4 sale`,
		`L1 attributed +1
		 L2 attributed +1
		 S1 attributed +1
		 S2 attributed +1 order_repeated !
		 S3 attributed +1
		 S4 attributed +1
		 standing 1 1 1 1 1 1`)
	checkScript(t, "an unattributed sale of the order is none", `S1 sale 100 order=o at=31d
		S2 sale 100 order=o at=1d rx=31d`,
		`S1 unattributed outside_window
		 S2 attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "one sale for each order: the second is unattributed and kept, and the refund is of the first",
		`click onesale
		S1 sale 100 order=o
		S2 sale 100 order=o
		R refund order=o
		S2 sale 100 order=o at=3m`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 unattributed order_repeated order_repeated !
		 R reversed -100.00EUR reward -10.00EUR of sale S1 amount_missing
		 S2 duplicate first 1
		 standing 0.00 100.00`)
	checkScript(t, "a further shipment counts there too", `click onesale
		S1 sale 100 order=o
		S2 sale 50 order=o of=S1`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +50.00EUR reward 5.00EUR
		 standing 100.00 50.00`)
	checkScript(t, "a follower repeats its order like any other sale", `click onesale follow=365d
		L lead
		S1 sale 100 order=o
		S2 sale 100 order=o of=L at=31d
		S3 sale 100 order=o of=S1 at=31d`,
		`L attributed +1
		 S1 attributed +100.00EUR reward 10.00EUR
		 S2 unattributed order_repeated of lead L order_repeated !
		 S3 attributed +100.00EUR reward 10.00EUR of sale S1
		 standing 1 100.00 100.00`)
	checkScript(t, "of a sale that waited and one that came meanwhile, the one that waited is the second",
		`click follow=365d
		S1 sale 100 order=o of=L at=31d
		S2 sale 100 order=o at=1d rx=31d1h
		L lead at=1d rx=31d2h`,
		`S1 attributed +100.00EUR reward 10.00EUR of lead L order_repeated !
		 S2 attributed +100.00EUR reward 10.00EUR
		 L attributed +1
		 standing 100.00 100.00 1`)
}
