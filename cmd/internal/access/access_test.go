package access

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const day = 24 * time.Hour

// One broker serves all of these.
func TestAccess(t *testing.T) {
	clickhousetest.Need(t)
	r := newRig(t)
	t.Run("logins", func(t *testing.T) { testLogins(t, r) })
	t.Run("faults", func(t *testing.T) { testFaults(t, r) })
	t.Run("no rights", func(t *testing.T) { testNoRights(t, r) })
	t.Run("exact rights", func(t *testing.T) { testExactRights(t, r) })
	t.Run("self-heal", func(t *testing.T) { testSelfHeal(t, r) })
	t.Run("a login is mended", func(t *testing.T) { testMendedLogin(t, r) })
	t.Run("each right taken away", func(t *testing.T) { testEachRight(t, r) })
	t.Run("healing", func(t *testing.T) { testHealing(t, r) }) // last: it leaves garbage in a topic
}

// testLogins: each mechanism is let in with its secret, and without it says which flag is
// to blame.
func testLogins(t *testing.T, r *rig) {
	r.broker.AddUser("scram-user", "secret of scram-user")
	password := func(text string) func(*kafka.Security) {
		return func(s *kafka.Security) { s.PasswordFile = writeFile(t, text) }
	}
	token := func(life time.Duration) func(*kafka.Security) {
		return func(s *kafka.Security) { s.TokenFile = writeFile(t, kafkatest.BearerToken("token-user", life)) }
	}
	for _, c := range []struct {
		mechanism, user string
		good, bad       func(*kafka.Security)
		want            string
	}{
		{kafka.Plain, kafkatest.PlainUser, password(kafkatest.PlainPassword + "\n"), password("wrong"),
			"-kafka-user plain-user, -kafka-password-file "},
		{kafka.Scram256, "scram-user", password("secret of scram-user"), password("wrong"),
			"-kafka-user scram-user, -kafka-password-file "},
		{kafka.Scram512, "scram-user", password("secret of scram-user"), password("wrong"),
			"-kafka-user scram-user, -kafka-password-file "},
		{kafka.OAuthBearer, "", token(day), token(-time.Hour), "-kafka-oauth-token-file "},
	} {
		cfg := r.loginConfig()
		cfg.Security.Mechanism, cfg.Security.User = c.mechanism, c.user
		c.good(&cfg.Security)
		if err := ping(t, cfg); err != nil {
			t.Errorf("%s: %v", c.mechanism, err)
		}
		c.bad(&cfg.Security)
		refused(t, c.mechanism, ping(t, cfg), c.want)
	}
}

// testFaults: what is wrong with a connection to a real broker is one sentence, at once.
func testFaults(t *testing.T, r *rig) {
	foreign := kafkatest.NewAuthority(t)
	change := func(cfg kafka.Config, f func(*kafka.Config)) error {
		f(&cfg)
		return ping(t, cfg)
	}
	login, mutual := r.loginConfig(), r.broker.As("somebody")
	if err := ping(t, mutual); err != nil {
		t.Error(err)
	}
	refused(t, "unknown authority", change(mutual, func(c *kafka.Config) { c.Security.CAFile = foreign.CAFile }),
		"signed by an authority that is not in "+foreign.CAFile)
	refused(t, "wrong host name", change(mutual, func(c *kafka.Config) {
		c.Brokers = []string{strings.Replace(r.broker.MutualAddr, "localhost", "127.0.0.1", 1)}
	}), "is not for that name")
	refused(t, "no certificate", change(mutual, func(c *kafka.Config) {
		c.Security.CertFile, c.Security.KeyFile = "", ""
	}), "-kafka-cert-file: broker ")
	refused(t, "foreign certificate", change(mutual, func(c *kafka.Config) {
		c.Security.CertFile, c.Security.KeyFile = foreign.Issue(day, "somebody")
	}), "accept the certificate")
	refused(t, "expired certificate", change(mutual, func(c *kafka.Config) {
		c.Security.CertFile, c.Security.KeyFile = r.broker.Issue(-time.Hour, "somebody")
	}), "accept the certificate")
	refused(t, "TLS on a plaintext port", change(mutual, func(c *kafka.Config) { c.Brokers = r.broker.Brokers() }),
		"does not speak TLS on this port")
	refused(t, "plaintext on a TLS port", change(mutual, func(c *kafka.Config) { c.Security = kafka.Security{} }),
		"-kafka-tls is missing")
	refused(t, "no login", ping(t, login), "-kafka-sasl-mechanism: ")
	refused(t, "a login where there is none", change(mutual, func(c *kafka.Config) {
		c.Security.Mechanism, c.Security.User = kafka.Scram512, "x"
		c.Security.PasswordFile = writeFile(t, "x")
	}), "-kafka-sasl-mechanism: the broker takes no login on this port")
}

// testNoRights: without an ACL nothing works, and every program stays, says all that it
// lacks, and says it once.
func testNoRights(t *testing.T, r *rig) {
	for _, p := range r.startAll(t, "nobody-") {
		p.await(t, "rights on Kafka are missing")
		counts := map[bool]int{}
		for _, g := range topic.Grants(p.name, "", "") {
			counts[g.SelfHeal]++
			if !strings.Contains(p.log.String(), g.String()) {
				t.Errorf("%s does not say that it lacks %s:\n%s", p.name, g, p.log)
			}
		}
		for selfHeal, neededFor := range map[bool]string{false: "work", true: "self_heal"} {
			if n := p.missingRights(t, neededFor); n != counts[selfHeal] {
				t.Errorf("%s counts %d rights that it lacks for %s, want %d", p.name, n, neededFor, counts[selfHeal])
			}
		}
		if p.component.Ready() == nil {
			t.Errorf("%s is ready without any right", p.name)
		}
		p.stop(t)
	}
	if code, said := r.ctl(t, "nobody-ctl", "topics", "apply", "-replication", "1"); code == 0 ||
		!strings.Contains(said, "lacks a right: `ctl topics acls` lists those") {
		t.Errorf("topics apply: %d, %s", code, said)
	}
	if code, said := r.ctl(t, "nobody-ctl", "topics", "acls", "-principal-prefix", "x-", "-apply"); code == 0 ||
		!strings.Contains(said, "CLUSTER_AUTHORIZATION_FAILED") {
		t.Errorf("topics acls: %d, %s", code, said)
	}
}

// testExactRights: with what `ctl topics acls -apply` gives, a click and a sale reach
// ClickHouse, nothing is denied, and nothing that is given is not used.
func testExactRights(t *testing.T, r *rig) {
	r.mustCtl(t, "", "topics", "acls", "-principal-prefix", "exact-", "-apply")
	r.mustCtl(t, "exact-ctl", "topics", "apply", "-replication", "1")
	r.spoilConfigs(t)
	r.mustCtl(t, "exact-ctl", "topics", "apply", "-replication", "1")
	r.mustCtl(t, "exact-ctl", "catalog", "apply", r.catalog)
	programs := r.startAll(t, "exact-")
	for _, p := range programs {
		p.awaitReady(t)
	}
	sale := r.sell(t)
	r.awaitRows(t, "SELECT count() AS n FROM outcomes WHERE event_id = '"+sale+"' AND verdict = 'attributed'", 1)

	// What cannot be read goes to the dead letters, and back.
	garbage := []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Rejections}
	for _, name := range garbage {
		kafkatest.Produce(t, r.broker.Brokers(), &kgo.Record{Topic: name, Key: []byte(name), Value: []byte("garbage")})
	}
	letters := r.awaitLetters(t, garbage)
	replay := []string{"dead-letters", "replay", "-force", "-clickhouse", r.dsn}
	r.mustCtl(t, "exact-ctl", append(replay, letters...)...)
	r.mustCtl(t, "exact-ctl", "topics", "check", "-replication", "1")
	for _, p := range programs {
		p.stop(t)
		if strings.Contains(p.log.String(), "rights on Kafka are missing: `ctl topics acls` gives them") {
			t.Errorf("%s lacks rights:\n%s", p.name, p.log)
		}
		said := strings.Contains(p.log.String(), "hanging transactions do not heal by themselves")
		if said != (p.name == "processor") {
			t.Errorf("%s says that it cannot heal: %v", p.name, said)
		}
	}
	// What no sink has got to is unreadable, too: whoever repairs writes its dead letter.
	kafkatest.Produce(t, r.broker.Brokers(),
		&kgo.Record{Topic: topic.Clicks, Key: []byte("k"), Value: []byte("garbage behind the sink")})
	r.mustCtl(t, "exact-ctl", "rollup", "rebuild", "-clickhouse", r.dsn)
	r.mustCtl(t, "exact-ctl", "warehouse", "repair", "-clickhouse", r.dsn)
	r.mustCtl(t, "exact-ctl", "verify", "-clickhouse", r.dsn, "-workspace", "acme")
	r.mustCtl(t, "exact-ctl", "topics", "grow", "-partitions", "8", "-at",
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	checkAudit(t, r)
}

// auditLine is one decision in the broker's log.
var auditLine = regexp.MustCompile(`Principal = User:exact-([a-z]+) is (Allowed|Denied) operation = ([A-Z_]+) ` +
	`from host = \S+ on resource = ([A-Za-z]+):(LITERAL|PREFIXED):(\S+) for request = (\S+)`)

// checkAudit compares what was given with what the broker allowed and denied.
func checkAudit(t *testing.T, r *rig) {
	used := map[string]bool{}
	for _, m := range auditLine.FindAllStringSubmatch(r.broker.Log(), -1) {
		program, decision, operation, resource, name, request := m[1], m[2], m[3], m[4], m[6], m[7]
		ownNames := !strings.HasPrefix(name, "__")
		if decision == "Denied" && resource != "Cluster" && ownNames {
			t.Errorf("%s was denied %s on %s %s, for %s", program, operation, resource, name, request)
		}
		if decision == "Allowed" {
			used[program+" "+strings.ReplaceAll(strings.ToLower(operation), "_", "")+" "+name] = true
		}
	}
	used["sink read dead-letters"] = true // only when a batch is repeated after a crash
	if len(used) == 0 {
		t.Fatal("the broker logs no decisions")
	}
	for _, program := range topic.Programs() {
		for _, g := range topic.Grants(program, "", "") {
			name := g.Name
			if g.Prefixed {
				name += instance
			}
			if !g.SelfHeal && !used[program+" "+strings.ToLower(string(g.Operation))+" "+name] {
				t.Errorf("%s never uses %s", program, g)
			}
		}
	}
}

// testSelfHeal: with -self-heal a processor lacks nothing.
func testSelfHeal(t *testing.T, r *rig) {
	said := r.mustCtl(t, "", "topics", "acls", "-principal-prefix", "healing-", "-self-heal", "-apply")
	if !strings.Contains(said, "Alter on the cluster includes making ACLs") {
		t.Errorf("the right on the cluster is given without a word:\n%s", said)
	}
	cfg := r.broker.As("healing-processor")
	lacking, err := kafka.LackingRights(t.Context(), newClient(t, cfg), topic.Grants("processor", "", ""))
	if err != nil || len(lacking) > 0 {
		t.Errorf("lacking %v, %v", lacking, err)
	}
	p := r.start(t, "processor", cfg)
	p.awaitReady(t)
	p.stop(t)
	if strings.Contains(p.log.String(), "lacking=") {
		t.Errorf("it lacks rights:\n%s", p.log)
	}
}

// testMendedLogin: a wrong password stops no program. It is said once, with the flag, and
// when the file is mended all goes on.
func testMendedLogin(t *testing.T, r *rig) {
	for _, name := range daemons() {
		r.broker.AddUser("exact-"+name, "secret of exact-"+name)
	}
	t.Run("programs", func(t *testing.T) {
		for _, name := range daemons() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testMendedLoginOf(t, r, name)
			})
		}
	})
}

func testMendedLoginOf(t *testing.T, r *rig, name string) {
	user := "exact-" + name
	cfg := r.loginConfig()
	cfg.Security.Mechanism, cfg.Security.User = kafka.Scram512, user
	cfg.Security.PasswordFile = writeFile(t, "an old one")
	p := r.start(t, name, cfg)
	p.await(t, `msg="waiting for Kafka".*-kafka-user `+user+`, -kafka-password-file \S+: the broker refuses the login`)
	if err := os.WriteFile(cfg.Security.PasswordFile, []byte("secret of "+user), 0o600); err != nil {
		t.Fatal(err)
	}
	p.awaitReady(t)
	p.stop(t)
	if n := p.count("level=(WARN|ERROR)"); n != p.count("hanging transactions do not heal")+1 {
		t.Errorf("%s: %d warnings:\n%s", name, n, p.log)
	}
	if strings.Contains(p.log.String(), "secret of") || strings.Contains(p.log.String(), "an old one") {
		t.Errorf("%s logs the password:\n%s", name, p.log)
	}
}

// spoilConfigs changes a setting of each topic, so that ctl has something to mend.
func (r *rig) spoilConfigs(t *testing.T) {
	t.Helper()
	adm := kadm.NewClient(kafkatest.Client(t, r.broker.Brokers()))
	for _, s := range topic.Specs("", topic.DefaultPartitions, topic.DefaultClickLife) {
		key, value := "retention.ms", "3600000"
		if _, ok := s.Config[key]; !ok {
			key, value = "cleanup.policy", "delete"
		}
		if _, err := adm.AlterTopicConfigs(t.Context(),
			[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, s.Name); err != nil {
			t.Fatal(err)
		}
	}
}

// testEachRight: a program that lacks one right says which.
func testEachRight(t *testing.T, r *rig) {
	// Each program is alone in its group, so they need not wait for one another.
	t.Run("programs", func(t *testing.T) {
		for _, program := range topic.Programs() {
			t.Run(program, func(t *testing.T) {
				t.Parallel()
				testEachRightOf(t, r, program)
			})
		}
	})
	if code, said := r.ctl(t, "exact-sink", "topics", "apply", "-replication", "1", "-partitions", "8"); code == 0 ||
		!strings.Contains(said, "of the rights that ctl may need it lacks") ||
		!strings.Contains(said, "Write on topic catalog") {
		t.Errorf("topics apply: %d, %s", code, said)
	}
}

func testEachRightOf(t *testing.T, r *rig, program string) {
	grants := topic.Grants(program, "", "")
	for i, g := range grants {
		user := fmt.Sprint(program, "-without-", i)
		r.give(t, user, slices.Delete(slices.Clone(grants), i, i+1))
		says := "lacking=\"?.*" + regexp.QuoteMeta(g.String())
		if program == "ctl" {
			p := r.watchRights(t, program, r.broker.As(user))
			p.await(t, says)
			p.stop(t)
			continue
		}
		p := r.start(t, program, r.broker.As(user))
		p.await(t, says)
		p.await(t, `msg=ready|msg="waiting for Kafka"`) // and stays
		if program == "processor" && g.Operation == topic.Read && !g.SelfHeal && slices.Contains(grants,
			topic.Grant{Resource: topic.Topic, Name: g.Name, Operation: topic.Write}) {
			p.await(t, "who has a transaction open in a topic cannot be seen.*topic="+g.Name)
		}
		p.stop(t)
	}
	t.Logf("%d rights were taken away, one at a time", len(grants))
}

// sell visits a link and reports a sale of the visit. It returns the sale's id.
func (r *rig) sell(t *testing.T) (event string) {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequest(http.MethodGet, "http://"+r.redirector.Addr().String()+"/nomura", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "go.acme.com"
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Query().Get("nim_ct") == "" {
		t.Fatalf("%s, Location %q", resp.Status, resp.Header.Get("Location"))
	}
	code, said := r.ctl(t, "", "event", "send", "-gateway", "http://"+r.gateway.Addr().String(), "-workspace", "acme",
		"-secret-file", filepath.Join(r.secrets, "acme"), "-token", to.Query().Get("nim_ct"), "-type", "sale",
		"-amount", "10.00", "-currency", "EUR", "-event-id", "order-1")
	if code != 0 {
		t.Fatalf("event send: %d, %s", code, said)
	}
	// one that is refused is recorded, too
	r.ctl(t, "", "event", "send", "-gateway", "http://"+r.gateway.Addr().String(), "-workspace", "acme",
		"-secret-file", filepath.Join(r.secrets, "acme"), "-token", "000000000000000000000000000", "-type", "sale",
		"-amount", "10.00", "-currency", "EUR", "-event-id", "order-2")
	r.awaitRows(t, "SELECT count() AS n FROM rejections", 1)
	return "order-1"
}

func writeFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
