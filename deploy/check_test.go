package deploy

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// The script for a real server, asked of the embedded one: it says yes to what that can
// show, no to what it cannot, and leaves nothing behind. That the questions about roles
// are the right ones only a real server shows.
func TestCheckScript(t *testing.T) {
	dsn, err := url.Parse(clickhousetest.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	ctl := filepath.Join(t.TempDir(), "ctl")
	if said, err := exec.Command("go", "build", "-o", ctl,
		"github.com/nimriz/partners/cmd/ctl").CombinedOutput(); err != nil {
		t.Fatalf("building ctl: %v: %s", err, said)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "clickhouse/check.sh")
	cmd.Env = append(os.Environ(), "PARTNERS_CHECK_URL=http://"+dsn.Host, "PARTNERS_CHECK_NATIVE=127.0.0.1:1",
		"PARTNERS_CHECK_CTL="+ctl, "PARTNERS_CHECK_ENGINES=mergetree")
	said, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit status 1", err)
	}
	answers := map[string]string{}
	for line := range strings.Lines(string(said)) {
		answer, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.TrimSpace(name)
		if answer != "yes" && answer != "no" {
			t.Errorf("it says %q", line)
		}
		answers[name] = answer
	}
	answered := func(name string) string {
		for text, answer := range answers {
			if text == name || strings.HasPrefix(text, name+": ") {
				return answer
			}
		}
		return ""
	}
	for _, name := range []string{"the HTTP protocol: ctl migrate works over it",
		"mergetree: an insert can be repeated", "mergetree: a repeated insert is in the table once",
		"mergetree: a repeated insert is in the rollup once", "mergetree: an insert of its own counts in the rollup"} {
		if answered(name) != "yes" {
			t.Errorf("%q is not answered yes", name)
		}
	}
	for _, name := range []string{"the native protocol: ctl migrate works over it", "ctl migrate makes the three roles",
		"the reader of acme sees its rows of a table alone", "partners_every_workspace writes nothing"} {
		if answered(name) != "no" {
			t.Errorf("%q is not answered no", name)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", said)
	}
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn.String()},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var left []struct {
		Name string `ch:"name"`
	}
	if err := conn.Select(t.Context(), &left, "SELECT name FROM system.databases WHERE name LIKE "+
		"'partners_check%'"); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}
