package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// brokerTimeout is how long the first answer of a broker may take. Our Kafka
	// clients would retry without end.
	brokerTimeout = 10 * time.Second
	// workTimeout bounds the work that follows it.
	workTimeout = 2 * time.Minute
)

// withBrokers calls do once a broker has answered.
func withBrokers(ctx context.Context, cfg kafka.Config, do func(context.Context) error) error {
	return withClient(ctx, cfg, func(cl *kgo.Client) error {
		ctx, cancel := context.WithTimeout(ctx, workTimeout)
		defer cancel()
		return nameLackingRights(ctx, cl, cfg, do(ctx))
	})
}

// awaitBrokers returns once a broker has answered.
func awaitBrokers(ctx context.Context, cfg kafka.Config) error {
	return withClient(ctx, cfg, func(*kgo.Client) error { return nil })
}

// withClient calls do with a client whom a broker has answered.
func withClient(ctx context.Context, cfg kafka.Config, do func(*kgo.Client) error) error {
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	cl, err := kafka.NewClient(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		if err := cfg.Explain(err); errors.Is(err, kafka.ErrAccess) {
			return err
		}
		return fmt.Errorf("-brokers: no answer from %s: %w", strings.Join(cfg.Brokers, ", "), err)
	}
	return do(cl)
}

// nameLackingRights adds to an error that a right lacks which of those that ctl may need
// are not given.
func nameLackingRights(ctx context.Context, cl *kgo.Client, cfg kafka.Config, err error) error {
	if !kafka.LacksRight(err) {
		return cfg.Explain(err)
	}
	lacking, asking := kafka.LackingRights(ctx, cl, cfg.Grants("ctl"))
	if asking != nil || len(lacking) == 0 {
		return cfg.Explain(err)
	}
	var names []string
	for _, g := range lacking {
		names = append(names, g.String())
	}
	return fmt.Errorf("%w; of the rights that ctl may need it lacks %s", cfg.Explain(err), strings.Join(names, ", "))
}
