//go:build linux

package blackbox

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kadm"
)

// The fixture of TestUpgrade: everything that an install of the first release had on its
// disks when all of it was stopped. testdata/upgrade/write.sh makes it.
//
//	kafka/            the broker's data: topics, groups, transactions
//	slot-00, slot-01  state directories of the processors
//	clickhouse/       the embedded ClickHouse
//	spool/            clicks that Kafka had not acknowledged
//	export/           a CSV, and its manifest
//	token-keys/ …     secrets of the two workspaces, of no other use
//	daily.tsv         partner_daily, as it was
const fixtureFile = "testdata/upgrade/first-release.tar.gz"

// fixtureFiles are what the fixture keeps of a rig's directory.
var fixtureFiles = []string{"kafka", "slot-00", "slot-01", "clickhouse", "spool", "export",
	"token-keys", "signing-secrets", "reader-tokens", "daily.tsv"}

// spooledClicks are how many clicks of the fixture are in the spool alone.
const spooledClicks = 25

// longGrace makes no wait of the fixture end for a year after it was written. It must
// not exceed the journey life.
const longGrace = 390 * 24 * time.Hour

// ageless are settings of a broker that never deletes anything because of its age: the
// fixture is read months after it was written.
var ageless = []string{
	fmt.Sprint("message.max.bytes=", maxMessageBytes),
	"log.initial.task.delay.ms=604800000",
	"log.cleaner.enable=false",
	"offsets.retention.minutes=2147483647",
	"transactional.id.expiration.ms=2147483647",
}

// release is where the programs of a release are; "" is this one.
type release string

// oldRelease has the programs that wrote the fixture, if this machine has them.
func oldRelease() release { return release(os.Getenv("PARTNERS_TEST_OLD_BINARIES")) }

// of makes the program that p runs from now on that of another release.
func (p *childProcess) of(dir release) *childProcess {
	if dir != "" {
		p.path = filepath.Join(string(dir), filepath.Base(p.path))
	}
	return p
}

// run runs a command that ends by itself, and returns what it wrote to standard output.
func (dir release) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	path := filepath.Join(string(dir), program)
	if dir == "" {
		bin, err := binaries()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(bin, program)
	}
	ctx, cancel := context.WithTimeout(t.Context(), maxWait)
	defer cancel()
	var said strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, said.String())
	}
	return string(out)
}

// upgradeRig is a rig whose programs may be of two releases.
type upgradeRig struct {
	*rig
	base int // first of nine ports
}

func newUpgradeRig(t *testing.T) *upgradeRig {
	t.Helper()
	clickhousetest.Need(t)
	r := &rig{t: t, secrets: make(map[string]signature.Secret), unreadable: make(map[string]bool), waits: longGrace,
		codec: event.DefaultCodec()}
	var err error
	if r.dir, err = os.MkdirTemp(clickhousetest.Base(), "blackbox-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.cleanup)
	return &upgradeRig{rig: r, base: freePorts(t, 9)}
}

func (u *upgradeRig) at(n int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(u.base+n)) }

func (u *upgradeRig) brokers() string { return strings.Join(u.broker.Brokers(), ",") }

func (u *upgradeRig) dsn() string { return "http://default@" + u.at(3) + "/partners" }

// useBroker makes the rig's clients those of its broker.
func (u *upgradeRig) useBroker() {
	u.kafka = kafka.DefaultConfig()
	u.kafka.Brokers = u.broker.Brokers()
	u.adm = kadm.NewClient(kafkatest.Client(u.t, u.broker.Brokers()))
}

// startClickHouse starts the embedded ClickHouse, whose program migrates the database to
// its own release, and reads the secrets.
func (u *upgradeRig) startClickHouse(of release) {
	u.t.Helper()
	u.warehouse = newChildProcess(u.t, u.dir, "warehouse", "demo", "-run", "warehouse", "-traffic", "0", "-data", u.dir,
		"-brokers", u.brokers(), "-catalog", u.catalogFile(), "-port-base", strconv.Itoa(u.base)).of(of)
	if err := u.warehouse.start(); err != nil {
		u.t.Fatal(err)
	}
	var err error
	if u.wh, err = clickhouse.Open(u.t.Context(), clickhouse.Config{DSN: u.dsn()},
		slog.New(slog.DiscardHandler)); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { u.wh.Close() })
	u.readSecrets()
}

func (u *upgradeRig) catalogFile() string {
	file := filepath.Join(u.dir, "rig.yaml")
	if err := os.WriteFile(file, []byte(rigCatalog), 0o644); err != nil {
		u.t.Fatal(err)
	}
	return file
}

// addDaemons makes the daemons, which do not run yet.
func (u *upgradeRig) addDaemons(of release) {
	for i := range u.processors {
		name := fmt.Sprint("slot-0", i)
		u.processors[i] = u.newDaemon("processor-"+name, "processor", "-brokers", u.brokers(), "-instance", name,
			"-state-dir", filepath.Join(u.dir, name), "-grace", longGrace.String(), "-click-life", longGrace.String(),
			"-click-memory", strconv.Itoa(16<<20), "-session-timeout", sessionTimeout.String()).of(of)
		u.sinks[i] = u.newDaemon(fmt.Sprint("sink-", i), "sink", "-brokers", u.brokers(), "-clickhouse", u.dsn(),
			"-session-timeout", sessionTimeout.String()).of(of)
	}
	keys, secrets := filepath.Join(u.dir, "token-keys"), filepath.Join(u.dir, "signing-secrets")
	u.gatewayAt, u.redirectAt = u.at(7), u.at(8)
	u.gateway = u.newDaemon("gateway", "gateway", "-brokers", u.brokers(), "-listen", u.gatewayAt, "-token-keys", keys,
		"-signing-secrets", secrets, "-rate", "50000", "-burst", "100000").of(of)
	u.redirector = u.newDaemon("redirector", "redirector", "-brokers", u.brokers(), "-listen", u.redirectAt,
		"-token-keys", keys, "-spool-dir", filepath.Join(u.dir, "spool")).of(of)
}

// start launches programs and waits until they serve.
func (u *upgradeRig) start(programs ...*childProcess) {
	u.t.Helper()
	for _, p := range programs {
		if err := p.launch(); err != nil {
			u.t.Fatal(err)
		}
	}
	for _, p := range programs {
		if err := p.awaitReady(); err != nil {
			u.t.Fatal(err)
		}
	}
}

// stop stops programs one after the other, as an operator would.
func (u *upgradeRig) stop(programs ...*childProcess) {
	u.t.Helper()
	for _, p := range programs {
		if _, err := p.terminate(); err != nil {
			u.t.Fatal(err)
		}
	}
}

// dailyQuery reads partner_daily by the columns that the first release had.
const dailyQuery = `
SELECT workspace_id, day, partner_id, program_id, link_id, currency, exponent, clicks, human_clicks, tokened_clicks,
	leads, sales, refunds, cancellations, reversals, gross_minor, negative_minor, net_minor, reward_minor
FROM partner_daily
ORDER BY ALL
FORMAT TabSeparated`

// readDailyText reads partner_daily as text.
func (u *upgradeRig) readDailyText() string {
	u.t.Helper()
	text, err := query(u.t.Context(), "http://"+u.at(3), dailyQuery)
	if err != nil {
		u.t.Fatal(err)
	}
	return text
}

// Writes the fixture with the programs of the first release.
func TestWriteUpgradeFixture(t *testing.T) {
	old := oldRelease()
	if old == "" {
		t.Skip("SKIP: it writes the fixture of TestUpgrade anew, which testdata/upgrade/write.sh calls it for")
	}
	u := newUpgradeRig(t)
	u.broker = kafkatest.Real(t, ageless...)
	u.useBroker()
	old.run(t, "ctl", "topics", "apply", "-brokers", u.brokers(), "-replication", "1",
		"-click-life", longGrace.String())
	u.startClickHouse(old)
	old.run(t, "ctl", "catalog", "apply", "-brokers", u.brokers(), u.catalogFile())
	u.addDaemons(old)
	u.start(u.processors[0], u.processors[1], u.gateway, u.redirector)

	l := u.newLoad()
	halt := l.start(40, 30)
	for l.accepts.Load() < 400 {
		sleepContext(t.Context(), 50*time.Millisecond)
	}
	halt()
	u.start(u.sinks[:]...) // at the end, so that ClickHouse has few parts
	u.awaitSettled()
	if err := os.WriteFile(filepath.Join(u.dir, "daily.tsv"), []byte(u.readDailyText()), 0o644); err != nil {
		t.Fatal(err)
	}
	day := time.Now().UTC().Format(time.DateOnly)
	old.run(t, "export", "-admin-listen", "127.0.0.1:0", "-clickhouse", u.dsn(), "-workspace", "acme",
		"-from", day, "-to", day, "-provisional", "-verdict", "all", "-out", filepath.Join(u.dir, "export"))

	u.stop(u.gateway, u.processors[0], u.processors[1], u.sinks[0], u.sinks[1], u.warehouse)
	u.broker.Stop()
	for range spooledClicks {
		l.visitRandomLink()
	}
	u.redirector.kill()
	if err := os.CopyFS(filepath.Join(u.dir, "kafka"), os.DirFS(u.broker.DataDir())); err != nil {
		t.Fatal(err)
	}
	if err := packFixture(u.dir, fixtureFile); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d clicks, %d events", l.redirects.Load(), l.accepts.Load())
}

// packFixture writes the files of the fixture into an archive.
func packFixture(dir, file string) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zipped)
	for _, name := range fixtureFiles {
		if err := filepath.WalkDir(filepath.Join(dir, name), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return packFile(archive, dir, path, e)
		}); err != nil {
			return fmt.Errorf("packing %s: %w", name, err)
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

func packFile(archive *tar.Writer, dir, path string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(dir, path); err != nil {
		return err
	}
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(archive, in)
	return err
}

// unpackFixture writes the files of an archive into a directory.
func unpackFixture(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", file, err)
	}
	archive := tar.NewReader(zipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpackFile(archive, header, filepath.Join(dir, filepath.FromSlash(header.Name)))
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", file, err)
		}
	}
}

func unpackFile(archive io.Reader, header *tar.Header, path string) error {
	switch header.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, path)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(header.Mode)&fs.ModePerm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, archive)
	return errors.Join(err, out.Close())
}

// query sends a query to ClickHouse and returns its answer.
func query(ctx context.Context, address, sql string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/?database=partners", strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("ClickHouse answers %d: %s", res.StatusCode, text)
	}
	return string(text), err
}
