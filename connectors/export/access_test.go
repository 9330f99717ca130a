package export

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gathered returns a metric's value, of a counter that with this result.
func gathered(t *testing.T, reg *prometheus.Registry, name, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (result == "" || m.GetLabel()[0].GetValue() == result) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// A workspace that may not export gets a sentence and no file, whatever it asks for; the
// schedule skips its days, and makes them up once it may again.
func TestAccess(t *testing.T) {
	r := newRig(t)
	r.rows(50, true)
	first, _, _ := r.run(config(t.TempDir()))
	offset := 10
	set := func(record string) {
		offset++
		r.catalog(offset, "workspace", "workspace/acme", record)
	}
	for record, want := range map[string]string{
		"": "it was removed from the catalog",
		`{"plan":"growth","access":{"exports":true}}`:                           `its plan is "growth", and exports come with professional and enterprise`,
		`{"plan":"professional","access":{"exports":false}}`:                    "its access.exports is off",
		`{"plan":"enterprise","access":{"partner_reporting":true}}`:             "its access.exports is off",
		`{"plan":"enterprise","timezone":"Europe/Berlin"}`:                      "its access.exports is off",
		`{"plan":"starter","access":{"exports":false},"timezone":"Asia/Tokyo"}`: `its plan is "starter"`,
	} {
		set(record)
		files, stdout, again := config(filepath.Join(t.TempDir(), "new")), config("-"), config(t.TempDir())
		var out bytes.Buffer
		stdout.Stdout = &out
		again.AsOf = first
		for _, cfg := range []Config{files, stdout, again} {
			_, err := Run(t.Context(), r.conn, cfg)
			if !errors.Is(err, ErrNotEntitled) || !strings.Contains(err.Error(), `-workspace "acme": `) ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", record, err, want)
			}
		}
		left, _ := os.ReadDir(again.Dir)
		if _, err := os.Stat(files.Dir); !errors.Is(err, os.ErrNotExist) || out.Len() > 0 || len(left) > 0 {
			t.Errorf("%s: left %v and %v, wrote %q", record, err, left, out.String())
		}
	}

	r.exec("INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, caught_up, src_partition, " +
		"src_offset) SELECT number, now64(3), now64(3), now64(3), true, number, 0 FROM numbers(2)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT 'x', " +
		"'progress', number, 0, 1, 1 FROM numbers(2)")
	var logged strings.Builder
	cfg := config(t.TempDir())
	cfg.From, cfg.To = "", ""
	reg := prometheus.NewRegistry()
	cfg.Metrics = NewMetrics(reg)
	cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
	s := newSchedule(r.conn, "0 2 * * *", cfg)
	check := func(at time.Time, refused, ok, gauge float64, files int) {
		t.Helper()
		if err := s.exportMissing(t.Context(), at, false); err != nil {
			t.Fatal(err)
		}
		left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv"))
		if n := gathered(t, reg, "partners_export_runs_total", "refused"); n != refused {
			t.Errorf("%v refused runs, want %v", n, refused)
		}
		if n := gathered(t, reg, "partners_export_runs_total", "ok"); n != ok || len(left) != files {
			t.Errorf("%v runs are ok, want %v; files %v", n, ok, left)
		}
		if n := gathered(t, reg, "partners_export_not_entitled", ""); n != gauge {
			t.Errorf("not entitled: %v, want %v", n, gauge)
		}
		if n := strings.Count(logged.String(), `msg="skipping the exports that are due`); n != int(refused) {
			t.Errorf("%d lines of log, want %v:\n%s", n, refused, logged.String())
		}
	}
	at := time.Date(2026, 3, 17, 2, 0, 0, 0, time.UTC)
	set(`{"plan":"enterprise","access":{"exports":true}}`)
	check(at, 0, 1, 0, 1)
	set(`{"plan":"enterprise","access":{"exports":false}}`)
	check(at.AddDate(0, 0, 1), 1, 1, 1, 1)
	check(at.AddDate(0, 0, 2), 2, 1, 1, 1)
	set(`{"plan":"enterprise","access":{"exports":true}}`)
	// A run that fails, here without a file, says that there are exports, too.
	failing := cfg
	failing.From, failing.To, failing.Timezone = "2026-03-14", "2026-03-14", "UTC"
	failing.Partner = "nobody"
	if _, err := Run(t.Context(), r.conn, failing); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, want %v", err, ErrUnknown)
	}
	if n := gathered(t, reg, "partners_export_not_entitled", ""); n != 0 {
		t.Errorf("not entitled after a run that failed for another reason: %v", n)
	}
	check(at.AddDate(0, 0, 3), 2, 4, 0, 4)
}

// Nights without exports are skipped, not tried again and again, and made up by the first
// with them.
func TestNightsWithoutAccess(t *testing.T) {
	back := time.Date(2026, 3, 19, 12, 0, 0, 0, time.UTC)
	tries := 0
	got := nights(t, "UTC", "0 2 * * *", "2026-03-16 12:00", 4*24*time.Hour, []string{"2026-03-14"},
		func(now time.Time) error {
			if tries++; now.Before(back) {
				return ErrNotEntitled
			}
			return nil
		})
	want := []string{"03-15 at 03-20 02:00", "03-16 at 03-20 02:00", "03-17 at 03-20 02:00", "03-18 at 03-20 02:00",
		"03-19 at 03-20 02:00"}
	if !slices.Equal(got, want) || tries != 4+len(want) { // at the start, and in three nights
		t.Errorf("%d tries: %v, want %v", tries, got, want)
	}
}

// Without exports nobody waits for the watermark: that it is behind may last for days.
func TestAccessBeforeTheWatermark(t *testing.T) {
	s := &schedule{
		cfg:         Config{Log: slog.New(slog.DiscardHandler)},
		checkAccess: func(context.Context) error { return ErrNotEntitled },
		isJoined: func(context.Context, time.Time) (bool, error) {
			t.Error("the watermark is asked for")
			return true, nil
		},
		export: func(context.Context, Config) error { return nil },
	}
	if err := s.exportWhenJoined(t.Context(), s.cfg, time.Now()); !errors.Is(err, ErrNotEntitled) {
		t.Errorf("%v, want %v", err, ErrNotEntitled)
	}
}

// Whether the access can be read decides before all else: without an answer there is no
// file.
func TestAccessUnread(t *testing.T) {
	r := newRig(t)
	r.rows(50, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := config(filepath.Join(t.TempDir(), "new"))
	if _, err := Run(ctx, r.conn, cfg); err == nil || errors.Is(err, ErrNotEntitled) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left %v", err)
	}
}
