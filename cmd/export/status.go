package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

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

// checkWait refuses a -wait that is no time, or beside what does not end or not wait.
func checkWait(wait time.Duration, provisional bool, schedule string) error {
	switch {
	case wait < 0:
		return fmt.Errorf("-wait: %s is negative", wait)
	case wait > 0 && provisional:
		return errors.New("-wait: -provisional says not to wait")
	case wait > 0 && schedule != "":
		return errors.New("-wait: -schedule waits as long as it takes")
	}
	return nil
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
	case errors.Is(err, export.ErrWatermarkBehind):
		return &daemon.Exit{Code: 6, Err: err}
	case errors.Is(err, export.ErrManifest):
		return fmt.Errorf("%w: %w", daemon.ErrUsage, err)
	case clickhouse.Unreachable(err):
		return &daemon.Exit{Code: 3, Err: err}
	}
	return err
}
