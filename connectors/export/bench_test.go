package export

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// childEnv makes this binary an exporter: it holds the DSN, the format and the directory.
const childEnv = "PARTNERS_EXPORT_CHILD"

// spent is what an export in a process of its own cost.
type spent struct {
	Rows    int64
	Seconds float64 // of the export
	CPU     float64 // seconds of this process, without ClickHouse
	PeakKB  int64   // VmHWM
}

// TestMain lets a benchmark measure an exporter without the ClickHouse that is embedded
// in its own process.
func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := exportAlone(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func exportAlone(text string) error {
	dsn, rest, _ := strings.Cut(text, " ")
	format, dir, _ := strings.Cut(rest, " ")
	log := slog.New(slog.DiscardHandler)
	conn, err := clickhouse.Open(context.Background(), clickhouse.Config{DSN: dsn}, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	began := time.Now()
	cfg := config(dir)
	cfg.Format = format
	m, err := Run(context.Background(), conn, cfg)
	if err != nil {
		return err
	}
	s := spent{Rows: m.Rows, Seconds: time.Since(began).Seconds()}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			if s.PeakKB, err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// alone exports into a directory, in a process of its own.
func (r *rig) alone(format, dir string, env ...string) (s spent) {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.CommandContext(r.Context(), self)
	cmd.Env = append(append(os.Environ(), env...), childEnv+"="+r.at.String()+" "+format+" "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		r.Fatal(err)
	}
	s.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return s
}

// The memory of an exporter is that of a few blocks of rows and does not grow with
// their number.
func TestConstantMemory(t *testing.T) {
	// room is what two exports may differ in, in kB: blocks of rows, and what the
	// garbage collector has not yet given back. An eager collector leaves little.
	rows, room, collector := 20_000, int64(16<<10), "GOGC=10"
	// with the collector that an exporter has; up to 29 MB were seen, with blocks of
	// eight times the rows, 77 MB
	if os.Getenv("PARTNERS_TEST_LONG") == "1" {
		rows, room, collector = 80_000, 48<<10, "GOGC=100"
	}
	r := newRig(t)
	dir := t.TempDir()
	r.rows(rows, true)
	formats := []string{FormatCSV, FormatParquet}
	small, large := map[string]spent{}, map[string]spent{}
	for _, format := range formats {
		small[format] = r.alone(format, dir, collector)
	}
	r.rows(7*rows, true)
	for _, format := range formats {
		large[format] = r.alone(format, dir, collector)
	}
	file, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil || len(file) != 1 {
		t.Fatal(file, err)
	}
	info, err := os.Stat(file[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range formats {
		small, large, room := small[format], large[format], room
		if large.Rows != 8*small.Rows || info.Size() < 2*room<<10 {
			t.Fatalf("%s: %d rows, then %d in %d bytes", format, small.Rows, large.Rows, info.Size())
		}
		if format == FormatParquet {
			room *= 3 // buffers of one row group, which are full only after some; see TestParquetHeap
		}
		if large.PeakKB > small.PeakKB+room {
			t.Errorf("%s: %d rows took %d kB, %d rows %d kB", format, small.Rows, small.PeakKB, large.Rows,
				large.PeakKB)
		}
		t.Logf("%s: %d rows: %d MB, %d rows: %d MB, %.1f s of CPU; the CSV has %d MB", format, small.Rows,
			small.PeakKB/1024, large.Rows, large.PeakKB/1024, large.CPU, info.Size()>>20)
	}
}

// An export beside what ClickHouse itself can do: its own CSV of the same columns in
// the same order, over HTTP, thrown away. The exporter is a process of its own, so its
// peak of memory and its processor time are its alone; this process's are ClickHouse's.
// On a busy machine the rows per second of processor time of the two are what can be
// compared. PARTNERS_BENCH_ROWS is the sizes, with commas.
func BenchmarkExport(b *testing.B) {
	sizes := os.Getenv("PARTNERS_BENCH_ROWS")
	if sizes == "" {
		sizes = "1000000"
	}
	for size := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("rows="+size, func(b *testing.B) { benchmarkExport(b, n) })
	}
}

func benchmarkExport(b *testing.B, n int) {
	r := newRig(b)
	for left := n / 2; left > 0; left -= 250_000 {
		r.rows(min(left, 250_000), true)
	}
	dir := b.TempDir()
	var all spent
	var limit time.Duration
	var limitCPU, serverCPU float64
	for b.Loop() {
		began, before := time.Now(), usedCPU(b)
		res, err := http.Post("http://"+r.at.Host+"/?database="+strings.TrimPrefix(r.at.Path, "/"),
			"text/plain", strings.NewReader("SELECT * FROM conversion_rows WHERE workspace_id = 'acme' ORDER BY "+
				"occurred_at, event_id, event_partition, event_offset FORMAT CSV"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(res.Status, err)
		}
		res.Body.Close()
		limit += time.Since(began)
		between := usedCPU(b)
		s := r.alone(FormatCSV, dir)
		limitCPU += between - before
		serverCPU += usedCPU(b) - between
		all.Rows += s.Rows
		all.Seconds += s.Seconds
		all.CPU += s.CPU
		all.PeakKB = max(all.PeakKB, s.PeakKB)
	}
	b.ReportMetric(float64(all.Rows)/all.Seconds, "rows/s")
	b.ReportMetric(limit.Seconds()/all.Seconds, "of-ClickHouse's-CSV")
	b.ReportMetric(float64(all.Rows)/all.CPU, "rows/exporter-CPU-s")
	b.ReportMetric(float64(all.Rows)/(all.CPU+serverCPU), "rows/CPU-s")
	b.ReportMetric(limitCPU/(all.CPU+serverCPU), "of-ClickHouse's-CSV-by-CPU")
	b.ReportMetric(float64(all.PeakKB)/1024, "exporter-peak-MB")
}

// usedCPU is the processor time of this process so far, in seconds.
func usedCPU(b *testing.B) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
