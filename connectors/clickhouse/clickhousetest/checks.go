package clickhousetest

import (
	"flag"
	"strconv"
	"testing"
)

// FewerChecks lets rapid check an eighth of what it would, in this test: each check
// asks ClickHouse many times.
func FewerChecks(t *testing.T) {
	t.Helper()
	checks := flag.Lookup("rapid.checks").Value
	was := checks.String()
	n, err := strconv.Atoi(was)
	if err == nil {
		err = checks.Set(strconv.Itoa(max(1, n/8)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checks.Set(was) })
}
