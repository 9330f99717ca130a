package report

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// What answers say of an order is what the view order_reuse lists, and its alert counts:
// however sales name each other, under whatever tokens, and whatever was taken back and
// given back of them.
func TestOrdersCountAsInTheView(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	orders := insertOrders(t, conn, 400)
	counts, err := New(conn).CountOrders(t.Context(), "acme", orders)
	if err != nil {
		t.Fatal(err)
	}
	var found []struct {
		OrderID string `ch:"order_id"`
		Sales   uint64 `ch:"sales"`
	}
	err = conn.Select(t.Context(), &found, "SELECT order_id, sales FROM order_reuse WHERE workspace_id = 'acme'")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]int{}
	for _, f := range found {
		listed[f.OrderID] = int(f.Sales)
	}
	if len(listed) < 40 || len(orders)-len(listed) < 40 {
		t.Errorf("%d of %d orders count twice: that compares little", len(listed), len(orders))
	}
	for _, order := range orders {
		standing := counts[order].Standing
		if standing < 2 {
			standing = 0
		}
		if standing != listed[order] {
			t.Errorf("%s: %s, and the view has %d sales", order, counts[order].Words(), listed[order])
		}
	}
}

// insertOrders inserts orders of sales of 0.30 and of 0.00, and what takes back and gives back of
// these. It returns their ids.
func insertOrders(t *testing.T, conn *clickhouse.Conn, n int) (orders []string) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 17))
	var rows []string
	add := func(order, token, id, parent, kind string, effect, minor int) {
		verdict := map[bool]string{true: "attributed", false: "reversed"}[kind == "sale"]
		rows = append(rows, fmt.Sprintf("('acme', 0, %[1]d, 0, %[1]d, toDateTime('2026-03-20', 'UTC') + %[1]d, "+
			"'%[2]s', '%[3]s', '%[4]s', '%[5]s', '%[6]s', '%[7]s', %[8]d, %[9]d, %[10]d, 'EUR', 2)",
			len(rows), order, token, id, parent, verdict, kind, effect, minor, effect*minor))
	}
	type refund struct{ sale, token, id string }
	for i := range n {
		order := fmt.Sprintf("o%d", i)
		orders = append(orders, order)
		var refunds []refund
		left := map[string]int{}
		for step := range 2 + random.IntN(7) {
			id := fmt.Sprintf("%s-e%d", order, step)
			token := fmt.Sprintf("%s-t%d", order, random.IntN(2))
			sale := fmt.Sprintf("%s-e%d", order, random.IntN(4)) // earlier, later, itself, or none
			switch token, stands := saleToken(sale, left); {
			case step > 1 && len(refunds) > 0 && random.IntN(3) == 0: // a reversal of one that stands
				r := refunds[0]
				refunds = refunds[1:]
				add("", r.token, id, r.id, "reversal", 1, 30)
				left[r.token+" "+r.sale] += 30
				continue
			case step > 0 && stands && random.IntN(2) == 0:
				add("", token, id, sale, "refund", -1, 30)
				left[token+" "+sale] = 0
				refunds = append(refunds, refund{sale, token, id})
				continue
			}
			if random.IntN(2) == 0 {
				sale = ""
			}
			minor := 30 * min(1, random.IntN(6))
			add(order, token, id, sale, "sale", 1, minor)
			left[token+" "+id] = minor
		}
	}
	const insert = "INSERT INTO outcomes (workspace_id, event_partition, event_offset, src_partition, src_offset, " +
		"received_at, order_id, click_token, event_id, parent_event_id, verdict, type, effect, amount_minor, " +
		"standing_change_minor, currency, exponent) VALUES "
	if err := conn.Exec(t.Context(), insert+strings.Join(rows, ", ")); err != nil {
		t.Fatal(err)
	}
	return orders
}

// saleToken is the token of a sale, and whether it stands.
func saleToken(id string, left map[string]int) (token string, stands bool) {
	for key, minor := range left {
		if before, ok := strings.CutSuffix(key, " "+id); ok {
			return before, minor > 0
		}
	}
	return "", false
}
