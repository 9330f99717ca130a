package main

import (
	"context"
	"flag"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/catalog"
)

func catalogCommands() []command {
	return []command{
		{"catalog check", "FILE…", "checks catalog files as apply would, and reports every problem as FILE:LINE:COL",
			func(*flag.FlagSet) func(context.Context, *call) error {
				return checkCatalog
			}},
		{"catalog apply", "FILE…", "writes the difference between the files and the catalog topic, and prints it; " +
			"changes only the workspaces in the files", applyCatalog},
		{"catalog show", "", "prints the catalog topic as a catalog file", showCatalog},
	}
}

func checkCatalog(_ context.Context, c *call) error {
	if len(c.args) == 0 {
		return usagef("at least one FILE is required")
	}
	loaded, err := catalog.Load(c.args...)
	if err != nil {
		return err
	}
	for _, w := range loaded.Workspaces() {
		c.say("%s: %d domains, %d programs, %d partners, %d links", w.ID, len(w.Domains), len(w.Programs),
			len(w.Partners), len(w.Links))
	}
	warnOfCatalog(c, loaded)
	return nil
}

// warnOfCatalog prints what the owner of the files probably does not want.
func warnOfCatalog(c *call, loaded *catalog.Catalog) {
	for _, w := range loaded.Warnings() {
		c.say("warning: %v", w)
	}
}

func applyCatalog(fs *flag.FlagSet) func(context.Context, *call) error {
	cfg := kafka.DefaultConfig()
	cfg.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &cfg)
	archive := fs.Bool("archive-missing", false, "archive what is in the topic for these workspaces but not "+
		"in the files")
	return func(ctx context.Context, c *call) error {
		if len(c.args) == 0 {
			return usagef("at least one FILE is required")
		}
		loaded, err := catalog.Load(c.args...) // finds mistakes without a broker
		if err != nil {
			return err
		}
		return withBrokers(ctx, cfg, func(ctx context.Context) error {
			lines, err := setup.Catalog(ctx, cfg, c.log, c.args, *archive)
			if err != nil {
				return err
			}
			for _, line := range lines {
				c.say("%s", line)
			}
			if len(lines) == 0 {
				c.say("no difference")
			}
			warnOfCatalog(c, loaded)
			return nil
		})
	}
}

func showCatalog(fs *flag.FlagSet) func(context.Context, *call) error {
	cfg := kafka.DefaultConfig()
	cfg.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &cfg)
	return func(ctx context.Context, c *call) error {
		return withBrokers(ctx, cfg, func(ctx context.Context) error {
			view, err := setup.View(ctx, cfg, c.log)
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(catalog.Format(view.Workspaces()))
			return err
		})
	}
}
