package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL mechanisms, by Kafka's names.
const (
	Plain       = "PLAIN"
	Scram256    = "SCRAM-SHA-256"
	Scram512    = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
	AWSIAM      = "AWS_MSK_IAM" // Amazon MSK's own
)

// Security is how a program and the brokers prove to each other who they are. The zero
// value is a plaintext connection without a user.
//
// Every file is read anew for each connection, so that a renewed certificate, password
// or token is used without a restart. Connections that exist are not affected; a broker
// that limits the life of a login (connections.max.reauth.ms) gets the new one.
type Security struct {
	// TLS encrypts, and checks the brokers' certificates and host names. Nothing turns
	// these checks off.
	TLS bool
	// CAFile holds, in PEM, the authorities that may sign the brokers' certificates;
	// empty: those of this machine.
	CAFile string
	// CertFile and KeyFile hold, in PEM, the certificate chain and the private key by
	// which this program is known (mutual TLS).
	CertFile, KeyFile string
	// Mechanism is how the user logs in, one of the constants above; empty: not at all.
	Mechanism string
	// User is the user's name, for PLAIN and SCRAM.
	User string
	// PasswordFile holds the user's password. A line break at its end is no part of it.
	PasswordFile string
	// TokenFile holds a bearer token, for OAUTHBEARER. Something else keeps it fresh.
	TokenFile string
	// AWSCredentialsFile holds AWS credentials in JSON, for AWS_MSK_IAM. Something else
	// keeps them fresh.
	AWSCredentialsFile string
	// Insecure allows PLAIN, OAUTHBEARER and AWS_MSK_IAM without TLS, where everybody on
	// the way can read the secret, or use the signature for minutes.
	Insecure bool
}

// Validate reports settings that do not go together, by flag. It reads no file.
func (s Security) Validate() error {
	for _, f := range []struct{ flag, value string }{
		{"-kafka-ca-file", s.CAFile}, {"-kafka-cert-file", s.CertFile}, {"-kafka-key-file", s.KeyFile},
	} {
		if f.value != "" && !s.TLS {
			return fmt.Errorf("%s: it has no effect without -kafka-tls", f.flag)
		}
	}
	switch {
	case s.CertFile != "" && s.KeyFile == "":
		return errors.New("-kafka-key-file: missing, the certificate's private key is required")
	case s.KeyFile != "" && s.CertFile == "":
		return errors.New("-kafka-cert-file: missing, the private key's certificate is required")
	}
	return s.validateLogin()
}

func (s Security) validateLogin() error {
	password := slices.Contains([]string{Plain, Scram256, Scram512}, s.Mechanism)
	switch {
	case s.Mechanism != "" && s.Mechanism != OAuthBearer && s.Mechanism != AWSIAM && !password:
		return fmt.Errorf("-kafka-sasl-mechanism: %q is none of %s, %s, %s, %s and %s",
			s.Mechanism, Plain, Scram256, Scram512, OAuthBearer, AWSIAM)
	case s.User != "" && !password:
		return fmt.Errorf("-kafka-user: it needs -kafka-sasl-mechanism %s, %s or %s", Plain, Scram256, Scram512)
	case s.PasswordFile != "" && !password:
		return fmt.Errorf("-kafka-password-file: it needs -kafka-sasl-mechanism %s, %s or %s",
			Plain, Scram256, Scram512)
	case s.TokenFile != "" && s.Mechanism != OAuthBearer:
		return fmt.Errorf("-kafka-oauth-token-file: it needs -kafka-sasl-mechanism %s", OAuthBearer)
	case s.AWSCredentialsFile != "" && s.Mechanism != AWSIAM:
		return fmt.Errorf("-kafka-aws-credentials-file: it needs -kafka-sasl-mechanism %s", AWSIAM)
	case password && s.User == "":
		return fmt.Errorf("-kafka-user: missing, %s requires it", s.Mechanism)
	case password && s.PasswordFile == "":
		return fmt.Errorf("-kafka-password-file: missing, %s requires it", s.Mechanism)
	case s.Mechanism == OAuthBearer && s.TokenFile == "":
		return fmt.Errorf("-kafka-oauth-token-file: missing, %s requires it", s.Mechanism)
	case s.Mechanism == AWSIAM && s.AWSCredentialsFile == "":
		return fmt.Errorf("-kafka-aws-credentials-file: missing, %s requires it", s.Mechanism)
	case slices.Contains([]string{Plain, OAuthBearer, AWSIAM}, s.Mechanism) && !s.TLS && !s.Insecure:
		return fmt.Errorf("-kafka-sasl-mechanism: %s without -kafka-tls shows the secret to everybody on the way; "+
			"-kafka-insecure allows it", s.Mechanism)
	}
	return nil
}

// dialTimeout bounds a connection's opening, the TLS handshake included.
const dialTimeout = 10 * time.Second

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// options are what a client needs to be let in. dial opens plain connections.
func (s Security) options(dial dialFunc) []kgo.Opt {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	d := &dialer{security: s, dial: dial}
	opts := []kgo.Opt{kgo.Dialer(d.openConn)}
	if s.Mechanism != "" {
		opts = append(opts, kgo.SASL(login{s}))
	}
	return opts
}

// dialer opens the connections of one client.
type dialer struct {
	security Security
	dial     dialFunc // opens plain connections
	// answered says that a broker has answered this client. A broker that hangs up
	// without a word is then taken for one that stops, which franz-go repeats, and no
	// longer for one that does not want us.
	answered atomic.Bool
}

// openConn opens a connection on which nothing was said yet. Its errors name the flag to
// blame where there is one.
func (d *dialer) openConn(ctx context.Context, network, addr string) (net.Conn, error) {
	s := d.security
	var cfg *tls.Config
	if s.TLS {
		var err error
		if cfg, err = s.readTLSConfig(); err != nil {
			return nil, err
		}
	}
	raw, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if !s.TLS {
		return &untriedConn{Conn: raw, dialer: d, addr: addr}, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	cfg.ServerName = host
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if d.answered.Load() && isEndOfConn(err) {
			return nil, hungUpError(addr)
		}
		return nil, s.explainHandshake(addr, err)
	}
	return &untriedConn{Conn: conn, dialer: d, addr: addr}, nil
}

// readTLSConfig reads the files that TLS needs.
func (s Security) readTLSConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, accessErrorf("-kafka-ca-file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, accessErrorf("-kafka-ca-file: %s holds no certificate in PEM", s.CAFile)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, accessErrorf("-kafka-cert-file %s, -kafka-key-file %s: %w", s.CertFile, s.KeyFile, err)
		}
		// Unlike Certificates, it is sent even if the broker names no authority that
		// signed it: then the broker says what it has against it.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return cfg, nil
}

// untriedConn is a connection until the first byte of an answer: a broker that hangs up
// before has something against us.
type untriedConn struct {
	net.Conn
	dialer   *dialer
	addr     string
	answered bool // owned by the only reader
}

// Read implements net.Conn.
func (c *untriedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.answered {
		return n, err
	}
	if n > 0 {
		c.answered = true
		if isTLSRecord(p[:n]) && !c.dialer.security.TLS {
			return 0, accessErrorf("-kafka-tls: broker %s speaks TLS on this port, and -kafka-tls is missing", c.addr)
		}
		c.dialer.answered.Store(true)
		return n, err
	}
	if c.dialer.answered.Load() && isEndOfConn(err) {
		return n, hungUpError(c.addr)
	}
	return n, c.dialer.security.explainSilence(c.addr, err)
}

// hungUpError is the address of a broker that hung up before it answered, though this
// client knows that it is let in.
type hungUpError string

func (e hungUpError) Error() string { return "broker " + string(e) + " hangs up before it answers" }

// Temporary makes franz-go repeat the request. It would not after an io.EOF at this
// place.
func (e hungUpError) Temporary() bool { return true }

// isTLSRecord reports whether an answer is an alert of TLS, which no answer of Kafka
// looks like: it would be one of 350 MB.
func isTLSRecord(answer []byte) bool { return bytes.HasPrefix(answer, []byte{0x15, 0x03}) }

// login is the SASL mechanism of a Security. It reads the secret's file at each login.
type login struct{ security Security }

// Name implements sasl.Mechanism.
func (l login) Name() string { return l.security.Mechanism }

// Authenticate implements sasl.Mechanism.
func (l login) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s := l.security
	flag, file := s.secretFile()
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, accessErrorf("%s: %w", flag, err)
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if secret == "" {
		return nil, nil, accessErrorf("%s: %s is empty", flag, file)
	}
	mechanism := newMechanism(s.Mechanism, s.User, secret)
	if s.Mechanism == AWSIAM {
		if mechanism, err = newAWSMechanism(file, secret); err != nil {
			return nil, nil, err
		}
	}
	session, first, err := mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, accessErrorf("-kafka-sasl-mechanism %s: %w", s.Mechanism, err)
	}
	return &loginSession{session, s}, first, nil
}

// secretFile is where the secret of the login is, and the flag that says so.
func (s Security) secretFile() (flag, file string) {
	switch s.Mechanism {
	case OAuthBearer:
		return "-kafka-oauth-token-file", s.TokenFile
	case AWSIAM:
		return "-kafka-aws-credentials-file", s.AWSCredentialsFile
	}
	return "-kafka-password-file", s.PasswordFile
}

func newMechanism(name, user, secret string) sasl.Mechanism {
	switch name {
	case Scram256:
		return scram.Auth{User: user, Pass: secret}.AsSha256Mechanism()
	case Scram512:
		return scram.Auth{User: user, Pass: secret}.AsSha512Mechanism()
	case OAuthBearer:
		return oauth.Auth{Token: secret}.AsMechanism()
	}
	return plain.Auth{User: user, Pass: secret}.AsMechanism()
}

// loginSession names the flags in what goes wrong.
type loginSession struct {
	sasl.Session
	security Security
}

// Challenge implements sasl.Session.
func (l *loginSession) Challenge(answer []byte) (bool, []byte, error) {
	done, next, err := l.Session.Challenge(answer)
	switch {
	case err == nil:
		return done, next, nil
	case l.security.Mechanism == OAuthBearer: // the answer is the reason, as JSON
		return false, nil, accessErrorf("%s: the broker refuses the token: %.200q", l.security.blame(), answer)
	}
	return false, nil, accessErrorf("%s: %w", l.security.blame(), err)
}

// blame names the flags that a refused login comes from.
func (s Security) blame() string {
	flag, file := s.secretFile()
	if s.Mechanism == OAuthBearer || s.Mechanism == AWSIAM {
		return flag + " " + file
	}
	return fmt.Sprintf("-kafka-user %s, %s %s", s.User, flag, file)
}
