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
	return []command{{"secrets check", "DIR|FILE…",
		"checks directories of signing secrets, token keys or reader tokens, or a file before it goes there",
		checkSecrets}}
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

func (b *badSecrets) add(problems []*secretdir.Problem, pathOf func(file string) string) {
	for _, p := range problems {
		place := pathOf(p.File)
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", place, p.Line)
		}
		b.lines = append(b.lines, fmt.Sprintf("%s: %v", place, p.Err))
	}
}

func checkSecrets(flags *flag.FlagSet) func(context.Context, *call) error {
	name := flags.String("kind", "", "`kind` of secret: signing-secrets, token-keys or reader-tokens; if empty, the "+
		"directory's name or the lines tell")
	return func(_ context.Context, c *call) error {
		if len(c.args) == 0 {
			return usagef("at least one DIR or FILE is required")
		}
		kinds := secretKinds()
		if *name != "" {
			kinds = slices.DeleteFunc(kinds, func(k secretKind) bool { return k.name != *name })
		}
		if len(kinds) == 0 {
			return usagef("-kind: %q is not signing-secrets, token-keys or reader-tokens", *name)
		}
		var bad badSecrets
		for _, path := range c.args {
			info, err := os.Stat(path)
			switch {
			case err != nil:
			case info.IsDir():
				err = c.checkDirectory(path, kinds, &bad)
			default:
				err = c.checkFile(path, kinds, &bad)
			}
			if err != nil {
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
	kind, err := kindOf(os.DirFS(dir), dir, dir, kinds)
	if err != nil {
		return err
	}
	return c.checkKind(dir, kind, bad)
}

// checkFile checks a file by itself, as that of the workspace which its name will be.
// Whether another workspace has one of its reader tokens only the directory tells.
func (c *call) checkFile(path string, kinds []secretKind, bad *badSecrets) error {
	workspace := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "."), ".new")
	if !secretdir.IsWorkspaceID(workspace) {
		return usagef("%s: without a dot in front and .new behind, its name is no workspace id, [a-z0-9-]{1,64}", path)
	}
	alone := loneFile{path: path, name: workspace}
	kind, err := kindOf(alone, filepath.Dir(path), path, kinds)
	if err != nil {
		return err
	}
	found, err := kind.find(alone)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(found.Problems) > 0 {
		bad.add(found.Problems, func(string) string { return path })
	} else if text, err := os.ReadFile(path); err != nil {
		return err
	} else if !strings.HasSuffix(string(text), "\n") {
		fmt.Fprintf(c.stderr, "%s: warning: its last line has no end; the file may be cut there\n", path)
	}
	c.say("%s: %s of %s, %d files, %d of them cannot be used, %d entries", path, kind.name, workspace, found.Files,
		found.Unreadable(), found.Entries)
	return nil
}

// loneFile is a directory that has one file alone, under the name that it is to have.
type loneFile struct{ path, name string }

// Open implements fs.FS.
func (f loneFile) Open(name string) (fs.File, error) {
	if name != f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return os.Open(f.path)
}

// Stat implements fs.StatFS. It does not open the file, which may be a pipe.
func (f loneFile) Stat(name string) (fs.FileInfo, error) {
	if name != f.name {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return os.Stat(f.path)
}

// ReadDir implements fs.ReadDirFS.
func (f loneFile) ReadDir(string) ([]fs.DirEntry, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(renamedFile{info, f.name})}, nil
}

// renamedFile is a file's information with another name.
type renamedFile struct {
	fs.FileInfo
	name string
}

// Name returns the other name.
func (f renamedFile) Name() string { return f.name }

func (c *call) checkKind(dir string, kind secretKind, bad *badSecrets) error {
	found, err := kind.find(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	bad.add(found.Problems, func(file string) string { return filepath.Join(dir, file) })
	for _, ignored := range found.Ignored {
		fmt.Fprintf(c.stderr, "%s: warning: ignored, because no workspace has such an id, [a-z0-9-]{1,64}\n",
			filepath.Join(dir, ignored))
	}
	c.say("%s: %s, %d files, %d of them cannot be used, %d entries", dir, kind.name, found.Files, found.Unreadable(),
		found.Entries)
	return nil
}

// kindOf tells by the directory's name what files contains, or else by which kind can
// use more of it than any other. shown is the path of what is checked.
func kindOf(files fs.FS, dir, shown string, kinds []secretKind) (secretKind, error) {
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
		found, err := k.find(files)
		if err != nil {
			continue
		}
		problems := len(found.Problems)
		tied = tied && problems >= fewest || problems == fewest
		if fewest < 0 || problems < fewest {
			fewest, best = problems, k
		}
	}
	switch _, err := fs.ReadDir(files, "."); {
	case err != nil:
		return best, err
	case fewest < 0 || tied:
		return best, usagef("-kind is required: nothing in %s tells which kind of secret it has", shown)
	}
	return best, nil
}
