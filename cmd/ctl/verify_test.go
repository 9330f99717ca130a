package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// verifyRig is a ledger in Kafka, in ClickHouse and in files, made by the real programs.
type verifyRig struct {
	*testing.T
	brokers  string
	dsn      string
	wh       *clickhouse.Conn
	manifest string // of an export of all partners
	partner  string // of an export of prt_1
	events   int
	dir      string
}

// ctl runs a command, and returns its exit status and what it printed.
func (r *verifyRig) ctl(args ...string) (status int, printed string) {
	var out bytes.Buffer
	status = runCommand(args, &out, &out, func(string) (string, bool) { return "", false })
	return status, out.String()
}

// want runs a command and wants an exit status and texts.
func (r *verifyRig) want(status int, args []string, texts ...string) string {
	r.Helper()
	got, printed := r.ctl(args...)
	if got != status {
		r.Errorf("ctl %q: status %d, want %d\n%s", args, got, status, printed)
		return printed
	}
	for _, text := range texts {
		if !strings.Contains(printed, text) {
			r.Errorf("ctl %q: no %q in\n%s", args, text, printed)
		}
	}
	return printed
}

func (r *verifyRig) verify(more ...string) []string {
	return append([]string{"verify", "-brokers", r.brokers, "-workspace", "acme"}, more...)
}

func newVerifyRig(t *testing.T) *verifyRig {
	dsn := clickhousetest.ForTest(t)
	brokers := kafkatest.Broker(t)
	r := &verifyRig{
		T:       t,
		brokers: strings.Join(brokers, ","),
		dsn:     dsn,
		wh:      clickhousetest.OpenMigrated(t, dsn),
		dir:     t.TempDir(),
	}
	quiet := slog.New(slog.DiscardHandler)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	codec := event.DefaultCodec()
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance = t.TempDir(), "slot-0"
	cfg.ClickMemory = 8 << 20
	p, err := processor.New(cfg, k, codec, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	sinkCfg := sink.DefaultConfig()
	sinkCfg.Linger = 50 * time.Millisecond
	s, err := sink.New(sinkCfg, k, codec, r.wh, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.writeLog(codec, brokers)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- p.Run(ctx) }()
	go func() { ended <- s.Run(ctx) }()
	r.awaitRows()
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	r.manifest = r.writeExport("")
	r.partner = r.writeExport("prt_1")
	return r
}

// writeLog writes clicks of three partners and events about them, with texts that a CSV
// has to quote and escape.
func (r *verifyRig) writeLog(codec *event.Codec, brokers []string) {
	r.Helper()
	client := kafkatest.Client(r.T, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	records = append(records, &kgo.Record{Topic: topic.Catalog, Key: []byte("workspace/acme"),
		Value: []byte(`{"id":"acme","timezone":"Asia/Kathmandu","plan":"enterprise","access":{"exports":true}}`)})
	records = append(records, &kgo.Record{Topic: topic.Catalog, Key: []byte("partner/acme/prt_new"),
		Value: []byte("{}")})
	now := time.Now()
	for i := range 60 {
		var raw token.Raw
		binary.BigEndian.PutUint32(raw[:], token.SecondsOf(now.UnixMilli()))
		binary.BigEndian.PutUint64(raw[8:], uint64(i+1)*0x9e3779b97f4a7c15)
		text := token.Text(&raw)
		partition := topic.OneEpoch(kafkatest.Partitions).Partition(text, token.Time(&raw))
		add := func(name string, value []byte, err error, headers ...kgo.RecordHeader) {
			if err != nil {
				r.Fatal(err)
			}
			records = append(records, &kgo.Record{Topic: name, Partition: partition, Key: []byte(text), Value: value,
				Timestamp: now, Headers: headers})
		}
		if i%10 != 9 {
			value, err := codec.AppendClick(nil, &event.Click{WorkspaceID: "acme", ClickToken: text,
				ClickedAt: event.MillisOf(now), WindowMs: 86400_000, TokenStatus: event.TokenAppended,
				Trigger: event.TriggerQR, PartnerID: fmt.Sprint("prt_", i%3), PartnerName: `Hank "H" & Sons, Ltd.`,
				PartnerRelationship: "approved", PartnerLifecycle: "active", IsBot: i%7 == 0,
				RewardTerms: []string{"10%", "5.00 USD", ""}[i%3], Sub1: "=1+1", Slug: "naïve"})
			add(topic.Clicks, value, err, kgo.RecordHeader{Key: topic.HeaderToken, Value: []byte("1")})
		}
		for n, typ := range []event.Type{event.Sale, event.Refund, event.Lead, event.Sale} {
			amount, quantity := int64(100*i+7*n), int32(n)
			ev := event.Conversion{WorkspaceID: "acme", EventID: fmt.Sprintf("-e%d-%d", i, n), ClickToken: text,
				Type: typ, OccurredAt: event.MillisOf(now) + 1500, ReceivedAt: event.MillisOf(now),
				EnteredAt: event.MillisOf(now), ResolvedBy: event.ResolvedByToken, OrderID: "o,1",
				ReasonText: "two\r\nlines", CustomerRef: "c-17",
				Metadata: map[string]string{"b": "2", "a": "1"}, Quantity: &quantity}
			if typ != event.Lead {
				ev.AmountMinor = &amount
				ev.Currency, ev.Exponent = []string{"EUR", "JPY", "TND"}[i%3], []int32{2, 0, 3}[i%3]
			}
			ev.ContentSHA256 = ev.ContentHash()
			value, err := codec.AppendConversion(nil, &ev)
			add(topic.Conversions, value, err)
			r.events++
		}
	}
	if err := client.ProduceSync(r.Context(), records...).FirstErr(); err != nil {
		r.Fatal(err)
	}
}

// awaitRows waits until every event that has a click has its row in the table.
func (r *verifyRig) awaitRows() {
	r.Helper()
	want := uint64(r.events * 9 / 10)
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var at []struct {
			Rows   uint64 `ch:"n"`
			Judged uint64 `ch:"judged"`
		}
		// A partition reports its progress at most once a second, later than its rows.
		err := r.wh.Select(r.Context(), &at, "SELECT (SELECT count() FROM outcomes) AS n, "+
			"toUInt64((SELECT sum(judged) FROM (SELECT max(conversions_position) AS judged "+
			"FROM progress GROUP BY partition))) AS judged")
		if err == nil && at[0].Rows >= want && at[0].Judged >= uint64(r.events) {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%v of %d rows: %v", at, want, err)
		}
	}
}

// writeExport writes an export of all verdicts of a partner, or of all.
func (r *verifyRig) writeExport(partner string) (manifest string) {
	r.Helper()
	dir := r.TempDir()
	day := func(d int) string { return time.Now().AddDate(0, 0, d).Format(time.DateOnly) }
	_, err := export.Run(r.Context(), r.wh, export.Config{
		Filters: export.Filters{Workspace: "acme", From: day(-2), To: day(2), Timezone: "Asia/Kathmandu",
			Partner: partner, Verdict: []string{"all"}},
		Dir: dir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.manifest.json"))
	if err != nil || len(found) != 1 {
		r.Fatalf("%v: %v", found, err)
	}
	return found[0]
}

// The ledger is equal in all three places. One wrong row in one of them is found there
// and nowhere else, and the exit status says so.
func TestVerify(t *testing.T) {
	clickhousetest.Need(t)
	r := newVerifyRig(t)
	all := r.verify("-clickhouse", r.dsn, "-manifest", r.manifest)
	printed := r.want(0, all, "every row that can be derived again is what the rules say",
		fmt.Sprintf("workspace acme, all days: %d events; rules version 2", r.events),
		fmt.Sprintf("%d events have no row and need none yet", r.events/10))
	if n := strings.Count(printed, fmt.Sprintf("│ %4d │ %5d │", r.events*9/10, r.events*9/10)); n != 3 {
		t.Errorf("%d of 3 places are equal:\n%s", n, printed)
	}
	day := time.Now().AddDate(0, 0, -1).Format(time.DateOnly)
	r.want(1, r.verify("-from", day, "-to", day), "days of Asia/Kathmandu from", ": 0 events",
		"nothing is proved")
	r.want(1, []string{"verify", "-brokers", r.brokers, "-workspace", "typo"}, "neither the catalog nor the log has it")
	r.want(0, r.verify("-from", day), "216 ")
	r.verifyBundles()
	r.verifyWrongCSV()
	// What follows changes the table for good.
	exec := func(query string) {
		t.Helper()
		if err := r.wh.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO outcomes SELECT * FROM outcomes WHERE event_id = '-e3-0' SETTINGS insert_deduplicate = 0")
	r.want(1, all, "ClickHouse: doubled: outcomes ", "event -e3-0", "the ledger is not what the rules say")
	exec("ALTER TABLE outcomes UPDATE amount_minor = amount_minor + 1 WHERE event_id = '-e4-0' " +
		"SETTINGS mutations_sync = 2")
	r.want(1, all, "ClickHouse: doubled: outcomes ", "ClickHouse: differs: outcomes ", "event -e4-0",
		`amount_minor: the rules say "400", the row says "401"`)
	exec("ALTER TABLE outcomes DELETE WHERE event_id = '-e5-0' SETTINGS mutations_sync = 2")
	printed = r.want(1, all, "ClickHouse: missing: outcomes ", "event -e5-0")
	if strings.Contains(printed, "manifest") || strings.Count(printed, "ClickHouse: ") != 3 {
		t.Errorf("more is wrong than that:\n%s", printed)
	}
	// One row of an earlier version of the rules is no upgrade, which would excuse others.
	var last []struct {
		ID string `ch:"id"`
	}
	if err := r.wh.Select(t.Context(), &last, "SELECT argMax(event_id, src_offset) AS id FROM outcomes "+
		"WHERE event_id NOT IN ('-e3-0', '-e4-0')"); err != nil || len(last) != 1 {
		t.Fatal(last, err)
	}
	exec("ALTER TABLE outcomes UPDATE rules_version = 1 WHERE event_id = '" + last[0].ID + "' " +
		"SETTINGS mutations_sync = 2")
	r.want(1, all, "event "+last[0].ID, `rules_version: the rules say "2", the row says "1"`, "event -e4-0")
}

// verifyBundles: a bundle of a partner is verified without brokers, with the export that
// he was given.
func (r *verifyRig) verifyBundles() {
	r.Helper()
	bundle := filepath.Join(r.dir, "prt_1.zip")
	r.want(0, r.verify("-partner", "prt_1", "-bundle", bundle), "18 clicks, 72 events, 72 rows of partner prt_1")
	typo := filepath.Join(r.dir, "typo.zip")
	r.want(1, r.verify("-partner", "prt_l", "-bundle", typo), `-partner "prt_l": neither the catalog nor the log has it`)
	if _, err := os.Stat(typo); !errors.Is(err, os.ErrNotExist) {
		r.Errorf("a bundle of nobody was written: %v", err)
	}
	r.want(0, r.verify("-partner", "prt_new", "-bundle", typo), "0 rows of partner prt_new")
	r.want(1, []string{"verify", "-from-bundle", typo}, "nothing is proved")
	r.want(0, []string{"verify", "-from-bundle", bundle, "-manifest", r.partner}, "bundle of partner prt_1",
		"every row that can be derived again")
	r.want(2, []string{"verify", "-from-bundle", bundle, "-manifest", r.manifest}, "export with -partner prt_1")
	r.want(1, []string{"verify", "-from-bundle", r.manifest}, "not a usable bundle")
}

// verifyWrongCSV: a CSV that was changed is found by its hash, and by its line.
func (r *verifyRig) verifyWrongCSV() {
	r.Helper()
	text, err := os.ReadFile(strings.TrimSuffix(r.manifest, ".manifest.json") + ".csv")
	if err != nil {
		r.Fatal(err)
	}
	manifest, err := os.ReadFile(r.manifest)
	if err != nil {
		r.Fatal(err)
	}
	name := filepath.Join(r.dir, "changed")
	write := func(csv string) []string {
		for ending, content := range map[string]string{".csv": csv, ".manifest.json": string(manifest)} {
			if err := os.WriteFile(name+ending, []byte(content), 0o600); err != nil {
				r.Fatal(err)
			}
		}
		return r.verify("-manifest", name+".manifest.json")
	}
	const cell = ",6.00,6.00,6.00,EUR,600," // amount, net, standing change, currency, minor
	if strings.Count(string(text), cell) != 1 {
		r.Fatalf("the CSV has no cells %q", cell)
	}
	r.want(1, write(strings.Replace(string(text), cell, ",6.00,6.00,6.10,EUR,600,", 1)), "changed.csv: altered: ",
		"changed.csv: differs: ", "event -e6-0", `standing_change: the rules say "6.00", the row says "6.10"`)
	lines := strings.SplitAfter(string(text), "\n")
	last := len(lines) - 2 // behind it is the empty text
	r.want(1, write(strings.Join(lines[:last-1], "")), "changed.csv: missing: outcomes ")
	r.want(1, write("no CSV"), "the header is not that of schema_version 2")
}

// Flags that cannot be are named.
func TestVerifyFlags(t *testing.T) {
	r := &verifyRig{T: t, brokers: "127.0.0.1:1"}
	for want, args := range map[string][]string{
		"-workspace is required":          {"verify", "-brokers", "b:1"},
		"-from: \"x\" is not a day":       r.verify("-from", "x"),
		"-to: 2026-01-01 is before -from": r.verify("-from", "2026-01-02", "-to", "2026-01-01"),
		"-partner is required":            r.verify("-bundle", "f"),
		"-partner is for -bundle":         r.verify("-partner", "p"),
		"-manifest has days of its own":   r.verify("-manifest", "m.manifest.json", "-from", "2026-01-01"),
		"the bundle says what":            r.verify("-from-bundle", "f"),
		"verified without a warehouse":    {"verify", "-from-bundle", "f", "-clickhouse", "http://x"},
		"-brokers: at least one":          {"verify", "-workspace", "w"},
		"the scheme is neither":           r.verify("-clickhouse", "ftp://x"),
		"no effect without TLS":           r.verify("-clickhouse", "http://x", "-clickhouse-ca-file", "f"),
		"compares nothing":                r.verify("-bundle", "f", "-partner", "p", "-manifest", "m"),
	} {
		r.want(2, args, want)
	}
}
