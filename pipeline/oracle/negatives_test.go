package oracle_test

import "testing"

// The worked examples 4 and 5: negatives that name no parent.
func TestInferredParents(t *testing.T) {
	checkScript(t, "the attributed sale of an order goes before the unattributed one", `S1 sale 100 order=o at=31d
		S2 sale 100 order=o at=1d rx=31d
		R refund order=o at=32d`,
		`S1 unattributed outside_window
		 S2 attributed +100.00EUR reward 10.00EUR
		 R reversed -100.00EUR reward -10.00EUR of sale S2 amount_missing
		 standing 0.00 100.00`)
	checkScript(t, "also if the unattributed one is later", `S1 sale 100 order=o at=1d
		S2 sale 100 order=o at=31d
		R refund order=o at=32d`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 unattributed outside_window
		 R reversed -100.00EUR reward -10.00EUR of sale S1 amount_missing
		 standing 0.00 100.00`)
	checkScript(t, "of several of the class that counts, the latest", `S1 sale 100 order=o at=31d
		S2 sale 100 order=o at=32d
		R refund order=o at=33d
		S3 sale 100 at=1d rx=34d
		S4 sale 100 at=1d rx=35d
		V refund 1 at=36d`,
		`S1 unattributed outside_window
		 S2 unattributed outside_window
		 R unattributed parent_unattributed of sale S2 without_effect !
		 S3 attributed +100.00EUR reward 10.00EUR
		 S4 attributed +100.00EUR reward 10.00EUR
		 V unattributed parent_ambiguous without_effect !
		 standing 100.00 100.00`)
	checkScript(t, "leads in the same way", `L1 lead at=31d
		L2 lead at=1d rx=31d
		X cancellation at=32d`,
		`L1 unattributed outside_window
		 L2 attributed +1
		 X reversed -1 of lead L2 parent_inferred !
		 standing 0 1`)
	checkScript(t, "an unattributed sale keeps a cancellation from the leads", `L lead
		S sale 100 at=31d
		X cancellation at=32d`,
		`L attributed +1
		 S unattributed outside_window
		 X unattributed parent_unattributed of sale S without_effect !
		 standing 1`)
	checkScript(t, "a second chargeback, and a won one that names the first", `S sale 100 order=o
		V1 reversal 100 order=o
		V2 reversal 100 order=o
		V3 reversal 100 of=V1`,
		`S attributed +100.00EUR reward 10.00EUR
		 V1 reversed -100.00EUR reward -10.00EUR of sale S
		 V2 unattributed parent_ambiguous without_effect !
		 V3 reversed +100.00EUR reward 10.00EUR of reversal V1
		 standing 100.00 0.00 100.00`)
	checkScript(t, "a reversal where nothing stands any more, sent again with its parent", `S sale 100 order=o
		R refund 100 order=o
		V reversal order=o
		V reversal order=o of=R at=4m`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -100.00EUR reward -10.00EUR of sale S
		 V unattributed parent_ambiguous without_effect !
		 V reversed +100.00EUR reward 10.00EUR of refund R amount_missing
		 standing 100.00 0.00 100.00`)
	checkScript(t, "a partial refund and a chargeback are no guess; a second partial chargeback is", `S sale 100 order=o
		R refund 30 order=o
		V1 reversal 20 order=o
		V2 reversal 20 order=o`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -30.00EUR reward -3.00EUR of sale S
		 V1 reversed -20.00EUR reward -2.00EUR of sale S
		 V2 unattributed parent_ambiguous without_effect !
		 standing 50.00 30.00 20.00`)
	checkScript(t, "after a chargeback was won, another is no guess", `S sale 100 order=o
		V1 reversal 100 order=o
		V2 reversal 100 of=V1
		V3 reversal 100 order=o`,
		`S attributed +100.00EUR reward 10.00EUR
		 V1 reversed -100.00EUR reward -10.00EUR of sale S
		 V2 reversed +100.00EUR reward 10.00EUR of reversal V1
		 V3 reversed -100.00EUR reward -10.00EUR of sale S
		 standing 0.00 0.00 100.00 100.00`)
	checkScript(t, "a unit, and a chargeback in another currency, stand too", `S sale order=o
		V1 reversal order=o
		V2 reversal order=o
		T sale 100 order=p
		W1 reversal 50USD order=p
		W2 reversal 50USD order=p`,
		`S attributed +1
		 V1 reversed -1 of sale S
		 V2 unattributed parent_ambiguous without_effect !
		 T attributed +100.00EUR reward 10.00EUR
		 W1 reversed -50.00USD reward 0.00EUR of sale T currency_mismatch !
		 W2 unattributed parent_ambiguous without_effect !
		 standing 0 1 100.00 50.00`)
	checkScript(t, "refunds and cancellations are no chargebacks: they take too much, as before", `S sale 100 order=o
		V reversal order=o
		R refund 100 order=o
		X cancellation order=o`,
		`S attributed +100.00EUR reward 10.00EUR
		 V reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 R reversed -100.00EUR reward 0.00EUR of sale S over_reversed !
		 X reversed -0.00EUR reward 0.00EUR of sale S over_reversed amount_missing !
		 standing 0.00 100.00 100.00 0.00`)
	checkScript(t, "of a sale of 0 nothing ever stood", `S sale 0 order=o
		V1 reversal order=o
		V2 reversal order=o`,
		`S attributed +0.00EUR reward 0.00EUR
		 V1 reversed -0.00EUR reward 0.00EUR of sale S amount_missing
		 V2 reversed -0.00EUR reward 0.00EUR of sale S amount_missing
		 standing 0.00 0.00 0.00`)
	checkScript(t, "a reversal of an unattributed sale", `S sale 100 at=31d
		V reversal at=32d
		V reversal of=S at=33d`,
		`S unattributed outside_window
		 V unattributed parent_unattributed of sale S without_effect !
		 V conflict first 1 money_differs !`)
	checkScript(t, "a waiting reversal is judged by what stands when its sale has come", `V1 reversal order=o
		V2 reversal order=o
		S sale 100 order=o`,
		`V1 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 V2 unattributed parent_ambiguous without_effect !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00 0.00`)
	checkScript(t, "wrong and ambiguous parents leave no trace: the same id is sent again, mended", `S1 sale 100
		S2 sale 100
		R refund 10
		R refund 10 of=R at=4m
		R refund 10 of=S1 at=5m
		R2 refund 10 of=R
		R2 refund 10 of=S1
		V reversal of=R2`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +100.00EUR reward 10.00EUR
		 R unattributed parent_ambiguous without_effect !
		 R unattributed wrong_parent without_effect !
		 R reversed -10.00EUR reward -1.00EUR of sale S1
		 R2 unattributed wrong_parent of refund R without_effect !
		 R2 reversed -10.00EUR reward -1.00EUR of sale S1
		 V reversed +10.00EUR reward 1.00EUR of refund R2 amount_missing
		 standing 90.00 100.00 10.00 0.00 10.00`)
}

// Beside a waiting sale a cancellation does not turn to leads.
func TestCancellationsBesideWaitingSales(t *testing.T) {
	checkScript(t, "it waits with the sale", `click follow=365d
		L lead at=1d
		S sale 100 of=P at=31d
		X cancellation at=31d1h
		P lead at=1d rx=31d2h`,
		`L attributed +1
		 S attributed +100.00EUR reward 10.00EUR of lead P
		 X reversed -100.00EUR reward -10.00EUR of sale S amount_missing parent_inferred !
		 P attributed +1
		 standing 1 0.00 100.00 1`)
	checkScript(t, "when the sale's wait has ended, it turns to the lead of then, not to the leads of later",
		`click follow=365d
		L lead at=1d
		S sale 100 of=P at=31d
		X cancellation at=31d1h
		M lead at=1d rx=34d30m`,
		`L attributed +1
		 S unattributed parent_not_found
		 X reversed -1 of lead L parent_inferred !
		 M attributed +1
		 standing 0 1 1`)
	checkScript(t, "also if both waits are over when the next event comes", `click follow=365d
		L lead at=1d
		S sale 100 of=P at=31d
		X cancellation at=31d1h
		M lead at=1d rx=35d`,
		`L attributed +1
		 S unattributed parent_not_found
		 X reversed -1 of lead L parent_inferred !
		 M attributed +1
		 standing 0 1 1`)
	checkScript(t, "and if no event comes", `click follow=365d
		L lead at=1d
		S sale 100 of=P at=31d
		X cancellation at=31d1h
		through=40d`,
		`L attributed +1
		 S unattributed parent_not_found
		 X reversed -1 of lead L parent_inferred !
		 standing 0 1`)
	checkScript(t, "waits that end together leave it nothing", `click follow=365d
		L lead at=1d
		S sale 100 of=P at=31d
		X cancellation at=31d
		through=40d`,
		`L attributed +1
		 S unattributed parent_not_found
		 X unattributed parent_not_found without_effect !
		 standing 1`)
	checkScript(t, "a sale of another order keeps no cancellation from the leads of its own", `click follow=365d
		L lead order=o at=1d
		S sale 100 order=p of=P at=31d
		X cancellation order=o at=31d1h
		through=32d`,
		`L attributed +1
		 X reversed -1 of lead L
		 S waits
		 standing 0 1`)
	checkScript(t, "a waiting sale is no candidate beside another", `click follow=365d
		S1 sale 100 at=1d
		S2 sale 100 of=P at=31d
		R refund at=31d
		through=32d`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 R reversed -100.00EUR reward -10.00EUR of sale S1 amount_missing parent_inferred !
		 S2 waits
		 standing 0.00 100.00`)
}

// The worked examples 6 to 8: net and what stands.
func TestStandingChanges(t *testing.T) {
	checkScript(t, "a cancellation before the refund", `changes
		S sale 100
		X cancellation of=S
		R refund 40 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 X reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 R reversed -40.00EUR reward 0.00EUR of sale S over_reversed !
		 standing 0.00 100.00 40.00
		 changes 100.00 -100.00 0.00`)
	checkScript(t, "in order", `changes
		S sale 100
		R refund 40 of=S
		X cancellation of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -40.00EUR reward -4.00EUR of sale S
		 X reversed -60.00EUR reward -6.00EUR of sale S amount_missing
		 standing 0.00 40.00 60.00
		 changes 100.00 -40.00 -60.00`)
	checkScript(t, "too much is taken, and the last given back", `changes
		S sale 100
		R1 refund 60 of=S
		R2 refund 60 of=S
		V reversal of=R2`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -60.00EUR reward -6.00EUR of sale S
		 R2 reversed -60.00EUR reward -4.00EUR of sale S over_reversed !
		 V reversed +60.00EUR reward 4.00EUR of refund R2 amount_missing
		 standing 40.00 60.00 0.00 60.00
		 changes 100.00 -60.00 -40.00 40.00`)
	checkScript(t, "in another currency nothing changes", `changes
		S sale 100
		R refund 50USD of=S
		V reversal 20EUR of=R`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 V reversed +20.00EUR reward 0.00EUR of refund R currency_mismatch !
		 standing 100.00 50.00 20.00
		 changes 100.00 0.00 0.00`)
	checkScript(t, "rows without effect, and chains without amount, change nothing that could be said", `changes
		L lead
		X cancellation of=L
		R refund 10 of=L
		S sale 100
		S sale 100
		Z sale 100 at=31d
		Q refund 100 of=Z at=31d`,
		`L attributed +1
		 X reversed -1 of lead L
		 R reversed -10.00EUR of lead L currency_mismatch !
		 S attributed +100.00EUR reward 10.00EUR
		 S duplicate first 3
		 Z unattributed outside_window
		 Q unattributed parent_unattributed of sale Z without_effect !
		 standing 0 1 10.00 100.00
		 changes no no no 100.00 no no no`)
	checkScript(t, "rows that waited", `changes
		R2 refund 60 of=S
		R1 refund 60 of=S
		S sale 100`,
		`R2 reversed -60.00EUR reward -6.00EUR of sale S
		 R1 reversed -60.00EUR reward -4.00EUR of sale S over_reversed !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 60.00 60.00 0.00
		 changes -60.00 -40.00 100.00`)
}

// The worked example 11: one id for two facts.
func TestMoneyDiffers(t *testing.T) {
	checkScript(t, "a sale and its refund", `x sale 100
		x refund 100`,
		`x attributed +100.00EUR reward 10.00EUR
		 x conflict first 0 money_differs !
		 standing 100.00`)
	checkScript(t, "another reason, another name", `x sale 100
		x sale 100 reason=b
		x sale 100 name=b`,
		`x attributed +100.00EUR reward 10.00EUR
		 x conflict first 0
		 x conflict first 0
		 standing 100.00`)
	checkScript(t, "two refunds of two orders", `S1 sale 100 order=o
		S2 sale 100 order=p
		x refund 100 order=o
		x refund 100 order=p`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +100.00EUR reward 10.00EUR
		 x reversed -100.00EUR reward -10.00EUR of sale S1
		 x conflict first 2 money_differs !
		 standing 0.00 100.00 100.00`)
	checkScript(t, "amount, currency, an amount and none, parent", `S sale 100
		x refund of=S
		x refund 100 of=S
		y sale 10 at=10m
		y sale 11 at=10m
		y sale 10USD at=10m
		y sale at=10m
		y sale 10 of=S at=10m`,
		`S attributed +100.00EUR reward 10.00EUR
		 x reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 x conflict first 1 money_differs !
		 y attributed +10.00EUR reward 1.00EUR
		 y conflict first 3 money_differs !
		 y conflict first 3 money_differs !
		 y conflict first 3 money_differs !
		 y conflict first 3 money_differs !
		 standing 0.00 100.00 10.00`)
	checkScript(t, "as the merchant said both: a parent that was found is no parent that was named", `S sale 100
		x refund 10
		x refund 10 reason=b
		x refund 10 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 x reversed -10.00EUR reward -1.00EUR of sale S parent_inferred !
		 x conflict first 1
		 x conflict first 1 money_differs !
		 standing 90.00 10.00`)
	checkScript(t, "a retry with another time: up to a day it is the same occasion", `x sale 1 at=5d
		x sale 1 name=b at=6d
		x sale 1 name=b at=6d1ms
		x sale 1 name=b at=4d
		x sale 1 name=b at=3d23h59m59.999s`,
		`x attributed +1.00EUR reward 0.10EUR
		 x conflict first 0
		 x conflict first 0 money_differs !
		 x conflict first 0
		 x conflict first 0 money_differs !
		 standing 1.00`)
	checkScript(t, "the first one waits", `x refund 10 of=S
		x refund 11 of=S
		through=1h`,
		`x conflict first 0 money_differs !
		 x waits`)
}

// A closed month changes.
func TestDatedBack(t *testing.T) {
	checkScript(t, "a negative on the day of its parent, and on the day before (UTC)", `S sale 100 at=11h59m
		A refund 1 of=S at=0h rx=1d
		B refund 1 of=S at=-12h rx=1d
		C refund 1 of=S at=-12h0.001s rx=1d
		T sale 100 at=12h
		D refund 1 of=T at=11h59m59.999s rx=1d
		E reversal of=D at=11h rx=1d`,
		`S attributed +100.00EUR reward 10.00EUR
		 A reversed -1.00EUR reward -0.10EUR of sale S too_fast
		 B reversed -1.00EUR reward -0.10EUR of sale S too_fast
		 C reversed -1.00EUR reward -0.10EUR of sale S too_fast dated_back !
		 T attributed +100.00EUR reward 10.00EUR
		 D reversed -1.00EUR reward -0.10EUR of sale T dated_back !
		 E reversed +1.00EUR reward 0.10EUR of refund D amount_missing
		 standing 97.00 1.00 1.00 1.00 100.00 0.00 1.00`)
	checkScript(t, "more than 35 days before its receipt, whenever it entered the log", `A sale 1 at=1d rx=36d
		B sale 1 at=1d rx=36d1ms
		C sale 1 at=1d rx=36d in=37d
		D refund 1 of=A at=2d rx=37d
		E refund 1 of=B at=2d rx=37d1ms`,
		`A attributed +1.00EUR reward 0.10EUR
		 B attributed +1.00EUR reward 0.10EUR dated_back !
		 C attributed +1.00EUR reward 0.10EUR
		 D reversed -1.00EUR reward -0.10EUR of sale A
		 E reversed -1.00EUR reward -0.10EUR of sale B dated_back !
		 standing 0.00 0.00 1.00 1.00 1.00`)
	checkScript(t, "only rows with effect", `A sale 1 at=-1h rx=36d
		A sale 1 at=-1h rx=36d
		R refund 1 of=A at=-1h rx=36d`,
		`A unattributed before_click too_fast
		 A duplicate first 0 too_fast
		 R unattributed parent_unattributed of sale A too_fast without_effect !`)
}

// What went back without effect is flagged whatever the reason, also where nothing of the
// click is shown.
func TestWithoutEffect(t *testing.T) {
	checkScript(t, "no click", `noclick
		R refund of=S
		S sale 1
		through=80h`,
		`R unattributed click_not_found bare without_effect !
		 S unattributed click_not_found bare`)
	checkScript(t, "expired, another workspace, a full token", `click bot
		max=1
		S sale 1
		R refund of=S
		Q refund of=S ws=globex
		P refund of=S at=402d`,
		`S attributed +1.00EUR reward 0.10EUR bot_click !
		 R unattributed token_full bot_click without_effect !
		 Q unattributed workspace_mismatch bare without_effect !
		 P unattributed expired bare without_effect !
		 standing 1.00`)
}
