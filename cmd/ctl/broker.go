package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
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
	if err := awaitBrokers(ctx, cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	return cfg.Explain(do(ctx))
}

// awaitBrokers returns once a broker has answered.
func awaitBrokers(ctx context.Context, cfg kafka.Config) error {
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
	return nil
}
