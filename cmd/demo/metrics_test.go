package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/prometheus/client_golang/prometheus"
)

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
	// no proxy is in front of the demo
	_, err = forwarded.New(forwarded.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		ProxyProtocol: true}, d.log, d.registry)
	if err != nil {
		panic(err)
	}
	// Daemons watch their rights on Kafka; the demo's broker gives all of them.
	registered, end := context.WithCancel(ctx)
	end()
	nowhere := kafka.DefaultConfig()
	nowhere.Brokers = []string{"127.0.0.1:1"}
	if err := kafka.WatchRights(registered, nowhere, "sink", d.log, d.registry); err != nil {
		panic(err)
	}
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
