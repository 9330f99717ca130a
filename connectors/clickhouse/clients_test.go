package clickhouse_test

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/clickhouse/clienttest"
)

// The official clients of other languages talk to the embedded server as to any other, as
// they come.
func TestOfficialClients(t *testing.T) {
	t.Run("clickhouse-connect", func(t *testing.T) {
		server := parseDSN(t, clickhousetest.ForTest(t))
		script, err := os.ReadFile("testdata/clients.py")
		if err != nil {
			t.Fatal(err)
		}
		got := clienttest.RunPython(t, string(script), server.Hostname(), server.Port(), strings.Trim(server.Path, "/"))
		want := `rows 100000
summary 7 7
session setting 1 0
request setting [(2,)] 3
readonly [(1,)] 164
temporary table [(3, Decimal('1.25'))] 60
readonly beside it [(3,)] 164
an error 47 2
inserted 1000
joined 2
data frame 499500 499500 3
external table [(3, 'y')] [(3, 'y')] 60
form [("it's",)]
compress lz4 1000
compress zstd 2000
compress gzip 3000
compress False 4000
`
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("what clickhouse-connect saw (-want +got):\n%s", diff)
		}
	})
	t.Run("Java", func(t *testing.T) {
		server := parseDSN(t, clickhousetest.ForTest(t))
		got := clienttest.RunJava(t, "testdata/Clients.java", "http://"+server.Host, strings.Trim(server.Path, "/"))
		want := `version true
default 5 0 200000 records 7 of 7 written 100 error Code: 47
plain 5 0 200000 records 7 of 7 written 100 error Code: 47
LZ4 blocks 5 0 200000 records 7 of 7 written 100 error Code: 47
LZ4 frames 5 0 200000 records 7 of 7 written 100 error Code: 47
JDBC true rows 100000 sent 10
JDBC?compress=false true rows 100000 sent 10
JDBC?client.use_http_compression=true true rows 100000 sent 10
JDBC session 3
`
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("what the Java client saw (-want +got):\n%s", diff)
		}
	})
}

func parseDSN(t *testing.T, dsn string) *url.URL {
	t.Helper()
	server, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return server
}
