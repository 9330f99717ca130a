package secretdir

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

var errWord = errors.New("not a word")

// parseWords accepts lines of letters.
func parseWords(f File) ([]string, error) {
	var words []string
	for _, line := range f.Lines {
		if strings.ContainsFunc(line.Text, func(r rune) bool { return r < 'a' || r > 'z' }) {
			return nil, line.Errorf("%w", errWord)
		}
		words = append(words, line.Text)
	}
	if len(words) == 0 {
		return nil, errors.New("no word in it")
	}
	return words, nil
}

func TestLoad(t *testing.T) {
	load := func(name, text string) (string, error) {
		got, err := Load(fstest.MapFS{name: {Data: []byte(text)}}, parseWords)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(got), nil
	}
	good := func(name, text, want string) {
		t.Helper()
		if got, err := load(name, text); err != nil || got != want {
			t.Errorf("%q with %q: %s, %v; want %s", name, text, got, err, want)
		}
	}
	bad := func(name, text, want string) {
		t.Helper()
		_, err := load(name, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q with %q: %v, want %q", name, text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: the error contains the secret: %v", name, err)
		}
	}
	good("acme", "one", "map[acme:[one]]")
	good("acme", "# old\r\none\r\n\r\n  \n \ttwo\n#end", "map[acme:[one two]]")
	good(strings.Repeat("a", 64), "one", "map["+strings.Repeat("a", 64)+":[one]]")
	good("..data/acme", "one", "map[]")
	good(".gitkeep", "", "map[]")
	bad("acme", "", "acme: no word in it")
	bad("acme", "# one\n", "acme: no word in it")
	bad("acme", "one\n\n#\n  geheim 2\n", "acme line 4: not a word")
	bad("acme.txt", "one", "acme.txt: a file is named by its workspace")
	bad("Acme", "one", "Acme: a file is named by its workspace")
	bad(strings.Repeat("a", 65), "one", "a: a file is named by its workspace")
	bad("acme/key", "one", "acme: ")

	if _, err := load("acme", "geheim 2"); !errors.Is(err, errWord) {
		t.Errorf("%v does not wrap the parser's error", err)
	}
}

// A directory that cannot be read is not an empty one.
func TestLoadWithoutDirectory(t *testing.T) {
	sub, err := fs.Sub(fstest.MapFS{}, "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(sub, parseWords); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the directory does not exist", err)
	}
}
