package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/embedded"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// In the scripts `exec ctl` starts a process of its own: this test binary, running
// main.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ctl": main})
}

// warehouseScripts are the scripts that need ClickHouse.
var warehouseScripts = []string{filepath.Join("testdata", "script", "migrate.txtar"),
	filepath.Join("testdata", "script", "answers.txtar"), filepath.Join("testdata", "script", "rollup.txtar"),
	filepath.Join("testdata", "script", "letters_counted.txtar"), filepath.Join("testdata", "script", "dispute.txtar"),
	filepath.Join("testdata", "script", "repair.txtar"), filepath.Join("testdata", "script", "dropmonths.txtar")}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) <= len(warehouseScripts) {
		t.Fatalf("no scripts: %v", err)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(warehouseScripts, f) })
	testscript.Run(t, testscript.Params{Files: files, RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"broker":   startBroker,
			"gateway":  startGateway,
			"registry": startRegistry,
			"status":   wantStatus,
			"capture":  captureStdout,
			"letter":   writeLetter,
			"headers":  wantHeaders,
		}})
}

// The server runs in this process; ctl reaches it over HTTP.
func TestWarehouse(t *testing.T) {
	for _, file := range warehouseScripts {
		dsn := clickhousetest.ForTest(t)
		testscript.Run(t, testscript.Params{Files: []string{file}, RequireExplicitExec: true,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"status": wantStatus,
				"rows":   insertRows,
				"export": exportRows,
				"broker": startBroker,
				"member": joinSinks,
				"letter": writeLetter,
				"beside": dropBeside,
			},
			Setup: func(e *testscript.Env) error {
				e.Setenv("DSN", dsn)
				return nil
			}})
	}
}

// rows FILE runs the statements of a file.
func insertRows(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := clickhouse.Open(context.Background(), clickhouse.Config{DSN: ts.Getenv("DSN")},
		slog.New(slog.DiscardHandler))
	ts.Check(err)
	defer conn.Close()
	for _, statement := range strings.Split(ts.ReadFile(args[0]), ";\n") {
		if statement = strings.TrimSpace(statement); statement != "" {
			ts.Check(conn.Exec(context.Background(), statement))
		}
	}
}

// beside ARGS… runs ctl, which must succeed, and tries to drop months whenever that logs a
// step: each time the lock must be held, and at least once.
func dropBeside(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := clickhouse.Open(context.Background(), clickhouse.Config{DSN: ts.Getenv("DSN")},
		slog.New(slog.DiscardHandler))
	ts.Check(err)
	defer conn.Close()
	january := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	dropper, err := sink.NewMonthDropper(conn, january, slog.New(slog.DiscardHandler))
	ts.Check(err)
	steps := 0
	stderr := writerFunc(func(line []byte) (int, error) {
		if bytes.Contains(line, []byte("level=INFO")) {
			steps++
			if err := dropper.Drop(context.Background()); !errors.Is(err, sink.ErrRepairing) {
				ts.Logf("dropping months beside %s: %v", line, err)
				steps = -1 << 20
			}
		}
		return ts.Stderr().Write(line)
	})
	env := func(name string) (string, bool) { v := ts.Getenv(name); return v, v != "" }
	if status := runCommand(args, ts.Stdout(), stderr, env); status != 0 || steps < 1 {
		ts.Fatalf("ctl %q ended with %d, and months could not be dropped beside %d steps", args, status, steps)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// export FILE exports acme's March of 2026 into a file, as a spreadsheet wants it.
func exportRows(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := clickhouse.Open(context.Background(), clickhouse.Config{DSN: ts.Getenv("DSN")},
		slog.New(slog.DiscardHandler))
	ts.Check(err)
	defer conn.Close()
	var out bytes.Buffer
	_, err = export.Run(context.Background(), conn, export.Config{Dir: "-", Stdout: &out, BOM: true,
		Log:     slog.New(slog.DiscardHandler),
		Filters: export.Filters{Workspace: "acme", From: "2026-03-01", To: "2026-03-31"}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
}

// status CODE ARGS… runs ctl and wants that exit status. The script compares stdout and
// stderr afterwards.
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: status CODE ARGS…")
	}
	err := ts.Exec("ctl", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("ctl %q ended with %s, want %s", args[1:], got, args[0])
	}
}

// captureStdout NAME puts the last standard output into the variable NAME, without its
// line end.
func captureStdout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: capture NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// broker starts an empty broker for this script; its address is $BROKERS.
func startBroker(ts *testscript.TestScript, _ bool, _ []string) {
	b, err := embedded.Start(embedded.Config{})
	ts.Check(err)
	ts.Defer(b.Close)
	ts.Setenv("BROKERS", strings.Join(b.Addrs(), ","))
}

// member joins the sinks' consumer group, as a sink does.
func joinSinks(ts *testscript.TestScript, _ bool, _ []string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(ts.Getenv("BROKERS")), kgo.ConsumerGroup(topic.SinkGroup),
		kgo.ConsumeTopics(topic.Clicks), kgo.DisableAutoCommit())
	ts.Check(err)
	ts.Defer(cl.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // bounds a hang
	defer cancel()
	for ctx.Err() == nil {
		if _, generation := cl.GroupMetadata(); generation > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Check(ctx.Err())
}

// gateway DIR CODE starts a server at $GATEWAY that verifies signatures with the
// secrets in DIR, keeps the last event in event.json, and answers CODE.
func startGateway(ts *testscript.TestScript, _ bool, args []string) {
	keys, err := signature.LoadKeyring(os.DirFS(ts.MkAbs(args[0])))
	ts.Check(err)
	kept := ts.MkAbs("event.json")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		workspace := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/workspaces/"), "/events")
		if err == nil && r.Header.Get("Content-Type") != "application/json" {
			err = fmt.Errorf("content type %q", r.Header.Get("Content-Type"))
		}
		if err == nil {
			_, err = keys.Verify(workspace, r.Header, body, time.Now())
		}
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"code":%q}`, signature.Code(err))
			return
		}
		var event map[string]any
		if err := json.Unmarshal(body, &event); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		text, _ := json.MarshalIndent(event, "", "  ")
		os.WriteFile(kept, append(text, '\n'), 0o600)
		var code int
		fmt.Sscan(args[1], &code)
		if code == http.StatusTemporaryRedirect {
			w.Header().Set("Location", r.URL.Path+"?again")
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"event_id":%q}`, event["event_id"])
	}))
	ts.Defer(srv.Close)
	ts.Setenv("GATEWAY", srv.URL)
}

// registry [crowded] [clashing] [incompatible] starts a schema registry at $REGISTRY. A
// crowded one has assigned ids to other subjects, a clashing one only the first; an
// incompatible one refuses the outcomes.
// (The fake accepts everything by default.)
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	reg := srfake.New()
	ts.Defer(reg.Close)
	if slices.Contains(args, "crowded") {
		reg.SeedSchema("others-value", 1, 20, sr.Schema{Schema: `"string"`})
	}
	if slices.Contains(args, "clashing") {
		reg.SeedSchema("others-value", 1, 1, sr.Schema{Schema: `"string"`})
	}
	if slices.Contains(args, "incompatible") {
		reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/compatibility/subjects/outcomes-value/") {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
			io.WriteString(w, `{"is_compatible":false,"messages":["READER_FIELD_MISSING_DEFAULT_VALUE: verdict"]}`)
			return true
		})
	}
	ts.Setenv("REGISTRY", reg.URL())
}

// letter TOPIC KIND writes a dead letter as the daemons do, from partition 3, offset 41
// of TOPIC. KIND is garbage; good, a readable conversion; stray, the same under another
// key; long, more than a dead letter holds; misplaced, a good one from a wrong partition;
// real, a good one that is in TOPIC at the
// offset that the dead letter names.
func writeLetter(ts *testscript.TestScript, _ bool, args []string) {
	const tok = "3MWgyD5yf6kfC92HIBeU6RXBUYB"
	good, err := event.DefaultCodec().AppendConversion(nil, &event.Conversion{
		WorkspaceID: "acme",
		EventID:     "order-1",
		ClickToken:  tok,
		Type:        event.Sale,
	})
	ts.Check(err)
	r := &kgo.Record{
		Topic:     args[0],
		Partition: 3,
		Offset:    41,
		Key:       []byte(tok),
		Value:     good,
		Headers:   []kgo.RecordHeader{{Key: "its", Value: []byte("own")}},
	}
	why := errors.New("somebody stumbled")
	switch args[1] {
	case "misplaced":
		why = fmt.Errorf("%w: its key belongs into partition 0 of 6", kafka.ErrMisplaced)
	case "garbage":
		r.Value = []byte("not a record")
	case "stray":
		r.Key = []byte("another")
	case "long":
		r.Value = make([]byte, 2*kafka.MaxDeadLetterBytes)
	}
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{ts.Getenv("BROKERS")}
	cl, err := kafka.NewClient(cfg, slog.New(slog.DiscardHandler), nil)
	ts.Check(err)
	defer cl.Close()
	if args[1] == "real" {
		ts.Check(cl.ProduceSync(context.Background(), r).FirstErr())
	}
	ts.Check(cl.ProduceSync(context.Background(), kafka.NewDeadLetter(topic.DeadLetters, r,
		why, time.UnixMilli(1_700_000_000_000))).FirstErr())
}

// headers TOPIC NAME… wants these headers on the last record of a topic.
func wantHeaders(ts *testscript.TestScript, _ bool, args []string) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{ts.Getenv("BROKERS")}
	records, err := kafka.ReadAll(context.Background(), cfg, slog.New(slog.DiscardHandler), args[0])
	ts.Check(err)
	var got []string
	for _, h := range records[len(records)-1].Headers {
		got = append(got, h.Key)
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("headers %q, want %q", got, args[1:])
	}
}

// fullDisk takes so many writes and refuses the rest.
type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left--; d.left < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// Promise: a command whose output is not complete does not end as if it were.
func TestOutputIsChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "two.yaml")
	const two = "workspaces:\n  - {id: a, name: A, plan: starter, access: {}}\n" +
		"  - {id: b, name: B, plan: starter, access: {}}\n"
	if err := os.WriteFile(file, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	noEnv := func(string) (string, bool) { return "", false }
	for writes, want := range []int{1, 1, 0} { // a line for each workspace
		var stderr bytes.Buffer
		got := runCommand([]string{"catalog", "check", file}, &fullDisk{writes}, &stderr, noEnv)
		said := strings.Contains(stderr.String(), "writing to standard output: no space left")
		if got != want || said != (want == 1) {
			t.Errorf("with %d writes: status %d, %q, want %d", writes, got, stderr.String(), want)
		}
	}
}
