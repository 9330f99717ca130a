package main

import (
	"context"
	"flag"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/pipeline/kafka"
)

// growFlags are the flags of topics grow.
type growFlags struct {
	kafka   kafka.Config
	want    kafka.GrowConfig
	at      string // RFC 3339
	abandon bool
}

func defineGrowFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	g := &growFlags{kafka: kafka.DefaultConfig(), want: kafka.DefaultGrowConfig()}
	g.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &g.kafka)
	intVar(fs, &g.want.Partitions, 32, "partitions", "`count` of the co-partitioned topics afterwards; it cannot be "+
		"less again (required)")
	fs.StringVar(&g.at, "at", "", "`time`, RFC 3339 in whole seconds, from which on tokens use it; at least ten "+
		"minutes ahead (required)")
	fs.BoolVar(&g.abandon, "abandon", false, "take back a growth that was begun, as long as no topic has got a "+
		"partition; without the other two")
	return g.grow
}

func (g *growFlags) grow(ctx context.Context, c *call) error {
	if g.abandon {
		return g.abandonGrowth(ctx, c)
	}
	if g.at != "" {
		at, err := time.Parse(time.RFC3339, strings.TrimSpace(g.at))
		if err != nil {
			return usagef("-at: %q is not RFC 3339, such as 2026-01-05T10:00:00Z", g.at)
		}
		g.want.At = at
	}
	if err := g.want.Validate(); err != nil {
		return usageError{err}
	}
	return withBrokers(ctx, g.kafka, func(ctx context.Context) error {
		lines, err := setup.Grow(ctx, g.kafka, g.want, c.log)
		for _, line := range lines { // also those before an error
			c.say("%s", line)
		}
		if err == nil && len(lines) == 0 {
			c.say("nothing to change: the installation has grown so")
		}
		return err
	})
}

func (g *growFlags) abandonGrowth(ctx context.Context, c *call) error {
	if g.at != "" || g.want.Partitions != 0 {
		return usagef("-abandon: -partitions and -at say nothing with it")
	}
	return withBrokers(ctx, g.kafka, func(ctx context.Context) error {
		found, err := setup.AbandonGrowth(ctx, g.kafka, c.log)
		switch {
		case err != nil:
			return err
		case !found:
			c.say("nothing to abandon: no growth is under way")
		default:
			c.say("the growth is abandoned: everything goes on with the partitions that there are")
		}
		return nil
	})
}
