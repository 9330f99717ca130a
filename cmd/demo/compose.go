package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	warehouse "github.com/nimriz/partners/connectors/clickhouse/embedded"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	broker "github.com/nimriz/partners/pipeline/kafka/embedded"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

// endpoints are the addresses of the components, as written to endpoints.json.
type endpoints struct {
	Redirector string `json:"redirector"` // base URL
	Gateway    string `json:"gateway"`    // base URL
	Report     string `json:"report"`     // base URL
	ClickHouse string `json:"clickhouse"` // base URL, or -clickhouse without the password
	Brokers    string `json:"brokers"`    // as -brokers takes them: host:port,…
}

// demo is one run.
type demo struct {
	options
	stdout, stderr io.Writer
	runOracle      oracleFunc // judges the recorded events

	dataDir    string
	log        *slog.Logger
	kafka      kafka.Config
	warehouse  clickhouse.Config
	endpoints  endpoints
	listeners  map[string]net.Listener // by component
	clickLife  time.Duration           // at least the longest window of the catalog
	group      daemon.Group            // runs the components
	components []daemon.Component      // those that must become ready

	registry *prometheus.Registry // of all components
}

func newDemo(o options, stdout, stderr io.Writer, j oracleFunc) *demo {
	if j == nil {
		j = oracle.Judge
	}
	k := kafka.DefaultConfig()
	k.TopicPrefix = o.topicPrefix
	return &demo{
		options:   o,
		stdout:    stdout,
		stderr:    stderr,
		runOracle: j,
		log:       slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		kafka:     k,
	}
}

// runDemo prepares, starts, drives traffic, checks, and serves until ctx is done.
func (d *demo) runDemo(ctx context.Context) (err error) {
	if d.dataDir = d.keepDir; d.dataDir == "" {
		if d.dataDir, err = os.MkdirTemp("", "partners-demo-"); err != nil {
			return fmt.Errorf("making a temporary directory: %w", err)
		}
		defer os.RemoveAll(d.dataDir)
	}
	if err := d.prepareData(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, d.group.Stop())
		d.closeListeners()
	}()
	ctx = d.group.Watch(ctx)
	if err := d.startComponents(ctx); err != nil {
		return rootCause(ctx, err)
	}
	if d.traffic {
		if err := d.trafficAndCheck(ctx); err != nil {
			return rootCause(ctx, err)
		}
	}
	if d.once {
		return nil
	}
	if err := d.printReportLogins(); err != nil {
		return err
	}
	d.printLine("serving until Ctrl-C")
	<-ctx.Done()
	return rootCause(ctx, nil)
}

// rootCause returns why a component stopped, if one did, instead of the errors that
// this caused elsewhere. A signal is no error.
func rootCause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if c := context.Cause(ctx); !errors.Is(c, context.Canceled) {
		return c
	}
	return nil
}

func (d *demo) printLine(format string, a ...any) { fmt.Fprintf(d.stdout, format+"\n", a...) }

// runsHere reports whether -run names a component.
func (d *demo) runsHere(component string) bool { return slices.Contains(d.runNames, component) }

// listenAddress returns the address of the n-th listener; usual is its port without
// -port-base.
func (d *demo) listenAddress(n, usual int) string {
	if d.portBase != 0 {
		usual = d.portBase + n
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(usual))
}

// bindListeners binds the ports of all components that run here. It comes first: an
// outgoing connection of this process could otherwise get one of them as its own port.
func (d *demo) bindListeners() error {
	addresses := map[string]string{
		"redirector": d.listenAddress(0, 8080),
		"gateway":    d.listenAddress(1, 8081),
		"report":     d.listenAddress(2, 8082),
		"warehouse":  d.listenAddress(3, 8123),
		"broker":     d.listenAddress(4, 9092),
	}
	d.endpoints = endpoints{
		Redirector: "http://" + addresses["redirector"],
		Gateway:    "http://" + addresses["gateway"],
		Report:     "http://" + addresses["report"],
		ClickHouse: "http://" + addresses["warehouse"],
		Brokers:    addresses["broker"],
	}
	d.listeners = make(map[string]net.Listener)
	var taken []error
	for _, name := range componentNames {
		elsewhere := name == "broker" && len(d.brokers) > 0 || name == "warehouse" && d.clickhouse != ""
		if addresses[name] == "" || !d.runsHere(name) || elsewhere { // processor and sink do not listen
			continue
		}
		ln, err := net.Listen("tcp", addresses[name])
		if err != nil {
			taken = append(taken, fmt.Errorf("%s: %w", name, err))
			continue
		}
		d.listeners[name] = ln
	}
	if len(taken) > 0 {
		return fmt.Errorf("%w (-port-base moves all ports)", errors.Join(taken...))
	}
	return nil
}

// closeListeners closes the listeners of components that were not started. The others
// have closed theirs.
func (d *demo) closeListeners() {
	for _, ln := range d.listeners {
		ln.Close()
	}
}

// startComponents starts the components that -run names and waits until they serve.
func (d *demo) startComponents(ctx context.Context) error {
	if err := d.bindListeners(); err != nil {
		return err
	}
	if err := d.startBroker(ctx); err != nil {
		return err
	}
	if err := d.startWarehouse(ctx); err != nil {
		return err
	}
	d.registry = prometheus.NewRegistry()
	deps := components.Deps{Kafka: d.kafka, Codec: d.codec, Log: d.log, Registry: d.registry}
	if d.runsHere("processor") {
		cfg := processor.DefaultConfig()
		cfg.StateDir, cfg.Instance = d.dataPath("processor"), "demo-0"
		cfg.Grace, cfg.ClickLife = d.grace, d.clickLife
		cfg.ClickMemory, cfg.JourneyCache = 64<<20, 64<<20
		k := d.kafka
		k.ClientID = "partners-processor"
		p, err := processor.New(cfg, k, d.codec, d.log.With("component", "processor"), d.registry)
		if err != nil {
			return err
		}
		d.startComponent("processor", p)
	}
	if d.runsHere("sink") {
		d.startComponent("sink", &components.Sink{Deps: deps, Config: sink.DefaultConfig(), ClickHouse: d.warehouse})
	}
	if d.runsHere("gateway") {
		cfg := ingest.DefaultConfig()
		cfg.Rate, cfg.Burst = 50_000, 100_000 // one generator plays all merchants
		d.startComponent("gateway", &components.Gateway{
			Deps:           deps,
			Config:         cfg,
			Listener:       d.listeners["gateway"],
			TokenKeys:      d.dataPath("token-keys"),
			SigningSecrets: d.dataPath("signing-secrets"),
		})
	}
	if d.runsHere("redirector") {
		cfg := redirect.DefaultConfig()
		cfg.SpoolDir = d.dataPath("spool")
		d.startComponent("redirector", &components.Redirector{
			Deps:      deps,
			Config:    cfg,
			Listener:  d.listeners["redirector"],
			TokenKeys: d.dataPath("token-keys"),
		})
	}
	if d.runsHere("report") {
		d.startComponent("report", &components.Report{
			Deps:         deps,
			ClickHouse:   d.warehouse,
			Listener:     d.listeners["report"],
			ReaderTokens: d.dataPath("reader-tokens"),
		})
	}
	if err := d.waitReady(ctx); err != nil {
		return err
	}
	return d.publishEndpoints()
}

func (d *demo) dataPath(name string) string { return filepath.Join(d.dataDir, name) }

func (d *demo) startComponent(name string, p daemon.Component) {
	d.components = append(d.components, p)
	d.group.Go(name, p.Run)
}

// startBroker starts the embedded broker or uses that of -brokers, then applies topics
// and catalog.
func (d *demo) startBroker(ctx context.Context) error {
	switch {
	case len(d.brokers) > 0:
		d.endpoints.Brokers = strings.Join(d.brokers, ",")
	case d.runsHere("broker"):
		b, err := broker.Start(broker.Config{Listener: d.listeners["broker"], DataDir: d.dataPath("kafka")})
		if err != nil {
			return err
		}
		d.group.Go("broker", func(ctx context.Context) error {
			<-ctx.Done()
			b.Close()
			return nil
		})
	}
	d.kafka.Brokers = strings.Split(d.endpoints.Brokers, ",")
	if !d.runsHere("broker") {
		return nil
	}
	kept, err := setup.KeptClickLife(ctx, d.kafka, d.log)
	if err != nil {
		return err
	}
	// Keep clicks as long as an earlier catalog or a foreign cluster required.
	d.clickLife = max(d.clickLife, kept)
	want := kafka.DefaultTopicsConfig()
	want.Replication, want.ClickLife = 1, d.clickLife
	if _, err := setup.Topics(ctx, d.kafka, want, d.log); err != nil {
		return err
	}
	if _, err := setup.Catalog(ctx, d.kafka, d.log, []string{d.dataPath("catalog.yaml")}, false); err != nil {
		return err
	}
	d.printLine("broker      %s  %d topics, catalog applied", d.endpoints.Brokers, len(topic.Specs("", 1, time.Hour)))
	return nil
}

// startWarehouse starts the embedded ClickHouse, after fetching its library if needed,
// or uses that of -clickhouse. It then migrates the database.
func (d *demo) startWarehouse(ctx context.Context) error {
	d.warehouse.DSN = d.clickhouse
	if d.clickhouse != "" {
		d.endpoints.ClickHouse = withoutPassword(d.clickhouse)
	} else {
		d.warehouse.DSN = "http://default@" + d.endpoints.ClickHouse[len("http://"):] + "/partners"
	}
	if !d.runsHere("warehouse") {
		return nil
	}
	if d.clickhouse == "" {
		cfg := warehouse.DefaultConfig()
		cfg.Library = d.library
		cfg.DataDir = d.dataPath("clickhouse")
		cfg.Listener = d.listeners["warehouse"]
		bar := newProgressLine(d.stdout, "fetching libchdb (once)", "MB")
		library, err := warehouse.Prepare(ctx, cfg, func(done, total int64) {
			bar.update(int(done>>20), int(total>>20))
		})
		bar.clearLine()
		if err != nil {
			return err
		}
		cfg.Library = library
		s, err := warehouse.Start(cfg, d.log)
		if err != nil {
			return err
		}
		d.group.Go("warehouse", func(ctx context.Context) error {
			<-ctx.Done()
			return s.Close()
		})
	}
	m := setup.Migration{ClickHouse: d.warehouse, Engine: clickhouse.MergeTree, Kafka: d.kafka}
	if err := setup.Migrate(ctx, m, d.log); err != nil {
		return err
	}
	d.printLine("warehouse   %s  migrated", d.endpoints.ClickHouse)
	return nil
}

// withoutPassword removes the password from a DSN. clickhouse-go accepts passwords in
// three places, and lists of hosts that url.Parse rejects.
func withoutPassword(dsn string) string {
	scheme, rest, _ := strings.Cut(dsn, "://")
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, slash := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, _, _ := strings.Cut(authority[:at], ":")
		authority = user + authority[at:]
	}
	if slash {
		path = "/" + path
	}
	kept := slices.DeleteFunc(strings.Split(query, "&"), func(option string) bool {
		name, _, _ := strings.Cut(option, "=")
		return name == "" || name == "password" || name == "http_proxy"
	})
	if len(kept) > 0 {
		path += "?" + strings.Join(kept, "&")
	}
	return scheme + "://" + authority + path
}

func (d *demo) waitReady(ctx context.Context) error {
	for _, p := range d.components {
		for p.Ready() != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// publishEndpoints writes endpoints.json and prints the addresses.
func (d *demo) publishEndpoints() error {
	b, err := json.MarshalIndent(d.endpoints, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.dataPath("endpoints.json"), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing endpoints: %w", err)
	}
	d.printEndpoint("redirector", d.endpoints.Redirector)
	d.printEndpoint("gateway", d.endpoints.Gateway)
	d.printEndpoint("report", d.endpoints.Report)
	d.printLine("ready       data in %s", d.dataDir)
	return nil
}

func (d *demo) printEndpoint(component, address string) {
	if d.runsHere(component) {
		d.printLine("%-11s %s", component, address)
	}
}

// printReportLogins prints the reader token of each workspace.
func (d *demo) printReportLogins() error {
	if !d.runsHere("report") {
		return nil
	}
	tokens, err := filepath.Glob(d.dataPath("reader-token-*.txt"))
	if err != nil {
		return err
	}
	for _, file := range tokens {
		token, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a reader token: %w", err)
		}
		workspace := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "reader-token-"), ".txt")
		d.printLine("look at      %s  workspace %s, reader token %s",
			d.endpoints.Report, workspace, strings.TrimSpace(string(token)))
	}
	return nil
}
