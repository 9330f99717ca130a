package dispute

import (
	"fmt"
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
