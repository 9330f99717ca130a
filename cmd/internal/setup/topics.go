package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrWindow marks an attribution window that is longer than clicks are kept.
var ErrWindow = errors.New("window longer than clicks are kept")

// Topics creates and configures the topics, see [kafka.ApplyTopics]. It returns one line per
// change, including the changes before an error. If the click life is shorter than the
// longest window of the catalog, it changes nothing and returns [ErrWindow].
func Topics(ctx context.Context, cfg kafka.Config, want kafka.TopicsConfig, log *slog.Logger) (lines []string,
	err error) {
	if err := want.Validate(); err != nil {
		return nil, err
	}
	if err := checkClickLife(ctx, cfg, want, log); err != nil {
		return nil, err
	}
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return kafka.ApplyTopics(ctx, cl, cfg, want, log)
}

// AdoptTopics takes over topics with new ids, see [kafka.AdoptTopics].
func AdoptTopics(ctx context.Context, cfg kafka.Config, log *slog.Logger, yes bool) (lines []string, err error) {
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return kafka.AdoptTopics(ctx, cl, cfg, log, yes)
}

// BindPlaces writes since when records can be misplaced, see [kafka.BindPlaces].
func BindPlaces(ctx context.Context, cfg kafka.Config, log *slog.Logger) (since time.Time, written bool, err error) {
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return since, false, err
	}
	defer cl.Close()
	return kafka.BindPlaces(ctx, cl, cfg, log)
}

// Grow adds partitions to a live installation, see [kafka.Grow].
func Grow(ctx context.Context, cfg kafka.Config, want kafka.GrowConfig, log *slog.Logger) (lines []string, err error) {
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return kafka.Grow(ctx, cl, cfg, want, log)
}

// AbandonGrowth takes back what [Grow] has only begun, see [kafka.AbandonGrowth].
func AbandonGrowth(ctx context.Context, cfg kafka.Config, log *slog.Logger) (found bool, err error) {
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return false, err
	}
	defer cl.Close()
	return kafka.AbandonGrowth(ctx, cl, cfg, log)
}

// CheckTopics reports everything that Topics would change or refuse, and consumer
// groups whose committed offsets Kafka no longer has ([kafka.ErrOffsets]). It changes
// nothing.
func CheckTopics(ctx context.Context, cfg kafka.Config, want kafka.TopicsConfig, log *slog.Logger) error {
	if err := want.Validate(); err != nil {
		return err
	}
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	return errors.Join(kafka.CheckTopics(ctx, cl, cfg, want, log), checkClickLife(ctx, cfg, want, log))
}

// checkClickLife compares want with the windows of the catalog topic, if there is one.
func checkClickLife(ctx context.Context, cfg kafka.Config, want kafka.TopicsConfig, log *slog.Logger) error {
	view, err := View(ctx, cfg, log)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil
	}
	if err != nil {
		return err
	}
	window, of := longestWindow(view.Workspaces())
	if want.ClickLife < window {
		return fmt.Errorf("-click-life: %w: %s is shorter than the %s of %s in topic %s",
			ErrWindow, formatDays(want.ClickLife), formatDays(window), of, cfg.Topic(topic.Catalog))
	}
	return nil
}

// ClickLife returns how long clicks must be kept for the windows of a catalog. It is at
// least the default.
func ClickLife(workspaces []catalog.Workspace) time.Duration {
	window, _ := longestWindow(workspaces)
	return max(topic.DefaultClickLife, window)
}

// KeptClickLife returns the click life that the topics were applied with. It is 0
// without topics, and without the right to read their configuration.
func KeptClickLife(ctx context.Context, cfg kafka.Config, log *slog.Logger) (time.Duration, error) {
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	life, known := readClickLife(ctx, cl, cfg.Topic(topic.Clicks))
	if !known {
		return 0, nil
	}
	return life, nil
}

// longestWindow returns the longest window of any program and of the links without a
// program, and in words which it is. It is 0 for a catalog without links and programs.
func longestWindow(workspaces []catalog.Workspace) (window time.Duration, of string) {
	longer := func(d time.Duration, format string, args ...any) {
		if d > window {
			window, of = d, fmt.Sprintf(format, args...)
		}
	}
	for _, w := range workspaces {
		for _, p := range w.Programs {
			longer(time.Duration(p.WindowMs)*time.Millisecond, "program %s of workspace %s", p.ID, w.ID)
		}
		for _, l := range w.Links {
			if l.Program == "" {
				longer(catalog.DefaultWindow, "link %s of workspace %s, which has no program,", l.ID, w.ID)
			}
		}
	}
	return window, of
}

// readClickLife returns how long the topics keep clicks for later conversions: their
// retention less the margin for a stopped processor. known is false without the right
// to read the configuration, and for topics with unlimited retention.
func readClickLife(ctx context.Context, cl *kgo.Client, name string) (life time.Duration, known bool) {
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, name)
	if err != nil {
		return 0, false
	}
	current, err := configs.On(name, nil)
	if err != nil || current.Err != nil {
		return 0, false
	}
	for _, c := range current.Configs {
		if c.Key == "retention.ms" {
			ms, err := strconv.ParseInt(c.MaybeValue(), 10, 64)
			return time.Duration(ms)*time.Millisecond - topic.ClickMargin, err == nil && ms >= 0
		}
	}
	return 0, false
}

// formatDays formats a duration in the unit of the flags: whole days as 40d.
func formatDays(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}
