package oracle_test

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
)

// t0 is the mint time and the time of the click of every example.
var t0 = event.MillisOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

const day = 24 * time.Hour

// mintToken writes a KSUID for the given time, with the project's KSUID digits and
// nothing of its token package.
func mintToken(at event.Millis, n uint64) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	raw := make([]byte, 20)
	binary.BigEndian.PutUint32(raw, uint32(int64(at)/1000-1_400_000_000))
	binary.BigEndian.PutUint64(raw[12:], n)
	v, rest := new(big.Int).SetBytes(raw), new(big.Int)
	text := make([]byte, 27)
	for i := 26; i >= 0; i-- {
		v.QuoRem(v, big.NewInt(62), rest)
		text[i] = digits[rest.Int64()]
	}
	return string(text)
}

// script is an example in words. A line of it is one of
//
//	click [at=DURATION] [ws=ID] [terms=5.00_USD] [window=DURATION] [follow=DURATION]
//	      [onesale] [status=off] [bot] [nopartner] [relationship=review] [lifecycle=paused]
//	noclick
//	grace=DURATION | life=DURATION | journey=DURATION | max=N | through=DURATION
//	changes
//	ID TYPE [AMOUNT[CUR]] [at=DURATION] [rx=DURATION] [in=DURATION] [of=ID] [order=ID]
//	      [ws=ID] [name=TEXT] [reason=TEXT]
//
// Durations count from the click, with d for days. Without a click line the click
// reaches Kafka as it happens, without a currency the amount is in EUR, and without a
// time the events come a minute after each other, the first at one minute. at is when an
// event occurs, is received and enters the log; rx changes the last two, in the last.
// changes asks for the changes of what stands, in order of record.
type script struct {
	cfg     oracle.Config
	clicks  []oracle.Click
	events  []oracle.Event
	through event.Millis
	changes bool
}

func parseScript(t testing.TB, text string) *script {
	t.Helper()
	s := &script{cfg: oracle.Config{Grace: 72 * time.Hour, ClickLife: 40 * day, JourneyLife: 400 * day}}
	noclick := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		key, value, setting := strings.Cut(words[0], "=")
		switch {
		case words[0] == "noclick":
			noclick = true
		case words[0] == "changes":
			s.changes = true
		case words[0] == "click":
			s.clicks = append(s.clicks, parseClick(t, words[1:]))
		case setting && key == "grace":
			s.cfg.Grace = parseDuration(t, value)
		case setting && key == "life":
			s.cfg.ClickLife = parseDuration(t, value)
		case setting && key == "journey":
			s.cfg.JourneyLife = parseDuration(t, value)
		case setting && key == "max":
			s.cfg.MaxEvents, _ = strconv.Atoi(value)
		case setting && key == "through":
			s.through = t0.Add(parseDuration(t, value))
		default:
			s.events = append(s.events, parseEvent(t, words, int64(len(s.events))))
		}
	}
	if len(s.clicks) == 0 && !noclick {
		s.clicks = []oracle.Click{parseClick(t, nil)}
	}
	return s
}

func parseClick(t testing.TB, words []string) oracle.Click {
	t.Helper()
	c := oracle.Click{At: t0, Click: event.Click{
		WorkspaceID:         "acme",
		ClickToken:          mintToken(t0, 1),
		ClickedAt:           t0,
		WindowMs:            (30 * day).Milliseconds(),
		TokenStatus:         event.TokenAppended,
		LinkID:              "lnk_1",
		PartnerID:           "prt_1",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_1",
		RewardTerms:         "10%",
	}}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "at":
			c.At = t0.Add(parseDuration(t, value))
		case "ws":
			c.WorkspaceID = value
		case "terms":
			c.RewardTerms = strings.ReplaceAll(value, "_", " ")
		case "window":
			c.WindowMs = parseDuration(t, value).Milliseconds()
		case "follow":
			c.FollowMs = parseDuration(t, value).Milliseconds()
		case "onesale":
			c.OneSalePerOrder = true
		case "status":
			c.TokenStatus = event.TokenStatus(value)
		case "link":
			c.LinkID = value
		case "bot":
			c.IsBot = true
		case "nopartner":
			c.PartnerID, c.PartnerRelationship, c.PartnerLifecycle = "", "", ""
		case "relationship":
			c.PartnerRelationship = value
		case "lifecycle":
			c.PartnerLifecycle = value
		default:
			t.Fatalf("click: unknown word %q", w)
		}
	}
	return c
}

func parseEvent(t testing.TB, words []string, offset int64) oracle.Event {
	t.Helper()
	at := t0.Add(time.Duration(offset+1) * time.Minute)
	e := oracle.Event{Offset: offset, Conversion: event.Conversion{
		WorkspaceID: "acme",
		EventID:     words[0],
		ClickToken:  mintToken(t0, 1),
		Type:        event.Type(words[1]),
		OccurredAt:  at,
		ReceivedAt:  at,
		EnteredAt:   at,
		ResolvedBy:  event.ResolvedByToken,
	}}
	if !slices.Contains(event.Types(), e.Type) {
		t.Fatalf("unknown type in %q", words)
	}
	for _, w := range words[2:] {
		key, value, setting := strings.Cut(w, "=")
		switch {
		case !setting:
			amount := strings.TrimRight(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
			e.Currency = w[len(amount):]
			if e.Currency == "" {
				e.Currency = "EUR"
			}
			e.Exponent = map[string]int32{"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}[e.Currency]
			whole, fraction, _ := strings.Cut(amount, ".")
			minor, err := strconv.ParseInt(whole+(fraction + "000")[:e.Exponent], 10, 64)
			if err != nil {
				t.Fatalf("amount %q: %v", w, err)
			}
			e.AmountMinor = &minor
		case key == "at":
			e.OccurredAt = t0.Add(parseDuration(t, value))
			e.ReceivedAt, e.EnteredAt = e.OccurredAt, e.OccurredAt
		case key == "rx":
			e.ReceivedAt = t0.Add(parseDuration(t, value))
			e.EnteredAt = e.ReceivedAt
		case key == "in":
			e.EnteredAt = t0.Add(parseDuration(t, value))
		case key == "of":
			e.ParentEventID = value
		case key == "order":
			e.OrderID = value
		case key == "ws":
			e.WorkspaceID = value
		case key == "name":
			e.EventName = value
		case key == "reason":
			e.ReasonText = value
		default:
			t.Fatalf("unknown word %q", w)
		}
	}
	// the same body sent at another minute of an example is the same content
	same := e.Conversion
	same.OccurredAt = 0
	e.ContentSHA256 = same.ContentHash()
	return e
}

func parseDuration(t testing.TB, text string) time.Duration {
	t.Helper()
	days := 0
	if before, after, ok := strings.Cut(text, "d"); ok {
		var err error
		if days, err = strconv.Atoi(before); err != nil {
			t.Fatal(err)
		}
		text = after
	}
	d, err := time.ParseDuration("0s" + text)
	if text == "" {
		d, err = 0, nil
	}
	if strings.HasPrefix(text, "-") {
		d, err = time.ParseDuration(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(days)*day + d
}

// formatResult prints a result, one line a row in order of record, then the standing
// amounts where something with effect is. Rows without effect show no amount.
func formatResult(r oracle.Result) string {
	var b strings.Builder
	for _, o := range r.Outcomes {
		fmt.Fprintf(&b, "%s %s", o.EventID, o.Verdict)
		if o.Reason != "" {
			fmt.Fprintf(&b, " %s", o.Reason)
		}
		if o.Effect != 0 {
			amount := "1"
			if o.AmountMinor != nil {
				amount = event.Decimal(*o.AmountMinor, o.Exponent)
			}
			fmt.Fprintf(&b, " %c%s%s", "- +"[o.Effect+1], amount, o.Currency)
		}
		if o.EstimatedRewardMinor != nil {
			fmt.Fprintf(&b, " reward %s%s", event.Decimal(*o.EstimatedRewardMinor, map[string]int32{"EUR": 2, "USD": 2,
				"KWD": 3}[o.RewardCurrency]), o.RewardCurrency)
		}
		if o.ParentType != "" {
			fmt.Fprintf(&b, " of %s %s", o.ParentType, o.ParentEventID)
		}
		if o.FirstOffset != nil {
			fmt.Fprintf(&b, " first %d", *o.FirstOffset)
		}
		if o.Click == nil {
			b.WriteString(" bare")
		}
		for _, f := range o.Flags {
			fmt.Fprintf(&b, " %s", f)
		}
		if o.Review == event.ReviewNeeded {
			b.WriteString(" !")
		}
		b.WriteByte('\n')
	}
	for _, e := range r.Waiting {
		fmt.Fprintf(&b, "%s waits\n", e.EventID)
	}
	var standing []string
	for _, o := range r.Outcomes {
		if m, ok := r.Standing[oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}]; ok {
			standing = append(standing, event.Decimal(m.Minor, m.Exponent))
		}
	}
	if standing != nil {
		fmt.Fprintf(&b, "standing %s\n", strings.Join(standing, " "))
	}
	return b.String()
}

// formatChanges prints what each row changes of what stands of its root, "no" where the
// row says nothing of it.
func formatChanges(r oracle.Result) string {
	words := []string{"changes"}
	for _, o := range r.Outcomes {
		word := "no"
		if o.StandingChangeMinor != nil {
			// exponents are those of EUR
			word = event.Decimal(*o.StandingChangeMinor, 2)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ") + "\n"
}

func normalizeSpace(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			b.WriteString(strings.Join(words, " ") + "\n")
		}
	}
	return b.String()
}

// checkScript plays a script and compares the printed result with want.
func checkScript(t *testing.T, name, in, want string) {
	t.Helper()
	s := parseScript(t, in)
	result := oracle.Judge(s.cfg, s.clicks, s.events, s.through)
	got := formatResult(result)
	if s.changes {
		got += formatChanges(result)
	}
	if got != normalizeSpace(want) {
		t.Errorf("%s:\n%s\ngot\n%s\nwant\n%s", name, normalizeSpace(in), got, normalizeSpace(want))
	}
}

// The worked examples of the rules, by their numbers.
func TestWorkedExamples(t *testing.T) {
	checkScript(t, "1", `S sale 100`,
		`S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "2", `S sale 100
		R refund 30 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -30.00EUR reward -3.00EUR of sale S
		 standing 70.00 30.00`)
	checkScript(t, "3", `S sale 100
		R1 refund 60 of=S
		R2 refund 60 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -60.00EUR reward -6.00EUR of sale S
		 R2 reversed -60.00EUR reward -4.00EUR of sale S over_reversed !
		 standing 0.00 60.00 60.00`)
	checkScript(t, "4", `S sale 100
		R1 refund 60 of=S
		R2 refund 60 of=S
		V reversal of=R2`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -60.00EUR reward -6.00EUR of sale S
		 R2 reversed -60.00EUR reward -4.00EUR of sale S over_reversed !
		 V reversed +60.00EUR reward 4.00EUR of refund R2 amount_missing
		 standing 40.00 60.00 0.00 60.00`)
	checkScript(t, "5", `S sale 100
		R1 refund of=S
		R2 refund 40 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R1 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 R2 reversed -40.00EUR reward 0.00EUR of sale S over_reversed !
		 standing 0.00 100.00 40.00`)
	checkScript(t, "5, the other order", `S sale 100
		R2 refund 40 of=S
		R1 refund of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R2 reversed -40.00EUR reward -4.00EUR of sale S
		 R1 reversed -60.00EUR reward -6.00EUR of sale S amount_missing
		 standing 0.00 40.00 60.00`)
	checkScript(t, "6", `S sale 100
		V1 reversal of=S
		V2 reversal of=V1
		V3 reversal of=V2`,
		`S attributed +100.00EUR reward 10.00EUR
		 V1 reversed -100.00EUR reward -10.00EUR of sale S amount_missing
		 V2 reversed +100.00EUR reward 10.00EUR of reversal V1 amount_missing
		 V3 reversed -100.00EUR reward -10.00EUR of reversal V2 amount_missing
		 standing 0.00 100.00 0.00 100.00`)
	checkScript(t, "7", `R refund 30 of=S
		S sale 100`,
		`R reversed -30.00EUR reward -3.00EUR of sale S
		 S attributed +100.00EUR reward 10.00EUR
		 standing 30.00 70.00`)
	checkScript(t, "8", `click at=1h
		S sale 100
		R refund 30 of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -30.00EUR reward -3.00EUR of sale S
		 standing 70.00 30.00`)
	checkScript(t, "9", `S sale 100 at=31d
		R refund 100 of=S at=32d`,
		`S unattributed outside_window
		 R unattributed parent_unattributed of sale S without_effect !`)
	checkScript(t, "10", `A sale 1 at=30d
		B sale 1 at=30d1ms
		C sale 1 at=-4m
		D sale 1 at=-6m
		E sale 1 at=-5m
		F sale 1 at=-5m1ms`,
		`A attributed +1.00EUR reward 0.10EUR
		 B unattributed outside_window
		 C attributed +1.00EUR reward 0.10EUR too_fast
		 D unattributed before_click too_fast
		 E attributed +1.00EUR reward 0.10EUR too_fast
		 F unattributed before_click too_fast
		 standing 1.00 1.00 1.00`)
	checkScript(t, "11", `L lead
		R refund
		S sale 100`,
		`L attributed +1
		 R reversed -100.00EUR reward -10.00EUR of sale S amount_missing parent_inferred !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 1 100.00 0.00`)
	checkScript(t, "12", `L lead
		S sale 100
		X cancellation`,
		`L attributed +1
		 S attributed +100.00EUR reward 10.00EUR
		 X reversed -100.00EUR reward -10.00EUR of sale S amount_missing parent_inferred !
		 standing 1 0.00 100.00`)
	checkScript(t, "13", `S1 sale 100
		S2 sale 50
		R refund 10`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +50.00EUR reward 5.00EUR
		 R unattributed parent_ambiguous without_effect !
		 standing 100.00 50.00`)
	checkScript(t, "14", `S1 sale 100 order=o
		S2 sale 50 order=o
		R refund 10 order=o`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 S2 attributed +50.00EUR reward 5.00EUR order_repeated !
		 R reversed -10.00EUR reward -1.00EUR of sale S2 parent_inferred !
		 standing 100.00 40.00 10.00`)
	checkScript(t, "14, the other order", `S1 sale 100 order=o
		R refund 10 order=o
		S2 sale 50 order=o`,
		`S1 attributed +100.00EUR reward 10.00EUR
		 R reversed -10.00EUR reward -1.00EUR of sale S1
		 S2 attributed +50.00EUR reward 5.00EUR order_repeated !
		 standing 90.00 10.00 50.00`)
	checkScript(t, "15", `x sale 1 name=a
		x sale 1 name=b
		x sale 1 name=a`,
		`x attributed +1.00EUR reward 0.10EUR
		 x conflict first 0
		 x duplicate first 0
		 standing 1.00`)
	checkScript(t, "15, the other order", `x sale 1 name=b
		x sale 1 name=a
		x sale 1 name=a`,
		`x attributed +1.00EUR reward 0.10EUR
		 x conflict first 0
		 x conflict first 0
		 standing 1.00`)
	checkScript(t, "16", `L lead
		X1 cancellation of=L
		X2 cancellation of=L`,
		`L attributed +1
		 X1 reversed -1 of lead L
		 X2 reversed -1 of lead L over_reversed !
		 standing 0 1 1`)
	checkScript(t, "17", `click terms=5.00_EUR
		S sale 100
		R1 refund 1 of=S
		R2 refund 1 of=S
		R3 refund 98 of=S`,
		`S attributed +100.00EUR reward 5.00EUR
		 R1 reversed -1.00EUR reward 0.00EUR of sale S
		 R2 reversed -1.00EUR reward 0.00EUR of sale S
		 R3 reversed -98.00EUR reward -5.00EUR of sale S
		 standing 0.00 1.00 1.00 98.00`)
	checkScript(t, "18", `S sale 1000JPY
		R1 refund 333JPY of=S
		R2 refund 667JPY of=S`,
		`S attributed +1000JPY reward 100JPY
		 R1 reversed -333JPY reward -33JPY of sale S
		 R2 reversed -667JPY reward -67JPY of sale S
		 standing 0 333 667`)
	checkScript(t, "19", `S sale 100
		R refund 50USD of=S`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -50.00USD reward 0.00EUR of sale S currency_mismatch !
		 standing 100.00 50.00`)
	checkScript(t, "20", `S sale 100
		R refund 60 of=S
		V reversal 20 of=R`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -60.00EUR reward -6.00EUR of sale S
		 V reversed +20.00EUR reward 2.00EUR of refund R
		 standing 60.00 40.00 20.00`)
	checkScript(t, "21, before the grace is over", `V1 reversal of=V2
		V2 reversal of=V1
		through=72h`,
		`V1 waits
		 V2 waits`)
	checkScript(t, "21", `V1 reversal of=V2
		V2 reversal of=V1
		through=73h`,
		`V1 unattributed parent_not_found without_effect !
		 V2 unattributed parent_not_found without_effect !`)
	checkScript(t, "22, the click in time", `click at=71h
		S sale 100 at=0h`,
		`S attributed +100.00EUR reward 10.00EUR too_fast
		 standing 100.00`)
	checkScript(t, "22, the click too late", `click at=73h
		S sale 100 at=0h
		S sale 100 at=74h`,
		`S unattributed click_not_found bare
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "22, a refund", `R refund 30 of=S at=0h
		S sale 100 at=74h`,
		`R unattributed parent_not_found too_fast without_effect !
		 S attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "23", `x sale 100 ws=globex
		x sale 100`,
		`x unattributed workspace_mismatch bare
		 x attributed +100.00EUR reward 10.00EUR
		 standing 100.00`)
	checkScript(t, "24", `S sale 100
		R refund 30 of=S
		R2 refund 10 of=R
		V reversal 10 of=R`,
		`S attributed +100.00EUR reward 10.00EUR
		 R reversed -30.00EUR reward -3.00EUR of sale S
		 R2 unattributed wrong_parent of refund R without_effect !
		 V reversed +10.00EUR reward 1.00EUR of refund R
		 standing 80.00 20.00 10.00`)
}
