package embedded

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

// A process that leaves through the C library ends with its own status, while the engine
// runs. The child is this test, run again: five of them, since without the handler only
// half of them crashed.
func TestExitOfC(t *testing.T) {
	const variable, status = "PARTNERS_TEST_EXIT_DATA_DIR", 7
	cfg := testConfig(t)
	if dir := os.Getenv(variable); dir != "" {
		cfg.DataDir = dir
		s := startServer(t, cfg)
		go s.postStatement(t, "", "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
		for s.mustRun(t, "", "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number)%' "+
			"AND query NOT LIKE '%processes%'") != "1\n" {
		}
		var exit func(status int32)
		if err := libcFunction("exit", &exit); err != nil {
			t.Fatal(err)
		}
		exit(status)
	}
	for range 5 {
		child := exec.Command(os.Args[0], "-test.run", "^TestExitOfC$")
		child.Env = append(os.Environ(), variable+"="+t.TempDir())
		out, err := child.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.ExitCode() != status {
			t.Fatalf("%v, want exit status %d: %.2000s", err, status, out)
		}
	}
}
