package export

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/statement"
)

func statementConfig(dir, month string) Config {
	c := config(dir)
	c.From, c.To, c.Verdict = "", "", nil
	c.Statement = month
	return c
}

// runStatement writes the statement of March 2026 of the rig's rows.
func (r *rig) runStatement(cfg Config) (m *Manifest, file string, content []byte) {
	r.Helper()
	m, err := Run(r.Context(), r.conn, cfg)
	if err != nil {
		r.Fatal(err)
	}
	file = filepath.Join(cfg.Dir, fileName(m.Filters, nil, &m.AsOf, m.Provisional, m.Raw, m.BOM)+".manifest.json")
	if content, err = os.ReadFile(strings.TrimSuffix(file, ".manifest.json") + ".csv"); err != nil {
		r.Fatal(err)
	}
	read, err := ReadManifest(file)
	if err != nil {
		r.Fatal(err)
	}
	return read, file, content
}

// progress says how far all is judged in both partitions.
func (r *rig) progress(offset int, watermark string) {
	r.Helper()
	for p := range 2 {
		r.exec("INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, outcomes_end, "+
			"watermark, grace_ms) VALUES (%d, %d, %[1]d, '%[3]s', %[4]d, %[4]d, '%[3]s', 3600000)",
			p, offset, watermark, r.next)
		r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', "+
			"'progress', %d, %d, %d, 1)", p, offset, offset+1)
	}
}

// A statement that is written again has the same bytes, CSV and manifest: whatever rows
// arrived since, whatever a partner is called now and whatever zone the workspace has.
// It says whether it is final, and a final file takes the place of a provisional one.
func TestStatementAsOf(t *testing.T) {
	r := newRig(t)
	r.rows(300, true)
	r.progress(0, "2026-03-31 22:00:00")
	dir := t.TempDir()
	first, file, content := r.runStatement(statementConfig(dir, "2026-03"))
	if !first.Provisional || !strings.HasSuffix(file, "/acme_statement_2026-03_provisional.manifest.json") ||
		!bytes.HasPrefix(content, []byte(statement.CSVHeader()+"\nacme,2026-03,Europe/Berlin,false,p0,")) {
		t.Errorf("%s: provisional %t: %s", file, first.Provisional, content)
	}
	if first.Sums != nil || first.StandingSums != nil || len(first.Totals) == 0 ||
		first.Filters.Statement != "2026-03" || first.Filters.From != "2026-03-01" ||
		first.Filters.To != "2026-03-31" || first.ReusedTotal != 1 ||
		first.Rows != int64(bytes.Count(content, []byte("\n"))-1) {
		t.Errorf("manifest: %+v", first)
	}
	r.rows(50, false) // half a batch
	if m, _, again := r.runStatement(statementConfig(t.TempDir(), "2026-03")); !bytes.Equal(content, again) ||
		m.SHA256 != first.SHA256 {
		t.Error("half a batch is in the statement")
	}
	for p := range 2 {
		for _, topic := range []string{"conversions", "outcomes"} {
			r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', "+
				"'%s', %d, %d, %d, 50)", topic, p, r.next, r.next+50)
		}
	}
	r.next += 50
	r.catalog(3, "partner", "partner/acme/p0", `{"id":"p0","key":"other","name":"Another"}`)
	r.catalog(4, "workspace", "workspace/acme", `{"name":"Acme","timezone":"America/New_York"}`)
	again := statementConfig(t.TempDir(), "2026-03")
	again.AsOf = first
	_, sameFile, same := r.runStatement(again)
	if !bytes.Equal(content, same) {
		t.Errorf("-as-of wrote\n%s, was\n%s", same, content)
	}
	a, err1 := os.ReadFile(file)
	b, err2 := os.ReadFile(sameFile)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
		t.Errorf("-as-of wrote another manifest: %v\n%s\n%s", err, a, b)
	}
	r.progress(1, "2026-04-01 05:05:00") // midnight of New York, the grace of an hour, five minutes
	final, finalFile, all := r.runStatement(statementConfig(dir, "2026-03"))
	if final.Provisional || !bytes.Contains(all, []byte("acme,2026-03,America/New_York,true,p0,other,Another,")) {
		t.Errorf("final: %+v\n%s", final.Filters, all)
	}
	names, err := filepath.Glob(dir + "/acme*")
	want := []string{strings.TrimSuffix(finalFile, ".manifest.json") + ".csv", finalFile}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("the directory has %v, %v", names, err)
	}
}

// A row that has no computed standing change, of whatever month, ends in
// ErrStandingPending. What a statement cannot have is refused by its flag.
func TestStatementRefusals(t *testing.T) {
	r := newRig(t)
	r.rows(20, true)
	r.exec("ALTER TABLE outcomes UPDATE standing_basis = 'pending', rules_version = 1 WHERE event_id = 'e0-4' " +
		"SETTINGS mutations_sync = 1")
	dir := t.TempDir()
	if _, err := Run(t.Context(), r.conn, statementConfig(dir, "2026-05")); !errors.Is(err, ErrStandingPending) {
		t.Errorf("a row of March without standing change, statement of May: %v", err)
	}
	if names, _ := filepath.Glob(dir + "/*.csv"); len(names) > 0 {
		t.Errorf("it left %v", names)
	}
	m, file, _ := r.runStatement(statementConfig(t.TempDir(), "2026-02")) // the row is later
	if m.Rows != 0 || m.Totals == nil {
		t.Errorf("%s: %+v", file, m)
	}
	for name, change := range map[string]func(*Config){
		"-statement":                 func(c *Config) { c.Statement = "2026-3" },
		"-from, -to":                 func(c *Config) { c.From = "2026-02-02" },
		"-link":                      func(c *Config) { c.Link = "l0" },
		"-type, -review, -verdict":   func(c *Config) { c.Type = []string{"sale"} },
		"-type, -review, -verdict: ": func(c *Config) { c.Verdict = []string{"all"} },
		"-since":                     func(c *Config) { c.Since = m },
	} {
		c := statementConfig(t.TempDir(), "2026-02")
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(name, ": ")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	events := config(t.TempDir())
	events.From, events.To, events.Verdict, events.AsOf = "2026-02-01", "2026-02-28", DefaultVerdicts(), m
	if _, err := Run(t.Context(), r.conn, events); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "with -statement 2026-02") {
		t.Errorf("events as of a statement: %v", err)
	}
	other := statementConfig(t.TempDir(), "2026-03")
	other.AsOf = m
	if _, err := Run(t.Context(), r.conn, other); !errors.Is(err, ErrManifest) {
		t.Errorf("March as of February: %v", err)
	}
	unknown := statementConfig(t.TempDir(), "2026-02")
	unknown.Partner = "nobody"
	if _, err := Run(t.Context(), r.conn, unknown); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown partner: %v", err)
	}
}

// If the workspace's zone changes between the look at the watermark and the rows, the
// statement is not called final by the end that its month had before.
func TestStatementWhileTheZoneChanges(t *testing.T) {
	closing := statement.Closing{
		Watermark: time.Date(2026, 3, 31, 23, 5, 0, 0, time.UTC),
		FinalAt:   time.Date(2026, 3, 31, 23, 5, 0, 0, time.UTC),
	}
	cfg := statementConfig("x", "2026-03")
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for zone, provisional := range map[string]bool{"Europe/Berlin": false, "America/New_York": true} {
		b := bounds{closing: closing, closingOf: time.Date(2026, 3, 31, 22, 0, 0, 0, time.UTC)}
		p, err := newPlan(cfg, b, zone)
		if err != nil || p.provisional != provisional {
			t.Errorf("%s: provisional %t, %v", zone, p.provisional, err)
		}
	}
}
