package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/statement"
)

// books is a warehouse with the rows of several shops, judged by the oracle. All are in
// partition 0 of each topic.
type books struct {
	testing.TB
	conn   *clickhouse.Conn
	reader *report.Reader
	ends   map[string]uint64 // of each topic
	shops  int
}

func newBooks(t testing.TB) *books {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	return &books{TB: t, conn: conn, reader: report.New(conn), ends: map[string]uint64{}}
}

func (b *books) exec(statement string) {
	b.Helper()
	if err := b.conn.Exec(b.Context(), statement); err != nil {
		b.Fatalf("%v: %.300s", err, statement)
	}
}

// insert inserts rows into the table of a topic, each with its offset, as one batch.
func (b *books) insert(topic, table, columns string, rows []string) {
	b.Helper()
	if len(rows) == 0 {
		return
	}
	start := b.ends[topic]
	var values []string
	for i, row := range rows {
		values = append(values, fmt.Sprintf("(0, %d, %s)", start+uint64(i), row))
	}
	b.ends[topic] += uint64(len(rows))
	b.exec("INSERT INTO " + table + " (src_partition, src_offset, " + columns + ") VALUES " +
		strings.Join(values, ", "))
	b.exec(fmt.Sprintf("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES "+
		"('x', '%s', 0, %d, %d, %d)", topic, start, b.ends[topic], len(rows)))
}

// shop is a workspace with all clicks and events that it had so far.
type shop struct {
	*books
	id     string
	zone   calendar.Zone
	clicks []oracle.Click
	events []oracle.Event
	judged map[oracle.Position]bool // their rows are in the warehouse
	truth  oracle.Result            // of what was judged last
	tokens map[string]string        // of clicks, by their name
}

// openShop makes a workspace with two partners.
func (b *books) openShop(id, zone string) *shop {
	b.Helper()
	z, err := calendar.LoadZone(zone)
	if err != nil {
		b.Fatal(err)
	}
	b.shops++
	b.insert("catalog", "catalog_versions", "workspace_id, kind, key, json", []string{
		fmt.Sprintf(`'%[1]s', 'workspace', 'workspace/%[1]s', '{"name":"Shop","plan":"enterprise","timezone":"%[2]s",`+
			`"access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":true}}'`,
			id, zone),
		fmt.Sprintf(`'%[1]s', 'partner', 'partner/%[1]s/nomura', '{"id":"nomura","key":"nomura","name":"Nomura Studio"}'`, id),
		fmt.Sprintf(`'%[1]s', 'partner', 'partner/%[1]s/creator', '{"id":"creator","key":"creator","name":"=Creator, \"C\""}'`,
			id),
	})
	return &shop{books: b, id: id, zone: z, judged: map[oracle.Position]bool{}, tokens: map[string]string{}}
}

// addClick adds a click of a partner; "" is none.
func (s *shop) addClick(name, partner, program string, at time.Time) {
	var raw token.Raw
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
	binary.BigEndian.PutUint64(raw[8:], uint64(s.shops))
	binary.BigEndian.PutUint32(raw[16:], uint32(len(s.clicks)))
	s.tokens[name] = token.Text(&raw)
	s.clicks = append(s.clicks, oracle.Click{At: event.MillisOf(at), Click: event.Click{
		WorkspaceID: s.id,
		ClickToken:  token.Text(&raw),
		ClickedAt:   event.MillisOf(at),
		TokenStatus: event.TokenAppended,
		WindowMs:    (90 * 24 * time.Hour).Milliseconds(),
		PartnerID:   partner,
		ProgramID:   program,
	}})
}

// addEvents adds events in the order of record, and their rows to the table of events.
func (s *shop) addEvents(events ...event.Conversion) {
	s.Helper()
	var rows []string
	for i := range events {
		c := &events[i]
		c.WorkspaceID = s.id
		c.EnteredAt = c.ReceivedAt
		c.ContentSHA256 = c.ContentHash()
		s.events = append(s.events, oracle.Event{Conversion: *c, Offset: int64(s.ends["conversions"]) + int64(i)})
		rows = append(rows, fmt.Sprintf("'%s', '%s', '%s', %s, %s", s.id, c.EventID, c.ClickToken,
			instantSQL(c.OccurredAt), instantSQL(c.ReceivedAt)))
	}
	s.insert("conversions", "conversions", "workspace_id, event_id, click_token, occurred_at, received_at", rows)
}

func instantSQL(at event.Millis) string {
	return fmt.Sprintf("fromUnixTimestamp64Milli(%d, 'UTC')", at)
}

// judge writes the rows of all events that are judged by a time, and a Progress that
// says so.
func (s *shop) judge(through time.Time) {
	s.Helper()
	s.truth = oracle.Judge(oracle.DefaultConfig(), s.clicks, s.events, event.MillisOf(through))
	var rows []string
	for i := range s.truth.Outcomes {
		o := &s.truth.Outcomes[i]
		place := oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}
		if s.judged[place] {
			continue
		}
		s.judged[place] = true
		partner, program := "", ""
		if o.Click != nil {
			partner, program = o.Click.PartnerID, o.Click.ProgramID
		}
		rows = append(rows, fmt.Sprintf("'%s', '%s', '%s', '%s', '%s', %d, %s, %s, %s, %s, '%s', %d, %d, %d, '%s', "+
			"'%s', %d", s.id, o.EventID, o.ClickToken, o.Verdict, o.Type, o.Effect, instantSQL(o.OccurredAt),
			instantSQL(o.ReceivedAt),
			minorSQL(o.AmountMinor), minorSQL(o.StandingChangeMinor), o.Currency, o.Exponent, o.EventPartition,
			o.EventOffset, partner, program, o.RulesVersion))
	}
	s.insert("outcomes", "outcomes", "workspace_id, event_id, click_token, verdict, type, effect, occurred_at, "+
		"received_at, amount_minor, standing_change_minor, currency, exponent, event_partition, event_offset, "+
		"partner_id, program_id, rules_version", rows)
	s.insert("progress", "progress", "partition, at, conversions_position, outcomes_end, watermark, grace_ms",
		[]string{fmt.Sprintf("0, %[1]s, %[2]d, %[3]d, %[1]s, %[4]d", instantSQL(event.MillisOf(through)),
			s.ends["conversions"], s.ends["outcomes"], oracle.DefaultConfig().Grace.Milliseconds())})
}

func minorSQL(minor *int64) string {
	if minor == nil {
		return "NULL"
	}
	return fmt.Sprint(*minor)
}

// read reads a statement.
func (s *shop) read(f report.StatementFilter) (h statement.Head, accounts []statement.Account) {
	s.Helper()
	ws, err := s.reader.Workspace(s.Context(), s.id)
	if err != nil {
		s.Fatal(err)
	}
	h, err = s.reader.StatementHead(s.Context(), ws, f.Month)
	if err != nil {
		s.Fatal(err)
	}
	return h, s.readAccounts(h, f)
}

func (s *shop) readAccounts(h statement.Head, f report.StatementFilter) (accounts []statement.Account) {
	s.Helper()
	if err := s.reader.Accounts(s.Context(), h, f, func(a *statement.Account) error {
		accounts = append(accounts, *a)
		return nil
	}); err != nil {
		s.Fatal(err)
	}
	return accounts
}

// site serves the report of the shop.
func (s *shop) site() *httptest.Server {
	s.Helper()
	quiet := slog.New(slog.DiscardHandler)
	sum := sha256.Sum256([]byte("reader"))
	tokens, err := web.LoadReaderTokens(fstest.MapFS{s.id: {Data: []byte("a:" + hex.EncodeToString(sum[:]) + "\n")}})
	if err != nil {
		s.Fatal(err)
	}
	site := httptest.NewServer(web.New(s.conn, tokens, nil, quiet, nil))
	s.Cleanup(site.Close)
	return site
}

// get asks the report.
func (s *shop) get(site *httptest.Server, path string) string {
	s.Helper()
	req, err := http.NewRequest(http.MethodGet, site.URL+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer reader")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.Fatalf("%s: %d %s %v", path, res.StatusCode, body, err)
	}
	return string(body)
}

// export writes the statement of a month and returns its manifest and the CSV.
func (s *shop) export(month string, asOf *export.Manifest) (*export.Manifest, string) {
	s.Helper()
	dir := s.TempDir()
	m, err := export.Run(s.Context(), s.conn, export.Config{
		Filters: export.Filters{Workspace: s.id, Statement: month},
		Dir:     dir,
		AsOf:    asOf,
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	name := s.id + "_statement_" + month
	if m.Provisional {
		name += "_provisional"
	}
	content, err := os.ReadFile(filepath.Join(dir, name+".csv"))
	if err != nil {
		s.Fatal(err)
	}
	manifest, err := export.ReadManifest(filepath.Join(dir, name+".manifest.json"))
	if err != nil {
		s.Fatal(err)
	}
	return manifest, string(content)
}

// checkEveryForm compares the forms of a statement: CSV, export, JSON page by page, and
// the page for people.
func (s *shop) checkEveryForm(month string, accounts []statement.Account) {
	s.Helper()
	site := s.site()
	list := "/v1/workspaces/" + s.id + "/statement"
	csv := s.get(site, list+".csv?month="+month)
	want := statement.CSVHeader() + "\n"
	for i := range accounts {
		line, err := accounts[i].CSVLine(false)
		if err != nil {
			s.Fatal(err)
		}
		want += line + "\n"
	}
	if csv != want {
		s.Errorf("%s: the CSV is\n%s, want\n%s", month, csv, want)
	}
	m, exported := s.export(month, nil)
	if exported != csv || m.Rows != int64(len(accounts)) {
		s.Errorf("%s: the export is\n%s, the CSV\n%s", month, exported, csv)
	}
	var rows []json.RawMessage
	for cursor := ""; ; {
		var page struct {
			Rows   []json.RawMessage            `json:"rows"`
			Totals []map[string]json.RawMessage `json:"totals"`
			Next   string                       `json:"next_cursor"`
		}
		body := s.get(site, list+"?limit=1&month="+month+"&cursor="+cursor)
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			s.Fatal(err)
		}
		rows = append(rows, page.Rows...)
		for _, total := range page.Totals {
			of := m.Totals[unquoted(total["currency"])]
			for column, value := range of {
				if got := unquoted(total[column]); got != value {
					s.Errorf("%s: the total of %s is %s in JSON, %s in the manifest", month, column, got, value)
				}
			}
		}
		if len(page.Totals) != len(m.Totals) {
			s.Errorf("%s: %d totals in JSON, %d in the manifest", month, len(page.Totals), len(m.Totals))
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	var own []json.RawMessage
	for i := range accounts {
		text, err := json.Marshal(&accounts[i])
		if err != nil {
			s.Fatal(err)
		}
		own = append(own, text)
	}
	if !slices.EqualFunc(rows, own, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
		s.Errorf("%s: JSON has\n%s, want\n%s", month, rows, own)
	}
	page := s.get(site, "/statement?month="+month)
	for i := range accounts {
		for _, amount := range []statement.Amount{accounts[i].Opening, accounts[i].Closing} {
			digits := strings.NewReplacer("-", "−").Replace(amount.String())
			if !strings.Contains(strings.ReplaceAll(page, "\u202f", ""), ">"+digits+"<") {
				s.Errorf("%s: %s of %s is not on the page", month, digits, cmp.Or(accounts[i].PartnerID, "no partner"))
			}
		}
	}
}

func unquoted(text json.RawMessage) string { return strings.Trim(string(text), `"`) }
