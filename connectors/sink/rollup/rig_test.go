package rollup

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ddl"
)

// rig is a database of the release before the rollup by quarters of an hour.
type rig struct {
	t      *testing.T
	wh     *clickhouse.Conn
	offset int // of the next outcome
}

func newRig(t *testing.T) *rig {
	t.Helper()
	wh, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: clickhousetest.ForTest(t)},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wh.Close() })
	r := &rig{t: t, wh: wh}
	if err := r.migrate(oldMigrations(t)); err != nil {
		t.Fatal(err)
	}
	return r
}

// oldMigrations are those of the earlier release.
func oldMigrations(t *testing.T) fs.FS {
	t.Helper()
	old := fstest.MapFS{}
	for _, name := range []string{"0001_base_tables.sql", "0002_rollup.sql", "0003_views.sql", "0004_lost_ranges.sql",
		"0005_second_versions.sql"} {
		text, err := fs.ReadFile(ddl.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = &fstest.MapFile{Data: text}
	}
	return old
}

func (r *rig) migrate(files fs.FS) error {
	return r.wh.Migrate(r.t.Context(), files, clickhouse.MigrateConfig{Log: slog.New(slog.DiscardHandler)})
}

// migrateUpToTheSums applies migration 0006 up to the place where it waits for
// CarryOver.
func (r *rig) migrateUpToTheSums() {
	r.t.Helper()
	err := r.migrate(ddl.Migrations())
	if clickhouse.Code(err) != 395 || !strings.Contains(err.Error(), "not carried over yet: run ctl migrate") {
		r.t.Fatalf("migration 0006 did not wait for the sums: %v", err)
	}
}

func (r *rig) finishMigration() {
	r.t.Helper()
	if err := r.migrate(ddl.Migrations()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) carrier() *carrier { return newCarrier(r.wh, slog.New(slog.DiscardHandler)) }

func (r *rig) carryOver() Result {
	r.t.Helper()
	out, err := r.carrier().carryOver(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rig) exec(statements ...string) {
	r.t.Helper()
	for _, s := range statements {
		if err := r.wh.Exec(r.t.Context(), s); err != nil {
			r.t.Fatalf("%s: %v", s, err)
		}
	}
}

// lines returns the rows of a query for one text, named line.
func (r *rig) lines(query string) string {
	r.t.Helper()
	var rows []struct {
		Line string `ch:"line"`
	}
	if err := r.wh.Select(r.t.Context(), &rows, query); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(row.Line + "\n")
	}
	return b.String()
}

// dailySums are all sums that earlier releases show.
func (r *rig) dailySums() string {
	r.t.Helper()
	return r.lines(`
		SELECT concatWithSeparator(' ', workspace_id, toString(day), partner_id, program_id, link_id, currency,
			toString(exponent), toString(clicks), toString(human_clicks), toString(tokened_clicks), toString(leads),
			toString(sales), toString(refunds), toString(cancellations), toString(reversals), toString(gross_minor),
			toString(negative_minor), toString(net_minor), toString(reward_minor)) AS line
		FROM partner_daily
		ORDER BY ALL`)
}

// outcomes is all that the rows of outcomes say, but for their standing changes.
func (r *rig) outcomes() string {
	r.t.Helper()
	return r.lines("SELECT toString(tuple(* EXCEPT '^standing_', reward_exponent)) AS line FROM " +
		"(SELECT *, reward_exponent FROM outcomes) ORDER BY src_partition, src_offset")
}

// sums are all sums of the new table that meet a condition.
func (r *rig) sums(condition string) string {
	r.t.Helper()
	return r.lines(`
		SELECT concatWithSeparator(' ', toString(quarter_hour), currency, src_topic, toString(src_partition),
			toString(sum(clicks)), toString(sum(leads)), toString(sum(sales)), toString(sum(refunds)),
			toString(sum(cancellations)), toString(sum(reversals)), toString(sum(gross_minor)),
			toString(sum(negative_minor)), toString(sum(standing_minor)), toString(sum(reward_minor)),
			toString(sum(approximated_events))) AS line
		FROM ` + Table + `
		WHERE ` + condition + `
		GROUP BY quarter_hour, currency, src_topic, src_partition
		ORDER BY quarter_hour, currency, src_topic, src_partition`)
}

// outcome is a row of outcomes of rules version 1.
type outcome struct {
	token, id, of string // of: the parent of a negative
	kind          string // its type; attributed if it has no parent
	at            string // occurred_at; it arrives in the same month, and is in partition 3
	money         string // "100 EUR", or empty
	effect        int
	// standing is standing_change_minor; the release before does not fill it.
	standing string
}

func (r *rig) outcome(o outcome) {
	r.t.Helper()
	verdict, amount, currency, exponent := "attributed", "NULL", "", 0
	if o.of != "" {
		verdict = "reversed"
	}
	standing := cmp.Or(o.standing, "NULL")
	if minor, code, ok := strings.Cut(o.money, " "); ok {
		amount, currency, exponent = minor, code, 2
	}
	r.exec(fmt.Sprintf(`
		INSERT INTO outcomes (workspace_id, src_partition, src_offset, arrived_at, event_id, click_token, verdict, type,
			effect, occurred_at, amount_minor, currency, exponent, parent_event_id, event_partition, event_offset,
			rules_version, partner_id, link_id, estimated_reward_minor, reward_currency, metadata, flags,
			standing_change_minor)
		VALUES ('acme', 3, %d, '%s', '%s', '%s', '%s', '%s', %d, '%s', %s, '%s', %d, '%s', 3, %d, 1, 'prt', 'lnk',
			7, 'USD', {'k':'v'}, ['too_fast'], %s)`,
		r.offset, o.at, o.id, o.token, verdict, o.kind, o.effect, o.at, amount, currency, exponent, o.of, r.offset,
		standing))
	r.offset += 2 // markers of transactions are between
}

// record says in batches that partition 3 of outcomes is complete so far.
func (r *rig) record() {
	r.t.Helper()
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) " +
		"SELECT 'id', 'outcomes', 3, min(src_offset), max(src_offset) + 1, count() FROM outcomes " +
		"WHERE src_offset >= (SELECT max(end_offset) FROM batches WHERE topic = 'outcomes')")
}

// clicks inserts clicks that are a minute apart, and records them.
func (r *rig) clicks(at string, n int) {
	r.t.Helper()
	r.exec(fmt.Sprintf(`
		INSERT INTO clicks (workspace_id, src_partition, src_offset, arrived_at, clicked_at, click_token, partner_id,
			link_id, token_status, is_bot)
		SELECT 'acme', 3, (SELECT max(end_offset) FROM batches WHERE topic = 'clicks') + number,
			toDateTime64('%s', 3, 'UTC') + 60 * number AS at, at, concat('%s', toString(number)), 'prt', 'lnk',
			if(number %% 3 = 0, 'withheld', 'appended'), number %% 5 = 0
		FROM numbers(%d)`, at, at, n),
		fmt.Sprintf(`
		INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows)
		SELECT 'id', 'clicks', 3, max(end_offset) AS start, start + %d, %d FROM batches WHERE topic = 'clicks'`, n, n))
}
