package setup_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

var quiet = slog.New(slog.DiscardHandler)

func startBroker(t *testing.T) (kafka.Config, kafka.TopicsConfig) {
	t.Helper()
	cfg, want := kafka.DefaultConfig(), kafka.DefaultTopicsConfig()
	cfg.Brokers = kafkatest.Broker(t)
	want.Replication = 1
	return cfg, want
}

// writeCatalog writes a catalog of one workspace with a program of the given window.
func writeCatalog(t *testing.T, window string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "acme.yaml")
	text := `workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [go.acme.com]
    programs:
      - {id: prg_1, key: one, name: One, window: ` + window + `}
    partners:
      - {id: prt_1, key: one, name: One, relationship: approved}
    links:
      - {id: lnk_1, domain: go.acme.com, slug: one, destination: "https://acme.com/", partner: prt_1, program: prg_1}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// catalogKeys returns the keys of the catalog's records, as Catalog prints them.
func catalogKeys(t *testing.T, cfg kafka.Config) (keys []string) {
	t.Helper()
	for _, r := range kafkatest.Consume(t, cfg.Brokers, topic.Catalog) {
		if !catalog.IsForeign(string(r.Key)) {
			keys = append(keys, "+ "+string(r.Key))
		}
	}
	return keys
}

func TestCatalogIsWrittenInOrderOnce(t *testing.T) {
	cfg, _ := startBroker(t)
	path := writeCatalog(t, "30d")
	lines, err := setup.Catalog(t.Context(), cfg, quiet, []string{path}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"+ workspace/acme", "+ domain/go.acme.com", "+ program/acme/prg_1", "+ partner/acme/prt_1",
		"+ link/go.acme.com/one"}
	if !slices.Equal(lines, want) {
		t.Errorf("lines %q, want %q", lines, want)
	}
	keys := catalogKeys(t, cfg)
	if !slices.Equal(keys, want) {
		t.Errorf("the topic has %q, want %q", keys, want)
	}
	if lines, err := setup.Catalog(t.Context(), cfg, quiet, []string{path}, true); err != nil || len(lines) > 0 {
		t.Errorf("again: %q, %v", lines, err)
	}
	if n := len(catalogKeys(t, cfg)); n != len(want) {
		t.Errorf("applying again left %d records, want %d", n, len(want))
	}
}

func TestUnreadableRecordIsReplaced(t *testing.T) {
	cfg, _ := startBroker(t)
	kafkatest.Produce(t, cfg.Brokers,
		&kgo.Record{Topic: topic.Catalog, Key: []byte("program/acme/prg_1"), Value: []byte("{")},
		&kgo.Record{Topic: topic.Catalog, Key: []byte("partner/acme/prt_1"), Value: []byte("{}")},
		// a tombstone: the record counts as deleted
		&kgo.Record{Topic: topic.Catalog, Key: []byte("partner/acme/prt_1")})
	lines, err := setup.Catalog(t.Context(), cfg, quiet, []string{writeCatalog(t, "30d")}, false)
	if err != nil || !slices.Contains(lines, "~ program/acme/prg_1: was unreadable") ||
		!slices.Contains(lines, "+ partner/acme/prt_1") {
		t.Errorf("%q, %v", lines, err)
	}
	view, err := setup.View(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if w := view.Workspaces(); len(w) != 1 || len(w[0].Programs) != 1 {
		t.Errorf("the view has %+v", w)
	}
}

// The rule of the package comment, from both sides.
func TestWindowAndClickLife(t *testing.T) {
	cfg, want := startBroker(t)
	apply := func(window string) error {
		_, err := setup.Catalog(t.Context(), cfg, quiet, []string{writeCatalog(t, window)}, false)
		return err
	}
	topics := func(life time.Duration) error {
		want.ClickLife = life
		_, err := setup.Topics(t.Context(), cfg, want, quiet)
		return err
	}
	day := 24 * time.Hour
	if err := topics(time.Hour); err != nil {
		t.Errorf("with an empty catalog: %v", err)
	}
	if err := topics(40 * day); err != nil {
		t.Fatal(err)
	}
	err := apply("41d")
	if !errors.Is(err, setup.ErrWindow) || !strings.Contains(err.Error(),
		"program prg_1 of workspace acme has a window of 41d, topic clicks keeps clicks for 40d: run `ctl topics "+
			"apply -click-life 41d`") {
		t.Errorf("a longer window: %v", err)
	}
	if n := len(catalogKeys(t, cfg)); n > 0 {
		t.Errorf("a refused catalog wrote %d records", n)
	}
	if err := topics(41 * day); err != nil {
		t.Fatal(err)
	}
	if err := apply("41d"); err != nil {
		t.Errorf("exactly the click life: %v", err)
	}
	if err := topics(40 * day); !errors.Is(err, setup.ErrWindow) || !strings.Contains(err.Error(), "-click-life") {
		t.Errorf("a shorter click life: %v", err)
	}
	if err := setup.CheckTopics(t.Context(), cfg, want, quiet); !errors.Is(err, setup.ErrWindow) {
		t.Errorf("checking a shorter click life: %v", err)
	}
	want.ClickLife = 41 * day
	if err := setup.CheckTopics(t.Context(), cfg, want, quiet); err != nil {
		t.Errorf("a refused Topics must change nothing: %v", err)
	}
}

// A journey outlives everything that may follow in it: its life is fixed, so the
// catalog's bound on follow is enough.
func TestJourneyOutlivesFollowers(t *testing.T) {
	rules := attribution.DefaultConfig()
	if longest := catalog.MaxFollow + rules.Grace; rules.JourneyLife < longest {
		t.Errorf("a journey lives %v, its last follower can come after %v", rules.JourneyLife, longest)
	}
}

func TestWithoutTopics(t *testing.T) {
	cfg, want := startBroker(t)
	cfg.TopicPrefix = "other."
	if _, err := setup.Catalog(t.Context(), cfg, quiet, []string{writeCatalog(t, "30d")}, false); err == nil ||
		!strings.Contains(err.Error(), "run `ctl topics apply`") {
		t.Errorf("catalog: %v", err)
	}
	if err := setup.CheckTopics(t.Context(), cfg, want, quiet); err == nil ||
		!strings.Contains(err.Error(), "topic other.clicks does not exist") {
		t.Errorf("check: %v", err)
	}
	lines, err := setup.Topics(t.Context(), cfg, want, quiet)
	if err != nil || !slices.Contains(lines, "created topic other.catalog with 1 partitions") {
		t.Errorf("topics: %q, %v", lines, err)
	}
}

func TestMigrate(t *testing.T) {
	cfg := clickhouse.Config{DSN: clickhousetest.ForTest(t)}
	for range 2 { // repeatable, and without Kafka
		if err := setup.Migrate(t.Context(), setup.Migration{ClickHouse: cfg}, quiet); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := clickhouse.Open(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(t.Context(), "SELECT count() FROM outcomes"); err != nil {
		t.Error(err)
	}
	if err := setup.Migrate(t.Context(), setup.Migration{ClickHouse: cfg, Engine: "innodb"}, quiet); err == nil ||
		!strings.Contains(err.Error(), `"innodb"`) {
		t.Errorf("an unknown engine: %v", err)
	}
}
