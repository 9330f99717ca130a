//go:build linux

package blackbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	// grace is longer than a test lasts, so that no wait ends. With a shorter one,
	// verdicts would depend on the speed of the machine: a producer may hold a click
	// for minutes. Tests with a clock of their own, in processor and simtest, show that
	// waits end.
	grace = time.Hour
	// sessionTimeout of processors and sinks is the shortest that Kafka allows by
	// default.
	sessionTimeout = 6 * time.Second
)

// maxMessageBytes is the largest record that the broker accepts.
const maxMessageBytes = 6 << 20

// rig is the whole pipeline as separate processes.
type rig struct {
	t     *testing.T
	dir   string
	kafka kafka.Config
	adm   *kadm.Client

	broker                *kafkatest.RealBroker
	warehouse             *childProcess
	wh                    *clickhouse.Conn // past the proxies
	processors, sinks     [2]*childProcess
	proxies               [2]*warehouseProxy // between each sink and ClickHouse
	gateway, redirector   *childProcess
	gatewayAt, redirectAt string // host:port
	secrets               map[string]signature.Secret
	unreadable            map[string]bool // "topic partition/offset" of unreadable records
	waits                 time.Duration   // grace of the processors
	codec                 *event.Codec    // reads all that is in the topics
}

const rigCatalog = `workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true, partner_reporting: true, conversion_reporting: true, exports: true}
    domains: [go.acme.com]
    programs:
      - {id: prg_agency, key: agency, name: Agency partners, window: 30d, reward: {percent: "10"}}
      - {id: prg_creator, key: creator, name: Creators, window: 14d, reward: {flat: "5.00", currency: USD}}
    partners:
      - {id: prt_nomura, key: nomura, name: Nomura Studio, relationship: approved}
      - {id: prt_creator, key: creator, name: Creator Collective, relationship: review}
    links:
      - {id: lnk_nomura, domain: go.acme.com, slug: nomura, destination: "https://shop.acme.com/#top", conversion_tracking: true, partner: prt_nomura, program: prg_agency, assignment_id: asg_1}
      - {id: lnk_creator, domain: go.acme.com, slug: creator, destination: "https://shop.acme.com/?a=b", conversion_tracking: true, partner: prt_creator, program: prg_creator, assignment_id: asg_2}
      - {id: lnk_plain, domain: go.acme.com, slug: plain, destination: "https://shop.acme.com/plain", conversion_tracking: true}
  - id: globex
    name: Globex
    plan: enterprise
    access: {conversion_tracking: true, partner_reporting: true, conversion_reporting: true, exports: true}
    domains: [go.globex.com]
    programs:
      - {id: prg_resellers, key: resellers, name: Resellers, reward: {percent: "12.5"}}
    partners:
      - {id: prt_hank, key: hank, name: Hank & Sons, relationship: approved}
    links:
      - {id: lnk_hank, domain: go.globex.com, slug: hank, destination: "https://globex.com/start", conversion_tracking: true, partner: prt_hank, program: prg_resellers, assignment_id: asg_3}
`

// newRig starts all programs and waits until they serve. redirectorArgs follow the
// redirector's usual arguments.
func newRig(t *testing.T, redirectorArgs ...string) *rig {
	t.Helper()
	return newRigOn(t, nil, redirectorArgs...)
}

// newRigOn is newRig with further settings of the broker.
func newRigOn(t *testing.T, settings []string, redirectorArgs ...string) *rig {
	t.Helper()
	clickhousetest.Need(t)
	began := time.Now()
	r := &rig{t: t, secrets: make(map[string]signature.Secret), unreadable: make(map[string]bool), waits: grace,
		codec: event.DefaultCodec()}
	var err error
	if r.dir, err = os.MkdirTemp(clickhousetest.Base(), "blackbox-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.cleanup)
	r.broker = kafkatest.Real(t, append(settings, fmt.Sprint("message.max.bytes=", maxMessageBytes))...)
	kafkatest.Topics(t, r.broker.Brokers())
	r.kafka = kafka.DefaultConfig()
	r.kafka.Brokers = r.broker.Brokers()
	r.adm = kadm.NewClient(kafkatest.Client(t, r.broker.Brokers()))
	base := freePorts(t, 9)
	at := func(n int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+n)) }
	r.startWarehouse(base)
	brokers := strings.Join(r.broker.Brokers(), ",")
	for i := range r.processors {
		name := fmt.Sprint("slot-0", i)
		r.processors[i] = r.newDaemon("processor-"+name, "processor", "-brokers", brokers, "-instance", name,
			"-state-dir", filepath.Join(r.dir, name), "-grace", grace.String(),
			"-click-memory", strconv.Itoa(16<<20), "-session-timeout", sessionTimeout.String())
		r.proxies[i] = newWarehouseProxy(t, at(5+i), at(3))
		r.sinks[i] = r.newDaemon(fmt.Sprint("sink-", i), "sink", "-brokers", brokers, "-clickhouse", "http://default@"+
			at(5+i)+"/partners", "-session-timeout", sessionTimeout.String())
	}
	keys, secrets := filepath.Join(r.dir, "token-keys"), filepath.Join(r.dir, "signing-secrets")
	r.gatewayAt, r.redirectAt = at(7), at(8)
	r.gateway = r.newDaemon("gateway", "gateway", "-brokers", brokers, "-listen", r.gatewayAt, "-token-keys", keys,
		"-signing-secrets", secrets, "-rate", "50000", "-burst", "100000")
	r.redirector = r.newDaemon("redirector", "redirector", append([]string{"-brokers", brokers, "-listen", r.redirectAt,
		"-token-keys", keys, "-spool-dir", filepath.Join(r.dir, "spool")}, redirectorArgs...)...)
	for _, p := range r.daemons() {
		if err := p.launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range r.daemons() {
		if err := p.awaitReady(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("broker, warehouse and %d daemons serve after %v",
		len(r.daemons()), time.Since(began).Round(100*time.Millisecond))
	return r
}

func (r *rig) newDaemon(name, program string, args ...string) *childProcess {
	return newChildProcess(r.t, r.dir, name, program, append([]string{"-admin-listen", "127.0.0.1:0"}, args...)...)
}

func (r *rig) daemons() []*childProcess {
	return []*childProcess{r.processors[0], r.processors[1], r.sinks[0], r.sinks[1], r.gateway, r.redirector}
}

// startWarehouse starts the embedded ClickHouse, whose program also creates secrets and
// keys, and writes the catalog to Kafka.
func (r *rig) startWarehouse(base int) {
	r.t.Helper()
	file := filepath.Join(r.dir, "rig.yaml")
	if err := os.WriteFile(file, []byte(rigCatalog), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.warehouse = newChildProcess(r.t, r.dir, "warehouse", "demo", "-run", "warehouse", "-traffic", "0", "-data", r.dir,
		"-catalog", file, "-port-base", strconv.Itoa(base))
	if err := r.warehouse.start(); err != nil {
		r.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
	defer cancel()
	if _, err := setup.Catalog(ctx, r.kafka, log, []string{file}, false); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if r.wh, err = clickhouse.Open(ctx, clickhouse.Config{DSN: fmt.Sprintf("http://default@127.0.0.1:%d/partners",
		base+3)}, log); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.wh.Close() })
	r.readSecrets()
}

func (r *rig) readSecrets() {
	r.t.Helper()
	for _, workspace := range []string{"acme", "globex"} {
		text, err := os.ReadFile(filepath.Join(r.dir, "signing-secrets", workspace))
		if err == nil {
			r.secrets[workspace], err = signature.ParseSecret(strings.TrimSpace(string(text)))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// cleanup keeps the logs if the test has failed, and removes everything else.
func (r *rig) cleanup() {
	if !r.t.Failed() {
		if err := os.RemoveAll(r.dir); err != nil {
			r.t.Errorf("removing %s: %v", r.dir, err)
		}
		return
	}
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".log" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.dir, e.Name())))
		}
	}
	if err != nil {
		r.t.Logf("removing data: %v", err)
	}
}

func (r *rig) newLoad() *trafficLoad {
	return newTrafficLoad(r.t, r.redirectAt, r.gatewayAt, r.secrets)
}

// freePorts returns the first of n free ports in a row. They lie below the kernel's
// range for outgoing connections, or a client that dials a killed server could get that
// port as its own.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		base, free := 10_000+10*rand.IntN(1_000), true
		for i := 0; i < n && free; i++ {
			ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i)))
			if free = err == nil; free {
				ln.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatalf("no %d free ports in a row between 10000 and 20010", n)
	return 0
}
