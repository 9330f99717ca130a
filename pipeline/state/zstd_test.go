package state_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/DataDog/zstd"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// What github.com/DataDog/zstd v1.5.7, the C library, wrote.
const (
	frameOfC = "28b52ffd60f004450100f061636d65207072745f6e6f6d757261207072675f6167656e6379206c6e6b02" +
		"00c725f581f94e27"
	emptyFrameOfC = "28b52ffd2000010000"
)

// The module that takes the place of DataDog's reads what that one wrote.
func TestFramesOfTheCLibrary(t *testing.T) {
	f := func(frame, want string) {
		t.Helper()
		b, err := hex.DecodeString(frame)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want)+1)
		n, err := zstd.NewCtx().DecompressInto(got, b)
		if err != nil || string(got[:n]) != want {
			t.Errorf("%s: read %q, %v", frame, got[:n], err)
		}
	}
	f(frameOfC, strings.Repeat("acme prt_nomura prg_agency lnk_nomura ", 40))
	f(emptyFrameOfC, "")
}

// A frame is written into the memory that Pebble gives for it, at every level, and read
// back; a buffer that is too short is an error.
func TestZstdRoundTrip(t *testing.T) {
	c := zstd.NewCtx()
	if frame, err := c.CompressLevel(make([]byte, zstd.CompressBound(0)), nil, 3); err != nil || len(frame) == 0 {
		t.Errorf("nothing became no frame: %x, %v", frame, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		// up to four blocks
		text := make([]byte, rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 400_000)).Draw(t, "size"))
		random, letters := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), rapid.IntRange(1, 256).Draw(t,
			"letters")
		for i := range text {
			text[i] = byte(random.IntN(letters)) // 256 of them compress to more than they were
		}
		level := rapid.IntRange(1, 22).Draw(t, "level")
		room := make([]byte, zstd.CompressBound(len(text)))
		frame, err := c.CompressLevel(room, text, level)
		if err != nil || &frame[0] != &room[0] {
			t.Fatalf("level %d of %d bytes: %d bytes elsewhere, %v", level, len(text), len(frame), err)
		}
		got := make([]byte, len(text))
		if n, err := c.DecompressInto(got, frame); err != nil || n != len(text) || !bytes.Equal(got, text) {
			t.Fatalf("level %d of %d bytes: read %d, %v", level, len(text), n, err)
		}
		if len(text) > 0 {
			if n, err := c.DecompressInto(got[:len(text)-1], frame); err == nil {
				t.Fatalf("%d bytes were read into %d", n, len(text)-1)
			}
		}
	})
}

// Pebble itself works with it, though our stores use snappy: each block is held against
// its checksum and length.
func TestPebbleOnZstd(t *testing.T) {
	opts := &pebble.Options{FS: vfs.NewMem(), FormatMajorVersion: pebble.FormatNewest, DisableWAL: true}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
		return pebble.UniformDBCompressionSettings(block.GoodCompression)
	})
	db, err := pebble.Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	value := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint("value ", i, " "), 50)) }
	for i := range 2000 {
		if err := db.Set(fmt.Appendf(nil, "%06d", i), value(i), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(t.Context(), []byte("0"), []byte("9"), false); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		got, closer, err := db.Get(fmt.Appendf(nil, "%06d", i))
		if err != nil || !bytes.Equal(got, value(i)) {
			t.Fatalf("row %d: %q, %v", i, got, err)
		}
		closer.Close()
	}
	if tables, err := db.SSTables(pebble.WithProperties()); err != nil || len(tables[6]) == 0 ||
		!strings.Contains(tables[6][0].Properties.CompressionName, "Good") {
		t.Errorf("the rows are not in tables that zstd compressed: %v, %v", tables, err)
	}
}
