package kafkatest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
)

// SecuredBroker is an Apache Kafka that lets in only whom it knows, and allows nothing
// without an ACL. Its plaintext listener, that of Brokers, is the administrator's.
type SecuredBroker struct {
	*RealBroker
	*Authority        // signed the broker's certificate, for localhost
	LoginAddr  string // listener with TLS and a login
	MutualAddr string // listener with TLS on which clients have certificates
}

// PlainUser can log in with the mechanism PLAIN, which has its users in the broker's
// settings.
const PlainUser, PlainPassword = "plain-user", "secret of plain-user"

// Secured is Real with a listener for each way of showing who one is.
func Secured(t testing.TB, settings ...string) *SecuredBroker {
	t.Helper()
	a := NewAuthority(t)
	port, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	b := prepareReal(t, 1, (*flock.Flock).TryRLockContext, nil)
	b.settings = append(securedSettings(t, a), settings...)
	b.extraListeners = []extraListener{{"LOGIN", port}, {"MUTUAL", port + 1}}
	b.javaFlags = []string{"-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=debug"}
	b.formatAndBoot()
	s := &SecuredBroker{RealBroker: b, Authority: a}
	s.LoginAddr, s.MutualAddr = fmt.Sprint("localhost:", port), fmt.Sprint("localhost:", port+1)
	return s
}

func securedSettings(t testing.TB, a *Authority) []string {
	t.Helper()
	certFile, keyFile := a.Issue(24*time.Hour, "localhost")
	cert, err1 := os.ReadFile(certFile)
	key, err2 := os.ReadFile(keyFile)
	store := filepath.Join(a.dir, "broker.pem")
	if err := errors.Join(err1, err2, os.WriteFile(store, append(key, cert...), 0o600)); err != nil {
		t.Fatalf("writing the broker's certificate: %v", err)
	}
	const login = "listener.name.login."
	const modules = ".sasl.jaas.config=org.apache.kafka.common.security."
	return []string{
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
		"ssl.keystore.type=PEM",
		"ssl.keystore.location=" + store,
		"ssl.truststore.type=PEM",
		"ssl.truststore.location=" + a.CAFile,
		"ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/",
		"listener.name.mutual.ssl.client.auth=required",
		login + "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		login + "plain" + modules + `plain.PlainLoginModule required user_` + PlainUser + `="` + PlainPassword + `";`,
		login + "scram-sha-256" + modules + "scram.ScramLoginModule required;",
		login + "scram-sha-512" + modules + "scram.ScramLoginModule required;",
		login + "oauthbearer" + modules + `oauthbearer.OAuthBearerLoginModule required ` +
			`unsecuredLoginStringClaim_sub="broker";`,
	}
}

// Log is what the broker has logged. It says of each request what was allowed and denied.
func (s *SecuredBroker) Log() string { return s.readLogs() }

// AddUser makes a user who can log in with SCRAM.
func (s *SecuredBroker) AddUser(name, password string) {
	s.RealBroker.t.Helper()
	t := s.RealBroker.t
	var upserts []kadm.UpsertSCRAM
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		upserts = append(upserts, kadm.UpsertSCRAM{User: name, Mechanism: mechanism, Iterations: 4096,
			Password: password})
	}
	for _, upsert := range upserts { // one user may be named once in a request
		altered, err := kadm.NewClient(Client(t, s.Brokers())).AlterUserSCRAMs(t.Context(), nil,
			[]kadm.UpsertSCRAM{upsert})
		if err = errors.Join(err, altered.Error()); err != nil {
			t.Fatalf("making user %s: %v", name, err)
		}
	}
}

// As returns the configuration of a program that is known as name by its certificate.
func (s *SecuredBroker) As(name string) kafka.Config {
	s.RealBroker.t.Helper()
	cfg := clientConfig([]string{s.MutualAddr})
	cfg.Security = kafka.Security{TLS: true, CAFile: s.CAFile}
	cfg.Security.CertFile, cfg.Security.KeyFile = s.Issue(24*time.Hour, name)
	return cfg
}

// BearerToken is a token for a user, as the broker believes it unsigned. It is valid for
// so long, or was until so long ago.
func BearerToken(user string, life time.Duration) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	now := time.Now()
	return encode(`{"alg":"none"}`) + "." + encode(fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, user,
		now.Add(-48*time.Hour).Unix(), now.Add(life).Unix())) + "."
}
