package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrAccess: a broker does not let this program in, or is not the one that this program
// trusts. The text says what is wrong, by flag. It is retried like an outage: a person
// mends it on either side, and no restart is needed.
var ErrAccess = errors.New("no access to Kafka")

// accessError is an ErrAccess. It does not wrap the end of a connection that it was
// found by: franz-go would repeat the request for half a minute before anybody hears.
type accessError struct {
	text string
	err  error // what it wraps beside ErrAccess; may be nil
}

func (e *accessError) Error() string   { return e.text }
func (e *accessError) Unwrap() []error { return []error{ErrAccess, e.err} }

func accessErrorf(format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	return &accessError{err.Error(), errors.Unwrap(err)}
}

// Explain turns an error of a client into one sentence for an operator, with the flag to
// change, where the error is about access. It returns any other error as it is.
func (c Config) Explain(err error) error {
	s := c.Security
	var known *accessError
	var closed *kgo.ErrFirstReadEOF
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return accessErrorf("%s: the broker refuses the login: %w", s.blame(), err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return accessErrorf("-kafka-sasl-mechanism: the broker does not offer %s on this port: %w", s.Mechanism, err)
	case errors.Is(err, kerr.IllegalSaslState) && s.Mechanism != "":
		return accessErrorf("-kafka-sasl-mechanism: the broker takes no login on this port: %w", err)
	case errors.As(err, &closed) && s.Mechanism == "":
		return accessErrorf("-kafka-sasl-mechanism: the broker closes the connection at the first request; it may " +
			"want a login")
	case LacksRight(err):
		return fmt.Errorf("%w (%s lacks a right: `ctl topics acls` lists those that each program needs)", err, s.who())
	}
	return err
}

// who names the user that rights are given to.
func (s Security) who() string {
	switch {
	case s.User != "":
		return "user " + s.User
	case s.CertFile != "":
		return "the user of -kafka-cert-file"
	case s.Mechanism == OAuthBearer:
		return "the user of -kafka-oauth-token-file"
	case s.Mechanism == AWSIAM:
		return "the user of -kafka-aws-credentials-file"
	}
	return "the user ANONYMOUS"
}

// LacksRight reports whether a broker refused a request for want of a right. Which one,
// LackingRights says.
func LacksRight(err error) bool {
	for _, refused := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return false
}

// isAccess reports whether an error is about access, explained or not.
func isAccess(err error) bool {
	for _, refused := range []error{ErrAccess, kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism,
		kerr.IllegalSaslState} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return LacksRight(err)
}

// explainHandshake says what a failed TLS handshake comes from.
func (s Security) explainHandshake(addr string, err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &name):
		return accessErrorf("-brokers: the certificate of broker %s is not for that name: %w; use a name that it is "+
			"for, in -brokers and in what the brokers advertise", addr, name)
	case errors.As(err, &authority) && s.CAFile == "":
		return accessErrorf("-kafka-ca-file: the certificate of broker %s is signed by an authority that this machine "+
			"does not know: give the file with the authority's certificate", addr)
	case errors.As(err, &authority):
		return accessErrorf("-kafka-ca-file: the certificate of broker %s is signed by an authority that is not in %s",
			addr, s.CAFile)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return accessErrorf("-kafka-tls: the certificate of broker %s is valid from %s to %s only: renew it, or set "+
			"this machine's clock", addr, invalid.Cert.NotBefore.UTC().Format(time.RFC3339),
			invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &header), isEndOfConn(err):
		return accessErrorf("-kafka-tls: broker %s does not speak TLS on this port", addr)
	case isAlert(err):
		return s.explainAlert(addr, err)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return accessErrorf("-kafka-tls: the certificate of broker %s cannot be used: %w", addr, err)
	}
	return fmt.Errorf("TLS handshake with %s: %w", addr, err)
}

// explainSilence says what it may mean that a broker hangs up before it has answered
// anything.
func (s Security) explainSilence(addr string, err error) error {
	switch {
	case isAlert(err): // with TLS 1.3 that is when we hear about our own certificate
		return s.explainAlert(addr, err)
	case !isEndOfConn(err):
		return err
	case !s.TLS:
		return accessErrorf("-kafka-tls: broker %s closes the connection at once; it may speak TLS on this port, and "+
			"-kafka-tls is missing", addr)
	case s.CertFile == "":
		return accessErrorf("-kafka-cert-file: broker %s closes the connection after the handshake; it may want a "+
			"certificate of this program, and none is given", addr)
	}
	return accessErrorf("-kafka-cert-file %s: broker %s closes the connection after the handshake; it may not accept "+
		"the certificate", s.CertFile, addr)
}

// explainAlert says what a broker has against our side of the handshake.
func (s Security) explainAlert(addr string, err error) error {
	switch text := err.Error(); {
	case !strings.Contains(text, "certificate") && !strings.Contains(text, "handshake failure") &&
		!strings.Contains(text, "access denied"):
		return accessErrorf("-kafka-tls: broker %s ends the TLS handshake: %w", addr, err)
	case s.CertFile == "":
		return accessErrorf("-kafka-cert-file: broker %s wants a certificate of this program, and none is given: %w",
			addr, err)
	}
	return accessErrorf("-kafka-cert-file %s: broker %s does not accept the certificate: it has expired, or an "+
		"authority signed it that the broker does not know: %w", s.CertFile, addr, err)
}

// isAlert reports whether the other side ended TLS with a reason.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

func isEndOfConn(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
