package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// readyTimeout bounds a question to a daemon, which answers it from memory.
const readyTimeout = 5 * time.Second

func readyCommands() []command {
	return []command{{"ready", "", "asks a daemon whether it serves, as a container's health check does",
		func(fs *flag.FlagSet) func(context.Context, *call) error {
			admin := fs.String("admin", "http://127.0.0.1:9090", "`URL` of the daemon's -admin-listen")
			return func(ctx context.Context, c *call) error {
				ctx, cancel := context.WithTimeout(ctx, readyTimeout)
				defer cancel()
				if err := askReady(ctx, *admin); err != nil {
					return err
				}
				c.say("ready")
				return nil
			}
		}}}
}

// askReady returns nil if the daemon is ready, else the reason that it gives.
func askReady(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(admin, "/")+"/readyz", nil)
	if err != nil {
		return usagef("-admin: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("-admin: %w", err)
	}
	defer resp.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch {
	case err != nil:
		return fmt.Errorf("reading the daemon's answer: %w", err)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return errors.New("not ready: " + strings.TrimSpace(string(reason)))
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("-admin: %s answers %s to /readyz: is it a daemon's -admin-listen?", admin, resp.Status)
	}
	return nil
}
