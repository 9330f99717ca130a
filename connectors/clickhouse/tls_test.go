package clickhouse_test

import (
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// A certificate of one's own authority is believed where the authority is given, and
// nowhere else.
func TestCAFile(t *testing.T) {
	plain := clickhousetest.ForTest(t)
	target, err := url.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	database := target.Path
	target.Path = ""
	server := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(target))
	defer server.Close()
	secure := server.URL + database + "?secure=true"
	dir := t.TempDir()
	ca, garbage := filepath.Join(dir, "ca"), filepath.Join(dir, "garbage")
	for file, content := range map[string][]byte{
		ca:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		garbage: []byte("x"),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func(dsn, ca string) error {
		cfg := clickhouse.Config{DSN: dsn, CAFile: ca}
		conn, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := open(secure, ca); err != nil {
		t.Error(err)
	}
	refused := func(dsn, ca, want string) {
		t.Helper()
		if err := open(dsn, ca); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	refused(secure, "", "certificate signed by unknown authority")
	refused(secure, garbage, "-clickhouse-ca-file: "+garbage+" holds no certificate")
	refused(secure, "/nowhere", "-clickhouse-ca-file: open /nowhere")
	refused(secure+"&skip_verify=true", ca, "-clickhouse-ca-file: it has no effect with skip_verify=true")
	refused(plain, ca, "-clickhouse-ca-file: it has no effect without TLS")
}
