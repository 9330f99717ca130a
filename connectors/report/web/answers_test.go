package web

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ledger"
)

// story is what a merchant's order 1001 went through: sold twice, under two event ids;
// the second one cancelled, with its parent misspelt; the first refunded in part, late and
// without naming it; charged back, and won; and a refund that the gateway refused. The
// order 1002 belongs to two partners.
const story = `
INSERT INTO clicks (workspace_id, src_offset, clicked_at, click_token, link_id, domain, slug, token_status, partner_id, partner_name, window_ms)
	SELECT 'acme', 900 + number, toDateTime64('2026-03-01 10:00:00', 3, 'UTC'), ['3MWgyD5yf6kfC92HIBeU6RXBUYA', '3MWgyD5yf6kfC92HIBeU6RXBUYB'][number], 'l0', 'go.acme.com', 's0', 'appended', ['p0', 'p1'][number] AS partner,
		['Nomura & <Studio>', 'Creator Collective'][number], 2592000000
	FROM numbers(1, 2);
INSERT INTO conversions (workspace_id, src_partition, src_offset, event_id, click_token, type, occurred_at, received_at, amount_minor, currency, exponent, order_id, parent_event_id, reason_text)
	SELECT 'acme', 7, c1, c2, if(c3 = 2, '3MWgyD5yf6kfC92HIBeU6RXBUYB', '3MWgyD5yf6kfC92HIBeU6RXBUYA'), c4, toDateTime64('2026-03-10 10:00:00', 3, 'UTC') + 86400 * c1, toDateTime64('2026-03-10 10:00:00', 3, 'UTC') + 86400 * c1, c5, 'EUR', 2, c6, c7, if(c4 = 'sale', '', 'the "customer" <b>said</b> so')
	FROM VALUES(
		(0, 'shopify-order-created-1001', 1, 'sale', 12990, '1001', ''),
		(1, 'shopify-order-paid-1001', 1, 'sale', 12990, '1001', ''),
		(2, 'cancel-1001', 1, 'cancellation', 12990, '1001', 'shopify-order-payed-1001'),
		(3, 'refund-1001', 1, 'refund', 2990, '1001', ''),
		(4, 'chargeback-1001', 1, 'reversal', 10000, '1001', 'shopify-order-created-1001'),
		(5, 'won-1001', 1, 'reversal', 10000, '', 'chargeback-1001'),
		(6, 'shopify-order-paid-1001', 1, 'refund', 12990, '1001', 'shopify-order-paid-1001'),
		(7, 'refund-1001-2', 2, 'refund', 500, '1001', 'shopify-order-created-1001'),
		(8, 'sale-1002', 1, 'sale', 5000, '1002', ''),
		(9, 'order-1002', 2, 'sale', 5000, '1002', ''));
INSERT INTO outcomes (workspace_id, src_partition, src_offset, event_partition, event_offset, event_id, click_token, type, occurred_at, received_at, decided_at, amount_minor, currency, exponent, order_id, parent_event_id, reason_text,
		verdict, reason, effect, standing_change_minor, flags, review, first_offset, clicked_at, link_id, domain, slug, partner_id, partner_name, partner_relationship, window_ms, rules_version)
	SELECT 'acme', 7, src_offset, 7, src_offset, event_id, click_token, type, occurred_at, received_at, received_at, amount_minor, currency, exponent, order_id, if(c7 = '', parent_event_id, c7), reason_text,
		c2, c3, c4, if(c4 = 0, NULL, c5), c6, if(empty(c6), 'clear', 'review'), if(c2 = 'conflict', 1, NULL), toDateTime64('2026-03-01 10:00:00', 3, 'UTC'), 'l0', 'go.acme.com', 's0',
		if(click_token LIKE '%A', 'p0', 'p1'), if(click_token LIKE '%A', 'Nomura & <Studio>', 'Creator Collective'), 'approved', 2592000000, 2
	FROM conversions INNER JOIN VALUES(
		(0, 'attributed', '', 1, 12990, [], ''),
		(1, 'attributed', '', 1, 12990, ['order_repeated'], ''),
		(2, 'unattributed', 'parent_not_found', 0, 0, ['without_effect'], ''),
		(3, 'reversed', '', -1, -2990, ['parent_inferred'], 'shopify-order-created-1001'),
		(4, 'reversed', '', -1, -10000, [], ''),
		(5, 'reversed', '', 1, 10000, [], ''),
		(6, 'conflict', '', 0, 0, ['money_differs'], ''),
		(8, 'attributed', '', 1, 5000, [], ''),
		(9, 'attributed', '', 1, 5000, [], '')) AS v ON v.c1 = src_offset
	WHERE src_partition = 7;
INSERT INTO rejections (workspace_id, src_offset, event_id, click_token, type, order_id, parent_event_id, received_at, status, code, field, detail) VALUES
	('acme', 900, 'refund-1001-3', '3MWgyD5yf6kfC92HIBeU6RXBUYA', 'refund', '1001', '', '2026-03-19 10:00:00', 422, 'invalid_field', 'amount', 'more digits than EUR has'),
	('acme', 901, 'shopify-order-created-1001', '3MWgyD5yf6kfC92HIBeU6RXBUYA', 'sale', '1001', '', '2026-03-09 10:00:00', 422, 'invalid_field', 'currency', '');
INSERT INTO progress (src_offset, partition, at, watermark, clicks_max_at, conversions_max_at, conversions_position, outcomes_end, grace_ms, caught_up) VALUES (1, 7, '2026-03-20 11:59:59', '2026-03-20 09:59:59', '2026-03-20 11:59:59', '2026-03-20 11:59:59', 10, 10, 259200000, 1);
INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', 'conversions', 7, 0, 10, 10), ('x', 'outcomes', 7, 0, 10, 9)`

var storyWarehouse = clickhousetest.Shared(func(t testing.TB, dsn string) {
	fillWarehouse(t, dsn)
	conn := openWarehouse(t, dsn)
	defer conn.Close()
	execAll(t, conn, story)
})

// list is what a partner claims of the story.
const storyList = "order_id,amount,currency\n1001,129.90,EUR\n1002,50.00,EUR\n"

// What has no effect, what differs and what counts twice is on the page, in JSON, and
// beside the verdict on a claim.
func TestWithoutEffect(t *testing.T) {
	r := newRigOn(t, storyWarehouse(t))
	for _, path := range []string{"/why?order_id=1001", "/why?event_id=shopify-order-created-1001"} {
		_, _, body := r.get("acme", path)
		for _, want := range []string{
			"Received, without effect",
			"cancellation &#34;cancel-1001&#34; of 129.90 EUR",
			"parent_not_found: the event that it names did not come in time (it names parent " +
				"&#34;shopify-order-payed-1001&#34;, order &#34;1001&#34;); send it again under its id, with the " +
				"parent_event_id of what it takes back: &#34;shopify-order-created-1001&#34;, " +
				"&#34;shopify-order-paid-1001&#34;",
			"refund &#34;shopify-order-paid-1001&#34; of 129.90 EUR", "send it again under an event_id of its own",
			"its parent &#34;shopify-order-created-1001&#34; is under another token, 3MWgyD5yf6kfC92HIBeU6RXBUYA",
			"refund &#34;refund-1001-3&#34;",
			"refused by the gateway: invalid_field in amount (more digits than EUR has)",
			"is counted 2 times in this workspace",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not say %s", path, want)
			}
		}
		if strings.Contains(body, "<b>said</b>") {
			t.Errorf("%s does not escape what the merchant wrote", path)
		}
	}
	if _, _, body := r.get("acme", "/why?order_id=1001"); !strings.Contains(body, "Refused by the gateway: "+
		"<code>shopify-order-created-1001</code>") {
		t.Error("the page of an order does not list what was refused")
	}
	_, _, body := r.get("acme", "/why?event_id=shopify-order-paid-1001")
	for _, want := range []string{"<dt>Differs in type</dt><dd>&#34;sale&#34; at first, &#34;refund&#34; here</dd>",
		"<dt>Differs in parent_event_id</dt><dd>&#34;&#34; at first, &#34;shopify-order-paid-1001&#34; here</dd>"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a conflict does not say %s", want)
		}
	}
	if _, _, body := r.get("globex", "/why?order_id=1001"); !strings.Contains(body, "never received") ||
		strings.Contains(body, "1001-") {
		t.Error("another workspace learns of the order")
	}
	if _, _, body := r.get("acme", "/why?event_id=1002"); !strings.Contains(body, "never received") ||
		!strings.Contains(body, `There is <a href="/why?order_id=1002">an order &#34;1002&#34;</a>.`) {
		t.Error("who asks about an order as about an event does not learn that there is one")
	}
	if _, _, body := r.get("acme", "/v1/workspaces/acme/events?event_id=1002"); !strings.Contains(body,
		`"similar":[{"column":"order_id","key":"1002"}]`) {
		t.Errorf("the list of an unknown event does not say what there is: %s", body)
	}
	if code, _, body := r.get("acme", "/why?order_id=1001&event_id=e1"); code != 400 ||
		!strings.Contains(body, "not beside event_id") {
		t.Errorf("a page of both: %d", code)
	}
	_, body = r.dispute("acme", "p0", storyList, "")
	for _, want := range []string{"attributed, but a refund of it has no effect; in part taken back by refund-1001, " +
		"chargeback-1001; counted 2 times: shopify-order-created-1001, shopify-order-paid-1001; 2 events",
		"cancellation &#34;cancel-1001&#34; of 129.90 EUR", "attributed here; counted 2 times: sale-1002; 1 of them " +
			"not of this partner"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a list does not say %s in\n%s", want, section(body, "findings"))
		}
	}
}

// A list is read as spreadsheets save it, what is assumed is said, and the answers come
// as a file, too: with names and links, and whole or not at all.
func TestAnswersAsFile(t *testing.T) {
	r := newRigOn(t, storyWarehouse(t))
	const list = "Bestellnummer;Betrag;Datum\n1001;129,90;29.11.2026\n1002;50,00;29.11.2026\n"
	_, page := r.dispute("acme", "", list, "")
	for _, want := range []string{"amounts with a decimal comma, as 129,90 in line 2",
		`<a href="/why?order_id=1001"><code>1001</code></a>`, "Nomura &amp; &lt;Studio&gt;",
		`value="csv">Answers as CSV`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
	code, file := r.dispute("acme", "", list, "", "as=csv", "decimal=comma")
	records, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(file, ledger.ByteOrderMark))).ReadAll()
	if code != 200 || err != nil || len(records) != 3 || !strings.HasPrefix(file, ledger.ByteOrderMark) {
		t.Fatalf("%d %v %q", code, err, file)
	}
	row := map[string]string{}
	for i, name := range records[0] {
		row[name] = records[1][i]
	}
	if row["Bestellnummer"] != "1001" || row["confirmed"] != "229.90" || row["partner_name"] != "Nomura & <Studio>" ||
		row["why"] != r.URL+"/why?order_id=1001" {
		t.Errorf("%q", row)
	}
	for _, bad := range []string{list + "1003;ten;\n", "order_id,verdict_here\n1,2\n"} {
		if code, page := r.dispute("acme", "", bad, "", "as=csv"); code != 400 ||
			!strings.Contains(page, `role="alert"`) {
			t.Errorf("%q: %d", bad, code)
		}
	}
	if code, page := r.dispute("acme", "", list, "", "decimal=dot"); code != 400 ||
		!strings.Contains(page, "-decimal") {
		t.Errorf("decimal=dot: %d", code)
	}
}

// The JSON has the same, for an event and for an order.
func TestEventsOfAnOrder(t *testing.T) {
	r := newRigOn(t, storyWarehouse(t))
	for _, query := range []string{"order_id=1001", "event_id=shopify-order-paid-1001"} {
		code, _, body := r.get("acme", "/v1/workspaces/acme/events?"+query)
		var a struct {
			Rows          []eventRow    `json:"rows"`
			WithoutEffect []negativeRow `json:"without_effect"`
			Counted       []countedRow  `json:"counted"`
		}
		if err := json.Unmarshal([]byte(body), &a); code != 200 || err != nil {
			t.Fatalf("%s: %d %v", query, code, err)
		}
		var fates []string
		for _, n := range a.WithoutEffect {
			fates = append(fates, n.EventID+" "+n.Status+" "+n.Reason)
		}
		const want = "cancel-1001 judged parent_not_found, shopify-order-paid-1001 judged , refund-1001-2 waiting , " +
			"refund-1001-3 refused invalid_field"
		if got := strings.Join(fates, ", "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
		if len(a.Counted) != 1 || a.Counted[0].Times != 2 || len(a.Counted[0].Sales) != 2 {
			t.Errorf("%s: counted %+v", query, a.Counted)
		}
		var conflict *eventRow
		for i := range a.Rows {
			if a.Rows[i].Verdict == "conflict" {
				conflict = &a.Rows[i]
			}
		}
		if conflict == nil || len(conflict.Differs) == 0 || conflict.Differs[0].Field != "type" ||
			conflict.Differs[0].First != "sale" || conflict.Differs[0].This != "refund" {
			t.Errorf("%s: the conflict is %+v", query, conflict)
		}
	}
}

// The answers are looked at: on a phone and on a wide screen, with everything that can
// stand against an order.
func TestChromiumAnswers(t *testing.T) {
	browse := chromium(t)
	r := newRigOn(t, storyWarehouse(t))
	_, listed := r.dispute("acme", "p0", storyList, "")
	signedIn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/listed" { // the browser cannot post a file
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Write([]byte(listed))
			return
		}
		req.Header.Set("Authorization", "Bearer secret of acme")
		r.server.ServeHTTP(w, req)
	}))
	defer signedIn.Close()
	dir := os.Getenv("PARTNERS_TEST_SHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, path := range map[string]string{
		"order": "/why?" + url.Values{"order_id": {"1001"}}.Encode(),
		"list":  "/listed",
	} {
		for screen, size := range map[string]string{"phone": "380,3200", "wide": "1600,2000"} {
			file := filepath.Join(dir, name+"-"+screen+".png")
			browse("--window-size="+size, "--screenshot="+file, signedIn.URL+path)
			checkDrawn(t, file, screen == "phone")
		}
	}
}

// Where months were dropped, pages and JSON say from when on they know anything.
func TestSaysWhatWasDropped(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	fillWarehouse(t, dsn)
	r := newRigOn(t, dsn)
	const words = "ows before 2026-02 were dropped: what was received before cannot be known"
	says := func(want bool) {
		t.Helper()
		_, _, why := r.get("acme", "/why?event_id=unheard-of")
		_, dispute := r.dispute("acme", "", "order_id\nunheard-of\n", "")
		_, file := r.dispute("acme", "", "order_id\nunheard-of\n", "", "as=csv")
		for name, text := range map[string]string{"why": why, "dispute": dispute, "answers": file} {
			if strings.Contains(text, words) != want {
				t.Errorf("%s: says it: %t, want %t", name, !want, want)
			}
		}
		for _, path := range []string{"events?order_id=unheard-of", "outcomes?from=2026-03-01&to=2026-03-20",
			"performance?from=2026-03-01&to=2026-03-20", "conservation?from=2026-03-01&to=2026-03-20"} {
			code, _, body := r.get("acme", "/v1/workspaces/acme/"+path)
			if code != 200 || strings.Contains(body, `"rows_from":"2026-02-01T00:00:00Z"`) != want {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	}
	says(false)
	conn := openWarehouse(t, dsn)
	defer conn.Close()
	if err := conn.Exec(t.Context(), "INSERT INTO dropped_months (month, done) VALUES (202601, true)"); err != nil {
		t.Fatal(err)
	}
	says(true)
}
