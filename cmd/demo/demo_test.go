package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// TestMain runs the demo in a child process of these tests: a process can open the
// embedded ClickHouse only once.
func TestMain(m *testing.M) {
	if os.Getenv("PARTNERS_DEMO_CHILD") == "" {
		os.Exit(m.Run())
	}
	var j oracleFunc
	if os.Getenv("PARTNERS_DEMO_WRONG_ORACLE") != "" {
		j = func(cfg oracle.Config, clicks []oracle.Click, events []oracle.Event, through event.Millis) oracle.Result {
			r := oracle.Judge(cfg, clicks, events, through)
			for i := range r.Outcomes {
				if r.Outcomes[i].Verdict == event.Attributed {
					r.Outcomes[i].Effect = -1
					break
				}
			}
			return r
		}
	}
	if os.Getenv("PARTNERS_DEMO_METRICS") != "" {
		os.Exit(listMetrics())
	}
	os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr, j))
}

// The commands of deploy/README.md create secrets that the programs can read.
func TestReadmeSecrets(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("PARTNERS_REQUIRE_SENDERS") == "1" {
				t.Fatalf("PARTNERS_REQUIRE_SENDERS=1, and there is no %s in PATH", tool)
			}
			t.Skipf("SKIP: there is no %s in PATH", tool)
		}
	}
	readme, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(readme), "```sh\numask")
	script, _, _ = strings.Cut(script, "```")
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "umask"+script)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := func(name string) fs.FS { return os.DirFS(filepath.Join(cmd.Dir, name)) }
	secrets, err := signature.LoadKeyring(dir("signing-secrets"))
	keys, err2 := token.LoadKeyring(dir("token-keys"))
	readers, err3 := web.LoadReaderTokens(dir("reader-tokens"))
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	if workspaces, n := secrets.Size(); workspaces != 1 || n != 1 || !keys.Has("acme") || readers == nil {
		t.Errorf("%d signing secrets of %d workspaces, a token key: %v", n, workspaces, keys.Has("acme"))
	}
}

// The first command of the README: real traffic, a table, the conservation line, exit
// status 0.
func TestOnce(t *testing.T) {
	t.Parallel()
	// variables for daemons, as deploy/README.md exports them
	shell := []string{"PARTNERS_CLICKHOUSE=http://user@127.0.0.1:1/partners", "PARTNERS_BROKERS=127.0.0.1:1",
		"PARTNERS_TOKEN_KEYS=/nowhere", "PARTNERS_GRACE=1ms"}
	cmd := demoCommand(t, shell, "-once", "-clicks", "3000", "-port-base", strconv.Itoa(freeBase(t)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Nomura Studio", "Approved", "Agency partners", "Review", "(no partner)", "│ Won │",
		"waiting 0, difference 0", "ledger = oracle: 3035 clicks"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// The check can fail: with one wrong row of the oracle the demo names it and exits with
// status 1.
func TestWrongOracle(t *testing.T) {
	t.Parallel()
	out, err := demoCommand(t, []string{"PARTNERS_DEMO_WRONG_ORACLE=1"},
		"-once", "-clicks", "300", "-port-base", strconv.Itoa(freeBase(t))).CombinedOutput()
	if err == nil || err.(*exec.ExitError).ExitCode() != 1 ||
		!strings.Contains(string(out), "the ledger differs from the oracle's") ||
		!strings.Contains(string(out), "outcomes in ClickHouse: conversions ") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	f := func(want string, code int, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := realMain(args, &stdout, &stderr, nil); got != code ||
			!strings.Contains(stdout.String()+stderr.String(), want) {
			t.Errorf("%v: exit %d, %s%s; want %d and …%s…", args, got, stdout.String(), stderr.String(), code, want)
		}
	}
	f("-run: \"reports\"", 2, "-run", "broker,reports")
	f("-grace", 2, "-grace", "1ms")
	f("-clickhouse: the scheme is neither", 2, "-clickhouse", "host:8123")
	f("-schema-ids: open nosuch.json", 2, "-schema-ids", "nosuch.json")
	f("unexpected argument", 2, "now")
	f("-port-base", 0, "-h")
	f("-once: with -traffic 0 there is nothing to check", 2, "-once", "-traffic", "0")
	f("-once: the check needs all components, and -run lacks processor, gateway, redirector, report",
		2, "-once", "-run", "broker,warehouse,sink")
	f("-run lacks sink", 2, "-once", "-run", "broker,broker,warehouse,processor,gateway,redirector,report")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, p, _ := net.SplitHostPort(ln.Addr().String())
	n, _ := strconv.Atoi(p)
	f("broker: listen tcp 127.0.0.1:"+p+": bind: address already in use (-port-base moves all ports)",
		1, "-run", "broker", "-port-base", strconv.Itoa(n-4))
}

// Variables for daemons do not affect the demo. PARTNERS_LIBCHDB, which belongs to the
// machine, does.
func TestEnvironment(t *testing.T) {
	var usage bytes.Buffer
	if _, err := parseOptions([]string{"-h"}, &usage); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	want, err := parseOptions([]string{"-libchdb", "/opt/libchdb.so"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(usage.String(), -1)
	if len(names) < 14 {
		t.Fatalf("only %d flags: %s", len(names), &usage)
	}
	for _, name := range names {
		t.Setenv("PARTNERS_"+strings.ToUpper(strings.ReplaceAll(name[1], "-", "_")), "1")
	}
	t.Setenv("PARTNERS_LIBCHDB", "/opt/libchdb.so")
	got, err := parseOptions(nil, io.Discard)
	got.codec, want.codec = nil, nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// All ports are bound before any connection is made: an outgoing connection could get
// one of them. Ports in use are named, and then no component starts.
func TestPortsFirst(t *testing.T) {
	t.Parallel()
	base := freeBase(t)
	at := func(n int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+n)) }
	o, err := parseOptions([]string{"-port-base", strconv.Itoa(base)}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	d := newDemo(o, io.Discard, io.Discard, nil)
	if err := d.bindListeners(); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if ln, err := net.Listen("tcp", at(n)); err == nil {
			ln.Close()
			t.Errorf("port %d is not taken", n)
		}
	}
	d.closeListeners()
	for _, n := range []int{2, 3} { // report and warehouse are bound late
		ln, err := net.Listen("tcp", at(n))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	code := realMain([]string{"-data", dir, "-port-base", strconv.Itoa(base)}, &stdout, &stderr, nil)
	said := stderr.String()
	if _, err := os.Stat(filepath.Join(dir, "kafka")); code != 1 || !errors.Is(err, fs.ErrNotExist) ||
		stdout.Len() > 0 ||
		!strings.Contains(said, "report: listen tcp "+at(2)) ||
		!strings.Contains(said, "warehouse: listen tcp "+at(3)) ||
		!strings.Contains(said, "(-port-base moves all ports)") {
		t.Errorf("exit %d, %v: %s%s", code, err, &stdout, &stderr)
	}
	for _, n := range []int{0, 1, 4} { // all other ports are free again
		ln, err := net.Listen("tcp", at(n))
		if err != nil {
			t.Error(err)
			continue
		}
		ln.Close()
	}
}

// A catalog may have windows of up to 90 days. Topics and processor then keep clicks as
// long, even after the catalog is replaced by one with shorter windows.
func TestLongWindow(t *testing.T) {
	t.Parallel()
	dir, base := t.TempDir(), freeBase(t)
	long := filepath.Join(t.TempDir(), "long.yaml")
	text := bytes.Replace(demoCatalog, []byte("window: 30d"), []byte("window: 90d"), 1)
	if bytes.Equal(text, demoCatalog) {
		t.Fatal("the demo's catalog has no window of 30d")
	}
	if err := os.WriteFile(long, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-catalog", long}, {"-catalog", "catalog.yaml"}} {
		args = append([]string{"-run", "broker,processor", "-topic-prefix", "eu."}, args...)
		r := startServing(t, dir, base, args...)
		cfg := kafka.DefaultConfig()
		cfg.Brokers, cfg.TopicPrefix = []string{fmt.Sprint("127.0.0.1:", base+4)}, "eu."
		life, err := setup.KeptClickLife(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if want := 90 * 24 * time.Hour; err != nil || life != want {
			t.Errorf("%v: clicks are kept for %v, %v; want %v", args, life, err, want)
		}
		r.interrupt()
	}
}

// The password of -clickhouse appears only in connections to ClickHouse.
func TestNoPassword(t *testing.T) {
	t.Parallel()
	f := func(dsn, want string) {
		t.Helper()
		if got := withoutPassword(dsn); got != want {
			t.Errorf("%s: %s, want %s", dsn, got, want)
		}
	}
	f("http://host:8123/partners", "http://host:8123/partners")
	f("http://default@host:8123/partners?compress=lz4", "http://default@host:8123/partners?compress=lz4")
	f("http://default:S3CRET@host:8123/partners", "http://default@host:8123/partners")
	f("clickhouse://u:S3%40CRET@a:9000,b:9000/partners?secure=true",
		"clickhouse://u@a:9000,b:9000/partners?secure=true")
	f("http://u:S3@CRET@host:8123", "http://u@host:8123")
	f("http://host:8123/partners?username=u&password=S3CRET&compress=lz4",
		"http://host:8123/partners?username=u&compress=lz4")
	f("http://host:8123/partners?password=S3CRET", "http://host:8123/partners")
	f("http://host:8123/?http_proxy=http%3A%2F%2Fu%3AS3CRET%40proxy&secure=true", "http://host:8123/?secure=true")

	dir := t.TempDir()
	o, err := parseOptions([]string{"-clickhouse", "http://default:S3CRET@127.0.0.1:1/partners", "-run", "report",
		"-data", dir}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := newDemo(o, &out, &out, nil)
	d.dataDir, d.runNames = dir, nil
	if err := d.startComponents(t.Context()); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(d.dataPath("endpoints.json"))
	if err != nil || !strings.Contains(string(written), `"http://default@127.0.0.1:1/partners"`) ||
		strings.Contains(string(written)+out.String(), "S3CRET") {
		t.Errorf("%v: %s %s", err, written, &out)
	}
	if !strings.Contains(d.warehouse.DSN, "S3CRET") {
		t.Errorf("the components connect to %s", d.warehouse.DSN)
	}
}
