package export

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/schemas/calendar"
	"github.com/prometheus/client_golang/prometheus"
)

// nights runs a schedule in virtual time, from a start in a zone, in a directory that
// has some days already. It returns which day was exported when, on the zone's clock.
// The joined watermark follows the clock five minutes behind; down says what an export
// at a time meets.
func nights(t *testing.T, zone, expr, start string, length time.Duration, have []string,
	down func(time.Time) error) (out []string) {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	begin, err := time.ParseInLocation("2006-01-02 15:04", start, loc)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(begin))
		cfg := Config{Filters: Filters{Workspace: "acme"}, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
		write := func(c Config) error {
			if err := c.Validate(); err != nil {
				return err
			}
			b, err := json.Marshal(&Manifest{
				Filters:       c.Filters,
				SHA256:        "x",
				AsOf:          AsOf{Outcomes: map[uint32]uint64{}},
				SchemaVersion: SchemaVersion,
			})
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(cfg.Dir,
				fileName(c.Filters, nil, nil, false, false, c.BOM)+".manifest.json"), b,
				0o644)
		}
		for _, day := range have {
			c := cfg
			c.From, c.To, c.Timezone = day, day, zone
			if err := write(c); err != nil {
				t.Fatal(err)
			}
		}
		s := &schedule{
			expr: expr, cfg: cfg,
			readZone:    func(context.Context) (*time.Location, error) { return loc, nil },
			checkAccess: func(context.Context) error { return nil },
			isJoined: func(_ context.Context, end time.Time) (bool, error) {
				return !time.Now().Before(end.Add(5 * time.Minute)), nil
			},
			export: func(_ context.Context, c Config) error {
				if down != nil {
					if err := down(time.Now()); err != nil {
						return err
					}
				}
				out = append(out, c.From[5:]+" at "+time.Now().In(loc).Format("01-02 15:04"))
				return write(c)
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		if err := s.run(ctx); err != nil {
			t.Error(err)
		}
	})
	return out
}

// Each day is exported once, in its own night, whatever the clocks do; what nobody was
// there for is made up at once.
func TestNights(t *testing.T) {
	const day = 24 * time.Hour
	for what, c := range map[string]struct {
		zone, expr, start string
		length            time.Duration
		have, want        []string
	}{
		"a quiet series": {"Europe/Berlin", "0 2 * * *", "2026-03-16 12:00",
			2 * day, nil, []string{"03-16 at 03-17 02:00", "03-17 at 03-18 02:00"}},
		"02:00 is skipped, and the day has 23 hours": {"Europe/Berlin", "0 2 * * *",
			"2026-03-27 12:00", 3 * day, nil, []string{"03-27 at 03-28 02:00", "03-28 at 03-29 03:00",
				"03-29 at 03-30 02:00"}},
		"02:30 comes twice, and the day has 25 hours": {"Europe/Berlin", "30 2 * * *",
			"2026-10-23 12:00", 4 * day, nil, []string{"10-23 at 10-24 02:30", "10-24 at 10-25 02:30",
				"10-25 at 10-26 02:30", "10-26 at 10-27 02:30"}},
		"midnight is skipped, and waits for the watermark": {"Asia/Beirut", "0 0 * * *",
			"2026-03-27 12:00", 3 * day, nil, []string{"03-27 at 03-28 00:05", "03-28 at 03-29 01:05",
				"03-29 at 03-30 00:05"}},
		"midnight comes twice": {"America/Havana", "0 0 * * *", "2026-10-30 12:00",
			3 * day, nil, []string{"10-30 at 10-31 00:05", "10-31 at 11-01 00:05", "11-01 at 11-02 00:05"}},
		"it comes back by day: what it missed, and a gap before the newest": {"Europe/Berlin", "0 2 * * *",
			"2026-03-20 12:00", day, []string{"2026-03-14", "2026-03-16"}, []string{"03-15 at 03-20 12:00",
				"03-17 at 03-20 12:00", "03-18 at 03-20 12:00", "03-19 at 03-20 12:00", "03-20 at 03-21 02:00"}},
		"it comes back before the run of the night: yesterday is not due": {"Europe/Berlin", "0 2 * * *",
			"2026-03-20 01:00", 2 * time.Hour, []string{"2026-03-17"}, []string{"03-18 at 03-20 01:00",
				"03-19 at 03-20 02:00"}},
		"it comes back after a skipped run": {"Europe/Berlin", "0 2 * * *", "2026-03-29 12:00",
			time.Hour, []string{"2026-03-27"}, []string{"03-28 at 03-29 12:00"}},
		"a series that begins has missed nothing": {"Europe/Berlin", "0 2 * * *", "2026-03-20 12:00",
			time.Hour, nil, nil},
		"older than 31 days is an operator's": {"Europe/Berlin", "0 2 * * 1", "2026-03-16 02:00",
			time.Hour, append(days("2026-02-14", "2026-03-15"), "2026-01-01"), []string{"02-13 at 03-16 02:00"}},
	} {
		if got := nights(t, c.zone, c.expr, c.start, c.length+time.Hour, c.have, nil); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, ", "), strings.Join(c.want, ", "))
		}
	}
}

// A run that takes longer than to the next one does not swallow it.
func TestNightsOfAnOutage(t *testing.T) {
	up := time.Date(2026, 3, 19, 12, 0, 0, 0, time.UTC)
	got := nights(t, "UTC", "0 2 * * *", "2026-03-16 12:00", 4*24*time.Hour, nil, func(now time.Time) error {
		if now.Before(up) {
			return ErrBusy
		}
		return nil
	})
	// Tried every ten minutes in the end, and both of the ticks that came meanwhile are
	// served at once.
	if len(got) != 4 || !strings.HasPrefix(got[0], "03-16 at 03-19 12:0") ||
		!strings.HasPrefix(got[1], "03-17 at 03-19 12:0") || !strings.HasPrefix(got[2], "03-18 at 03-19 12:0") ||
		got[3] != "03-19 at 03-20 02:00" {
		t.Error(got)
	}
}

// A watermark that falls back between the question and the run makes no file: the day
// waits, and is exported when it has passed again.
func TestWatermarkFallsBack(t *testing.T) {
	r := newRig(t)
	r.rows(50, true)
	r.exec("INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, caught_up, src_partition, " +
		"src_offset) SELECT number, now64(3), '2026-03-15 00:00:00', '2026-03-15 00:00:00', false, number, 0 " +
		"FROM numbers(2)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT 'x', " +
		"'progress', number, 0, 1, 1 FROM numbers(2)")
	cfg := config(t.TempDir())
	cfg.From, cfg.To = "", ""
	s := newSchedule(r.conn, "0 2 * * *", cfg)
	// as it was a moment ago
	s.isJoined = func(context.Context, time.Time) (bool, error) { return true, nil }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	runs, write := 0, s.export
	s.export = func(ctx context.Context, c Config) error {
		err := write(ctx, c)
		if runs++; runs == 1 {
			cancel() // what would follow is the wait
		}
		return err
	}
	at := time.Date(2026, 3, 17, 2, 0, 0, 0, time.UTC)
	if err := s.exportMissing(ctx, at, false); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv")); len(left) > 0 || runs != 1 {
		t.Errorf("%d runs wrote %v", runs, left)
	}
	r.exec("INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, caught_up, src_partition, " +
		"src_offset) SELECT number, now64(3), now64(3), now64(3), true, number, 1 FROM numbers(2)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT 'x', " +
		"'progress', number, 1, 2, 1 FROM numbers(2)")
	if err := s.exportMissing(t.Context(), at, false); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv")); len(left) != 1 ||
		strings.Contains(left[0], "_provisional") {
		t.Errorf("files %v", left)
	}
}

// When a workspace moves, its series goes on in the zone of its files: no instant is in
// two of them or in none.
func TestWorkspaceMoves(t *testing.T) {
	for _, to := range []string{"America/New_York", "Asia/Tokyo"} {
		synctest.Test(t, func(t *testing.T) {
			var logged strings.Builder
			load := func(name string) *time.Location {
				loc, err := time.LoadLocation(name)
				if err != nil {
					t.Fatal(err)
				}
				return loc
			}
			now := load("Europe/Berlin")
			time.Sleep(time.Until(time.Date(2026, 3, 16, 12, 0, 0, 0, now)))
			type span struct{ start, end time.Time }
			var files []span
			s := &schedule{expr: "0 2 * * *", cfg: Config{Filters: Filters{Workspace: "acme"}, Dir: t.TempDir(),
				Log: slog.New(slog.NewTextHandler(&logged, nil))},
				readZone:    func(context.Context) (*time.Location, error) { return now, nil },
				checkAccess: func(context.Context) error { return nil },
				isJoined:    func(context.Context, time.Time) (bool, error) { return true, nil },
			}
			s.export = func(_ context.Context, c Config) error {
				c.Timezone = cmp.Or(c.Timezone, now.String())
				day, err := time.Parse(time.DateOnly, c.From)
				if err != nil {
					return err
				}
				zone, err := calendar.LoadZone(c.Timezone)
				if err != nil {
					return err
				}
				start, end := zone.Days(day, day)
				files = append(files, span{start, end})
				if len(files) == 2 {
					now = load(to)
				}
				b, err := json.Marshal(&Manifest{
					Filters:       c.Filters,
					SHA256:        "x",
					AsOf:          AsOf{Outcomes: map[uint32]uint64{}},
					SchemaVersion: SchemaVersion,
				})
				if err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(c.Dir, c.From+".manifest.json"), b, 0o644)
			}
			for range 2 { // it is started again meanwhile
				ctx, cancel := context.WithTimeout(t.Context(), 3*24*time.Hour)
				defer cancel()
				if err := s.run(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for i, f := range files[1:] {
				if !f.start.Equal(files[i].end) {
					t.Errorf("to %s: file %d ends at %v, the next begins at %v", to, i, files[i].end, f.start)
				}
			}
			if len(files) != 6 || !strings.Contains(logged.String(), "workspace="+to+" files=Europe/Berlin") {
				t.Errorf("to %s: %d files\n%s", to, len(files), logged.String())
			}
		})
	}
}

// A schedule of a workspace that is not in the catalog yet waits for it.
func TestScheduleOfAnUnknownWorkspace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		asked := 0
		s := &schedule{expr: "0 2 * * *", cfg: Config{Filters: Filters{Workspace: "acme"}, Dir: t.TempDir(),
			Log: slog.New(slog.NewTextHandler(&logged, nil))},
			readZone: func(context.Context) (*time.Location, error) {
				if asked++; asked < 3 {
					return nil, fmt.Errorf("-workspace: %w", ErrUnknown)
				}
				return time.UTC, nil
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.run(ctx); err != nil || asked != 3 || strings.Count(logged.String(), ErrUnknown.Error()) != 2 {
			t.Errorf("asked %d times: %v\n%s", asked, err, logged.String())
		}
	})
}

// A ClickHouse that is away for two hours is no reason for a line an attempt.
func TestScheduleWithoutClickHouse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		cfg := Config{Filters: Filters{Workspace: "acme"}, Dir: t.TempDir(),
			Log: slog.New(slog.NewTextHandler(&logged, nil))}
		began, asked := time.Now(), 0
		s := newSchedule(nil, "0 2 * * *", cfg)
		s.readZone = func(context.Context) (*time.Location, error) {
			if asked++; time.Since(began) < 2*time.Hour {
				return nil, fmt.Errorf("reading the catalog: %w", syscall.ECONNREFUSED)
			}
			return time.UTC, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		if err := s.run(ctx); err != nil || asked < 15 {
			t.Fatalf("asked %d times: %v\n%s", asked, err, logged.String())
		}
		warnings := strings.Count(logged.String(), "level=WARN")
		if ends := strings.Count(logged.String(), `msg="no longer waiting for ClickHouse"`); warnings < 10 ||
			warnings > asked || ends != 1 {
			t.Errorf("%d warnings, %d ends:\n%s", warnings, ends, logged.String())
		}
	})
}

func days(from, to string) (list []string) {
	for d, _ := time.Parse(time.DateOnly, from); d.Format(time.DateOnly) <= to; d = d.AddDate(0, 0, 1) {
		list = append(list, d.Format(time.DateOnly))
	}
	return list
}

// When a series last succeeded is known at once after a restart; one that begins is not
// overdue.
func TestLastSuccessAtStart(t *testing.T) {
	wrote := time.Date(2026, 3, 16, 1, 0, 0, 0, time.UTC)
	for _, has := range []bool{false, true} {
		reg := prometheus.NewRegistry()
		cfg := Config{
			Filters: Filters{Workspace: "acme"},
			Dir:     t.TempDir(),
			Log:     slog.New(slog.DiscardHandler),
			Metrics: NewMetrics(reg),
		}
		c := cfg
		c.From, c.To = "2026-03-15", "2026-03-15"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(&Manifest{
			Filters:       c.Filters,
			SHA256:        "x",
			AsOf:          AsOf{At: wrote, Outcomes: map[uint32]uint64{}},
			SchemaVersion: SchemaVersion,
		})
		if err == nil && has {
			err = os.WriteFile(filepath.Join(cfg.Dir,
				fileName(c.Filters, nil, nil, false, false, c.BOM)+".manifest.json"), b,
				0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now().Truncate(time.Second)
		if err := (&schedule{cfg: cfg}).exportMissing(t.Context(), wrote, true); err != nil {
			t.Fatal(err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "partners_export_last_success_timestamp_seconds" {
				continue
			}
			if got := time.Unix(int64(f.Metric[0].Gauge.GetValue()), 0); has != got.Equal(wrote) || !has &&
				got.Before(began) {
				t.Errorf("with a file %v: %v", has, got)
			}
		}
	}
}
