// Command processor joins clicks with conversions and writes one verdict for each
// event, exactly once.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/processor"
)

func main() {
	d := daemon.New("processor", "joins clicks with conversions and writes one verdict for each event, exactly once")
	cfg, k := processor.DefaultConfig(), kafka.DefaultConfig()
	d.Kafka(&k)
	f := d.Flags
	f.StringVar(&cfg.StateDir, "state-dir", cfg.StateDir,
		"`directory` for clicks and journeys; rebuilt from Kafka if it is lost (required)")
	f.StringVar(&cfg.Instance, "instance", cfg.Instance,
		"stable `name` of this slot, zero-padded: static member and transactional id (required)")
	f.DurationVar(&cfg.CommitInterval, "commit-interval", cfg.CommitInterval, "how long a transaction stays open")
	daemon.DaysFlag(f, &cfg.Grace, "grace", "how long an event may wait for its click or parent, such as `3d` or 36h")
	daemon.DaysFlag(f, &cfg.ClickLife, "click-life", "how long a click can bring conversions, such as `40d` or "+
		"36h; the same as for ctl topics apply")
	f.Int64Var(&cfg.JourneyCache, "journey-cache", cfg.JourneyCache,
		"`bytes` for blocks of journeys that were read from disk, shared by all partitions")
	f.Int64Var(&cfg.ClickMemory, "click-memory", cfg.ClickMemory,
		"`bytes` for clicks that are not on disk yet, split over the owned partitions, with -standby over all")
	f.DurationVar(&cfg.SessionTimeout, "session-timeout", cfg.SessionTimeout,
		"after how long without a heartbeat the group gives this slot's partitions away")
	f.BoolVar(&cfg.Standby, "standby", cfg.Standby, "keep the state of partitions that others own, too: one that "+
		"moves here needs no rebuild, and the disk holds the state of the whole group")
	d.Main(func(ctx context.Context) error {
		if err := daemon.Usage(k.Validate(), cfg.Validate()); err != nil {
			return err
		}
		codec, err := d.Codec()
		if err != nil {
			return err
		}
		p, err := processor.New(cfg, k, codec, d.Log, d.Registry)
		if err != nil {
			return err
		}
		err = d.Serve(ctx, p, "instance", cfg.Instance)
		if errors.Is(err, processor.ErrInstance) || errors.Is(err, processor.ErrStateDir) {
			return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
		}
		return err
	})
}
