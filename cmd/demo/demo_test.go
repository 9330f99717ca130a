package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/prometheus/client_golang/prometheus"
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

// listMetrics starts a demo, provokes what alerts select by a label's value, and prints
// all metrics that its components register, with their series.
func listMetrics() int {
	o, err := parseOptions(os.Args[1:], os.Stdout)
	if err != nil {
		panic(err)
	}
	d := newDemo(o, io.Discard, os.Stderr, nil)
	d.dataDir = d.keepDir
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := errors.Join(d.prepareData(), d.startComponents(ctx)); err != nil {
		panic(err)
	}
	export.NewMetrics(d.registry)
	descs := make(chan *prometheus.Desc, 10_000)
	d.registry.Describe(descs)
	close(descs)
	for desc := range descs {
		fmt.Println(desc)
	}
	if err := provokeRefusals(d); err != nil {
		panic(err)
	}
	if err := errors.Join(listSeries(d.registry, "partners_sink_visible_seconds"), d.group.Stop()); err != nil {
		panic(err)
	}
	return 0
}

// provokeRefusals sends the gateway a request for each refusal of a signature, and
// follows a link.
func provokeRefusals(d *demo) error {
	own, err := os.ReadFile(d.dataPath("signing-secrets/acme"))
	if err != nil {
		return err
	}
	secret, err := signature.ParseSecret(strings.TrimSpace(string(own)))
	if err != nil {
		return err
	}
	other, err := signature.NewSecret(rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, x := range []struct {
		secret *signature.Secret
		at     time.Time
	}{{nil, now}, {&other, now}, {&secret, now.Add(-time.Hour)}, {&secret, now.Add(time.Hour)}} {
		req, err := http.NewRequest("POST", d.endpoints.Gateway+"/v1/workspaces/acme/events", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		if x.secret != nil {
			if err := signature.SignRequest(req, "msg_1", x.at, []byte("{}"), *x.secret); err != nil {
				return err
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("a request with a bad signature: %s", resp.Status)
		}
	}
	req, err := http.NewRequest("GET", d.endpoints.Redirector+"/nomura", nil)
	if err != nil {
		return err
	}
	req.Host = "go.acme.com"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// listSeries prints all series, one per line as NAME LABEL=VALUE …, as soon as the
// metric last has one.
func listSeries(reg *prometheus.Registry, last string) error {
	for deadline := time.Now().Add(maxWait); ; time.Sleep(100 * time.Millisecond) {
		families, err := reg.Gather()
		if err != nil {
			return err
		}
		names := map[string]bool{}
		for _, f := range families {
			names[f.GetName()] = true
		}
		if !names[last] {
			if time.Now().After(deadline) {
				return fmt.Errorf("no series of %s within %v", last, maxWait)
			}
			continue
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				labels := ""
				for _, l := range m.GetLabel() {
					labels += " " + l.GetName() + "=" + l.GetValue()
				}
				fmt.Println("series", f.GetName()+labels)
				for _, b := range m.GetHistogram().GetBucket() {
					fmt.Printf("series %s_bucket%s le=%v\n", f.GetName(), labels, b.GetUpperBound())
				}
			}
		}
		return nil
	}
}

// Each registered metric is documented in a doc.go. Each metric that a doc.go, a
// dashboard, the runbook, an alert or its test names is registered, and each label
// value that an alert selects exists.
func TestMetrics(t *testing.T) {
	t.Parallel()
	cmd := demoCommand(t, []string{"PARTNERS_DEMO_METRICS=1"}, "-traffic", "0", "-data", t.TempDir(),
		"-port-base", strconv.Itoa(freeBase(t)))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name := regexp.MustCompile(`partners_[a-z0-9_]+`)
	registered := map[string]bool{}
	for _, line := range regexp.MustCompile(`fqName: "(partners_[a-z0-9_]+)"`).FindAllStringSubmatch(string(out), -1) {
		registered[line[1]] = true
	}
	named := func(pattern string) map[string]string {
		t.Helper()
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		found := map[string]string{}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range name.FindAllString(string(b), -1) {
				found[n] = file
			}
		}
		return found
	}
	documented := named("../../connectors/*/doc.go")
	maps.Copy(documented, named("../../connectors/*/*/doc.go"))
	maps.Copy(documented, named("../../connectors/*/*/doc.go"))
	maps.Copy(documented, named("../../pipeline/*/doc.go"))
	for n := range registered {
		// those of the Kafka client are documented as a family
		if documented[n] == "" && !strings.HasPrefix(n, "partners_kafka_") {
			t.Errorf("%s is in no doc.go", n)
		}
	}
	used := maps.Clone(documented)
	maps.Copy(used, named("../../dashboards/alerts/*.yaml"))
	maps.Copy(used, named("../../deploy/RUNBOOK.md"))
	maps.Copy(used, named("../../dashboards/*.json"))
	for n, file := range used {
		base := n
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if b := strings.TrimSuffix(n, suffix); registered[b] {
				base = b
			}
		}
		if n != "partners_kafka_" && !registered[base] &&
			!slices.Contains([]string{"partners_session", "partners_writer", "partners_reader", // roles
				"partners_workspace_"}, n) {
			t.Errorf("%s names %s, which nothing registers", file, n)
		}
	}
	// An expression names only labels of its metrics.
	labels := map[string]string{}
	for _, line := range regexp.MustCompile(
		`fqName: "(partners_[a-z0-9_]+)".*variableLabels: \{([^}]*)\}`).FindAllStringSubmatch(string(out), -1) {
		labels[line[1]] += "," + line[2] + ","
	}
	series := map[string]bool{} // NAME LABEL=VALUE
	for _, line := range regexp.MustCompile(`(?m)^series (\S+) (.*)$`).FindAllStringSubmatch(string(out), -1) {
		for _, pair := range strings.Fields(line[2]) {
			series[line[1]+" "+pair] = true
		}
	}
	selector := regexp.MustCompile(`(partners_[a-z0-9_]+)\{([^}]*)\}`)
	matcher := regexp.MustCompile(`([a-z_]+)(?:=|=~|!=|!~)"([^"]*)"`)
	for _, pattern := range []string{"../../dashboards/alerts/partners.yaml",
		"../../dashboards/alerts/partners_test.yaml", "../../dashboards/pipeline.json"} {
		b, err := os.ReadFile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n") {
			// Check values too: an alert whose selector matches nothing never fires.
			if strings.HasSuffix(pattern, "partners.yaml") {
				for _, s := range selector.FindAllStringSubmatch(line, -1) {
					for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
						for _, value := range strings.Split(m[2], "|") {
							if !series[s[1]+" "+m[1]+"="+value] {
								t.Errorf("%s: %s never has %s=%q", pattern, s[1], m[1], value)
							}
						}
					}
				}
			}
			if !strings.Contains(line, "partners_") {
				continue
			}
			have := ",le,instance,job,"
			for _, n := range name.FindAllString(line, -1) {
				for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
					have += labels[strings.TrimSuffix(n, suffix)]
				}
			}
			for _, m := range regexp.MustCompile(`by \(([^)]*)\)|\{([^}]*)\}`).FindAllStringSubmatch(line, -1) {
				for _, l := range regexp.MustCompile(`[a-z_]+ *(?:[=!~]|,|$)`).FindAllString(m[1]+m[2], -1) {
					if l = strings.Trim(l, " =!~,"); !strings.Contains(have, ","+l+",") {
						t.Errorf("%s: no metric in it has a label %s: %s", pattern, l, strings.TrimSpace(line))
					}
				}
			}
		}
	}
	if len(registered) < 50 {
		t.Errorf("only %d metrics are registered", len(registered))
	}
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

// maxWait bounds each start, stop and answer of a demo. On a busy machine each may take
// a minute.
const maxWait = 4 * time.Minute

// runningDemo is a demo in its own process.
type runningDemo struct {
	t    *testing.T
	cmd  *exec.Cmd
	base int
	dir  string
	out  *bytes.Buffer
	done chan error
}

// nextBase starts at random: another process may run these tests at the same time.
var nextBase = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(mathrand.Int64N(2000))
	return &n
}()

// freeBase returns the first of five free ports in a row. They lie below the kernel's
// range for outgoing connections, or a client could take one before the demo does. No
// two calls return the same port.
func freeBase(t *testing.T) int {
	t.Helper()
	for range 100 {
		base := 10_000 + 5*int(nextBase.Add(1)%2000)
		free := true
		for n := 0; n < 5 && free; n++ {
			l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", base+n))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no five free ports in a row")
	return 0
}

func demoCommand(t *testing.T, env []string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), "PARTNERS_DEMO_CHILD=1"), env...)
	return cmd
}

// startServing starts a demo without traffic and waits until it is ready.
func startServing(t *testing.T, dir string, base int, args ...string) *runningDemo {
	t.Helper()
	r := &runningDemo{t: t, base: base, dir: dir, out: &bytes.Buffer{}, done: make(chan error, 1)}
	common := []string{"-traffic", "0", "-data", dir, "-port-base", strconv.Itoa(base)}
	r.cmd = demoCommand(t, nil, append(common, args...)...)
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "ready ") {
				ready <- true
			}
		}
		r.done <- r.cmd.Wait()
	}()
	t.Cleanup(func() { r.cmd.Process.Kill() })
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("the demo ended: %v\n%s", err, r.out)
	case <-time.After(maxWait):
		t.Fatalf("the demo is not ready after %v", maxWait)
	}
	return r
}

// interrupt sends Ctrl-C and wants exit status 0.
func (r *runningDemo) interrupt() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Fatalf("after Ctrl-C: %v\n%s", err, r.out)
		}
	case <-time.After(maxWait):
		r.t.Fatalf("the demo has not stopped after %v", maxWait)
	}
}

func (r *runningDemo) queryWarehouse(q string) string {
	r.t.Helper()
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/?database=partners", r.base+3),
		"text/plain", strings.NewReader(q))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		r.t.Fatalf("%s: %d %s", q, resp.StatusCode, b)
	}
	return strings.TrimSpace(string(b))
}

// awaitResult repeats a query until it returns want.
func (r *runningDemo) awaitResult(q, want string) {
	r.t.Helper()
	got := ""
	for end := time.Now().Add(maxWait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = r.queryWarehouse(q); got == want {
			return
		}
	}
	r.t.Fatalf("%s: %q after %v, want %q", q, got, maxWait, want)
}

// followLink returns the redirect's location and the token in it.
func (r *runningDemo) followLink(slug string) (location, tok string) {
	r.t.Helper()
	req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d%s", r.base, slug), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Host = "go.acme.com"
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "+
		"Chrome/126.0 Safari/537.36")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 302 {
		r.t.Fatalf("GET %s: %s", slug, resp.Status)
	}
	location = resp.Header.Get("Location")
	u, err := url.Parse(location)
	if err != nil {
		r.t.Fatal(err)
	}
	return location, u.Query().Get("nim_ct")
}

// postEvent sends a signed event of acme and wants 202.
func (r *runningDemo) postEvent(fields map[string]any) {
	r.t.Helper()
	fields["occurred_at"] = time.Now().UTC().Format(time.RFC3339Nano)
	body, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "signing-secrets", "acme"))
	if err != nil {
		r.t.Fatal(err)
	}
	secret, err := signature.ParseSecret(strings.TrimSpace(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d/v1/workspaces/acme/events", r.base+1),
		bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := signature.SignRequest(req, fmt.Sprint("msg_", time.Now().UnixNano()), time.Now(), body,
		secret); err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 202 {
		r.t.Fatalf("event: %s %s", resp.Status, b)
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
	for _, want := range []string{"Nomura Studio", "Approved", "Agency partners", "Review", "(no partner)",
		"waiting 0, difference 0", "ledger = oracle: 3026 clicks"} {
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

const (
	sales  = "SELECT count(), sum(effect * amount_minor) FROM outcomes WHERE effect != 0"
	rollup = "SELECT sum(clicks), sum(sales), sum(refunds), sum(gross_minor), sum(negative_minor), " +
		"sum(net_minor), sum(reward_minor) FROM partner_daily WHERE partner_id = 'prt_nomura'"
)

// checkReport compares the report's figures after the first sale, read with the demo's
// reader token.
func (r *runningDemo) checkReport() {
	r.t.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, "reader-token-acme.txt"))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet,
		fmt.Sprintf("http://127.0.0.1:%d/v1/workspaces/acme/performance?partner=prt_nomura", r.base+2), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"sales":1`) ||
		!strings.Contains(string(body), `"net_minor":10000`) {
		r.t.Errorf("the report says %d %s, %v", res.StatusCode, body, err)
	}
}

// One visitor, one sale and one refund, seen from outside. Then Ctrl-C and a start on
// the same data. Then rows are deleted and duplicated, and conservation must show it.
func TestLedgerLivesOn(t *testing.T) {
	t.Parallel()
	dir, base := t.TempDir(), freeBase(t)
	r := startServing(t, dir, base)
	location, tok := r.followLink("/nomura")
	if want := "https://shop.acme.com/?ref=a%2Bb&nim_ct=" + tok + "#top"; location != want || len(tok) != 27 {
		t.Fatalf("location %s, want %s", location, want)
	}
	r.postEvent(map[string]any{
		"event_id":    "e1",
		"type":        "sale",
		"click_token": tok,
		"amount":      "100.00",
		"currency":    "EUR",
		"order_id":    "o1",
	})
	r.awaitResult(sales, "1\t10000")
	r.awaitResult(rollup, "1\t1\t0\t10000\t0\t10000\t1000")
	r.checkReport()
	before := r.queryWarehouse("SELECT * FROM outcomes WHERE event_id = 'e1'")
	r.postEvent(map[string]any{
		"event_id":        "e2",
		"type":            "refund",
		"click_token":     tok,
		"amount":          "30.00",
		"currency":        "EUR",
		"parent_event_id": "e1",
	})
	r.awaitResult(sales, "2\t7000")
	r.awaitResult(rollup, "1\t1\t1\t10000\t-3000\t7000\t700")
	if after := r.queryWarehouse("SELECT * FROM outcomes WHERE event_id = 'e1'"); after != before {
		t.Errorf("the refund changed its sale:\n%s\n%s", before, after)
	}
	everything := func(r *runningDemo) string {
		return r.queryWarehouse("SELECT (SELECT (count(), sum(cityHash64(*))) FROM clicks), (SELECT (count(), "+
			"sum(cityHash64(*))) FROM conversions), (SELECT (count(), sum(cityHash64(*))) FROM outcomes)") +
			r.queryWarehouse(rollup)
	}
	was := everything(r)
	r.interrupt()

	r = startServing(t, dir, base)
	if is := everything(r); is != was {
		t.Errorf("after a restart: %s, was %s", is, was)
	}
	_, tok2 := r.followLink("/nomura")
	// of a sale before the restart
	r.postEvent(map[string]any{
		"event_id":        "e3",
		"type":            "refund",
		"click_token":     tok,
		"amount":          "20.00",
		"currency":        "EUR",
		"parent_event_id": "e1",
	})
	r.postEvent(map[string]any{"event_id": "e4", "type": "lead", "click_token": tok2})
	r.awaitResult(sales, "4\t5000")
	r.awaitResult(rollup, "2\t1\t2\t10000\t-5000\t5000\t500")
	const difference = "SELECT sum(difference) != 0, sum(waiting) FROM conservation"
	const perWorkspace = "SELECT sum(difference) != 0 FROM workspace_conservation"
	r.awaitResult("SELECT sum(read) FROM conservation", "4")
	r.awaitResult(difference, "0\t0")
	r.awaitResult(perWorkspace, "0")
	r.queryWarehouse("ALTER TABLE outcomes DELETE WHERE event_id = 'e4' SETTINGS mutations_sync = 1")
	r.awaitResult(difference, "1\t0")
	r.queryWarehouse("INSERT INTO outcomes SELECT * FROM outcomes WHERE event_id = 'e3' SETTINGS " +
		"insert_deduplicate = 0, " +
		"deduplicate_insert = 'disable'")
	r.awaitResult(perWorkspace, "1")
	r.interrupt()
}

// Conservation shows a waiting event that vanished from the state: fewer events are
// judged or waiting than were read.
func TestConservationSeesALostWaitingEvent(t *testing.T) {
	t.Parallel()
	dir, base := t.TempDir(), freeBase(t)
	args := []string{"-grace", "10m"}
	r := startServing(t, dir, base, args...)
	keys, err := token.LoadKeyring(os.DirFS(filepath.Join(dir, "token-keys")))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := keys.Mint("acme", time.Now(), strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	// its click never happened
	r.postEvent(map[string]any{"event_id": "w1", "type": "lead", "click_token": token.Text(&raw)})
	const conservation = "SELECT sum(read), sum(waiting), sum(difference) FROM conservation"
	r.awaitResult(conservation, "1\t1\t0")
	r.interrupt()

	cache := state.NewCache(1 << 20)
	defer cache.Close()
	lost := 0
	stores, err := filepath.Glob(filepath.Join(dir, "processor", "p*", "journeys"))
	if err != nil || len(stores) != 6 {
		t.Fatalf("%v %v", stores, err)
	}
	for _, path := range stores {
		s, err := state.OpenDir(path, cache, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		if err := s.Scan([]byte{'D'}, []byte{'E'}, func(key, _ []byte) bool {
			lost++
			b.Delete(key)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost != 1 {
		t.Fatalf("%d waiting events were lost, meant to lose 1", lost)
	}
	r = startServing(t, dir, base, args...)
	r.awaitResult("SELECT sum(read), sum(waiting), sum(difference) > 0 FROM conservation", "1\t0\t1")
	r.interrupt()
}
