package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Catalog writes the difference between the files and the catalog topic, and returns it
// as one line per record; see [catalog.Diff] for both. It returns when all in-sync
// replicas have the records. It writes nothing if a file has a problem, if the files
// conflict with the past, or if a window is longer than clicks are kept ([ErrWindow]).
// Concurrent calls are not serialized: the later record of each key wins.
func Catalog(ctx context.Context, cfg kafka.Config, log *slog.Logger, files []string,
	archiveMissing bool) (lines []string, err error) {
	want, err := catalog.Load(files...)
	if err != nil {
		return nil, err
	}
	have, err := readEntries(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	puts, lines, err := catalog.Diff(have, want.Entries(), archiveMissing)
	if err != nil {
		return nil, err
	}
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	window, of := longestWindow(want.Workspaces())
	if life, known := readClickLife(ctx, cl, cfg.Topic(topic.Clicks)); known && life < window {
		return nil, fmt.Errorf("%w: %s has a window of %s, topic %s keeps clicks for %s: run `ctl topics apply "+
			"-click-life %s` first, and give the processors the same",
			ErrWindow, of, formatDays(window), cfg.Topic(topic.Clicks), formatDays(life), formatDays(window))
	}
	records := make([]*kgo.Record, len(puts))
	for i, p := range puts {
		records[i] = &kgo.Record{Topic: cfg.Topic(topic.Catalog), Partition: 0, Key: []byte(p.Key), Value: p.Value}
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, fmt.Errorf("writing the catalog (it is safe to apply again): %w", err)
	}
	return lines, nil
}

// View returns the contents of the catalog topic. It leaves out unreadable records, and
// logs each. Without the topic the error is [kerr.UnknownTopicOrPartition].
func View(ctx context.Context, cfg kafka.Config, log *slog.Logger) (*catalog.View, error) {
	records, err := readRecords(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	view := catalog.NewView()
	for _, r := range records {
		if err := view.Apply(string(r.Key), r.Value, r.Offset); err != nil {
			log.Warn("a catalog record is unreadable", "offset", r.Offset, "error", err)
		}
	}
	return view, nil
}

// readEntries returns the newest record of each key, readable or not: Diff replaces an
// unreadable record, or reports it.
func readEntries(ctx context.Context, cfg kafka.Config, log *slog.Logger) ([]catalog.Entry, error) {
	records, err := readRecords(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	values := make(map[string][]byte)
	for _, r := range records {
		if catalog.IsForeign(string(r.Key)) {
			continue
		}
		if len(r.Value) == 0 {
			delete(values, string(r.Key))
			continue
		}
		values[string(r.Key)] = r.Value
	}
	var out []catalog.Entry
	for _, key := range slices.Sorted(maps.Keys(values)) {
		out = append(out, catalog.Entry{Key: key, Value: values[key]})
	}
	return out, nil
}

func readRecords(ctx context.Context, cfg kafka.Config, log *slog.Logger) ([]*kgo.Record, error) {
	records, err := kafka.ReadAll(ctx, cfg, log, cfg.Topic(topic.Catalog))
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, fmt.Errorf("%w (run `ctl topics apply`)", err)
	}
	return records, err
}
