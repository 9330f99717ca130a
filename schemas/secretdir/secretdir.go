// Package secretdir reads a directory of secrets: one file for each workspace, named by
// the workspace's id, with one entry a line. Signing secrets, token keys and the tokens
// of the report's readers are all kept in this form. It is a contract between the
// operator, ctl and the daemons, so it lives below all of them.
//
//	signing-secrets/
//	├── ..data      ignored: names with a dot in front (Kubernetes mounts secrets so)
//	├── acme        two secrets; blank lines and lines that begin with # do not count
//	├── acme.bak    ignored with a warning: no workspace has such an id
//	└── globex      one secret
//
// Daemons look at a directory again every two seconds (cmd/internal/components,
// reload_secrets.go), so that a change is in force within five.
//
// # Promises
//
//   - A file decides for its workspace alone. One that cannot be used changes nothing
//     for the others, and a process starts without it.
//   - A file that cannot be used adds nothing, and takes away only what it readably
//     lacks. An entry is readably gone if no line is it any more, and at least one line
//     can be read or every line that is there is a comment. A line that cannot be read
//     but contains the entry ("v1,whsec_…") still is it. A blank file says nothing: a
//     full disk leaves one, too. To revoke all secrets of a workspace, remove its file.
//     With KeepLast that does not revoke the only file of the directory; one that has
//     comments alone does.
//   - A last line that is the beginning of an entry in force, without an end of line,
//     cannot be read, even if it could be an entry by itself (the first 24 characters
//     of a key in base64): the file is cut there. That entry and those that were after
//     it stay.
//   - An entry that was not in force has no whole to compare with. If its line is cut
//     where the rest can be read, the rest is believed, and so it is at the first look.
//     So write files beside, and rename them. Keys and secrets of 32 bytes, as
//     token.NewKey and signature.NewSecret make them, have 44 and 50 characters.
//   - A change is believed when two looks in a row have found the same, so a file that is
//     being written, or that an editor replaces, is not believed. Only the first look
//     believes what it finds.
//   - A directory that cannot be read changes nothing.
//   - Errors name the file and the line, never what the line contains.
//
// # Shape
//
// A Format knows what a line means. Load reads a directory into a Set; Reload looks
// again; InForce is what holds now. An entry that stays keeps its value over reloads.
package secretdir

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Line is one entry of a file.
type Line struct {
	Number int    // in the file, from 1; blank lines and comments count
	Text   string // without white space around it
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

// Error does not name the file; a Problem does.
func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.err) }

// Unwrap returns the error about the line.
func (e *lineError) Unwrap() error { return e.err }

// Problem is why a file, or the directory, cannot be used.
type Problem struct {
	File string // its name in the directory; "" for the directory itself
	Line int    // from 1; 0 for the file as a whole
	Err  error
}

// Error returns "acme line 2: …", or "acme: …" for the file as a whole.
func (p *Problem) Error() string {
	switch {
	case p.File == "":
		return p.Err.Error()
	case p.Line == 0:
		return fmt.Sprintf("%s: %v", p.File, p.Err)
	}
	return fmt.Sprintf("%s line %d: %v", p.File, p.Line, p.Err)
}

// Unwrap returns what is wrong, without its place.
func (p *Problem) Unwrap() error { return p.Err }

// newProblem takes the line out of an error of Line.Errorf.
func newProblem(file string, err error) *Problem {
	if line, ok := errors.AsType[*lineError](err); ok {
		return &Problem{File: file, Line: line.number, Err: line.err}
	}
	return &Problem{File: file, Err: err}
}

// Findings are what Load or Reload found.
type Findings struct {
	Problems []*Problem // in the order of files and lines
	Ignored  []string   // names that are no workspace id, in order
	Changed  []string   // workspaces of which other entries are in force than before, in order
	Files    int        // that are named by a workspace
	Entries  int        // in force, of all workspaces
}

// Unreadable is the number of files that cannot be used; the directory counts as one.
func (f *Findings) Unreadable() int {
	n := 0
	for i, p := range f.Problems {
		if i == 0 || f.Problems[i-1].File != p.File {
			n++
		}
	}
	return n
}

// Err returns all problems as one error; nil without any.
func (f *Findings) Err() error {
	list := make([]error, len(f.Problems))
	for i, p := range f.Problems {
		list[i] = p
	}
	return errors.Join(list...)
}

// Use is when an entry in force was last used.
type Use struct {
	Workspace string
	KeyID     string    // of the entry; never the entry
	At        time.Time // to the second; zero: not since the process started
}

// IsWorkspaceID reports whether a name is [a-z0-9-]{1,64}, as a file must be named to
// be read.
func IsWorkspaceID(name string) bool {
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
