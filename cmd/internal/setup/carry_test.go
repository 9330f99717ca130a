package setup_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// openOldDatabase makes a database of the release before the rollup by quarters of an
// hour, with clicks and their sums.
func openOldDatabase(t *testing.T) (*clickhouse.Conn, clickhouse.Config) {
	t.Helper()
	cfg := clickhouse.Config{DSN: clickhousetest.ForTest(t)}
	conn, err := clickhouse.Open(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	old := fstest.MapFS{}
	for _, name := range []string{"0001_base_tables.sql", "0002_rollup.sql", "0003_views.sql", "0004_lost_ranges.sql",
		"0005_second_versions.sql"} {
		text, err := fs.ReadFile(ddl.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = &fstest.MapFile{Data: text}
	}
	if err := conn.Migrate(t.Context(), old, clickhouse.MigrateConfig{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), "INSERT INTO clicks (workspace_id, src_partition, src_offset, clicked_at, "+
		"arrived_at) SELECT 'acme', 77, number, toDateTime64('2026-03-14 23:30:00', 3, 'UTC') + 900 * number AS at, "+
		"at FROM numbers(5)"); err != nil {
		t.Fatal(err)
	}
	return conn, cfg
}

// Sums of an earlier release are carried over where no sink can interfere, and a
// refused migration changes nothing.
func TestMigrateCarriesSumsOver(t *testing.T) {
	conn, db := openOldDatabase(t)
	m := setup.Migration{ClickHouse: db}
	refused := func(want error, text string) {
		t.Helper()
		err := setup.Migrate(t.Context(), m, quiet)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v, %q", err, want, text)
		}
		if got := readText(t, conn, "SELECT toString(max(version_id)) AS s FROM goose_db_version"); got != "5" {
			t.Errorf("refused, and the database has version %s", got)
		}
		if got := readText(t, conn, "SELECT toString(count()) AS s FROM system.tables WHERE database = "+
			"currentDatabase() AND name LIKE 'partner_quarter%'"); got != "0" {
			t.Errorf("refused, and %s tables of the new rollup are there", got)
		}
	}
	refused(setup.ErrNeedsKafka, "give -brokers")

	m.Kafka, _ = startBroker(t)
	kafkatest.Topics(t, m.Kafka.Brokers)
	member, err := kgo.NewClient(kgo.SeedBrokers(m.Kafka.Brokers...), kgo.ConsumerGroup(topic.SinkGroup),
		kgo.ConsumeTopics(topic.Clicks), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, generation := member.GroupMetadata(); generation > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the member did not join")
		}
	}
	refused(sink.ErrBusy, "group clickhouse-sink has 1 members")
	member.Close()

	insert := "INSERT INTO clicks (workspace_id, src_partition, src_offset, clicked_at) VALUES ('acme', 0, 8, " +
		"'2026-03-14 23:30:00')"
	if err := conn.Exec(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	refused(sink.ErrUnrecorded, "clicks partition 0: unfinished batch: table clicks has rows up to offset 9, "+
		"table batches records them up to 0")
	record := "INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES " +
		"('id', 'clicks', 0, 0, 9, 1)"
	if err := conn.Exec(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := setup.Migrate(t.Context(), m, quiet); err != nil {
			t.Fatal(err)
		}
		got := readText(t, conn, "SELECT arrayStringConcat(groupArray(concat(toString(day), ' ', toString(clicks))), "+
			"', ') AS s FROM (SELECT day, clicks FROM partner_daily ORDER BY day)")
		if got != "2026-03-14 3, 2026-03-15 3" {
			t.Errorf("clicks by day: %s", got)
		}
		m.Kafka.Brokers = nil // nothing is left that needs it
	}
}

// readText is the answer to a query for one text, named s.
func readText(t *testing.T, conn *clickhouse.Conn, query string) string {
	t.Helper()
	var rows []struct {
		S string `ch:"s"`
	}
	if err := conn.Select(t.Context(), &rows, query); err != nil || len(rows) != 1 {
		t.Fatalf("%s: %v %v", query, rows, err)
	}
	return rows[0].S
}
