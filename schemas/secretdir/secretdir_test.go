package secretdir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

var errWord = errors.New("not a word")

// words are lines of letters. A file has at least one and at most three, and a word
// that begins with x is in one file alone.
func words() Format[string] {
	return Format[string]{
		Parse: func(_ string, line Line) (string, error) {
			if strings.ContainsFunc(line.Text, func(r rune) bool { return r < 'a' || r > 'z' }) {
				return "", line.Errorf("%w", errWord)
			}
			return line.Text, nil
		},
		Check: func(entries []Entry[string]) error {
			switch {
			case len(entries) == 0:
				return errors.New("no word in it")
			case len(entries) > 3:
				return entries[3].Line.Errorf("more than 3 words")
			}
			return nil
		},
		Claim: func(word string) string {
			if strings.HasPrefix(word, "x") {
				return word
			}
			return fmt.Sprintf("%p", &word) // nothing that another has
		},
		KeepLast: true,
	}
}

// folder is a directory in memory in which each write has a time of its own.
type folder struct {
	fstest.MapFS
	clock time.Time
}

func (f *folder) write(name, text string) {
	f.clock = f.clock.Add(time.Second)
	f.MapFS[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o600, ModTime: f.clock}
}

func newFolder(files ...string) *folder {
	f := &folder{MapFS: fstest.MapFS{}}
	for i := 0; i < len(files); i += 2 {
		f.write(files[i], files[i+1])
	}
	return f
}

// shown is what is in force, as "acme=one,two globex=! initech=three!"; ! says that the
// file cannot be used.
func shown(s *Set[string]) string {
	var list []string
	inForce := s.InForce()
	for _, workspace := range slices.Sorted(maps.Keys(inForce)) {
		h := inForce[workspace]
		text := workspace + "=" + strings.Join(h.Values, ",")
		if h.Unreadable {
			text += "!"
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func load(t testing.TB, dir fs.FS) *Set[string] {
	t.Helper()
	s, err := Load(dir, words())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	for _, c := range []struct{ name, text, want, problem string }{
		{"acme", "one", "acme=one", ""},
		{"acme", "# old\r\none\r\n\r\n  \n \ttwo\n#end", "acme=one,two", ""},
		{strings.Repeat("a", 64), "one", strings.Repeat("a", 64) + "=one", ""},
		{"..data/acme", "one", "", ""},
		{".gitkeep", "", "", ""},
		{"acme", "", "acme=!", "acme: no word in it"},
		{"acme", "# one\n", "acme=!", "acme: no word in it"},
		{"acme", "one\n\n#\n  geheim 2\n", "acme=!", "acme line 4: not a word"},
		{"acme", "9\none\n8", "acme=!", "acme line 1: not a word\nacme line 3: not a word"},
		{"acme", "one\ntwo\nthree\n\nfour", "acme=!", "acme line 5: more than 3 words"},
		{"acme/key", "one", "acme=!", "acme: it is not a file"},
		{"acme", strings.Repeat("a\n", maxFileBytes/2+1), "acme=!", "acme: it has more than 1048576 bytes"},
		{"acme.txt", "one", "", ""},
		{"Acme", "one", "", ""},
		{strings.Repeat("a", 65), "one", "", ""},
	} {
		s := load(t, newFolder(c.name, c.text))
		found := s.Findings()
		got := ""
		if err := found.Err(); err != nil {
			got = err.Error()
		}
		if shown(s) != c.want || got != c.problem {
			t.Errorf("%.40q with %.40q: %s, problems %q; want %s, %q", c.name, c.text, shown(s), got, c.want,
				c.problem)
		}
		if strings.Contains(got, "geheim") {
			t.Errorf("the problem contains the secret: %s", got)
		}
	}
	found := load(t, newFolder("acme", "geheim 2")).Findings()
	if err := found.Err(); !errors.Is(err, errWord) {
		t.Errorf("%v does not wrap the format's error", err)
	}
}

// A name that no workspace can have is told, and decides nothing.
func TestIgnoredNames(t *testing.T) {
	s := load(t, newFolder("acme", "one", "acme.bak", "9", "acme~", "9", ".hidden", "9", "Globex", "9"))
	found := s.Findings()
	want := "[Globex acme.bak acme~]"
	if fmt.Sprint(found.Ignored) != want || found.Err() != nil || shown(s) != "acme=one" {
		t.Errorf("ignored %v, want %s; %v; %s", found.Ignored, want, found.Err(), shown(s))
	}
}

// Each step writes a file (or removes it: "-") and wants what is in force once it is
// believed.
func TestOneFileDecidesForOneWorkspace(t *testing.T) {
	for name, steps := range map[string][][3]string{
		"a bad line adds nothing and keeps the rest": {
			{"acme", "one\ntwo\n9", "acme=one! globex=two"},
			{"acme", "three\none\n", "acme=three,one globex=two"}},
		"another file's revocation goes through": {
			{"acme", "one\n9", "acme=one! globex=two"},
			{"globex", "three", "acme=one! globex=three"},
			{"globex", "-", "acme=one!"}},
		"a bad file takes away what is readably gone": {
			{"acme", "one\ntwo", "acme=one,two globex=two"},
			{"acme", "two\nthree\n9", "acme=two! globex=two"},
			{"acme", "three\n9", "acme=! globex=two"},
			{"acme", "one\n9", "acme=! globex=two"},
			{"acme", "one\n", "acme=one globex=two"}},
		"where no line can be read, nothing is readably gone": {
			{"acme", "9", "acme=one! globex=two"},
			{"acme", "# key\n9", "acme=one! globex=two"}},
		"a blank file says nothing": {
			{"acme", "", "acme=one! globex=two"},
			{"acme", " \n\n", "acme=one! globex=two"}},
		"an entry that is a comment is gone": {
			{"acme", "# one\n", "acme=! globex=two"}},
		"a rule of the whole file": {
			{"acme", "one\ntwo\nthree\nfour", "acme=one! globex=two"},
			{"acme", "two\nthree\nfour\nfive", "acme=! globex=two"}},
		"a line around an entry still is it": {
			{"acme", "one\ntwo", "acme=one,two globex=two"},
			{"acme", "v1,one\ntwo", "acme=one,two! globex=two"},
			{"acme", "one # old\ntwo", "acme=one,two! globex=two"},
			{"acme", "# v1,one\ntwo\n9", "acme=two! globex=two"}},
		"a file that no longer exists": {
			{"acme", "-", "globex=two"}},
		"a file that cannot be read": {
			{"acme", "dir", "acme=one! globex=two"}},
		"a claim stays with its workspace": {
			{"acme", "xx\none", "acme=xx,one globex=two"},
			{"globex", "xx\ntwo", "acme=xx,one globex=two!"},
			{"acme", "one", "acme=one globex=xx,two"}},
	} {
		dir := newFolder("acme", "one", "globex", "two")
		s := load(t, dir)
		for _, step := range steps {
			switch step[1] {
			case "-":
				delete(dir.MapFS, step[0])
			case "dir":
				delete(dir.MapFS, step[0])
				dir.write(step[0]+"/x", "")
			default:
				dir.write(step[0], step[1])
			}
			s.Reload()
			found := s.Reload()
			if shown(s) != step[2] {
				t.Errorf("%s: after %s %q: %s, want %s", name, step[0], step[1], shown(s), step[2])
			}
			if bad := strings.Count(step[2], "!"); found.Unreadable() != bad {
				t.Errorf("%s: after %s %q: %d files unreadable, want %d", name, step[0], step[1], found.Unreadable(),
					bad)
			}
		}
	}
}

// A line without its end, in a last line that is being written, still is its entry.
func TestTruncatedLine(t *testing.T) {
	format := words()
	format.Parse = func(_ string, line Line) (string, error) {
		if len(line.Text) != 4 {
			return "", line.Errorf("want 4 letters")
		}
		return line.Text, nil
	}
	for text, want := range map[string]string{
		"aaaa\nbb":     "acme=aaaa,bbbb!",
		"aaaa\nbb\n":   "acme=aaaa!", // the line has its end: nothing will follow
		"aaaa\ncc":     "acme=aaaa!",
		"bb\naaaa":     "acme=aaaa!",
		"bb\n":         "acme=aaaa,bbbb!", // no line can be read
		"aaaa\nbbbbbb": "acme=aaaa,bbbb!",
		"aaaa\n":       "acme=aaaa",
	} {
		dir := newFolder("acme", "aaaa\nbbbb\n")
		s, err := Load(dir, format)
		if err != nil {
			t.Fatal(err)
		}
		dir.write("acme", text)
		s.Reload()
		if s.Reload(); shown(s) != want {
			t.Errorf("%q: %s, want %s", text, shown(s), want)
		}
	}
}

// A last line that could be an entry by itself is none if it is the beginning of one in
// force and has no end: the file is cut, and says nothing of what was after it.
func TestCutLineThatCanBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"on":            "acme=one,two,three!",
		"one\nt":        "acme=one,two,three!",
		"one\ntwo\nthr": "acme=one,two,three!",
		"two\nthr":      "acme=two,three!",
		"one\nth":       "acme=one,three!",
		"one\nx":        "acme=one,x",
		"one\ntw\n":     "acme=one,tw", // the line has its end: it is what was meant
		"one\n# t":      "acme=one",
		"one\ntwo":      "acme=one,two",
	} {
		dir := newFolder("acme", "one\ntwo\nthree\n")
		s := load(t, dir)
		dir.write("acme", text)
		s.Reload()
		if s.Reload(); shown(s) != want {
			t.Errorf("%q: %s, want %s", text, shown(s), want)
		}
		dir.write("acme", "one\ntwo\nthree\n")
		s.Reload()
		if s.Reload(); shown(s) != "acme=one,two,three" {
			t.Errorf("%q, then whole again: %s", text, shown(s))
		}
	}
}

// What one look finds is not believed: the file may be half written, or away while an
// editor replaces it.
func TestHalfWrittenFileIsNotBelieved(t *testing.T) {
	dir := newFolder("acme", "one\ntwo\n", "globex", "two")
	s := load(t, dir)
	want := func(want string) {
		t.Helper()
		found := s.Reload()
		if shown(s) != want || found.Err() != nil {
			t.Errorf("%s, %v; want %s", shown(s), found.Err(), want)
		}
	}
	dir.write("acme", "on")
	want("acme=one,two globex=two")
	dir.write("acme", "one\n")
	want("acme=one,two globex=two")
	dir.write("acme", "one\ntwo\nthree\n")
	want("acme=one,two globex=two")
	want("acme=one,two,three globex=two")
	delete(dir.MapFS, "acme")
	want("acme=one,two,three globex=two")
	dir.write("acme", "four")
	want("acme=one,two,three globex=two")
	want("acme=four globex=two")
	dir.write("initech", "fi")
	want("acme=four globex=two")
	dir.write("initech", "five")
	want("acme=four globex=two")
	want("acme=four globex=two initech=five")
}

// What changed is told once, and what stays keeps its value.
func TestFindings(t *testing.T) {
	format := words()
	type value struct{ word string }
	s, err := Load(newFolder("acme", "one\ntwo", "globex", "three"), Format[*value]{
		Parse: func(w string, line Line) (*value, error) {
			word, err := format.Parse(w, line)
			return &value{word}, err
		},
		Check: func([]Entry[*value]) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if found := s.Findings(); fmt.Sprint(found.Changed) != "[acme globex]" || found.Files != 2 || found.Entries != 3 {
		t.Errorf("%+v", found)
	}
	before := s.InForce()["acme"].Values
	s.dir.(*folder).write("acme", "two\none\nsix\n")
	changed := s.Reload().Changed
	changed = append(changed, s.Reload().Changed...)
	changed = append(changed, s.Reload().Changed...)
	after := s.InForce()["acme"].Values
	if fmt.Sprint(changed) != "[acme]" || len(after) != 3 || after[0] != before[1] || after[1] != before[0] {
		t.Errorf("changed %v; %v, then %v", changed, before, after)
	}
}

// A directory that cannot be listed, or that lost all its files, changes nothing.
func TestDirectoryIsGone(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "acme")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := load(t, os.DirFS(dir))
	lost := func(want string) {
		t.Helper()
		for range 3 {
			found := s.Reload()
			if err := found.Err(); err == nil || !strings.Contains(err.Error(), want) || found.Unreadable() != 1 ||
				shown(s) != "acme=one" {
				t.Errorf("%v, %s; want %q", err, shown(s), want)
			}
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	lost("no longer contains")
	revoked := load(t, newFolder("acme", "one"))
	revoked.dir.(*folder).write("acme", "# revoked\n")
	revoked.Reload()
	if revoked.Reload(); shown(revoked) != "acme=!" {
		t.Errorf("comments alone: %s", shown(revoked))
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	lost("listing the directory")

	if _, err := Load(os.DirFS(dir), words()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that the directory does not exist", err)
	}
	last := load(t, newFolder("acme", "one"))
	last.format.KeepLast = false
	delete(last.dir.(*folder).MapFS, "acme")
	last.Reload()
	if last.Reload(); shown(last) != "" {
		t.Errorf("%s", shown(last))
	}
}

// Links are followed, and a pipe is not opened: opening would wait for its writer.
func TestLinksAndPipes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "..1", "acme"), []byte("one"), 0o600),
		os.WriteFile(filepath.Join(dir, "..2", "acme"), []byte("two"), 0o600),
		os.Symlink("..1", filepath.Join(dir, "..data")),
		os.Symlink("..data/acme", filepath.Join(dir, "acme")),
		syscall.Mkfifo(filepath.Join(dir, "globex"), 0o600))
	s := load(t, os.DirFS(dir))
	if shown(s) != "acme=one globex=!" {
		t.Errorf("%s", shown(s))
	}
	must(os.Symlink("..2", filepath.Join(dir, "..next")),
		os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")))
	s.Reload()
	if s.Reload(); shown(s) != "acme=two globex=!" {
		t.Errorf("after the swap: %s", shown(s))
	}
}

// Whatever two files say one after the other: a file that cannot be used adds nothing,
// and what stays of the first either is somewhere in the second, or the second has no
// line that can be read, or it is cut.
func FuzzReload(f *testing.F) {
	f.Add("one\ntwo\n", "one\n9\ntwo")
	f.Add("# x\r\none", "v1,one\ntw")
	f.Add("one\n\xff\x00", "")
	f.Add("one", "on")
	f.Add("\ufeffone\n", "# one\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		dir := newFolder("acme", first, "globex", "g")
		s := load(t, dir)
		before := s.InForce()["acme"]
		dir.write("acme", second)
		s.Reload()
		s.Reload()
		after := s.InForce()["acme"]
		if got := s.InForce()["globex"]; len(got.Values) != 1 || got.Unreadable {
			t.Fatalf("globex has %v", got)
		}
		last := strings.TrimSpace(second[strings.LastIndexByte(second, '\n')+1:])
		cut := last != "" && !slices.Contains(before.Values, last) &&
			slices.ContainsFunc(before.Values, func(v string) bool { return strings.HasPrefix(v, last) })
		if cut && !after.Unreadable {
			t.Fatalf("%q, then %q: what is cut is believed", first, second)
		}
		readable := false
		for _, line := range Lines([]byte(second)) {
			if line.Text == "" || line.Text[0] == '#' || strings.TrimSpace(line.Text) != line.Text || line.Number < 1 {
				t.Fatalf("line %+v", line)
			}
			_, err := s.format.Parse("acme", line)
			readable = readable || err == nil
		}
		for _, v := range after.Values {
			if after.Unreadable && !slices.Contains(before.Values, v) {
				t.Fatalf("%q, then %q: %q is new, of a file that cannot be used", first, second, v)
			}
			if readable && !cut && !strings.Contains(second, v) {
				t.Fatalf("%q, then %q: %q is still in force", first, second, v)
			}
		}
		if !after.Unreadable && len(after.Values) != len(Lines([]byte(second))) {
			t.Fatalf("%q: %v", second, after)
		}
	})
}
