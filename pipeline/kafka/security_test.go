package kafka_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Settings that do not go together are refused by flag, before anything is dialled.
func TestSecurityValidate(t *testing.T) {
	refused := func(want string, s kafka.Security) {
		t.Helper()
		cfg := config([]string{"x:1"})
		cfg.Security = s
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s…", s, err, want)
		}
	}
	accepted := func(s kafka.Security) {
		t.Helper()
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	refused("-kafka-ca-file: it has no effect without -kafka-tls", kafka.Security{CAFile: "x"})
	refused("-kafka-cert-file: it has no effect", kafka.Security{CertFile: "x", KeyFile: "x"})
	refused("-kafka-key-file: missing", kafka.Security{TLS: true, CertFile: "x"})
	refused("-kafka-cert-file: missing", kafka.Security{TLS: true, KeyFile: "x"})
	refused(`-kafka-sasl-mechanism: "GSSAPI" is none of PLAIN,`, kafka.Security{Mechanism: "GSSAPI"})
	refused("-kafka-user: it needs -kafka-sasl-mechanism", kafka.Security{User: "x"})
	refused("-kafka-password-file: it needs", kafka.Security{PasswordFile: "x"})
	refused("-kafka-oauth-token-file: it needs", kafka.Security{TokenFile: "x"})
	refused("-kafka-user: missing", kafka.Security{Mechanism: kafka.Scram512, PasswordFile: "x"})
	refused("-kafka-password-file: missing", kafka.Security{Mechanism: kafka.Scram512, User: "x"})
	refused("-kafka-oauth-token-file: missing", kafka.Security{Mechanism: kafka.OAuthBearer, TLS: true})
	refused("-kafka-aws-credentials-file: it needs", kafka.Security{AWSCredentialsFile: "x"})
	refused("-kafka-aws-credentials-file: missing", kafka.Security{Mechanism: kafka.AWSIAM, TLS: true})
	refused("-kafka-sasl-mechanism: AWS_MSK_IAM without -kafka-tls shows",
		kafka.Security{Mechanism: kafka.AWSIAM, AWSCredentialsFile: "x"})
	inClear := kafka.Security{Mechanism: kafka.Plain, User: "x", PasswordFile: "x"}
	refused("-kafka-sasl-mechanism: PLAIN without -kafka-tls shows the secret", inClear)
	refused("-kafka-sasl-mechanism: OAUTHBEARER without -kafka-tls shows",
		kafka.Security{Mechanism: kafka.OAuthBearer, TokenFile: "x"})
	inClear.Insecure = true
	accepted(inClear)
	inClear.Insecure, inClear.TLS = false, true
	accepted(inClear)
	accepted(kafka.Security{Mechanism: kafka.Scram256, User: "x", PasswordFile: "x"})
	accepted(kafka.Security{TLS: true, CAFile: "x", CertFile: "x", KeyFile: "x"})
}

const day = 24 * time.Hour

// startFake starts a kfake with a certificate of the authority, and counts connections.
func startFake(t *testing.T, opts ...kfake.Opt) (cluster *kfake.Cluster, accepted *atomic.Int64) {
	t.Helper()
	accepted = new(atomic.Int64)
	opts = append(opts, kfake.NumBrokers(1), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return &countingListener{l, accepted}, err
	}))
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, accepted
}

// fakeAddr is startFake for a test that needs no more than an address.
func fakeAddr(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	cluster, _ := startFake(t, opts...)
	return cluster.ListenAddrs()[0]
}

type countingListener struct {
	net.Listener
	accepted *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// ping returns what a person is told of a connection.
func ping(t *testing.T, addr string, s kafka.Security) error {
	t.Helper()
	cfg := config([]string{addr})
	cfg.Security = s
	cl, err := kafka.NewClient(cfg, discard, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	return cfg.Explain(cl.Ping(ctx))
}

// Everything that is wrong with TLS is one sentence that names the flag, at once.
func TestTLSFaults(t *testing.T) {
	ours, foreign := kafkatest.NewAuthority(t), kafkatest.NewAuthority(t)
	trusting := kafka.Security{TLS: true, CAFile: ours.CAFile}
	with := func(change func(*kafka.Security)) kafka.Security {
		s := trusting
		change(&s)
		return s
	}
	good := fakeAddr(t, kfake.TLS(ours.ServerTLS(day, "localhost", "127.0.0.1")))
	expired := fakeAddr(t, kfake.TLS(ours.ServerTLS(-time.Hour, "127.0.0.1")))
	otherName := fakeAddr(t, kfake.TLS(ours.ServerTLS(day, "kafka.example")))
	asking := ours.ServerTLS(day, "127.0.0.1")
	asking.ClientAuth = tls.RequireAndVerifyClientCert
	mutual := fakeAddr(t, kfake.TLS(asking))
	old := asking.Clone()
	old.MaxVersion = tls.VersionTLS12
	mutual12 := fakeAddr(t, kfake.TLS(old))
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	accepted := func(addr string, s kafka.Security) {
		t.Helper()
		if err := ping(t, addr, s); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	refused := func(addr string, s kafka.Security, want string) {
		t.Helper()
		err := ping(t, addr, s)
		if !errors.Is(err, kafka.ErrAccess) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
		if !kafka.Retryable(err) {
			t.Errorf("a person mends it without a restart: %v", err)
		}
	}
	accepted(good, trusting)
	refused(good, kafka.Security{TLS: true}, "-kafka-ca-file: the certificate of broker "+good+
		" is signed by an authority that this machine does not know")
	refused(good, kafka.Security{TLS: true, CAFile: foreign.CAFile}, "an authority that is not in "+foreign.CAFile)
	refused(expired, trusting, "-kafka-tls: the certificate of broker "+expired+" is valid from ")
	refused(otherName, trusting, "-brokers: the certificate of broker "+otherName+" is not for that name")
	refused(good, kafka.Security{}, "-kafka-tls: broker "+good)
	refused(good, kafka.Security{}, "-kafka-tls is missing")
	refused(hangUp(t), trusting, "does not speak TLS on this port")
	refused(talkPlain(t), trusting, "does not speak TLS on this port")
	refused(good, with(func(s *kafka.Security) { s.CAFile = "/nowhere" }), "-kafka-ca-file: open /nowhere")
	refused(good, with(func(s *kafka.Security) { s.CAFile = garbage }),
		"-kafka-ca-file: "+garbage+" holds no certificate")
	refused(good, with(func(s *kafka.Security) { s.CertFile, s.KeyFile = garbage, garbage }),
		"-kafka-cert-file "+garbage+", -kafka-key-file "+garbage+": tls: failed to find any PEM data")

	for _, addr := range []string{mutual, mutual12} {
		accepted(addr, with(func(s *kafka.Security) { s.CertFile, s.KeyFile = ours.Issue(day, "us") }))
		refused(addr, trusting, "-kafka-cert-file: broker "+addr+" wants a certificate of this program")
		refused(addr, with(func(s *kafka.Security) { s.CertFile, s.KeyFile = foreign.Issue(day, "us") }),
			"broker "+addr+" does not accept the certificate")
		refused(addr, with(func(s *kafka.Security) { s.CertFile, s.KeyFile = ours.Issue(-time.Hour, "us") }),
			"broker "+addr+" does not accept the certificate")
	}
}

// serve answers each connection, once something was read of it.
func serve(t *testing.T, answer string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1<<16))
			io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// hangUp is a port that closes connections as Kafka does on what it cannot read.
func hangUp(t *testing.T) (addr string) { return serve(t, "") }

func talkPlain(t *testing.T) (addr string) { return serve(t, "hello, who is there?") }

// Files are read anew for each connection: a renewed authority, certificate or password
// is used without a restart.
func TestFilesAreReadAgain(t *testing.T) {
	before, after := kafkatest.NewAuthority(t), kafkatest.NewAuthority(t)
	asking := after.ServerTLS(day, "127.0.0.1")
	asking.ClientAuth = tls.RequireAndVerifyClientCert
	addr := fakeAddr(t, kfake.TLS(asking), kfake.EnableSASL(), kfake.Superuser(kafka.Scram256, "us", "new secret"))
	s := kafka.Security{TLS: true, Mechanism: kafka.Scram256, User: "us"}
	dir := t.TempDir()
	s.CAFile, s.CertFile, s.KeyFile, s.PasswordFile = filepath.Join(dir, "ca"), filepath.Join(dir, "cert"),
		filepath.Join(dir, "key"), filepath.Join(dir, "password")
	put := func(to, from string) {
		t.Helper()
		content, err := os.ReadFile(from)
		if err = errors.Join(err, os.WriteFile(to, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write := func(to, text string) {
		t.Helper()
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certFile, keyFile := before.Issue(day, "us")
	put(s.CAFile, before.CAFile)
	put(s.CertFile, certFile)
	put(s.KeyFile, keyFile)
	write(s.PasswordFile, "old secret\n")

	cfg := config([]string{addr})
	cfg.Security = s
	cl, err := kafka.NewClient(cfg, discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	expect := func(want string) {
		t.Helper()
		if err := cfg.Explain(cl.Ping(t.Context())); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	expect("-kafka-ca-file: the certificate")
	put(s.CAFile, after.CAFile)
	expect("does not accept the certificate")
	certFile, keyFile = after.Issue(day, "us")
	put(s.CertFile, certFile)
	put(s.KeyFile, keyFile)
	if err := cl.Ping(t.Context()); err == nil {
		t.Error("the old password is accepted")
	}
	write(s.PasswordFile, "")
	expect("-kafka-password-file: " + s.PasswordFile + " is empty")
	write(s.PasswordFile, "new secret\r\n")
	if err := cl.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A login that fails is an outage: one warning, however often it is tried, attempts with
// pauses, no secret in any line, and work as soon as somebody has mended it.
func TestFailingLoginIsQuiet(t *testing.T) {
	const wrong, right = "an old secret", "the new one"
	cluster, accepted := startFake(t, kfake.EnableSASL(), kfake.Superuser(kafka.Plain, "us", right),
		kfake.SeedTopics(1, "x"))
	refuseAsKafkaDoes(cluster, wrong)
	var said kafkatest.LogBuffer
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := config(cluster.ListenAddrs())
	file := filepath.Join(t.TempDir(), "password")
	cfg.Security = kafka.Security{Mechanism: kafka.Plain, User: "us", PasswordFile: file, Insecure: true}
	cfg.Watch = cfg.NewWatch(log)
	if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	cl, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	began := time.Now()
	adm := kadm.NewClient(cl)
	listed := make(chan error, 1)
	go func() {
		for {
			_, err := adm.ListTopics(t.Context(), "x")
			if err == nil || t.Context().Err() != nil {
				listed <- err
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	eventually(t, func() error {
		if accepted.Load() < 20 {
			return errors.New("fewer than 20 attempts")
		}
		return nil
	})
	t.Logf("%d connections in %v", accepted.Load(), time.Since(began).Round(time.Millisecond))
	if err := os.WriteFile(file, []byte(right), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-listed; err != nil {
		t.Fatal(err)
	}
	loud := 0
	for line := range strings.Lines(said.String()) {
		if !strings.Contains(line, "level=DEBUG") {
			loud++
			if !strings.Contains(line, `msg="waiting for Kafka"`) ||
				!strings.Contains(line, "-kafka-user us, -kafka-password-file "+file+": the broker refuses the login") {
				t.Errorf("logged: %s", line)
			}
		}
	}
	if loud != 1 {
		t.Errorf("%d lines that are not for debugging", loud)
	}
	for _, secret := range []string{wrong, right} {
		if strings.Contains(said.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

// What a broker answers before it lets us in does not end an outage: the next attempt
// fails again, and the log would tell of one outage after another.
func TestAnswersBeforeALoginEndNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said kafkatest.LogBuffer
		cfg := config([]string{"x:1"})
		cfg.Watch = cfg.NewWatch(slog.New(slog.NewTextHandler(&said, nil)))
		cl, err := kafka.NewClient(cfg, discard, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		var hooks []kgo.Hook
		for list, i := reflect.ValueOf(cl.OptValue(kgo.WithHooks)), 0; i < list.Len(); i++ {
			hooks = append(hooks, list.Index(i).Interface())
		}
		answered := func(key kmsg.Key) {
			for _, h := range hooks {
				if h, ok := h.(kgo.HookBrokerRead); ok {
					h.OnBrokerRead(kgo.BrokerMetadata{}, int16(key), 1, 0, 0, nil)
				}
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		for _, h := range hooks {
			if h, ok := h.(kgo.HookBrokerConnect); ok {
				h.OnBrokerConnect(kgo.BrokerMetadata{}, 0, nil, kerr.SaslAuthenticationFailed)
			}
		}
		for _, key := range []kmsg.Key{kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate} {
			answered(key)
		}
		if said.Count("waiting for Kafka") != 1 {
			t.Errorf("logged:\n%s", &said)
		}
		answered(kmsg.Metadata)
		if said.Count("no longer waiting for Kafka") != 1 {
			t.Errorf("logged:\n%s", &said)
		}
	})
}

// A broker that stops may hang up before it answers. That is no question of access for a
// client whom a broker has answered before: the request is repeated.
func TestBrokerThatHangsUpIsTriedAgain(t *testing.T) {
	cfg := config([]string{fakeAddr(t)})
	stopping, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stopping.Close()
	go func() {
		for {
			conn, err := stopping.Accept()
			if err != nil {
				return
			}
			io.ReadFull(conn, make([]byte, 4)) // it has heard the request
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	var mu sync.Mutex
	var open []net.Conn
	hangUps := 0
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if hangUps > 0 {
			hangUps--
			addr = stopping.Addr().String()
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			open = append(open, conn)
		}
		return conn, err
	}
	cl, err := kafka.NewClient(cfg, discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	ask := func() error {
		_, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	hangUps = 4
	for _, conn := range open {
		conn.Close()
	}
	mu.Unlock()
	if err := ask(); err != nil {
		t.Errorf("a broker stopped and came back: %v", err)
	}
	if mu.Lock(); hangUps > 0 {
		t.Error("no connection was hung up")
	}
	mu.Unlock()
}

// refuseAsKafkaDoes makes a kfake say that a login failed; it would hang up.
func refuseAsKafkaDoes(cluster *kfake.Cluster, password string) {
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !bytes.HasSuffix(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte(password)) {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
}

// What a broker answers becomes a sentence with the flag; everything else stays as it is.
func TestExplain(t *testing.T) {
	cfg := config([]string{"x:1"})
	cfg.Security = kafka.Security{TLS: true, Mechanism: kafka.Scram512, User: "us", PasswordFile: "/run/pw"}
	check := func(err error, want string) {
		t.Helper()
		if got := cfg.Explain(err); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v: got %v, want …%s…", err, got, want)
		}
	}
	check(kerr.SaslAuthenticationFailed, "-kafka-user us, -kafka-password-file /run/pw: the broker refuses the login")
	check(kerr.UnsupportedSaslMechanism, "-kafka-sasl-mechanism: the broker does not offer SCRAM-SHA-512")
	check(kerr.IllegalSaslState, "-kafka-sasl-mechanism: the broker takes no login on this port")
	check(kerr.TopicAuthorizationFailed, "(user us lacks a right: `ctl topics acls` lists")
	other := errors.New("other")
	if got := cfg.Explain(other); got != other {
		t.Errorf("got %v", got)
	}
	if got := cfg.Explain(nil); got != nil {
		t.Errorf("got %v", got)
	}
}
