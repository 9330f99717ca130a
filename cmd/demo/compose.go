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

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	warehouse "github.com/nimriz/partners/connectors/clickhouse/embedded"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	broker "github.com/nimriz/partners/pipeline/kafka/embedded"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

// endpoints are where the parts listen; written to endpoints.json.
type endpoints struct {
	Redirector string `json:"redirector"`
	Gateway    string `json:"gateway"`
	Report     string `json:"report"`
	ClickHouse string `json:"clickhouse"`
	Brokers    string `json:"brokers"` // as -brokers takes them: host:port,…
}

// demo is one run.
type demo struct {
	options
	stdout, stderr io.Writer
	judge          judge

	dir       string
	log       *slog.Logger
	kafka     kafka.Config
	wh        clickhouse.Config
	at        endpoints
	listeners map[string]net.Listener // by part
	clickLife time.Duration           // at least the longest window of the catalog
	group     daemon.Group
	parts     []daemon.Part

	registry *prometheus.Registry
}

func newDemo(o options, stdout, stderr io.Writer, j judge) *demo {
	if j == nil {
		j = oracleJudge
	}
	k := kafka.DefaultConfig()
	k.TopicPrefix = o.topicPrefix
	return &demo{
		options: o,
		stdout:  stdout,
		stderr:  stderr,
		judge:   j,
		log:     slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		kafka:   k,
	}
}

// main prepares, starts, drives traffic, checks, and serves until ctx is done.
func (d *demo) main(ctx context.Context) (err error) {
	if d.dir = d.data; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "partners-demo-"); err != nil {
			return fmt.Errorf("making a temporary directory: %w", err)
		}
		defer os.RemoveAll(d.dir)
	}
	if err := d.prepare(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, d.group.Stop())
		d.release()
	}()
	ctx = d.group.Watch(ctx)
	if err := d.start(ctx); err != nil {
		return cause(ctx, err)
	}
	if d.traffic {
		if err := d.trafficAndCheck(ctx); err != nil {
			return cause(ctx, err)
		}
	}
	if d.once {
		return nil
	}
	if err := d.invite(); err != nil {
		return err
	}
	d.say("serving until Ctrl-C")
	<-ctx.Done()
	return cause(ctx, nil)
}

// cause prefers why a part ended over what that broke elsewhere; a signal is no error.
func cause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if c := context.Cause(ctx); !errors.Is(c, context.Canceled) {
		return c
	}
	return nil
}

func (d *demo) say(format string, a ...any) { fmt.Fprintf(d.stdout, format+"\n", a...) }

func (d *demo) has(part string) bool { return slices.Contains(d.run, part) }

// port returns the address of the n-th listener.
func (d *demo) port(n int, usual int) string {
	if d.portBase != 0 {
		usual = d.portBase + n
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(usual))
}

// bind takes the ports of all parts that run here. That is the first thing that
// happens: a connection of ours may get as its own any port that is not taken yet.
func (d *demo) bind() error {
	addresses := map[string]string{
		"redirector": d.port(0, 8080),
		"gateway":    d.port(1, 8081),
		"report":     d.port(2, 8082),
		"warehouse":  d.port(3, 8123),
		"broker":     d.port(4, 9092),
	}
	d.at = endpoints{Redirector: "http://" + addresses["redirector"], Gateway: "http://" + addresses["gateway"],
		Report:     "http://" + addresses["report"],
		ClickHouse: "http://" + addresses["warehouse"], Brokers: addresses["broker"]}
	d.listeners = make(map[string]net.Listener)
	var taken []error
	for _, part := range partNames {
		elsewhere := part == "broker" && len(d.brokers) > 0 || part == "warehouse" && d.clickhouse != ""
		if addresses[part] == "" || !d.has(part) || elsewhere { // processor and sink listen nowhere
			continue
		}
		ln, err := net.Listen("tcp", addresses[part])
		if err != nil {
			taken = append(taken, fmt.Errorf("%s: %w", part, err))
			continue
		}
		d.listeners[part] = ln
	}
	if len(taken) > 0 {
		return fmt.Errorf("%w (-port-base moves all ports)", errors.Join(taken...))
	}
	return nil
}

// release closes the listeners of parts that never got theirs; those that serve close
// their own before.
func (d *demo) release() {
	for _, ln := range d.listeners {
		ln.Close()
	}
}

// start starts the parts that -run names and waits until they serve.
func (d *demo) start(ctx context.Context) error {
	if err := d.bind(); err != nil {
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
	if d.has("processor") {
		cfg := processor.DefaultConfig()
		cfg.StateDir, cfg.Instance, cfg.Grace, cfg.ClickLife = filepath.Join(d.dir,
			"processor"), "demo-0", d.grace, d.clickLife
		cfg.ClickMemory, cfg.JourneyCache = 64<<20, 64<<20
		k := d.kafka
		k.ClientID = "partners-processor"
		p, err := processor.New(cfg, k, d.codec, d.log.With("part", "processor"), d.registry)
		if err != nil {
			return err
		}
		d.add("processor", p)
	}
	if d.has("sink") {
		d.add("sink", &components.Sink{Deps: deps, Config: sink.DefaultConfig(), ClickHouse: d.wh})
	}
	if d.has("gateway") {
		cfg := ingest.DefaultConfig()
		cfg.Rate, cfg.Burst = 50_000, 100_000 // one generator is all of the demo's merchants
		d.add("gateway", &components.Gateway{
			Deps:           deps,
			Config:         cfg,
			Listener:       d.listeners["gateway"],
			TokenKeys:      d.path("token-keys"),
			SigningSecrets: d.path("signing-secrets"),
		})
	}
	if d.has("redirector") {
		cfg := redirect.DefaultConfig()
		cfg.SpoolDir = d.path("spool")
		d.add("redirector", &components.Redirector{
			Deps:      deps,
			Config:    cfg,
			Listener:  d.listeners["redirector"],
			TokenKeys: d.path("token-keys"),
		})
	}
	if d.has("report") {
		d.add("report", &components.Report{
			Deps:         deps,
			ClickHouse:   d.wh,
			Listener:     d.listeners["report"],
			ReaderTokens: d.path("reader-tokens"),
		})
	}
	if err := d.waitReady(ctx); err != nil {
		return err
	}
	return d.announce()
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) add(name string, p daemon.Part) {
	d.parts = append(d.parts, p)
	d.group.Go(name, p.Run)
}

// startBroker starts the embedded broker, or takes the one that was given, and sees to
// topics and catalog.
func (d *demo) startBroker(ctx context.Context) error {
	switch {
	case len(d.brokers) > 0:
		d.at.Brokers = strings.Join(d.brokers, ",")
	case d.has("broker"):
		b, err := broker.Start(broker.Config{Listener: d.listeners["broker"], DataDir: d.path("kafka")})
		if err != nil {
			return err
		}
		d.group.Go("broker", func(ctx context.Context) error {
			<-ctx.Done()
			b.Close()
			return nil
		})
	}
	d.kafka.Brokers = strings.Split(d.at.Brokers, ",")
	if !d.has("broker") {
		return nil
	}
	kept, err := setup.KeptClickLife(ctx, d.kafka, d.log)
	if err != nil {
		return err
	}
	// of a catalog that was applied before, or of a cluster that is not ours
	d.clickLife = max(d.clickLife, kept)
	want := kafka.DefaultTopicsConfig()
	want.Replication, want.ClickLife = 1, d.clickLife
	if _, err := setup.Topics(ctx, d.kafka, want, d.log); err != nil {
		return err
	}
	if _, err := setup.Catalog(ctx, d.kafka, d.log, []string{d.path("catalog.yaml")}, false); err != nil {
		return err
	}
	d.say("broker      %s  %d topics, catalog applied", d.at.Brokers, len(topic.Specs("", 1, time.Hour)))
	return nil
}

// startWarehouse starts the embedded ClickHouse, fetching its library first if need be,
// or takes the one that was given, and migrates.
func (d *demo) startWarehouse(ctx context.Context) error {
	d.wh.DSN = d.clickhouse
	if d.clickhouse != "" {
		d.at.ClickHouse = withoutPassword(d.clickhouse)
	} else {
		d.wh.DSN = "http://default@" + d.at.ClickHouse[len("http://"):] + "/partners"
	}
	if !d.has("warehouse") {
		return nil
	}
	if d.clickhouse == "" {
		cfg := warehouse.DefaultConfig()
		cfg.Library, cfg.DataDir, cfg.Listener = d.library, d.path("clickhouse"), d.listeners["warehouse"]
		bar := newProgress(d.stdout, "fetching libchdb (once)", "MB")
		library, err := warehouse.Prepare(ctx, cfg, func(done, total int64) { bar.set(int(done>>20), int(total>>20)) })
		bar.end()
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
	if err := setup.Migrate(ctx, d.wh, clickhouse.MergeTree, d.log); err != nil {
		return err
	}
	d.say("warehouse   %s  migrated", d.at.ClickHouse)
	return nil
}

// withoutPassword returns a DSN that may be written down: clickhouse-go reads passwords
// in three places, and lists of hosts that url.Parse does not.
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
	for _, p := range d.parts {
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

// announce writes endpoints.json and says where everything is.
func (d *demo) announce() error {
	b, err := json.MarshalIndent(d.at, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path("endpoints.json"), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing endpoints: %w", err)
	}
	for _, x := range [][2]string{{"redirector", d.at.Redirector}, {"gateway", d.at.Gateway}, {"report", d.at.Report}} {
		if d.has(x[0]) {
			d.say("%-11s %s", x[0], x[1])
		}
	}
	d.say("ready       data in %s", d.dir)
	return nil
}

// invite says how to look at the report.
func (d *demo) invite() error {
	if !d.has("report") {
		return nil
	}
	tokens, err := filepath.Glob(d.path("reader-token-*.txt"))
	if err != nil {
		return err
	}
	for _, file := range tokens {
		token, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a reader token: %w", err)
		}
		workspace := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "reader-token-"), ".txt")
		d.say("look at      %s  workspace %s, reader token %s",
			d.at.Report, workspace, strings.TrimSpace(string(token)))
	}
	return nil
}
