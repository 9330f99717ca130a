package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
)

// splitList splits a flag's value at its commas. An empty value gives nil.
func splitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// exitStatus adds to an error the exit status that tells a caller what to do.
func exitStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, export.ErrBusy):
		return &daemon.Exit{Code: 4, Err: err}
	case errors.Is(err, export.ErrNotEntitled):
		return &daemon.Exit{Code: 5, Err: err}
	case errors.Is(err, export.ErrManifest):
		return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
	case clickhouse.Unreachable(err):
		return &daemon.Exit{Code: 3, Err: err}
	}
	return err
}
