package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
)

func TestTLSFilesValidate(t *testing.T) {
	a := kafkatest.NewAuthority(t)
	cert, key := a.Issue(time.Hour, "x")
	_, other := a.Issue(time.Hour, "x")
	f := func(files TLSFiles, want string) {
		t.Helper()
		if err := files.Validate(); want == "" && err != nil || want != "" && (err == nil ||
			!strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: got %v, want %q", files, err, want)
		}
	}
	f(TLSFiles{}, "")
	f(TLSFiles{cert, key}, "")
	f(TLSFiles{Key: key}, "-tls-cert: missing")
	f(TLSFiles{Cert: cert}, "-tls-key: missing")
	f(TLSFiles{cert, other}, "private key does not match")
	f(TLSFiles{"/nowhere", key}, "-tls-cert /nowhere, -tls-key "+key+": open /nowhere")
}

// A certificate is replaced without a restart. One that cannot be used replaces nothing.
func TestTLSFilesAreReadAgain(t *testing.T) {
	first, second := kafkatest.NewAuthority(t), kafkatest.NewAuthority(t)
	dir := t.TempDir()
	files := TLSFiles{filepath.Join(dir, "cert"), filepath.Join(dir, "key")}
	written := time.Now().Add(-time.Hour)
	put := func(file, from string) {
		t.Helper()
		content, err := os.ReadFile(from)
		written = written.Add(time.Minute)
		if err = errors.Join(err, os.WriteFile(file, content, 0o600), os.Chtimes(file, written, written)); err != nil {
			t.Fatal(err)
		}
	}
	putPair := func(a *kafkatest.Authority) {
		t.Helper()
		cert, key := a.Issue(time.Hour, "127.0.0.1")
		put(files.Cert, cert)
		put(files.Key, key)
	}
	putPair(first)
	if err := files.Validate(); err != nil {
		t.Fatal(err)
	}
	var said kafkatest.LogBuffer
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		stopped <- HTTP(files.Listen(ln, slog.New(slog.NewTextHandler(&said, nil))),
			http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, req.Proto) }),
			slog.New(slog.DiscardHandler))(ctx)
	}()
	ask := func(trusted *kafkatest.Authority) (proto string, err error) {
		pem, err := os.ReadFile(trusted.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("https://" + ln.Addr().String())
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	eventually := func(trusted *kafkatest.Authority) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			proto, err := ask(trusted)
			if err == nil && proto == "HTTP/2.0" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s, %v", proto, err)
			}
		}
	}
	eventually(first)
	if _, err := ask(second); err == nil {
		t.Error("the test cannot tell certificates apart")
	}
	_, foreign := second.Issue(time.Hour, "127.0.0.1")
	put(files.Key, foreign) // as in the middle of a replacement
	for !strings.Contains(said.String(), "the certificate cannot be read; the one before it stays in use") {
		if _, err := ask(first); err != nil {
			t.Fatalf("the certificate before it is not in use: %v", err)
		}
	}
	putPair(second)
	eventually(second)
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if log := said.String(); strings.Count(log, "the certificate cannot be read") != 1 ||
		strings.Count(log, "a new certificate is in use") != 1 {
		t.Errorf("logged:\n%s", log)
	}
}

// Files that could not be used are tried again although no time of theirs changes.
func TestTLSFilesAreTriedAgain(t *testing.T) {
	a := kafkatest.NewAuthority(t)
	var files [2]TLSFiles
	for i := range files {
		files[i].Cert, files[i].Key = a.Issue(time.Hour, "x")
	}
	var said kafkatest.LogBuffer
	r := &certReloader{files: files[0], log: slog.New(slog.NewTextHandler(&said, nil))}
	current := func() (serial string) {
		t.Helper()
		r.checked = time.Time{} // as if the interval had passed
		pair, err := r.currentPair()
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.String()
	}
	before := current()
	put := func(file string, content []byte) {
		t.Helper()
		at := time.Unix(1_700_000_000, 0)
		if err := errors.Join(os.WriteFile(file, content, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := os.ReadFile(files[1].Cert)
	key, err2 := os.ReadFile(files[1].Key)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	put(files[0].Cert, cert)
	put(files[0].Key, key[:len(key)/2])
	for range 2 { // the first attempt, and one after it
		if current() != before {
			t.Error("half a key replaced a certificate")
		}
	}
	put(files[0].Key, key)
	if current() == before {
		t.Error("the whole key was not read")
	}
	if n := strings.Count(said.String(), "the certificate cannot be read"); n != 1 {
		t.Errorf("%d complaints:\n%s", n, said.String())
	}
}
