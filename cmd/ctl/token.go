package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/secretdir"
	"github.com/nimriz/partners/schemas/topic"
)

func tokenCommands() []command {
	return []command{
		{"token inspect", "TOKEN", "prints the contents of a click token, and with -token-keys its workspace",
			inspectToken},
		{"token mint", "", "mints a click token; no click belongs to it", mintToken},
		{"token give-up", "TOKEN", "ends the journey of a token that stops a processor because it cannot be read; " +
			"changes nothing without -yes", defineGiveUpFlags},
	}
}

const keysUsage = "`directory` with one file per workspace id, one base64 key a line"

// loadKeys reads the token keys of one workspace, or of all that there are if workspace
// is empty. None of these files may be unreadable.
func loadKeys(dir, workspace string) (*token.Keyring, error) {
	keys, err := token.LoadKeyring(os.DirFS(dir))
	if err == nil {
		found := keys.Findings()
		found.Problems = slices.DeleteFunc(found.Problems, func(p *secretdir.Problem) bool {
			return workspace != "" && p.File != workspace
		})
		err = found.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("-token-keys %s: %w", dir, err)
	}
	return keys, nil
}

func inspectToken(flags *flag.FlagSet) func(context.Context, *call) error {
	dir := flags.String("token-keys", "", keysUsage)
	workspace := flags.String("workspace", "", "`id` of the workspace whose key is tried; all that have keys if empty")
	partitions := int32(topic.DefaultPartitions)
	intVar(flags, &partitions, 32, "partitions", "`count` of the co-partitioned topics when the token was minted; "+
		"without effect with -brokers")
	brokers := kafka.DefaultConfig()
	brokers.ClientID = "partners-ctl"
	daemon.KafkaFlags(flags, &brokers)
	return func(ctx context.Context, c *call) error {
		if len(c.args) != 1 {
			return usagef("exactly one TOKEN is required")
		}
		if *workspace != "" && *dir == "" {
			return usagef("-token-keys is required with -workspace")
		}
		if partitions < 1 {
			return usagef("-partitions: %d is not a partition count", partitions)
		}
		text := c.args[0]
		raw, err := token.Parse(text)
		if err != nil {
			return err
		}
		c.say("time       %s", token.Time(&raw).Format(time.RFC3339))
		c.say("seconds    %d since %s", token.Seconds(&raw), token.Time(&token.Raw{}).Format(time.RFC3339))
		epochs := topic.OneEpoch(partitions)
		if len(brokers.Brokers) > 0 {
			if epochs, err = readEpochs(ctx, c, brokers); err != nil {
				return err
			}
		}
		minted := token.Time(&raw)
		c.say("partition  %d of %d", epochs.Partition(text, minted), epochs.Count(minted))
		if *dir == "" {
			return nil
		}
		keys, err := loadKeys(*dir, *workspace)
		if err != nil {
			return err
		}
		if *workspace != "" && !keys.Has(*workspace) {
			return fmt.Errorf("-workspace: %q has no key in %s", *workspace, *dir)
		}
		owner, tried, err := tryKeys(keys, *dir, *workspace, text)
		if err != nil {
			return err
		}
		if owner == "" {
			c.say("mac        not of %s", tried)
			return nil
		}
		c.say("mac        of workspace %s", owner)
		for _, use := range keys.Uses() { // of all keys, the one that has just verified the token
			if use.Workspace == owner && !use.At.IsZero() {
				c.say("key        %s", use.KeyID)
			}
		}
		return nil
	}
}

// readEpochs reads what tokens are bound to.
func readEpochs(ctx context.Context, c *call, cfg kafka.Config) (epochs topic.Epochs, err error) {
	err = withBrokers(ctx, cfg, func(ctx context.Context) error {
		binding, err := kafka.ReadBinding(ctx, cfg, c.log)
		epochs = binding.Epochs
		if err == nil && len(epochs) == 0 {
			err = fmt.Errorf("%w: run `ctl topics apply`, which writes it", kafka.ErrNotInstalled)
		}
		return err
	})
	return epochs, err
}

// tryKeys returns the workspace whose key minted the token ("" for none), and a
// description of the keys that were tried.
func tryKeys(keys *token.Keyring, dir, workspace, text string) (owner, tried string, err error) {
	candidates, tried := []string{workspace}, "workspace "+workspace
	if workspace == "" {
		files, err := fs.ReadDir(os.DirFS(dir), ".")
		if err != nil {
			return "", "", fmt.Errorf("-token-keys: %w", err)
		}
		candidates, tried = nil, "any workspace in "+dir
		for _, f := range files {
			if keys.Has(f.Name()) {
				candidates = append(candidates, f.Name())
			}
		}
	}
	for _, w := range candidates {
		if _, err := keys.Verify(w, text); err == nil {
			return w, tried, nil
		}
	}
	return "", tried, nil
}

func mintToken(flags *flag.FlagSet) func(context.Context, *call) error {
	dir := flags.String("token-keys", "", keysUsage+"; the first key mints (required)")
	workspace := flags.String("workspace", "", "`id` of the workspace (required)")
	at := flags.String("at", "", "mint `time`, RFC 3339; now if empty")
	return func(_ context.Context, c *call) error {
		if *workspace == "" {
			return usagef("-workspace is required")
		}
		if *dir == "" {
			return usagef("-token-keys is required")
		}
		when := time.Now()
		if *at != "" {
			var err error
			if when, err = time.Parse(time.RFC3339, strings.TrimSpace(*at)); err != nil {
				return usagef("-at: %q is not RFC 3339, such as 2026-01-05T10:00:00Z", *at)
			}
		}
		keys, err := loadKeys(*dir, *workspace)
		if err != nil {
			return err
		}
		if !keys.Has(*workspace) {
			return fmt.Errorf("-workspace: %q has no key in %s", *workspace, *dir)
		}
		raw, err := keys.Mint(*workspace, when, rand.Reader)
		if err != nil {
			return err
		}
		if token.Time(&raw).Unix() != when.Unix() { // four bytes of seconds
			return usagef("-at: a token cannot carry %s", when.Format(time.RFC3339))
		}
		c.say("%s", token.Text(&raw))
		return nil
	}
}
