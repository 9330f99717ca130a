// Package secretdir reads a directory of secrets: one file for each workspace, named by
// the workspace's id, with one entry a line. Signing secrets, token keys and the tokens
// of the report's readers are all kept in this form. It is a contract between the
// operator, ctl and the daemons, so it lives below all of them.
//
//	signing-secrets/
//	├── ..data      ignored: names with a dot in front (Kubernetes mounts secrets so)
//	├── acme        two secrets; blank lines and lines that begin with # do not count
//	└── globex      one secret
//
// Daemons read a directory again every five seconds: cmd/internal/components,
// reload_secrets.go.
//
// The package knows nothing of what a line means; the caller parses it. Errors name the
// file and the line, never what the line contains.
package secretdir

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// File is what one workspace's file contains.
type File struct {
	Workspace string // the file's name, [a-z0-9-]{1,64}
	Lines     []Line // without blank lines and comments; may be empty
}

// Line is one entry of a file.
type Line struct {
	Number int    // in the file, from 1; blank lines and comments count
	Text   string // without white space around it
}

// Load reads every file of dir and parses each on its own: parse turns one workspace's
// file into what the caller keeps for it. Any problem is an error that names the file:
// a name that is no workspace id, a directory, a file that cannot be read, an error of
// parse. An empty directory gives an empty map, which the caller may refuse.
func Load[T any](dir fs.FS, parse func(File) (T, error)) (map[string]T, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	byWorkspace := make(map[string]T)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		loaded, err := loadFile(dir, name, parse)
		if err != nil {
			return nil, nameFile(name, err)
		}
		byWorkspace[name] = loaded
	}
	return byWorkspace, nil
}

func loadFile[T any](dir fs.FS, name string, parse func(File) (T, error)) (loaded T, err error) {
	if !isWorkspaceID(name) {
		return loaded, errors.New("a file is named by its workspace, [a-z0-9-]{1,64}")
	}
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		return loaded, err
	}
	return parse(File{Workspace: name, Lines: Lines(text)})
}

// Lines returns the entries of a file: its lines without white space around them, and
// without those that are then empty or begin with #.
func Lines(text []byte) []Line {
	var lines []Line
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		lines = append(lines, Line{Number: number, Text: line})
	}
	return lines
}

// Errorf returns an error about the line. It must not contain the line's text.
func (l Line) Errorf(format string, args ...any) error {
	return &lineError{number: l.Number, err: fmt.Errorf(format, args...)}
}

// A lineError waits for the name of its file.
type lineError struct {
	number int // of the line, from 1
	err    error
}

// Error does not name the file; nameFile does.
func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.err) }

// Unwrap returns the error about the line.
func (e *lineError) Unwrap() error { return e.err }

// nameFile writes "acme line 2: …", or "acme: …" for the file as a whole.
func nameFile(name string, err error) error {
	var line *lineError
	if errors.As(err, &line) {
		return fmt.Errorf("%s %w", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func isWorkspaceID(name string) bool {
	if len(name) < 1 || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
