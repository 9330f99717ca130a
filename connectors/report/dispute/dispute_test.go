package dispute

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
)

// A batch answers as its claims one by one would.
func TestBatch(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	// long, and full of what could end a parameter
	batch(t, conn, "acme", strings.Repeat("'\\\t", 40))
	batch(t, conn, "zeta", strings.Repeat("\U0001F642", 124)) // 1,500 bytes in a URL
}

func batch(t *testing.T, conn *clickhouse.Conn, workspace, id string) {
	t.Helper()
	const sales = 3 * MaxBatch
	err := conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, src_offset, event_offset, click_token, event_id, order_id, type, verdict, effect, amount_minor, standing_change_minor, currency, exponent, partner_id)
		SELECT {w:String}, number, number, 'T' || toString(number % 7), {id:String} || toString(number), {id:String} || 'o' || toString(intDiv(number, 3)), 'sale', 'attributed', 1, 100 + number, 100 + number, 'EUR', 2, 'p'
		FROM numbers({sales:UInt32})`, clickhouse.Named("id", id), clickhouse.Named("sales", sales), clickhouse.Named("w", workspace))
	if err != nil {
		t.Fatal(err)
	}
	var claims []Claim
	for i := range MaxBatch - 1 {
		claims = append(claims, Claim{Line: i + 2, OrderID: fmt.Sprintf("%so%d", id, i)})
	}
	claims = append(claims, Claim{Line: MaxBatch + 1, OrderID: claims[0].OrderID})
	d := New(report.New(conn), workspace, "p")
	findings, err := d.Answer(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range findings[:MaxBatch-1] {
		if want := ledger.MinorUnits(int64(3*100+9*i+3), 2); f.Verdict != Attributed || f.Confirmed == nil ||
			!f.Confirmed.Equal(want) {
			t.Fatalf("claim %d: %q, confirmed %v, want %s", i, f.Words, f.Confirmed, want)
		}
	}
	if f := findings[MaxBatch-1]; f.Words != "duplicate of line 2" {
		t.Errorf("the first order once more: %q", f.Words)
	}
	if _, err := d.Answer(t.Context(), append(claims, Claim{OrderID: "one more"})); err == nil {
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

// Amounts are exact decimal numbers, in no other notation.
func TestParseAmount(t *testing.T) {
	for _, good := range []string{"10", "0.5", "-0.05", "9223372036854775807", "100.00", "-0"} {
		if amount, ok := parseAmount(good); !ok || good != "-0" && ledger.FormatDecimal(amount) != good {
			t.Errorf("%s is %s, %t", good, ledger.FormatDecimal(amount), ok)
		}
	}
	for _, bad := range []string{"", "-", ".5", "5.", "1,000.00", "1e3", "+1", "--1", " 1",
		"0x1", "1.00000000001", strings.Repeat("9", 31)} {
		if d, ok := parseAmount(bad); ok {
			t.Errorf("%q is %s", bad, d)
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
