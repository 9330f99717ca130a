package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// hang is how long a test waits for what must come.
const hang = 3 * time.Minute

const (
	tokenKey      = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	signingSecret = "whsec_" + tokenKey
	instance      = "slot-0"
)

const catalogText = `workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true, partner_reporting: true, conversion_reporting: true, exports: true}
    domains: [go.acme.com]
    programs: [{id: prg_1, key: agency, name: Agency partners, status: active, window: 30d, reward: {percent: "10"}}]
    partners: [{id: prt_1, key: nomura, name: Nomura Studio, relationship: approved, lifecycle: active}]
    links: [{id: lnk_1, domain: go.acme.com, slug: nomura, destination: "https://shop.acme.com/",
      conversion_tracking: true, status: active, partner: prt_1, program: prg_1, assignment_id: asg_1,
      assigned_at: 2026-01-05T00:00:00Z}]
`

// rig is a broker that knows its users, a ClickHouse, and what the programs need.
type rig struct {
	broker              *kafkatest.SecuredBroker
	dsn                 string
	warehouse           *clickhouse.Conn
	program             string // the built ctl
	catalog             string // file
	keys, secrets       string // directories
	redirector, gateway net.Listener
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{program: filepath.Join(t.TempDir(), "ctl")}
	built := make(chan error, 1)
	go func() { // while the servers start
		said, err := exec.Command("go", "build", "-o", r.program, "github.com/nimriz/partners/cmd/ctl").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("building ctl: %w: %s", err, said)
		}
		built <- err
	}()
	// Without this a transaction cannot be made to hang.
	r.broker = kafkatest.Secured(t, "transaction.partition.verification.enable=false")
	r.dsn = clickhousetest.ForTest(t)
	r.warehouse = clickhousetest.OpenMigrated(t, r.dsn)
	if err := <-built; err != nil {
		t.Fatal(err)
	}
	r.catalog, r.keys, r.secrets = writeFile(t, catalogText), t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(r.keys, "acme"), []byte(tokenKey), 0o600),
		os.WriteFile(filepath.Join(r.secrets, "acme"), []byte(signingSecret), 0o600)); err != nil {
		t.Fatal(err)
	}
	return r
}

// loginConfig is for a user who logs in, and trusts the broker.
func (r *rig) loginConfig() kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{r.broker.LoginAddr}
	cfg.Security = kafka.Security{TLS: true, CAFile: r.broker.CAFile}
	return cfg
}

func newClient(t *testing.T, cfg kafka.Config) *kgo.Client {
	t.Helper()
	cl, err := kafka.NewClient(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// ping returns what a person is told of a connection.
func ping(t *testing.T, cfg kafka.Config) error {
	t.Helper()
	cl := newClient(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	return cfg.Explain(cl.Ping(ctx))
}

// refused requires a sentence about access.
func refused(t *testing.T, what string, err error, want string) {
	t.Helper()
	if !errors.Is(err, kafka.ErrAccess) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want …%s…", what, err, want)
	}
}

// give makes ACLs, as the administrator.
func (r *rig) give(t *testing.T, user string, grants []topic.Grant) {
	t.Helper()
	if err := kafka.ApplyRights(t.Context(), kafkatest.Client(t, r.broker.Brokers()), "User:"+user,
		grants); err != nil {
		t.Fatal(err)
	}
}

// environOf is a connection as a program reads it from its environment.
func environOf(cfg kafka.Config) map[string]string {
	s := cfg.Security
	return map[string]string{
		"PARTNERS_BROKERS":                strings.Join(cfg.Brokers, ","),
		"PARTNERS_KAFKA_TLS":              strconv.FormatBool(s.TLS),
		"PARTNERS_KAFKA_CA_FILE":          s.CAFile,
		"PARTNERS_KAFKA_CERT_FILE":        s.CertFile,
		"PARTNERS_KAFKA_KEY_FILE":         s.KeyFile,
		"PARTNERS_KAFKA_SASL_MECHANISM":   s.Mechanism,
		"PARTNERS_KAFKA_USER":             s.User,
		"PARTNERS_KAFKA_PASSWORD_FILE":    s.PasswordFile,
		"PARTNERS_KAFKA_OAUTH_TOKEN_FILE": s.TokenFile,
	}
}

// ctl runs the built ctl as a user; "" is the administrator, or a command without Kafka.
func (r *rig) ctl(t *testing.T, user string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), r.program, args...)
	cmd.Env = append(os.Environ(), "PARTNERS_BROKERS="+strings.Join(r.broker.Brokers(), ","))
	if user != "" {
		for name, value := range environOf(r.broker.As(user)) {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("ctl %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (r *rig) mustCtl(t *testing.T, user string, args ...string) (said string) {
	t.Helper()
	code, said := r.ctl(t, user, args...)
	if code != 0 {
		t.Fatalf("ctl %s: %d, %s", strings.Join(args, " "), code, said)
	}
	return said
}

// running is a program, and what it logs.
type running struct {
	name      string
	component daemon.Component
	log       *kafkatest.LogBuffer
	metrics   prometheus.Gatherer
	cancel    context.CancelFunc
	done      chan error
}

// daemons are the programs that use Kafka and stay.
func daemons() []string { return []string{"redirector", "gateway", "processor", "sink"} }

// startAll starts all of them, each as the user PREFIX-NAME.
func (r *rig) startAll(t *testing.T, prefix string) (all []*running) {
	t.Helper()
	for _, name := range daemons() {
		all = append(all, r.start(t, name, r.broker.As(prefix+name)))
	}
	return all
}

// start runs a program as its main does.
func (r *rig) start(t *testing.T, name string, as kafka.Config) *running {
	t.Helper()
	d, cfg := daemon.New(name, "is tested"), kafka.DefaultConfig()
	d.Kafka(&cfg)
	p := &running{name: name, log: &kafkatest.LogBuffer{}, metrics: d.Registry, done: make(chan error, 1)}
	environ := environOf(as)
	if err := daemon.Parse(d.Flags, []string{"-admin-listen", "127.0.0.1:0"}, func(name string) (string, bool) {
		value, ok := environ[name]
		return value, ok
	}); err != nil {
		t.Fatal(err)
	}
	d.Log = slog.New(slog.NewTextHandler(p.log, nil))
	p.component = r.build(t, name, components.Deps{Kafka: cfg, Codec: event.DefaultCodec(), Log: d.Log,
		Registry: d.Registry})
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() { p.done <- d.Serve(ctx, p.component) }()
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (r *rig) build(t *testing.T, name string, d components.Deps) daemon.Component {
	t.Helper()
	switch name {
	case "redirector":
		r.redirector = listen(t)
		c := &components.Redirector{Deps: d, Config: redirect.DefaultConfig(), Listener: r.redirector,
			TokenKeys: r.keys}
		c.Config.SpoolDir = t.TempDir()
		return c
	case "gateway":
		r.gateway = listen(t)
		return &components.Gateway{Deps: d, Config: ingest.DefaultConfig(), Listener: r.gateway, TokenKeys: r.keys,
			SigningSecrets: r.secrets}
	case "processor":
		cfg := processor.DefaultConfig()
		cfg.StateDir, cfg.Instance = t.TempDir(), instance
		p, err := processor.New(cfg, d.Kafka, d.Codec, d.Log, d.Registry)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	return &components.Sink{Deps: d, Config: sink.DefaultConfig(), ClickHouse: clickhouse.Config{DSN: r.dsn}}
}

// watchRights runs only what looks for missing rights of a program.
func (r *rig) watchRights(t *testing.T, name string, cfg kafka.Config) *running {
	t.Helper()
	p := &running{name: name, log: &kafkatest.LogBuffer{}, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	log := slog.New(slog.NewTextHandler(p.log, nil))
	go func() { p.done <- kafka.WatchRights(ctx, cfg, name, log, prometheus.NewRegistry()) }()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop stops the program, if it was not stopped before. It must not have failed.
func (p *running) stop(t *testing.T) {
	t.Helper()
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	if err := <-p.done; err != nil {
		t.Errorf("%s: %v\n%s", p.name, err, p.log)
	}
}

// await waits for something in the log, which it returns.
func (p *running) await(t *testing.T, expr string) string {
	t.Helper()
	wanted := regexp.MustCompile(expr)
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if found := wanted.FindString(p.log.String()); found != "" {
			return found
		}
		if len(p.done) > 0 {
			break
		}
	}
	t.Fatalf("%s does not log %s:\n%s", p.name, expr, p.log)
	return ""
}

func (p *running) awaitReady(t *testing.T) {
	t.Helper()
	p.await(t, "msg=ready")
}

// count is how often an expression is in the log.
func (p *running) count(expr string) int {
	return p.log.Count(expr)
}

// missingRights is the metric, for what rights are needed for.
func (p *running) missingRights(t *testing.T, neededFor string) (n int) {
	t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "partners_kafka_missing_rights" && m.GetLabel()[0].GetValue() == neededFor {
				return int(m.GetGauge().GetValue())
			}
		}
	}
	t.Fatalf("%s has no metric of missing rights", p.name)
	return 0
}

// awaitRows waits until a query for n gives at least so many.
func (r *rig) awaitRows(t *testing.T, query string, want uint64) {
	t.Helper()
	var got []struct {
		N uint64 `ch:"n"`
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(50 * time.Millisecond) {
		got = nil
		err := r.warehouse.Select(t.Context(), &got, query)
		if err == nil && len(got) == 1 && got[0].N >= want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, %v", query, got, err)
		}
	}
}

// awaitLetters waits until a record of each topic is among the dead letters, and returns
// the offset of one letter for each.
func (r *rig) awaitLetters(t *testing.T, topics []string) (offsets []string) {
	t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(200 * time.Millisecond) {
		said := r.mustCtl(t, "exact-ctl", "dead-letters", "list")
		offsets = nil
		for _, name := range topics {
			if m := regexp.MustCompile(`(\d+) │[^│]*│ ` + name + ` \d+/`).FindStringSubmatch(said); m != nil {
				offsets = append(offsets, m[1])
			}
		}
		if len(offsets) == len(topics) {
			return offsets
		}
		if time.Now().After(deadline) {
			t.Fatalf("the dead letters lack some of %v:\n%s", topics, said)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
