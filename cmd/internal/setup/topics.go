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

// ErrWindow is an attribution window that is longer than clicks are kept.
var ErrWindow = errors.New("window longer than clicks are kept")

// Topics creates and configures the topics, see [kafka.Apply], and returns a line for
// each change, also for those before an error. A click life that is shorter than the
// longest window of the catalog is an [ErrWindow], and changes nothing.
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
	return kafka.Apply(ctx, cl, cfg, want)
}

// CheckTopics changes nothing and returns everything that Topics would have to change
// or would refuse, and consumer groups that have lost their place.
func CheckTopics(ctx context.Context, cfg kafka.Config, want kafka.TopicsConfig, log *slog.Logger) error {
	if err := want.Validate(); err != nil {
		return err
	}
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	return errors.Join(kafka.Check(ctx, cl, cfg, want, log), checkClickLife(ctx, cfg, want, log))
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

// ClickLife returns how long clicks must be kept for the windows of a catalog: the
// default, or longer.
func ClickLife(workspaces []catalog.Workspace) time.Duration {
	window, _ := longestWindow(workspaces)
	return max(topic.DefaultClickLife, window)
}

// KeptClickLife returns the click life that the topics were applied with, 0 if there
// are none yet or nobody may read it.
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

// longestWindow returns the longest window of any program and of the links without
// program, and whose it is; 0 for a catalog without links and programs.
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

// readClickLife returns how long the topics keep clicks for conversions to come: their
// retention without the margin for a processor that stands still. known is false where
// nobody may read it, and for topics without end.
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

// formatDays writes a duration as people give it: whole days as 40d.
func formatDays(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}
