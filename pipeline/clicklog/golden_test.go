package clicklog

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var writeGolden = flag.Bool("write-golden", false,
	"write golden files that do not exist yet; existing ones are never changed")

// goldenClicks make segments of each version: of version 1 one whose block does not
// compress, so its bytes do not depend on the compressor's version, one whose blocks
// do, and one without clicks; of version 2 one with shared parts and one without, and
// one without clicks.
func goldenClicks() map[string][]record {
	noise := func(n uint64) []byte {
		b, r := make([]byte, 100), rand.New(rand.NewPCG(n, n))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	plain := []record{
		{offset: 100, token: testToken(2, 0xfedcba9876543210), at: testTime(2), value: noise(1)},
		{offset: 101, token: testToken(1, 0x0123456789abcdef), at: testTime(3), value: noise(2)},
		{offset: 102},
		{
			offset: 106,
			token:  testToken(2, 0xfedcba9876543210),
			at:     testTime(5),
			value:  append([]byte("put again"), noise(3)...),
		},
		{offset: 107, token: testToken(-5000, 0xa5a5a5a55a5a5a5a), at: -1, value: noise(4)},
	}
	whole := slices.Clone(plain)
	for i := range whole {
		whole[i].sharedFrom = len(whole[i].value)
	}
	shared := slices.Clone(plain)
	for i, own := range []int{0, 9, 0, 30, 100} { // the third is skipped, the last shares nothing
		shared[i].value = append(noise(uint64(i + 10))[:own:own], noise(uint64(20+i%2))...)
		shared[i].sharedFrom = own
	}
	shared[2].value = nil
	shared[4].sharedFrom = len(shared[4].value)
	return map[string][]record{
		"v1-plain":  plain,
		"v2-whole":  whole,
		"v2-shared": shared,
		"v2-empty":  {{offset: 41}, {offset: 42}},
		"v1-s2": {
			{offset: 0, token: testToken(1, 1), at: testTime(1), value: []byte(strings.Repeat("abcd", 200))},
			{offset: 1, token: testToken(2, 2), at: testTime(1), value: []byte{}},
			{offset: 2, token: testToken(3, 3), at: testTime(1), value: []byte(strings.Repeat("ijkl", 900))},
		},
		"v1-empty": {{offset: 41}, {offset: 42}},
	}
}

// Segments written by any version of the program stay readable: testdata is only ever
// added to.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < len(goldenClicks()) && !*writeGolden {
		t.Fatal("golden files are missing:", names)
	}
	for name, topic := range goldenClicks() {
		t.Run(name, func(t *testing.T) {
			written := hex.Dump(writeTopic(t, topic))
			path := filepath.Join("testdata", name+".hex")
			golden, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) && *writeGolden {
				golden, err = []byte(written), os.WriteFile(path, []byte(written), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, fmt.Sprintf("v%d-", formatVersion)) && written != string(golden) {
				t.Errorf("the program writes\n%s\nbut %s has\n%s", written, path, golden)
			}
			b, err := parseHexDump(string(golden))
			if err != nil {
				t.Fatal(err)
			}
			store := newMemStore()
			l := mustOpen(t, files{segmentName(1): b}.newFS(t), store, clockAt(1000))
			if want := topic[len(topic)-1].offset + 1; l.Next() != want {
				t.Errorf("next is %d, want %d", l.Next(), want)
			}
			if err := verifyAnswers(l, store, topic, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// writeTopic returns the segment that the program writes.
func writeTopic(t *testing.T, topic []record) []byte {
	t.Helper()
	mem := newFS(t)
	l := mustOpen(t, mem, newMemStore(), clockAt(1000))
	for _, rec := range topic {
		if err := rec.putInto(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return readFiles(t, mem)[segmentName(1)]
}

// parseHexDump reads what hex.Dump wrote.
func parseHexDump(dump string) (b []byte, err error) {
	for i, line := range strings.Split(strings.TrimSpace(dump), "\n") {
		if len(line) < 60 {
			return nil, fmt.Errorf("line %d is short", i+1)
		}
		row, err := hex.DecodeString(strings.ReplaceAll(line[10:58], " ", ""))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		b = append(b, row...)
	}
	return b, nil
}
