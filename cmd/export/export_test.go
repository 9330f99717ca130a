package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/segmentio/ksuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxWait bounds each wait of a test. It is far longer than a slow machine needs, so
// that only a hang reaches it.
const maxWait = 3 * time.Minute

// Exports run while the real sink inserts and a partner's status changes. Each export,
// repeated with -as-of after more rows have arrived, gives the same bytes, and its sums
// equal those of a query bounded by as_of. The test ends when five exports (in the long
// form fifty) had more rows than the one before.
func TestExportsWhileTheSinkInserts(t *testing.T) {
	enough := 5
	if os.Getenv("PARTNERS_TEST_LONG") == "1" {
		enough = 50
	}
	quiet := slog.New(slog.DiscardHandler)
	brokers := kafkatest.Broker(t)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	wh := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	codec := event.DefaultCodec()
	cfg := sink.DefaultConfig()
	cfg.Linger, cfg.BatchRows = 200*time.Millisecond, 200
	s, err := sink.New(cfg, k, codec, wh, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var wg sync.WaitGroup
	var produced atomic.Int64
	cl := kafkatest.Client(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic.Catalog, Key: []byte("workspace/acme"),
		Value: []byte(`{"id":"acme","plan":"enterprise","access":{"exports":true}}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(maxWait); ; time.Sleep(50 * time.Millisecond) {
		_, err := export.Zone(t.Context(), wh, "acme", export.WholeCatalog)
		if err == nil {
			break
		}
		if !errors.Is(err, export.ErrUnknown) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	wg.Go(func() {
		offsets := map[int32]int64{}
		for n := 0; ctx.Err() == nil; n++ {
			var records []*kgo.Record
			for i := range 10 {
				token := ksuid.New()
				p := topic.OneEpoch(kafkatest.Partitions).Partition(token.String(), token.Time())
				records = append(records, eventAndOutcome(t, codec, n*10+i, token.String(), p, offsets[p])...)
				offsets[p]++
			}
			status := []string{"approved", "review", "banned"}[n%3]
			records = append(records, &kgo.Record{Topic: topic.Catalog, Key: []byte("partner/acme/prt_1"),
				Value: []byte(`{"id":"prt_1","relationship":"` + status + `"}`)})
			if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			produced.Add(10)
			time.Sleep(100 * time.Millisecond)
		}
	})
	dir := t.TempDir()
	base := export.Config{Filters: export.Filters{
		Workspace: "acme",
		From:      "2026-03-14",
		To:        "2026-03-15",
		Verdict:   []string{"all"},
	}, Log: quiet}
	exports, grew, rows := 0, 0, int64(0)
	for ; grew < enough; exports++ {
		if exports == 10*enough {
			t.Fatalf("only %d of %d exports had more rows than the one before: the sink inserts nothing",
				grew, exports)
		}
		first := base
		first.Dir = filepath.Join(dir, fmt.Sprint(exports, "a"))
		m, err := export.Run(t.Context(), wh, first)
		if err != nil {
			t.Fatal(err)
		}
		if m.Rows > rows {
			grew++
		}
		rows = m.Rows
		awaitMoreRows(t, wh, m.Rows) // the repetition has something to leave out
		second := base
		second.Dir, second.AsOf = filepath.Join(dir, fmt.Sprint(exports, "b")), m
		again, err := export.Run(t.Context(), wh, second)
		if err != nil {
			t.Fatal(err)
		}
		a, b := readCSV(t, first.Dir), readCSV(t, second.Dir)
		if !bytes.Equal(a, b) || again.SHA256 != m.SHA256 {
			t.Fatalf("export %d: the repetition has other bytes: %d and %d", exports, len(a), len(b))
		}
		var sums []struct {
			Net  int64  `ch:"net"`
			Rows uint64 `ch:"n"`
		}
		var below []uint64
		for p := range uint32(kafkatest.Partitions) {
			below = append(below, m.AsOf.Outcomes[p])
		}
		if err := wh.Select(t.Context(), &sums, "SELECT toInt64(sum(effect * ifNull(amount_minor, 0))) AS net, "+
			"count() AS n FROM outcomes WHERE workspace_id = 'acme' AND src_offset < "+
			"{below:Array(UInt64)}[src_partition + 1]", clickhouse.Named("below", below)); err != nil {
			t.Fatal(err)
		}
		if got := m.Sums["EUR"]["sale"]; uint64(m.Rows) != sums[0].Rows || m.Rows > 0 &&
			got != fmt.Sprintf("%d.%02d", sums[0].Net/100, sums[0].Net%100) || m.Conservation.Difference != 0 {
			t.Fatalf("export %d: %d rows, sums %v, conservation %+v; the tables say %d rows, %d",
				exports, m.Rows, m.Sums, m.Conservation, sums[0].Rows, sums[0].Net)
		}
	}
	cancel()
	wg.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d events were produced meanwhile; %d of %d exports had more rows than the one before",
		produced.Load(), grew, exports)
}

// awaitMoreRows waits until the warehouse has more than n outcomes.
func awaitMoreRows(t *testing.T, wh *clickhouse.Conn, n int64) {
	t.Helper()
	for end := time.Now().Add(maxWait); ; time.Sleep(20 * time.Millisecond) {
		var got []struct {
			Rows uint64 `ch:"n"`
		}
		if err := wh.Select(t.Context(), &got, "SELECT count() AS n FROM outcomes"); err != nil {
			t.Fatal(err)
		}
		if int64(got[0].Rows) > n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d outcomes, and no more come", n)
		}
	}
}

func readCSV(t *testing.T, dir string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventAndOutcome returns the records of an event and its outcome, in the partition of
// their token.
func eventAndOutcome(t *testing.T, codec *event.Codec, n int, token string, partition int32,
	offset int64) []*kgo.Record {
	amount := int64(1000 + n)
	at := event.MillisOf(time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond))
	v := &event.Conversion{
		WorkspaceID: "acme",
		EventID:     fmt.Sprint("e", n),
		ClickToken:  token,
		Type:        event.Sale,
		OccurredAt:  at,
		ReceivedAt:  at,
		AmountMinor: &amount,
		Currency:    "EUR",
		Exponent:    2,
	}
	v.ContentSHA256 = v.ContentHash()
	o := &event.Outcome{
		WorkspaceID:    v.WorkspaceID,
		EventID:        v.EventID,
		ClickToken:     token,
		Verdict:        event.Attributed,
		Review:         event.ReviewClear,
		Type:           v.Type,
		Effect:         1,
		OccurredAt:     at,
		ReceivedAt:     at,
		DecidedAt:      at,
		AmountMinor:    &amount,
		Currency:       "EUR",
		Exponent:       2,
		ContentSHA256:  v.ContentSHA256,
		EventPartition: partition,
		EventOffset:    offset,
		RulesVersion:   event.RulesVersion,
		Click: &event.Click{
			WorkspaceID: "acme",
			ClickToken:  token,
			ClickedAt:   at,
			TokenStatus: event.TokenAppended,
			Trigger:     event.TriggerLink,
			PartnerID:   "prt_1",
			PartnerName: "Partner",
		},
	}
	a, err1 := codec.AppendConversion(nil, v)
	b, err2 := codec.AppendOutcome(nil, o, nil)
	if err1 != nil || err2 != nil {
		t.Error(err1, err2)
	}
	return []*kgo.Record{
		{Topic: topic.Conversions, Partition: partition, Key: []byte(token), Value: a},
		{Topic: topic.Outcomes, Partition: partition, Key: []byte(token), Value: b},
	}
}
