package report

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

// Rows made by hand, and what is said about them: testdata/answers. `exec` runs
// statements, `why` and `dispute` print an answer's structure.
func TestAnswers(t *testing.T) {
	datadriven.Walk(t, "testdata/answers", func(t *testing.T, path string) {
		conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: clickhousetest.ForTest(t)},
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Migrate(t.Context(), ddl.Migrations(),
			clickhouse.MigrateConfig{Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		reader := New(conn)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			workspace, partner := "acme", ""
			d.MaybeScanArgs(t, "workspace", &workspace)
			d.MaybeScanArgs(t, "partner", &partner)
			switch d.Cmd {
			case "exec":
				for _, statement := range strings.Split(d.Input, ";\n") {
					if err := conn.Exec(t.Context(), strings.TrimSuffix(statement, ";")); err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
				}
			case "why":
				for _, id := range strings.Fields(d.Input) {
					answer, err := reader.Why(t.Context(), workspace, id)
					if err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
					writeAnswer(&out, answer)
				}
			case "dispute":
				writeDispute(t, &out, reader.Dispute(workspace, partner), d.Input)
			default:
				t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			}
			return out.String()
		})
	})
}

func writeAnswer(out *strings.Builder, a *Answer) {
	fmt.Fprintf(out, "%s: %d events, %d refused, effect under %d tokens\n", a.EventID, len(a.Events), len(a.Refused),
		a.Tokens)
	for _, r := range a.Refused {
		fmt.Fprintf(out, "  refused %s %d %s\n", stamp(r.ReceivedAt), r.Status, r.Words())
	}
	for _, e := range a.Events {
		fmt.Fprintf(out, "  %d/%d %s %s: %s\n", e.Partition, e.Offset, e.Verdict, e.Reason, e.Words())
		if e.Frozen != nil {
			fmt.Fprintf(out, "    click %s link %q partner %q program %q\n", stamp(*e.Frozen.At), e.Frozen.LinkID,
				e.Frozen.PartnerID, e.Frozen.ProgramID)
		}
		if e.Wait != nil {
			fmt.Fprintf(out, "    wait %s\n", e.Wait.Words())
		}
		for _, l := range e.Chain {
			stands := "no effect"
			if l.Stands != nil {
				stands = l.Stands.String()
			}
			this := ""
			if l.Event == e.Event {
				this = " ← this"
			}
			fmt.Fprintf(out, "    %s%s %s %s: %s%s\n", strings.Repeat("  ", l.Depth), l.EventID, l.Type, l.Verdict,
				stands, this)
		}
	}
}

func writeDispute(t *testing.T, out *strings.Builder, d *Dispute, list string) {
	claims, err := ReadClaims(strings.NewReader(list), "list.csv")
	var batch []Claim
	for err == nil {
		var claim Claim
		if claim, err = claims.Next(); err == nil {
			batch = append(batch, claim)
		}
	}
	findings, judging := d.Judge(t.Context(), batch)
	if judging != nil {
		t.Fatal(judging)
	}
	for _, f := range findings {
		text := func(d *Decimal) string {
			if d == nil {
				return "-"
			}
			return d.String()
		}
		fmt.Fprintf(out, "%d: %s | partner %q | net %s %s | difference %s\n", f.Line, f.Words, f.Partner, text(f.Net),
			f.Currency, text(f.Difference))
		if !strings.HasPrefix(f.Words, string(f.Verdict)) && f.Words != "attributed to no partner" {
			t.Errorf("the words %q are not about %q", f.Words, f.Verdict)
		}
	}
	if !errors.Is(err, io.EOF) {
		fmt.Fprintln(out, err)
	}
	for _, total := range d.Totals() {
		fmt.Fprintf(out, "%s: claimed %s confirmed %s difference %s unpriced %s\n", total.Currency, total.Claimed,
			total.Confirmed, total.Difference, total.Unpriced)
	}
}

// A batch answers as its claims one by one would.
func TestBatch(t *testing.T) {
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: clickhousetest.ForTest(t)},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Migrate(t.Context(), ddl.Migrations(),
		clickhouse.MigrateConfig{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	// long, and full of what could end a parameter
	batch(t, conn, "acme", strings.Repeat("'\\\t", 40))
	batch(t, conn, "zeta", strings.Repeat("\U0001F642", 124)) // 1,500 bytes in a URL
}

func batch(t *testing.T, conn *clickhouse.Conn, workspace, id string) {
	t.Helper()
	const sales = 3 * maxKeys
	err := conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, src_offset, event_offset, click_token, event_id, order_id, type, verdict, effect, amount_minor, currency, exponent, partner_id)
		SELECT {w:String}, number, number, 'T' || toString(number % 7), {id:String} || toString(number), {id:String} || 'o' || toString(intDiv(number, 3)), 'sale', 'attributed', 1, 100 + number, 'EUR', 2, 'p'
		FROM numbers({sales:UInt32})`, clickhouse.Named("id", id), clickhouse.Named("sales", sales), clickhouse.Named("w", workspace))
	if err != nil {
		t.Fatal(err)
	}
	var claims []Claim
	for i := range maxKeys - 1 {
		claims = append(claims, Claim{Line: i + 2, OrderID: fmt.Sprintf("%so%d", id, i)})
	}
	claims = append(claims, Claim{Line: maxKeys + 1, OrderID: claims[0].OrderID})
	d := New(conn).Dispute(workspace, "p")
	findings, err := d.Judge(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range findings[:maxKeys-1] {
		if want := minor(int64(3*100+9*i+3), 2).String(); f.Verdict != ClaimAttributed || f.Net == nil ||
			f.Net.String() != want {
			t.Fatalf("claim %d: %q, net %v, want %s", i, f.Words, f.Net, want)
		}
	}
	if f := findings[maxKeys-1]; f.Words != "duplicate of line 2" {
		t.Errorf("the first order once more: %q", f.Words)
	}
	if _, err := d.Judge(t.Context(), append(claims, Claim{OrderID: "one more"})); err == nil {
		t.Error("a batch may be as long as it likes")
	}
}

// The gateway takes ids of 128 characters, whatever their bytes.
func TestLongIDs(t *testing.T) {
	read := func(id string) error {
		c, err := ReadClaims(strings.NewReader("order_id\n"+id+"\n"), "x.csv")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Next()
		return err
	}
	if err := read(strings.Repeat("\U0001F642", maxID)); err != nil {
		t.Error(err)
	}
	if err := read(strings.Repeat("é", maxID+1)); err == nil ||
		err.Error() != "x.csv:2:1: order_id: longer than 128 characters" {
		t.Error(err)
	}
}

// What stands, against its definition: max(0, amount − Σ standing of the reversed
// children in the same currency), whatever the order of the events.
func TestStandingIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := []*Event{{EventID: "0"}}
		amounts := rapid.SampledFrom([]int64{-1, 0, 1, 30, 60, 100, 1<<63 - 1})
		for i := range rapid.IntRange(1, 12).Draw(t, "events") {
			e := &Event{EventID: fmt.Sprint(i), OutcomeOffset: uint64(i), Effect: 1, Verdict: "reversed"}
			if i > 0 {
				e.ParentEventID = fmt.Sprint(rapid.IntRange(0, i-1).Draw(t, "parent"))
			}
			if amount := amounts.Draw(t, "amount"); amount >= 0 {
				e.AmountMinor, e.Currency = &amount, rapid.SampledFrom([]string{"EUR", "USD"}).Draw(t, "currency")
			}
			if i > 0 && rapid.IntRange(0, 5).Draw(t, "effect") == 0 {
				e.Effect = 0
			}
			if i == 0 {
				events = nil
			}
			events = append(events, e)
		}
		var model func(e *Event) int64
		model = func(e *Event) int64 {
			left := Decimal{}.Plus(minor(1, 0))
			if e.AmountMinor != nil {
				left = minor(*e.AmountMinor, 0)
			}
			for _, c := range events {
				if c.Effect != 0 && c != e && c.ParentEventID == e.EventID &&
					(c.AmountMinor == nil) == (e.AmountMinor == nil) && c.Currency == e.Currency {
					left = left.Minus(minor(model(c), 0))
				}
			}
			if left.Cmp(Decimal{}) < 0 {
				return 0
			}
			return left.units.Int64()
		}
		got := standing(rapid.Permutation(events).Draw(t, "order"))
		for _, e := range events {
			n, ok := got[e]
			if ok != (e.Effect != 0) || ok && n != model(e) {
				t.Fatalf("event %s: %d, %t; want %d", e.EventID, n, ok, model(e))
			}
		}
	})
}

func TestDecimal(t *testing.T) {
	for _, c := range []struct{ a, b, sum, difference string }{
		{"10", "0.5", "10.5", "9.5"},
		{"-0.05", "0.05", "0.00", "-0.10"},
		{"9223372036854775807", "0.001", "9223372036854775807.001", "9223372036854775806.999"},
		{"100.00", "100.00", "200.00", "0.00"},
	} {
		a, okA := ParseDecimal(c.a)
		b, okB := ParseDecimal(c.b)
		if !okA || !okB || a.String() != c.a || a.Plus(b).String() != c.sum || a.Minus(b).String() != c.difference {
			t.Errorf("%s and %s: %s, %s, %s", c.a, c.b, a, a.Plus(b), a.Minus(b))
		}
	}
	for _, bad := range []string{"", "-", ".5", "5.", "1,000.00", "1e3", "+1", "--1", " 1",
		"0x1", "1.00000000001", strings.Repeat("9", 31)} {
		if d, ok := ParseDecimal(bad); ok {
			t.Errorf("%q is %s", bad, d)
		}
	}
}

// Every word of the tables is explained.
func TestWords(t *testing.T) {
	for _, reason := range []string{event.ReasonExpired, event.ReasonClickNotFound, event.ReasonWorkspaceMismatch,
		event.ReasonTokenFull, event.ReasonBeforeClick, event.ReasonOutsideWindow,
		event.ReasonWrongParent, event.ReasonParentAmbiguous, event.ReasonParentNotFound,
		event.ReasonParentUnattributed} {
		if !strings.Contains(ReasonWords(reason), " ") {
			t.Errorf("reason %s: %q", reason, ReasonWords(reason))
		}
	}
	for _, flag := range []string{event.FlagBotClick, event.FlagPartnerReview, event.FlagNoPartner, event.FlagTooFast,
		event.FlagOverReversed, event.FlagCurrencyMismatch, event.FlagAmountMissing,
		event.FlagParentInferred} {
		if !strings.Contains(FlagWords(flag), " ") {
			t.Errorf("flag %s: %q", flag, FlagWords(flag))
		}
	}
	for _, reason := range []string{"tracking_off", "not_entitled", "signed_url", "oauth", "scheme", "semicolon_query",
		"reserved_present", "link_setting"} {
		if !strings.Contains(TokenWords(reason), " ") {
			t.Errorf("token reason %s: %q", reason, TokenWords(reason))
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", 24 * time.Hour: "1d", 26 * time.Hour: "1d2h", 30*24*time.Hour + time.Minute: "30d1m", 10 * time.Minute: "10m",
		20 * time.Hour: "20h", time.Second + 1: "1s",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", int64(d), got, want)
		}
	}
}

// Whatever a list is, it is read to its end or refused with a place in it; a claim that
// is read has an id.
func FuzzReadClaims(f *testing.F) {
	for _, seed := range []string{"order_id,amount\n1,10.00\n", "\ufefforder_id\n\"a\nb\"\n",
		"event_id,date,currency\r\nx,2026-01-05,EUR\r\n", "order_id\n\"", "a,b\n", "", "order_id,ORDER_ID\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		claims, err := ReadClaims(strings.NewReader(list), "list.csv")
		for err == nil {
			var c Claim
			if c, err = claims.Next(); err == nil && (c.OrderID == "" && c.EventID == "" ||
				len(c.Cells) != len(claims.Header())) {
				t.Fatalf("claim %+v", c)
			}
		}
		var bad *BadClaim
		if !errors.Is(err, io.EOF) && (!errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 || bad.Text == "") {
			t.Fatalf("%v", err)
		}
	})
}

// A text becomes a cell that a CSV reader gives back as it was, but for the guard and
// what is no UTF-8.
func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=1", "a,b", "\"", "\r\n", "\xff", "a\x00b", "-", "'", "é", "\x00=1", "\\.", " a",
		"\u00a0=1", "\ufeff=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		w.Write([]string{"x", cell(s)})
		w.Flush()
		if !utf8.Valid(out.Bytes()) || bytes.ContainsRune(out.Bytes(), 0) {
			t.Fatalf("%q: %q is not text", s, out.String())
		}
		records, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(records) != 1 || len(records[0]) != 2 {
			t.Fatalf("%q: %v %q", s, err, records)
		}
		got := records[0][1]
		if got != "" && strings.ContainsRune("=+-@\t\r\n", rune(got[0])) {
			t.Errorf("%q begins as a formula: %q", s, got)
		}
		if want := strings.TrimPrefix(got, "'"); utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\r") &&
			got != s && want != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
