package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/secretdir"
)

func secretsCommands() []command {
	return []command{{"secrets check", "DIR…",
		"checks directories of signing secrets, token keys or reader tokens, file by file", checkSecrets}}
}

// secretKind is a kind of secret that is kept in a directory.
type secretKind struct {
	name string // of -kind, and of the directory by custom
	find func(dir fs.FS) (secretdir.Findings, error)
}

func secretKinds() []secretKind {
	return []secretKind{
		{"signing-secrets", findWith(signature.LoadKeyring)},
		{"token-keys", findWith(token.LoadKeyring)},
		{"reader-tokens", findWith(web.LoadReaderTokens)},
	}
}

// findWith returns what a loader finds.
func findWith[S interface{ Findings() secretdir.Findings }](load func(fs.FS) (S, error)) func(fs.FS) (
	secretdir.Findings, error) {
	return func(dir fs.FS) (found secretdir.Findings, _ error) {
		loaded, err := load(dir)
		if err != nil {
			return found, err
		}
		return loaded.Findings(), nil
	}
}

// badSecrets are problems of files, one a line, each with the path of its file.
type badSecrets struct{ lines []string }

func (b *badSecrets) Error() string { return strings.Join(b.lines, "\n") }

func checkSecrets(flags *flag.FlagSet) func(context.Context, *call) error {
	name := flags.String("kind", "", "`kind` of secret: signing-secrets, token-keys or reader-tokens; if empty, the "+
		"directory's name or its lines tell")
	return func(_ context.Context, c *call) error {
		if len(c.args) == 0 {
			return usagef("at least one DIR is required")
		}
		kinds := secretKinds()
		if *name != "" {
			kinds = slices.DeleteFunc(kinds, func(k secretKind) bool { return k.name != *name })
		}
		if len(kinds) == 0 {
			return usagef("-kind: %q is not signing-secrets, token-keys or reader-tokens", *name)
		}
		var bad badSecrets
		for _, dir := range c.args {
			if err := c.checkDirectory(dir, kinds, &bad); err != nil {
				return err
			}
		}
		if len(bad.lines) > 0 {
			return &bad
		}
		return nil
	}
}

// checkDirectory checks one directory, or those in it that are named by a kind.
func (c *call) checkDirectory(dir string, kinds []secretKind, bad *badSecrets) error {
	below := false
	for _, k := range kinds {
		sub := filepath.Join(dir, k.name)
		if info, err := os.Stat(sub); err != nil || !info.IsDir() {
			continue
		}
		below = true
		if err := c.checkKind(sub, k, bad); err != nil {
			return err
		}
	}
	if below {
		return nil
	}
	kind, err := kindOf(dir, kinds)
	if err != nil {
		return err
	}
	return c.checkKind(dir, kind, bad)
}

func (c *call) checkKind(dir string, kind secretKind, bad *badSecrets) error {
	found, err := kind.find(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, p := range found.Problems {
		place := filepath.Join(dir, p.File)
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", place, p.Line)
		}
		bad.lines = append(bad.lines, fmt.Sprintf("%s: %v", place, p.Err))
	}
	for _, ignored := range found.Ignored {
		fmt.Fprintf(c.stderr, "%s: warning: ignored, because no workspace has such an id, [a-z0-9-]{1,64}\n",
			filepath.Join(dir, ignored))
	}
	c.say("%s: %s, %d files, %d of them cannot be used, %d entries", dir, kind.name, found.Files, found.Unreadable(),
		found.Entries)
	return nil
}

// kindOf tells by the directory's name what it contains, or else by which kind can use
// more of it than any other.
func kindOf(dir string, kinds []secretKind) (secretKind, error) {
	if full, err := filepath.Abs(dir); err == nil {
		dir = full
	}
	for _, k := range kinds {
		if len(kinds) == 1 || k.name == filepath.Base(dir) {
			return k, nil
		}
	}
	var best secretKind
	fewest, tied := -1, false
	for _, k := range kinds {
		found, err := k.find(os.DirFS(dir))
		if err != nil {
			continue
		}
		problems := len(found.Problems)
		tied = tied && problems >= fewest || problems == fewest
		if fewest < 0 || problems < fewest {
			fewest, best = problems, k
		}
	}
	switch _, err := os.ReadDir(dir); {
	case err != nil:
		return best, err
	case fewest < 0 || tied:
		return best, usagef("-kind is required: nothing in %s tells which kind of secret it has", dir)
	}
	return best, nil
}
