package oracle_test

import "testing"

func TestWaits(t *testing.T) {
	f(t, "a click that reached Kafka at the very end of a wait is in time; a millisecond later it is not", `click at=72h1m
		S sale 100`,
		`S attributed +100.00EUR reward 10.00EUR
		 stands 100.00`)
	f(t, "a millisecond too late", `click at=72h1m0.001s
		S sale 100`,
		`S unattributed click_not_found bare`)
	f(t, "an event received at the very end of a wait finds it open", `R refund of=S at=1m
		S sale 100 at=72h1m`,
		`R reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 S attributed +100.00EUR reward 10.00EUR
		 stands 100.00 0.00`)
	f(t, "a millisecond later it is closed", `R refund of=S at=1m
		S sale 100 at=72h1m0.001s`,
		`R unattributed parent_not_found
		 S attributed +100.00EUR reward 10.00EUR
		 stands 100.00`)
	f(t, "through closes what ended before it, not what ends with it", `noclick
		A sale 1 at=1m
		B sale 1 at=2m
		through=72h2m`,
		`A unattributed click_not_found bare
		 B waits`)
	f(t, "one wait ended, one not, when the click came", `click at=73h
		A sale 1 at=0.5h
		B sale 2 at=2h`,
		`A unattributed click_not_found bare
		 B attributed +2.00EUR reward 0.20EUR
		 stands 2.00`)
	f(t, "the click stands before the first event received after it, though a later one in the log was received before it", `click at=1h
		A sale 1 at=2h
		B sale 1 at=0.5h`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR
		 stands 1.00 1.00`)
	f(t, "to an event whose wait was ended by an event that was read before the click it stays unknown", `click at=73h
		A sale 1 at=0.5h
		B sale 1 at=73h
		C sale 1 at=74h`,
		`A unattributed click_not_found bare
		 B attributed +1.00EUR reward 0.10EUR
		 C attributed +1.00EUR reward 0.10EUR
		 stands 1.00 1.00`)
	f(t, "any event of the token ends waits, a stranger's too", `click
		R refund of=S at=1m
		Z sale 1 ws=globex at=73h
		S sale 9 at=73.1h`,
		`R unattributed parent_not_found
		 Z unattributed workspace_mismatch bare
		 S attributed +9.00EUR reward 0.90EUR
		 stands 9.00`)
	f(t, "an event with an id that waits is a duplicate or a conflict of what waits", `R refund of=S
		R refund of=S
		R refund of=S name=other
		S sale 5
		through=80h`,
		`R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 R duplicate first 0
		 R conflict first 0
		 S attributed +5.00EUR reward 0.50EUR
		 stands 5.00 0.00`)
	f(t, "duplicates are found when the click comes, not before", `click at=1h
		S sale 5
		S sale 5
		S sale 6`,
		`S attributed +5.00EUR reward 0.50EUR
		 S duplicate first 0
		 S conflict first 0
		 stands 5.00`)
	f(t, "what found no parent left no trace: sent again it is judged anew", `R refund of=S at=1m
		S sale 5 at=73h
		R refund of=S at=74h
		R refund of=S at=75h`,
		`R unattributed parent_not_found
		 S attributed +5.00EUR reward 0.50EUR
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 R duplicate first 2
		 stands 0.00 5.00`)
	f(t, "a chain that came backwards", `V reversal of=R
		R refund of=S
		S sale 5`,
		`V reversed +5.00EUR reward 0.50EUR of refund R amount_missing
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 S attributed +5.00EUR reward 0.50EUR
		 stands 5.00 0.00 5.00`)
	f(t, "what waits is judged in order of record, and again from the start", `V reversal of=R1
		R2 refund 60 of=S
		R1 refund of=S
		R3 refund of=S
		S sale 100`,
		`V reversed +40.00EUR reward 4.00EUR of refund R1 amount_missing
		 R2 reversed -60.00EUR reward -6.00EUR of sale S
		 R1 reversed -40.00EUR reward -4.00EUR of sale S amount_missing
		 R3 reversed -40.00EUR reward -4.00EUR of sale S amount_missing
		 S attributed +100.00EUR reward 10.00EUR
		 stands 40.00 60.00 0.00 40.00 0.00`)
	f(t, "a late click: what names no parent is judged as if the click had been there", `click at=1h
		R refund
		S1 sale 10
		S2 sale 20
		R2 refund`,
		`R reversed -10.00EUR reward -1.00EUR of sale S1 amount_missing parent_inferred !
		 S1 attributed +10.00EUR reward 1.00EUR
		 S2 attributed +20.00EUR reward 2.00EUR
		 R2 unattributed parent_ambiguous
		 stands 10.00 0.00 20.00`)
	f(t, "a token that was not shown cannot bring anything", `click status=off
		S sale 5
		through=73h`,
		`S unattributed click_not_found bare`)
	f(t, "of a click that was sent twice the first in the log counts", `click at=1h link=lnk_a terms=20%
		click at=2h terms=30%
		S sale 5`,
		`S attributed +5.00EUR reward 1.00EUR
		 stands 5.00`)
}

func TestExpiry(t *testing.T) {
	f(t, "the last millisecond of the click life", `A sale 1 at=2d rx=40d`,
		`A attributed +1.00EUR reward 0.10EUR
		 stands 1.00`)
	f(t, "a millisecond later", `A sale 1 at=2d rx=40d1ms`,
		`A unattributed expired bare`)
	f(t, "it is expired at once, click or not", `noclick
		A sale 1 at=2d rx=41d`,
		`A unattributed expired bare`)
	f(t, "an old token is expired even to another workspace", `A sale 1 ws=globex at=2d rx=41d`,
		`A unattributed expired bare`)
	f(t, "a journey keeps the click alive, as long as something happens", `S sale 100
		R1 refund 10 of=S at=300d
		R2 refund 10 of=S at=700d
		R3 refund 10 of=S at=1100d1ms`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -10.00EUR reward -1.00EUR of sale S
		 R2 reversed -10.00EUR reward -1.00EUR of sale S
		 R3 unattributed expired bare
		 stands 80.00 10.00 10.00`)
	f(t, "duplicates, conflicts and what leaves no trace do not prolong a journey", `S sale 100 at=0h
		S sale 100 at=300d
		S sale 101 at=301d
		Z sale 100 ws=globex at=302d
		E refund of=nothing at=303d
		R refund 10 of=S at=401d`,
		`S attributed +100.00EUR reward 10.00EUR too_fast
		 S duplicate first 0
		 S conflict first 0
		 Z unattributed workspace_mismatch bare
		 E unattributed parent_not_found
		 R unattributed expired bare
		 stands 100.00`)
	f(t, "an unattributed event with a trace is a journey", `S sale 100 at=31d
		S2 sale 100 at=5d rx=50d`,
		`S unattributed outside_window
		 S2 attributed +100.00EUR reward 10.00EUR
		 stands 100.00`)
	f(t, "an event that waits is a journey", `noclick
		A sale 1 at=39d12h
		B sale 1 at=41d
		through=41d`,
		`A waits
		 B waits`)
	f(t, "a wait that ended is none any more", `noclick
		A sale 1 at=39d
		B sale 1 at=43d`,
		`A unattributed click_not_found bare
		 B unattributed expired bare`)
	f(t, "a late click changes nothing: behind a stranger's event, which leaves no trace, the token has expired", `click at=41d
		Z sale 1 ws=globex at=39d
		B sale 1 at=5d rx=40d1h`,
		`Z unattributed workspace_mismatch bare
		 B unattributed expired bare`)
	f(t, "the click in time", `click
		Z sale 1 ws=globex at=39d
		B sale 1 at=5d rx=40d1h`,
		`Z unattributed workspace_mismatch bare
		 B unattributed expired bare`)
}

func TestTokenFull(t *testing.T) {
	f(t, "kept and waiting count, what left no trace does not, and an id that is known is told as such", `max=3
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
		 stands 1.00`)
	f(t, "the place of a wait that ended is free again", `max=1
		W refund of=nothing
		A sale 1 at=1h
		A sale 1 at=73h
		B sale 1 at=74h`,
		`W unattributed parent_not_found
		 A unattributed token_full
		 A attributed +1.00EUR reward 0.10EUR
		 B unattributed token_full
		 stands 1.00`)
	f(t, "a late click changes nothing", `max=2
		click at=1h
		A sale 1
		A sale 1
		B sale 2
		C sale 3`,
		`A attributed +1.00EUR reward 0.10EUR
		 A duplicate first 0
		 B attributed +2.00EUR reward 0.20EUR
		 C unattributed token_full
		 stands 1.00 2.00`)
}

func TestParents(t *testing.T) {
	f(t, "who names itself waits for nobody", `R refund of=R
		V reversal of=V`,
		`R unattributed wrong_parent
		 V unattributed wrong_parent`)
	f(t, "a refund of a negative is wrong whatever became of that; a reversal of an unattributed one is not", `S sale 5 at=31d
		R refund of=S at=31d1h
		R2 refund of=R at=31d2h
		V reversal of=R at=31d3h`,
		`S unattributed outside_window
		 R unattributed parent_unattributed of sale S
		 R2 unattributed wrong_parent of refund R
		 V unattributed parent_unattributed of refund R`)
	f(t, "an order id that no sale has is waited for, though there is one sale", `S sale 5 order=a
		R refund order=b
		through=1h`,
		`S attributed +5.00EUR reward 0.50EUR
		 R waits
		 stands 5.00`)
	f(t, "a cancellation falls back to leads of the order, then to the only lead", `L1 lead order=a
		L2 lead order=a
		X cancellation order=a
		X2 cancellation
		R refund
		through=1h`,
		`L1 attributed +1
		 L2 attributed +1
		 X reversed -1 of lead L2 parent_inferred !
		 X2 unattributed parent_ambiguous
		 R waits
		 stands 1 0 1`)
	f(t, "unattributed sales are candidates", `S sale 5 at=31d
		R refund at=32d`,
		`S unattributed outside_window
		 R unattributed parent_unattributed of sale S`)
	f(t, "two sales, one of them outside the window: still ambiguous", `S sale 5
		S2 sale 5 at=31d
		R refund at=32d`,
		`S attributed +5.00EUR reward 0.50EUR
		 S2 unattributed outside_window
		 R unattributed parent_ambiguous
		 stands 5.00`)
	f(t, "the latest of an order is the latest in order of record", `S1 sale 5 order=o at=2h
		S2 sale 6 order=o at=1h
		R refund order=o at=3h`,
		`S1 attributed +5.00EUR reward 0.50EUR
		 S2 attributed +6.00EUR reward 0.60EUR
		 R reversed -6.00EUR reward -0.60EUR of sale S2 amount_missing parent_inferred !
		 stands 5.00 0.00 6.00`)
	f(t, "a parent id that came twice is the first", `S sale 5
		S sale 6
		R refund of=S`,
		`S attributed +5.00EUR reward 0.50EUR
		 S conflict first 0
		 R reversed -5.00EUR reward -0.50EUR of sale S amount_missing
		 stands 0.00 5.00`)
	f(t, "a refund of a lead", `L lead 20
		R refund 5 of=L`,
		`L attributed +20.00EUR reward 2.00EUR
		 R reversed -5.00EUR reward -0.50EUR of lead L
		 stands 15.00 5.00`)
}

func TestAmountsAndRewards(t *testing.T) {
	f(t, "nothing stands any more of what had something", `S sale 100
		R1 refund of=S
		R2 refund of=S
		V reversal of=R2`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 R2 reversed -0.00EUR reward 0.00EUR of sale S over_reversed amount_missing !
		 V reversed +0.00EUR reward 0.00EUR of refund R2 amount_missing
		 stands 0.00 100.00 0.00 0.00`)
	f(t, "a sale of nothing", `S sale 0
		R refund of=S
		R2 refund 1 of=S`,
		`S attributed +0.00EUR reward 0.00EUR
		 R reversed -0.00EUR reward 0.00EUR of sale S amount_missing
		 R2 reversed -1.00EUR reward 0.00EUR of sale S over_reversed !
		 stands 0.00 0.00 1.00`)
	f(t, "an amount where the parent has none", `L lead
		R refund 10 of=L
		X cancellation of=L`,
		`L attributed +1
		 R reversed -10.00EUR of lead L currency_mismatch !
		 X reversed -1 of lead L
		 stands 0 10.00 1`)
	f(t, "a unit comes back", `click terms=5_JPY
		L lead
		X cancellation of=L
		V reversal of=X
		V2 reversal of=X`,
		`L attributed +1 reward 5JPY
		 X reversed -1 reward -5JPY of lead L
		 V reversed +1 reward 5JPY of cancellation X
		 V2 reversed +1 reward 0JPY of cancellation X over_reversed !
		 stands 1 0 1 1`)
	f(t, "a refund in another currency, taken back without an amount, moves nothing", `S sale 100
		R refund 50USD of=S
		V reversal of=R
		R2 refund of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 V reversed +50.00USD reward 0.00EUR of refund R amount_missing
		 R2 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 stands 0.00 0.00 50.00 100.00`)
	f(t, "a child in the root's currency under one in another does not reach the root", `S sale 100
		R refund 50USD of=S
		V reversal 20EUR of=R`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 V reversed +20.00EUR reward 0.00EUR of refund R currency_mismatch !
		 stands 100.00 50.00 20.00`)
	f(t, "half to even", `click terms=50%
		A sale 0.01
		B sale 0.03
		C sale 0.05
		R refund 0.01 of=B`,
		`A attributed +0.01EUR reward 0.00EUR
		 B attributed +0.03EUR reward 0.02EUR
		 C attributed +0.05EUR reward 0.02EUR
		 R reversed -0.01EUR reward -0.01EUR of sale B
		 stands 0.01 0.02 0.05 0.01`)
	f(t, "a percentage with decimals, of three digits", `click terms=12.5%
		S sale 1.234KWD`,
		`S attributed +1.234KWD reward 0.154KWD
		 stands 1.234`)
	f(t, "no terms, no reward", `click terms=
		S sale 100
		R refund of=S`,
		`S attributed +100.00EUR
		 R reversed -100.00EUR of sale S amount_missing
		 stands 0.00 100.00`)
	f(t, "a flat reward in the program's currency, over what stands in another", `click terms=5.5_USD
		S sale 100
		R refund 100 of=S
		R2 refund 1 of=S
		V reversal 1 of=R`,
		`S attributed +100.00EUR reward 5.50USD
		 R reversed -100.00EUR reward -5.50USD of sale S
		 R2 reversed -1.00EUR reward 0.00USD of sale S over_reversed !
		 V reversed +1.00EUR reward 0.00USD of refund R
		 stands 0.00 99.00 1.00 1.00`)
	f(t, "an over-reversal is not forgotten", `S sale 100
		R1 refund 100 of=S
		R2 refund 100 of=S
		V reversal of=R1`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -100.00EUR reward -10.00EUR of sale S
		 R2 reversed -100.00EUR reward 0.00EUR of sale S over_reversed !
		 V reversed +100.00EUR reward 0.00EUR of refund R1 amount_missing
		 stands 0.00 0.00 100.00 100.00`)
	f(t, "amounts at the end of Int64", `S sale 92233720368547758.07
		R1 refund 92233720368547758.07 of=S
		R2 refund 92233720368547758.07 of=S`,
		`S attributed +92233720368547758.07EUR reward 9223372036854775.81EUR
		 R1 reversed -92233720368547758.07EUR reward -9223372036854775.81EUR of sale S
		 R2 reversed -92233720368547758.07EUR reward 0.00EUR of sale S over_reversed !
		 stands 0.00 92233720368547758.07 92233720368547758.07`)
}

func TestFlags(t *testing.T) {
	f(t, "facts of the click stand on every row with a snapshot", `click bot relationship=review
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
		 stands 0.00 2.00`)
	f(t, "a lifecycle that is not active", `click lifecycle=paused
		S sale 1`,
		`S attributed +1.00EUR reward 0.10EUR partner_review !
		 stands 1.00`)
	f(t, "no partner, nobody to review", `click nopartner
		S sale 1`,
		`S attributed +1.00EUR reward 0.10EUR no_partner
		 stands 1.00`)
}
