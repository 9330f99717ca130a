package oracle_test

import "testing"

func TestWaits(t *testing.T) {
	checkScript(t, "a click that reached Kafka in the last millisecond of a wait is in time", `click at=72h1m
		S sale 100`,
		`S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "a millisecond too late", `click at=72h1m0.001s
		S sale 100`,
		`S unattributed click_not_found bare`)
	checkScript(t, "an event received in the last millisecond of a wait finds it open", `R refund of=S at=1m
		S sale 100 at=72h1m`,
		`R reversed -100.00EUR reward -10.00EUR of sale S amount_missing dated_back !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00 0.00`)
	checkScript(t, "a millisecond later it is closed", `R refund of=S at=1m
		S sale 100 at=72h1m0.001s`,
		`R unattributed parent_not_found without_effect !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "through closes the waits that ended before it, not those that end with it", `noclick
		A sale 1 at=1m
		B sale 1 at=2m
		through=72h2m`,
		`A unattributed click_not_found bare
		 B waits`)
	checkScript(t, "one wait had ended when the click arrived, one had not", `click at=73h
		A sale 1 at=0.5h
		B sale 2 at=2h`,
		`A unattributed click_not_found bare
		 B attributed +2.00EUR reward 0.20EUR
		 standing 2.00`)
	checkScript(t, "the click comes before the first event received after it, even if a later one was received earlier",
		`click at=1h
		A sale 1 at=2h
		B sale 1 at=0.5h`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR
		 standing 1.00 1.00`)
	checkScript(t, "the click stays unknown to an event whose wait was ended by an event read before the click",
		`click at=73h
		A sale 1 at=0.5h
		B sale 1 at=73h
		C sale 1 at=74h`,
		`A unattributed click_not_found bare
		 B attributed +1.00EUR reward 0.10EUR
		 C attributed +1.00EUR reward 0.10EUR
		 standing 1.00 1.00`)
	checkScript(t, "any event of the token ends waits, also another workspace's", `click
		R refund of=S at=1m
		Z sale 1 ws=globex at=73h
		S sale 9 at=73.1h`,
		`R unattributed parent_not_found without_effect !
		 Z unattributed workspace_mismatch bare
		 S attributed +9.00EUR reward 0.90EUR
		 standing 9.00`)
	checkScript(t, "an event with the id of a waiting event is its duplicate or conflict", `R refund of=S
		R refund of=S
		R refund of=S name=other
		S sale 5
		through=80h`,
		`R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 R duplicate first 0
		 R conflict first 0
		 S attributed +5.00EUR reward 0.50EUR
		 standing 5.00 0.00`)
	checkScript(t, "duplicates are found when the click arrives, not before", `click at=1h
		S sale 5
		S sale 5
		S sale 6`,
		`S attributed +5.00EUR reward 0.50EUR
		 S duplicate first 0
		 S conflict first 0 money_differs !
		 standing 5.00`)
	checkScript(t, "an event that found no parent left no trace: sent again it is judged as a new one",
		`R refund of=S at=1m
		S sale 5 at=73h
		R refund of=S at=74h
		R refund of=S at=75h`,
		`R unattributed parent_not_found without_effect !
		 S attributed +5.00EUR reward 0.50EUR
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 R duplicate first 2
		 standing 0.00 5.00`)
	checkScript(t, "a chain that arrived in reverse order", `V reversal of=R
		R refund of=S
		S sale 5`,
		`V reversed +5.00EUR reward 0.50EUR of refund R amount_missing
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 S attributed +5.00EUR reward 0.50EUR
		 standing 5.00 0.00 5.00`)
	checkScript(t, "waiting events are judged in order of record, and again from the start", `V reversal of=R1
		R2 refund 60 of=S
		R1 refund of=S
		R3 refund of=S
		S sale 100`,
		`V reversed +40.00EUR reward 4.00EUR of refund R1 amount_missing
		 R2 reversed -60.00EUR reward -6.00EUR of sale S
		 R1 reversed -40.00EUR reward -4.00EUR of sale S amount_missing
		 R3 reversed -40.00EUR reward -4.00EUR of sale S amount_missing
		 S attributed +100.00EUR reward 10.00EUR
		 standing 40.00 60.00 0.00 40.00 0.00`)
	checkScript(t, "a late click: an event that names no parent is judged as if the click had been known",
		`click at=1h
		R refund
		S1 sale 10
		S2 sale 20
		R2 refund`,
		`R reversed -10.00EUR reward -1.00EUR of sale S1 amount_missing parent_inferred !
		 S1 attributed +10.00EUR reward 1.00EUR
		 S2 attributed +20.00EUR reward 2.00EUR
		 R2 unattributed parent_ambiguous without_effect !
		 standing 10.00 0.00 20.00`)
	checkScript(t, "a token that was not shown attributes nothing", `click status=off
		S sale 5
		through=73h`,
		`S unattributed click_not_found bare`)
	checkScript(t, "of a click that was sent twice the first in the log counts", `click at=1h link=lnk_a terms=20%
		click at=2h terms=30%
		S sale 5`,
		`S attributed +5.00EUR reward 1.00EUR
		 standing 5.00`)
}

// Waits and lives are measured from the time at which an event entered the log, which
// may be later than its receipt.
func TestEnteredAt(t *testing.T) {
	checkScript(t, "a wait begins when the event enters the log", `R refund of=S at=1h in=10h
		S sale 100 at=2h in=82h`,
		`R reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00 0.00`)
	checkScript(t, "and ends a grace later, whenever the next one was received", `R refund of=S at=1h in=10h
		S sale 100 at=2h in=82h1ms`,
		`R unattributed parent_not_found without_effect !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "the click stands before the first event that entered after it", `click at=71h
		A sale 1 at=0.5h
		B sale 1 at=1h in=73h`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR
		 standing 1.00 1.00`)
	checkScript(t, "through closes waits by it", `noclick
		A sale 1 at=1h in=2h
		through=74h`,
		`A waits`)
	checkScript(t, "the lives", `journey=10d
		A sale 1 at=1d rx=40d in=40d1ms
		B sale 1 at=1d rx=20d in=40d
		C refund 1 of=B at=45d in=50d
		D refund 1 of=B at=50d in=60d
		E refund 1 of=B at=61d in=70d1ms`,
		`A unattributed expired bare
		 B attributed +1.00EUR reward 0.10EUR
		 C reversed -1.00EUR reward -0.10EUR of sale B
		 D reversed -1.00EUR reward 0.00EUR of sale B over_reversed !
		 E unattributed expired bare without_effect !
		 standing 0.00 1.00 1.00`)
	checkScript(t, "the largest counts, not the latest in order of record", `journey=10d
		A sale 1 at=1d rx=20d in=25d
		B sale 1 at=1d rx=20d
		C sale 1 at=2d rx=35d`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR
		 C attributed +1.00EUR reward 0.10EUR
		 standing 1.00 1.00 1.00`)
}

func TestExpiry(t *testing.T) {
	checkScript(t, "the last millisecond of the click life", `A sale 1 at=2d rx=40d`,
		`A attributed +1.00EUR reward 0.10EUR dated_back !
		 standing 1.00`)
	checkScript(t, "a millisecond later", `A sale 1 at=2d rx=40d1ms`,
		`A unattributed expired bare`)
	checkScript(t, "it expires at once, with a click or without", `noclick
		A sale 1 at=2d rx=41d`,
		`A unattributed expired bare`)
	checkScript(t, "an old token has expired for another workspace too", `A sale 1 ws=globex at=2d rx=41d`,
		`A unattributed expired bare`)
	checkScript(t, "a journey keeps the click alive as long as events arrive", `S sale 100
		R1 refund 10 of=S at=300d
		R2 refund 10 of=S at=700d
		R3 refund 10 of=S at=1100d1ms`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -10.00EUR reward -1.00EUR of sale S
		 R2 reversed -10.00EUR reward -1.00EUR of sale S
		 R3 unattributed expired bare without_effect !
		 standing 80.00 10.00 10.00`)
	checkScript(t, "duplicates, conflicts and events that leave no trace do not extend a journey", `S sale 100 at=0h
		S sale 100 at=300d
		S sale 101 at=301d
		Z sale 100 ws=globex at=302d
		E refund of=nothing at=303d
		R refund 10 of=S at=401d`,
		`S attributed +100.00EUR reward 10.00EUR too_fast
		 S duplicate first 0
		 S conflict first 0 money_differs !
		 Z unattributed workspace_mismatch bare
		 E unattributed parent_not_found without_effect !
		 R unattributed expired bare without_effect !
		 standing 100.00`)
	checkScript(t, "an unattributed event with a trace is a journey", `S sale 100 at=31d
		S2 sale 100 at=5d rx=50d`,
		`S unattributed outside_window
		 S2 attributed +100.00EUR reward 10.00EUR dated_back !
		 standing 100.00`)
	checkScript(t, "an event that waits is a journey", `noclick
		A sale 1 at=39d12h
		B sale 1 at=41d
		through=41d`,
		`A waits
		 B waits`)
	checkScript(t, "a wait that has ended is no journey", `noclick
		A sale 1 at=39d
		B sale 1 at=43d`,
		`A unattributed click_not_found bare
		 B unattributed expired bare`)
	checkScript(t, "a late click changes nothing: another workspace's event leaves no trace, so the token has expired",
		`click at=41d
		Z sale 1 ws=globex at=39d
		B sale 1 at=5d rx=40d1h`,
		`Z unattributed workspace_mismatch bare
		 B unattributed expired bare`)
	checkScript(t, "the click in time", `click
		Z sale 1 ws=globex at=39d
		B sale 1 at=5d rx=40d1h`,
		`Z unattributed workspace_mismatch bare
		 B unattributed expired bare`)
}

func TestTokenFull(t *testing.T) {
	checkScript(t,
		"kept and waiting events count, events without a trace do not; a known id is a duplicate or conflict",
		`max=3
		A sale 1
		A sale 1
		W refund of=nothing
		Z sale 1 ws=globex
		B sale 2 at=31d rx=5m
		C sale 3
		A sale 1
		C sale 3 at=10m
		through=1h`,
		`A attributed +1.00EUR reward 0.10EUR
		 A duplicate first 0
		 Z unattributed workspace_mismatch bare
		 B unattributed outside_window
		 C unattributed token_full
		 A duplicate first 0
		 C unattributed token_full
		 W waits
		 standing 1.00`)
	checkScript(t, "a wait that has ended no longer counts towards the limit", `max=1
		W refund of=nothing
		A sale 1 at=1h
		A sale 1 at=73h
		B sale 1 at=74h`,
		`W unattributed parent_not_found without_effect !
		 A unattributed token_full
		 A attributed +1.00EUR reward 0.10EUR
		 B unattributed token_full
		 standing 1.00`)
	checkScript(t, "a late click changes nothing", `max=2
		click at=1h
		A sale 1
		A sale 1
		B sale 2
		C sale 3`,
		`A attributed +1.00EUR reward 0.10EUR
		 A duplicate first 0
		 B attributed +2.00EUR reward 0.20EUR
		 C unattributed token_full
		 standing 1.00 2.00`)
}

func TestParents(t *testing.T) {
	checkScript(t, "an event that names itself does not wait", `R refund of=R
		V reversal of=V`,
		`R unattributed wrong_parent without_effect !
		 V unattributed wrong_parent without_effect !`)
	checkScript(t, "a refund of a negative is wrong whatever its verdict; a reversal of an unattributed one is not",
		`S sale 5 at=31d
		R refund of=S at=31d1h
		R2 refund of=R at=31d2h
		V reversal of=R at=31d3h`,
		`S unattributed outside_window
		 R unattributed parent_unattributed of sale S without_effect !
		 R2 unattributed wrong_parent of refund R without_effect !
		 V unattributed parent_unattributed of refund R without_effect !`)
	checkScript(t, "an event waits for an order id that no sale has, although there is one sale", `S sale 5 order=a
		R refund order=b
		through=1h`,
		`S attributed +5.00EUR reward 0.50EUR
		 R waits
		 standing 5.00`)
	checkScript(t, "a cancellation falls back to leads of the order, then to the only lead", `L1 lead order=a
		L2 lead order=a
		X cancellation order=a
		X2 cancellation
		R refund
		through=1h`,
		`L1 attributed +1
		 L2 attributed +1
		 X reversed -1 of lead L2 parent_inferred !
		 X2 unattributed parent_ambiguous without_effect !
		 R waits
		 standing 1 0 1`)
	checkScript(t, "unattributed sales are candidates", `S sale 5 at=31d
		R refund at=32d`,
		`S unattributed outside_window
		 R unattributed parent_unattributed of sale S without_effect !`)
	checkScript(t, "two sales, one of them outside the window: the other is meant", `S sale 5
		S2 sale 5 at=31d
		R refund at=32d`,
		`S attributed +5.00EUR reward 0.50EUR
		 S2 unattributed outside_window
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing parent_inferred !
		 standing 0.00 5.00`)
	checkScript(t, "the latest of an order is the latest in order of record", `S1 sale 5 order=o at=2h
		S2 sale 6 order=o at=1h
		R refund order=o at=3h`,
		`S1 attributed +5.00EUR reward 0.50EUR
		 S2 attributed +6.00EUR reward 0.60EUR order_repeated !
		 R reversed -6.00EUR reward -0.60EUR of sale S2 amount_missing parent_inferred !
		 standing 5.00 0.00 6.00`)
	checkScript(t, "of two events with the parent's id the first is meant", `S sale 5
		S sale 6
		R refund of=S`,
		`S attributed +5.00EUR reward 0.50EUR
		 S conflict first 0 money_differs !
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 standing 0.00 5.00`)
	checkScript(t, "a refund of a lead", `L lead 20
		R refund 5 of=L`,
		`L attributed +20.00EUR reward 2.00EUR
		 R reversed -5.00EUR reward -0.50EUR of lead L
		 standing 15.00 5.00`)
}

func TestAmountsAndRewards(t *testing.T) {
	checkScript(t, "the standing amount is 0 but was more", `S sale 100
		R1 refund of=S
		R2 refund of=S
		V reversal of=R2`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 R2 reversed -0.00EUR reward 0.00EUR of sale S over_reversed amount_missing !
		 V reversed +0.00EUR reward 0.00EUR of refund R2 amount_missing
		 standing 0.00 100.00 0.00 0.00`)
	checkScript(t, "a sale of 0", `S sale 0
		R refund of=S
		R2 refund 1 of=S`,
		`S attributed +0.00EUR reward 0.00EUR
		 R reversed -0.00EUR reward 0.00EUR of sale S amount_missing
		 R2 reversed -1.00EUR reward 0.00EUR of sale S over_reversed !
		 standing 0.00 0.00 1.00`)
	checkScript(t, "an amount where the parent has none", `L lead
		R refund 10 of=L
		X cancellation of=L`,
		`L attributed +1
		 R reversed -10.00EUR of lead L currency_mismatch !
		 X reversed -1 of lead L
		 standing 0 10.00 1`)
	checkScript(t, "a unit comes back", `click terms=5_JPY
		L lead
		X cancellation of=L
		V reversal of=X
		V2 reversal of=X`,
		`L attributed +1 reward 5JPY
		 X reversed -1 reward -5JPY of lead L
		 V reversed +1 reward 5JPY of cancellation X
		 V2 reversed +1 reward 0JPY of cancellation X over_reversed !
		 standing 1 0 1 1`)
	checkScript(t, "a refund in another currency, taken back without an amount, changes nothing", `S sale 100
		R refund 50USD of=S
		V reversal of=R
		R2 refund of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 V reversed +50.00USD reward 0.00EUR of refund R amount_missing
		 R2 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 standing 0.00 0.00 50.00 100.00`)
	checkScript(t, "a child in the root's currency under one in another does not reach the root", `S sale 100
		R refund 50USD of=S
		V reversal 20EUR of=R`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 V reversed +20.00EUR reward 0.00EUR of refund R currency_mismatch !
		 standing 100.00 50.00 20.00`)
	checkScript(t, "half to even", `click terms=50%
		A sale 0.01
		B sale 0.03
		C sale 0.05
		R refund 0.01 of=B`,
		`A attributed +0.01EUR reward 0.00EUR
		 B attributed +0.03EUR reward 0.02EUR
		 C attributed +0.05EUR reward 0.02EUR
		 R reversed -0.01EUR reward -0.01EUR of sale B
		 standing 0.01 0.02 0.05 0.01`)
	checkScript(t, "a percentage with decimals, of three digits", `click terms=12.5%
		S sale 1.234KWD`,
		`S attributed +1.234KWD reward 0.154KWD
		 standing 1.234`)
	checkScript(t, "no terms, no reward", `click terms=
		S sale 100
		R refund of=S`,
		`S attributed +100.00EUR
		 R reversed -100.00EUR of sale S amount_missing
		 standing 0.00 100.00`)
	checkScript(t, "a flat reward in the program's currency, for a standing amount in another", `click terms=5.5_USD
		S sale 100
		R refund 100 of=S
		R2 refund 1 of=S
		V reversal 1 of=R`,
		`S attributed +100.00EUR reward 5.50USD
		 R reversed -100.00EUR reward -5.50USD of sale S
		 R2 reversed -1.00EUR reward 0.00USD of sale S over_reversed !
		 V reversed +1.00EUR reward 0.00USD of refund R
		 standing 0.00 99.00 1.00 1.00`)
	checkScript(t, "an over-reversal is remembered", `S sale 100
		R1 refund 100 of=S
		R2 refund 100 of=S
		V reversal of=R1`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -100.00EUR reward -10.00EUR of sale S
		 R2 reversed -100.00EUR reward 0.00EUR of sale S over_reversed !
		 V reversed +100.00EUR reward 0.00EUR of refund R1 amount_missing
		 standing 0.00 0.00 100.00 100.00`)
	checkScript(t, "amounts at the end of Int64", `S sale 92233720368547758.07
		R1 refund 92233720368547758.07 of=S
		R2 refund 92233720368547758.07 of=S`,
		`S attributed +92233720368547758.07EUR reward 9223372036854775.81EUR
		 R1 reversed -92233720368547758.07EUR reward -9223372036854775.81EUR of sale S
		 R2 reversed -92233720368547758.07EUR reward 0.00EUR of sale S over_reversed !
		 standing 0.00 92233720368547758.07 92233720368547758.07`)
}

func TestFlags(t *testing.T) {
	checkScript(t, "flags of the click are on every row with a snapshot", `click bot relationship=review
		S sale 1 at=0.999s
		S sale 1 at=1s
		R refund 2 of=S
		Z sale 1 at=31d
		Q sale 1 ws=globex`,
		`S attributed +1.00EUR reward 0.10EUR bot_click partner_review too_fast !
		 S duplicate first 0 bot_click partner_review !
		 R reversed -2.00EUR reward -0.10EUR of sale S bot_click partner_review over_reversed !
		 Z unattributed outside_window bot_click partner_review !
		 Q unattributed workspace_mismatch bare
		 standing 0.00 2.00`)
	checkScript(t, "a lifecycle that is not active", `click lifecycle=paused
		S sale 1`,
		`S attributed +1.00EUR reward 0.10EUR partner_review !
		 standing 1.00`)
	checkScript(t, "no partner, nothing to review", `click nopartner
		S sale 1`,
		`S attributed +1.00EUR reward 0.10EUR no_partner
		 standing 1.00`)
}
