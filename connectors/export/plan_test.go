package export

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	marchFilters = Filters{Workspace: "acme", From: "2026-03-14", To: "2026-03-15", Verdict: DefaultVerdicts()}
	marchEnds    = AsOf{Outcomes: map[uint32]uint64{0: 7, 1: 9}, Conversions: map[uint32]uint64{0: 8, 1: 9}, Catalog: 3}
)

// marchManifest is of an export of marchFilters in Berlin.
func marchManifest() *Manifest {
	m := &Manifest{Filters: marchFilters, AsOf: marchEnds, SHA256: "x", SchemaVersion: SchemaVersion}
	m.Filters.Timezone = "Europe/Berlin"
	return m
}

// A new export takes the zone that it is given, is provisional until the joined
// watermark has passed the end of its last day, and fails then if it may not be.
func TestNewPlan(t *testing.T) {
	cfg := Config{Filters: marchFilters}
	end := time.Date(2026, 3, 15, 23, 0, 0, 0, time.UTC) // of 15 March in Berlin
	p, err := newPlan(cfg, bounds{ends: marchEnds, watermark: end}, "Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if !p.start.Equal(time.Date(2026, 3, 13, 23, 0, 0, 0, time.UTC)) || !p.end.Equal(end) || p.provisional ||
		p.filters.Timezone != "Europe/Berlin" || p.since != nil || p.repeats != nil {
		t.Errorf("plan %+v", p)
	}
	late := bounds{ends: marchEnds, watermark: end.Add(-time.Millisecond)}
	if p, err := newPlan(cfg, late, "Europe/Berlin"); err != nil || !p.provisional {
		t.Errorf("before the end of the day: %+v, %v", p, err)
	}
	cfg.finalOnly = true
	if _, err := newPlan(cfg, late, "Europe/Berlin"); !errors.Is(err, ErrWatermarkBehind) {
		t.Errorf("a final export before the end of the day: %v", err)
	}
	if _, err := newPlan(cfg, late, "Europe/Atlantis"); err == nil {
		t.Error("an unknown zone makes a plan")
	}
}

// A repeated export has the bounds, the state and the base of the first.
func TestPlanOfRepeatedExport(t *testing.T) {
	then := marchManifest()
	then.Provisional = true
	then.Since = &AsOf{Outcomes: map[uint32]uint64{0: 1}}
	then.SchemaVersion = 1
	p, err := newPlan(Config{Filters: marchFilters, AsOf: then, finalOnly: true}, bounds{ends: then.AsOf},
		then.Filters.Timezone)
	if err != nil || !p.provisional || p.since != then.Since || p.repeats != then || p.version != 1 {
		t.Errorf("plan %+v, %v", p, err)
	}
}

// A delta needs tables that go at least as far as those of the export before.
func TestPlanOfDelta(t *testing.T) {
	cfg := Config{Filters: marchFilters, Since: marchManifest()}
	now := bounds{ends: AsOf{Outcomes: map[uint32]uint64{0: 7, 1: 20}, Conversions: marchEnds.Conversions}}
	if p, err := newPlan(cfg, now, "Europe/Berlin"); err != nil || p.since != &cfg.Since.AsOf {
		t.Errorf("plan %+v, %v", p, err)
	}
	now.ends.Outcomes = map[uint32]uint64{0: 7}
	if _, err := newPlan(cfg, now, "Europe/Berlin"); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "outcomes partition 1 up to offset 9, and the tables only up to 0") {
		t.Errorf("tables that lost a partition: %v", err)
	}
}

// The error of a command that does not fit its manifest names the filter and what the
// manifest has for it.
func TestManifestsOfOtherCommands(t *testing.T) {
	check := func(want string, change func(*Config)) {
		t.Helper()
		for _, flag := range []string{"-as-of", "-since"} {
			cfg := Config{Filters: marchFilters}
			if flag == "-as-of" {
				cfg.AsOf = marchManifest()
			} else {
				cfg.Since = marchManifest()
			}
			change(&cfg)
			err := checkManifests(cfg)
			if want == "" {
				if err != nil {
					t.Errorf("%s: %v", flag, err)
				}
				continue
			}
			if text := flag + ": the manifest was written " + want; !errors.Is(err, ErrManifest) ||
				!strings.Contains(err.Error(), text) {
				t.Errorf("got %v, want %q", err, text)
			}
		}
	}
	check("", func(*Config) {})
	check("", func(c *Config) { c.Timezone = "Asia/Tokyo" }) // the manifest's zone is taken
	check("with -workspace acme", func(c *Config) { c.Workspace = "globex" })
	check("without -partner", func(c *Config) { c.Partner = "p0" })
	check("with -verdict attributed,reversed", func(c *Config) { c.Verdict = []string{"conflict"} })
	check("with -to 2026-03-15", func(c *Config) { c.To = "2026-03-16" })
	raw := Config{Filters: marchFilters, AsOf: marchManifest(), Raw: true}
	if err := checkManifests(raw); err == nil || !strings.Contains(err.Error(), "written with -raw=false") {
		t.Errorf("-raw: %v", err)
	}
}

// Sums of one currency and type whose amounts have different digits have the most.
func TestSumsOfDifferentDigits(t *testing.T) {
	s := sums{}
	s.add(sumKey{"EUR", "sale", 2}, 1050)
	s.add(sumKey{"EUR", "sale", 2}, -1)
	s.add(sumKey{"EUR", "sale", 3}, 1)
	s.add(sumKey{"JPY", "refund", 0}, -500)
	got := s.format()
	if got["EUR"]["sale"] != "10.491" || got["JPY"]["refund"] != "-500" || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

// Promise: a run that is told to wait writes when the days are complete, says so when
// they are not in time, and waits for nothing else.
func TestRunFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := errors.New("other")
		for _, c := range []struct {
			behind int   // runs that find the watermark behind
			last   error // of the run after them
			atMost time.Duration
			runs   int
			want   error
			took   time.Duration
		}{
			{0, nil, time.Hour, 1, nil, 0},
			{3, nil, time.Hour, 4, nil, 3 * watermarkPoll},
			{3, other, time.Hour, 4, other, 3 * watermarkPoll},
			{9, nil, watermarkPoll + time.Second, 3, ErrWatermarkBehind, watermarkPoll + time.Second},
		} {
			start, runs := time.Now(), 0
			quiet := slog.New(slog.DiscardHandler)
			m, err := runFinal(t.Context(), Config{Log: quiet}, c.atMost, func(cfg Config) (*Manifest, error) {
				if runs++; !cfg.finalOnly {
					t.Error("a provisional file may be written")
				}
				if runs <= c.behind {
					return nil, ErrWatermarkBehind
				}
				return marchManifest(), c.last
			})
			if runs != c.runs || !errors.Is(err, c.want) || (m == nil) != errors.Is(err, ErrWatermarkBehind) ||
				time.Since(start) != c.took {
				t.Errorf("%+v: %d runs, %v, %v after %s", c, runs, m, err, time.Since(start))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cfg := Config{Log: slog.New(slog.DiscardHandler)}
		if _, err := runFinal(ctx, cfg, time.Hour, func(Config) (*Manifest, error) {
			return nil, ErrWatermarkBehind
		}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stopped while it waits: %v", err)
		}
	})
}

// Promise: what was sent to somebody can be written again, after its file was replaced.
func TestReplacedManifestIsKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "acme.manifest.json")
	e := &exporter{cfg: Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}}
	write := func(m *Manifest) {
		t.Helper()
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(now *Manifest, want ...string) {
		t.Helper()
		if err := e.keepReplacedManifest(file, now); err != nil {
			t.Fatal(err)
		}
		kept, _ := filepath.Glob(file + ".*")
		for i := range kept {
			kept[i] = filepath.Base(kept[i])
		}
		if !slices.Equal(kept, want) {
			t.Errorf("kept %v, want %v", kept, want)
		}
	}
	was, now := marchManifest(), marchManifest()
	was.SHA256, now.SHA256 = strings.Repeat("1", 64), strings.Repeat("2", 64)
	check(now) // there is none
	was.Provisional = true
	write(was)
	check(now)
	was.Provisional = false
	write(was)
	check(was)
	check(now, "acme.manifest.json.111111111111")
	m, err := ReadManifest(filepath.Join(dir, "acme.manifest.json.111111111111"))
	if err != nil || m.SHA256 != was.SHA256 {
		t.Errorf("%+v, %v", m, err)
	}
}
