package secretdir

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// maxFileBytes bounds a file; thousands of entries fit.
const maxFileBytes = 1 << 20

// Entry is a line with its meaning.
type Entry[E any] struct {
	Line  Line
	Value E
}

// A Format says how the files of one kind of secret are read.
type Format[E any] struct {
	// Parse reads one line. Its errors contain no part of the line.
	Parse func(workspace string, line Line) (E, error)
	// Check judges a file whose lines can all be read, by rules such as how many there
	// may be. An error of Line.Errorf names a line.
	Check func(entries []Entry[E]) error
	// Claim returns what of an entry no other workspace's file may contain. The
	// workspace that has it in force keeps it; at the start, the first by name. It may
	// be nil.
	Claim func(value E) string
	// KeepLast: a directory that has lost all its files is not believed, because a
	// mount that is gone looks the same.
	KeepLast bool
}

// Held is what is in force of one workspace.
type Held[E any] struct {
	Values []E // in the order of the file
	// Pending are lines of an unreadable file that can be read, but are not in force.
	Pending []E
	// Unreadable: the file cannot be used now. Without Values nothing is left of an
	// earlier one either, and requests of the workspace cannot be judged.
	Unreadable bool
}

// A Set is what the files of a directory say. It is not safe for concurrent use.
type Set[E any] struct {
	dir      fs.FS
	format   Format[E]
	files    map[string]*file[E] // by workspace
	ignored  []string
	unlisted error // why the directory as a whole is not believed
	findings Findings
}

// file is one workspace's file over time.
type file[E any] struct {
	info     fs.FileInfo // of when it was last read
	seen     content     // in the newest look
	believed content
	parsed   []Entry[E] // of believed
	held     []Entry[E]
	problems []*Problem
	// contested: the file could be used, but another workspace has something of it in
	// force. It is tried again at each look.
	contested bool
}

// content is what one look found. The zero content is no file.
type content struct {
	exists bool
	text   string
	fault  string // why text could not be read; "" if it could
}

// Load reads a directory and believes what it finds. The error is that the directory
// cannot be read. Files that cannot be used are in Findings.
func Load[E any](dir fs.FS, format Format[E]) (*Set[E], error) {
	s := &Set[E]{dir: dir, format: format, files: map[string]*file[E]{}}
	s.findings = s.look(true)
	return s, s.unlisted
}

// Findings returns what the newest look found.
func (s *Set[E]) Findings() Findings { return s.findings }

// Reload looks at the directory again. A change is in force once two looks in a row
// have found the same.
func (s *Set[E]) Reload() Findings {
	s.findings = s.look(false)
	return s.findings
}

// InForce returns what holds, by workspace. A workspace without a file has no place in
// it.
func (s *Set[E]) InForce() map[string]Held[E] {
	all := make(map[string]Held[E], len(s.files))
	for workspace, f := range s.files {
		if !f.believed.exists {
			continue
		}
		h := Held[E]{Unreadable: len(f.problems) > 0}
		kept := make(map[string]bool, len(f.held))
		for _, e := range f.held {
			h.Values = append(h.Values, e.Value)
			kept[e.Line.Text] = true
		}
		for _, e := range f.parsed {
			if h.Unreadable && !kept[e.Line.Text] {
				h.Pending = append(h.Pending, e.Value)
			}
		}
		all[workspace] = h
	}
	return all
}

// look reads the directory once.
func (s *Set[E]) look(first bool) Findings {
	names, err := s.listFiles()
	if s.unlisted = err; err != nil {
		return s.sumUp(nil)
	}
	for _, name := range names {
		if s.files[name] == nil {
			s.files[name] = new(file[E])
		}
	}
	before := map[string]string{} // of files that may change, what was in force
	workspaces := slices.Sorted(maps.Keys(s.files))
	for _, workspace := range workspaces {
		f := s.files[workspace]
		found := content{}
		if _, exists := slices.BinarySearch(names, workspace); exists {
			found = f.read(s.dir, workspace)
		}
		if isNew := (first || found == f.seen) && found != f.believed; isNew || f.contested {
			before[workspace] = textsOf(f.held)
			if isNew {
				s.believe(workspace, f, found)
			}
		}
		if f.seen = found; !f.seen.exists && !f.believed.exists {
			delete(s.files, workspace)
		}
	}
	return s.sumUp(s.settle(before))
}

// settle puts files in force that were read and can be used, and returns the workspaces
// of which other entries are in force than before. It comes after all files were read:
// what has moved is gone from one before another takes it over.
func (s *Set[E]) settle(before map[string]string) (changed []string) {
	owners := s.listClaims(len(before) > 0)
	for _, workspace := range slices.Sorted(maps.Keys(before)) {
		f := s.files[workspace]
		if f != nil && f.believed.exists && (len(f.problems) == 0 || f.contested) {
			s.putInForce(workspace, f, owners)
		}
		if f == nil && before[workspace] != "" || f != nil && textsOf(f.held) != before[workspace] {
			changed = append(changed, workspace)
		}
	}
	return changed
}

// listClaims returns what is claimed, with its workspace.
func (s *Set[E]) listClaims(needed bool) map[string]string {
	owners := map[string]string{}
	if s.format.Claim == nil || !needed {
		return owners
	}
	for workspace, f := range s.files {
		for _, e := range f.held {
			owners[s.format.Claim(e.Value)] = workspace
		}
	}
	return owners
}

// putInForce replaces what a workspace has in force by what its file contains, if that
// can be used.
func (s *Set[E]) putInForce(workspace string, f *file[E], owners map[string]string) {
	f.contested, f.problems = false, nil
	if err := s.format.Check(f.parsed); err != nil {
		f.problems = []*Problem{newProblem(workspace, err)}
		return
	}
	if s.format.Claim != nil {
		for _, e := range f.parsed {
			if owner, ok := owners[s.format.Claim(e.Value)]; ok && owner != workspace {
				f.contested = true
				f.problems = append(f.problems, newProblem(workspace,
					e.Line.Errorf("it is also in %s, and opens one workspace alone", owner)))
			}
		}
		if f.contested {
			return
		}
		for _, e := range f.parsed {
			owners[s.format.Claim(e.Value)] = workspace
		}
	}
	f.held = f.parsed
}

// listFiles returns the names of all files of workspaces, in order, and keeps the names
// that it ignores.
func (s *Set[E]) listFiles() (names []string, err error) {
	entries, err := fs.ReadDir(s.dir, ".")
	if err != nil {
		return nil, fmt.Errorf("listing the directory: %w", err)
	}
	s.ignored = nil
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasPrefix(name, "."):
		case IsWorkspaceID(name):
			names = append(names, name)
		default:
			s.ignored = append(s.ignored, name)
		}
	}
	if len(names) == 0 && len(s.files) > 0 && s.format.KeepLast {
		return nil, errors.New("the directory no longer contains a workspace's file")
	}
	slices.Sort(names)
	return names, nil
}

// read returns what the file contains now. It reads nothing if the file was not written
// since it was believed.
func (f *file[E]) read(dir fs.FS, name string) content {
	info, err := fs.Stat(dir, name)
	switch {
	case err != nil:
	case !info.Mode().IsRegular(): // reading a pipe would wait for its writer
		err = errors.New("it is not a file")
	case f.seen == f.believed && f.isUnwritten(info):
		return f.seen
	}
	var text []byte
	if err == nil {
		f.info = info
		text, err = readBounded(dir, name)
	}
	if err != nil {
		return content{exists: true, fault: err.Error()}
	}
	return content{exists: true, text: string(text)}
}

// isUnwritten reports whether the file is the one that was read, and was not written
// since. The file itself may change behind a link, and two may have the same time.
func (f *file[E]) isUnwritten(info fs.FileInfo) bool {
	return f.info != nil && f.seen.exists && f.seen.fault == "" && os.SameFile(f.info, info) &&
		f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime())
}

func readBounded(dir fs.FS, name string) ([]byte, error) {
	opened, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	text, err := io.ReadAll(io.LimitReader(opened, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("it has more than %d bytes", maxFileBytes)
	}
	return text, err
}

// believe parses what was found, and takes out of force what is readably gone.
func (s *Set[E]) believe(workspace string, f *file[E], found content) {
	f.believed, f.parsed, f.problems, f.contested = found, nil, nil, false
	if found.fault != "" {
		f.problems = []*Problem{{File: workspace, Err: errors.New(found.fault)}}
		return
	}
	same := make(map[string]E, len(f.held)) // an entry that stays keeps its value
	for _, e := range f.held {
		same[e.Line.Text] = e.Value
	}
	var unreadable []string
	lines, cut := Lines([]byte(found.text)), f.findCut(found.text)
	for i, line := range lines {
		value, ok := same[line.Text]
		if !ok {
			var err error
			if cut < len(f.held) && i == len(lines)-1 {
				err = line.Errorf("the file is cut: the line is the beginning of an entry in force, and has no end")
			} else {
				value, err = s.format.Parse(workspace, line)
			}
			if err != nil {
				f.problems = append(f.problems, newProblem(workspace, err))
				unreadable = append(unreadable, line.Text)
				continue
			}
		}
		f.parsed = append(f.parsed, Entry[E]{line, value})
	}
	var held []Entry[E]
	for i, e := range f.held {
		if i >= cut || !f.readablyLacks(e.Line.Text, unreadable) {
			held = append(held, e)
		}
	}
	f.held = held
}

// findCut returns the index of the first entry in force of which the last line is the
// beginning, without an end of line: the text may be cut there, so that it says nothing
// of the entries from that one on. It is the number of entries if the text is not cut.
func (f *file[E]) findCut(text string) int {
	last := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
	cut := len(f.held)
	for i, e := range slices.Backward(f.held) {
		switch {
		case e.Line.Text == last:
			return len(f.held)
		case last != "" && strings.HasPrefix(e.Line.Text, last):
			cut = i
		}
	}
	return cut
}

// readablyLacks reports whether the believed content says that an entry is gone.
func (f *file[E]) readablyLacks(text string, unreadable []string) bool {
	if !f.believed.exists {
		return true
	}
	if len(f.parsed) == 0 && (len(unreadable) > 0 || strings.TrimSpace(f.believed.text) == "") {
		return false
	}
	return !slices.ContainsFunc(f.parsed, func(e Entry[E]) bool { return e.Line.Text == text }) &&
		!slices.ContainsFunc(unreadable, func(line string) bool { return strings.Contains(line, text) })
}

// sumUp returns what the newest look found.
func (s *Set[E]) sumUp(changed []string) Findings {
	found := Findings{Ignored: s.ignored, Changed: changed}
	if s.unlisted != nil {
		found.Problems = append(found.Problems, &Problem{Err: s.unlisted})
	}
	for _, f := range s.files {
		found.Problems = append(found.Problems, f.problems...)
		found.Entries += len(f.held)
		if f.believed.exists {
			found.Files++
		}
	}
	slices.SortStableFunc(found.Problems, func(a, b *Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line)
	})
	return found
}

// textsOf returns a text that differs if the entries do.
func textsOf[E any](entries []Entry[E]) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Line.Text)
		b.WriteByte('\n')
	}
	return b.String()
}
