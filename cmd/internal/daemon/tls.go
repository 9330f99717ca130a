package daemon

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// TLSFiles are the certificate and the private key of a listener. The zero value is a
// listener without TLS.
type TLSFiles struct {
	Cert string // certificate chain, PEM
	Key  string // PEM
}

// TLSFlags declares -tls-cert and -tls-key for a program that people and merchants reach.
func TLSFlags(fs *flag.FlagSet, f *TLSFiles) {
	fs.StringVar(&f.Cert, "tls-cert", f.Cert, "PEM `file` with the certificate chain to serve with; plain HTTP if "+
		"empty. Read again when it changes")
	fs.StringVar(&f.Key, "tls-key", f.Key, "PEM `file` with its private key")
}

// Validate reports files that cannot be used, by flag.
func (f TLSFiles) Validate() error {
	switch {
	case f.Cert == "" && f.Key == "":
		return nil
	case f.Cert == "":
		return errors.New("-tls-cert: missing, the private key's certificate is required")
	case f.Key == "":
		return errors.New("-tls-key: missing, the certificate's private key is required")
	}
	_, err := f.readPair()
	return err
}

func (f TLSFiles) readPair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("-tls-cert %s, -tls-key %s: %w", f.Cert, f.Key, err)
	}
	return &pair, nil
}

// Listen speaks TLS on a listener, if there are files. They are read again when they
// change; while they cannot be used, the certificate before them is.
func (f TLSFiles) Listen(ln net.Listener, log *slog.Logger) net.Listener {
	if f.Cert == "" {
		return ln
	}
	r := &certReloader{files: f, log: log}
	return tls.NewListener(ln, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.currentPair() },
	})
}

// certCheckInterval is how often the files may be looked at.
const certCheckInterval = time.Second

// certReloader keeps the newest pair that could be used.
type certReloader struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	version [2]time.Time // when the files of pair were written
	failed  [2]time.Time // when those that last could not be used were, which was logged
	checked time.Time    // when that was last looked at
}

func (r *certReloader) currentPair() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair != nil && time.Since(r.checked) < certCheckInterval {
		return r.pair, nil
	}
	r.checked = time.Now()
	version := [2]time.Time{writtenAt(r.files.Cert), writtenAt(r.files.Key)}
	if r.pair != nil && version == r.version {
		return r.pair, nil
	}
	pair, err := r.files.readPair()
	switch {
	case err != nil && r.pair == nil:
		return nil, err
	case err != nil:
		// The next look tries again: it may be for want of a file descriptor, or a file
		// that is written in two parts within one tick of its clock.
		if version != r.failed {
			r.failed = version
			r.log.Error("the certificate cannot be read; the one before it stays in use", "error", err)
		}
		return r.pair, nil
	case r.pair != nil:
		r.log.Info("a new certificate is in use", "file", r.files.Cert)
	}
	r.pair, r.version = pair, version
	return pair, nil
}

// writtenAt is when a file was written, the zero time if that cannot be seen.
func writtenAt(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
