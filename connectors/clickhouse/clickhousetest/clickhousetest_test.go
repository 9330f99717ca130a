package clickhousetest

import "testing"

// The server of the tests compiles nothing, for whoever connects.
func TestCompilesNothing(t *testing.T) {
	conn := OpenMigrated(t, ForTest(t))
	var on []struct {
		Name string `ch:"name"`
	}
	if err := conn.Select(t.Context(), &on, "SELECT name FROM system.settings WHERE value = '1' AND "+
		"name IN ('compile_expressions', 'compile_aggregate_expressions', 'compile_sort_description')"); err != nil ||
		len(on) > 0 {
		t.Errorf("%v, %v", on, err)
	}
}
