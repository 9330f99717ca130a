package parts

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A catalog topic that is empty, or that was deleted and created again, takes nothing away until there is a catalog in it; then that one counts, although its offsets are smaller than those of the
func TestFollowCatalog(t *testing.T) {
	brokers := kafkatest.Broker(t)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	log := slog.New(slog.DiscardHandler)
	apply := func(slug string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "catalog.yaml")
		text := fmt.Sprintf("workspaces:\n  - id: acme\n    name: Acme\n    plan: professional\n    access: {conversion_tracking: true, partner_reporting: true, conversion_reporting: true, exports: true}\n    domains: [go.acme.com]\n    links:\n      - {id: lnk_%s, domain: go.acme.com, slug: %s, destination: \"https://shop.acme.com/\"}\n", slug, slug)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := setup.Catalog(t.Context(), k, log, []string{file}, false); err != nil {
			t.Fatal(err)
		}
	}
	view := catalog.NewView()
	serves := func(slug string) bool {
		_, found := view.Lookup("go.acme.com", slug)
		return found == catalog.Active
	}
	within := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}

	apply("old")
	old := catalog.NewView()
	f, err := kafka.Follow(t.Context(), k, log, topic.Catalog, func(r *kgo.Record) error { return old.Apply(string(r.Key), r.Value, r.Offset+1000) })
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	view.Replace(old)
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	recreate := func() {
		t.Helper()
		if _, err := adm.DeleteTopics(t.Context(), topic.Catalog); err != nil {
			t.Fatal(err)
		}
		if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic.Catalog); err != nil {
			t.Fatal(err)
		}
	}
	recreate()

	ctx, cancel := context.WithCancel(t.Context())
	caught, ended := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(ended)
		if err := follow(ctx, Deps{Kafka: k, Log: log}, view, func() { caught <- struct{}{} }); err != nil {
			t.Error(err)
		}
	}()
	time.Sleep(2 * emptyCatalog)
	if len(caught) > 0 || !serves("old") {
	}
	apply("new")
	within("the new catalog does not count", func() bool { return serves("new") && !serves("old") })
	<-caught

	recreate()
	time.Sleep(100 * time.Millisecond)
	apply("third")
	within("the catalog of the recreated topic does not count", func() bool { return serves("third") && !serves("new") })
	cancel()
	<-ended
}
