package kafkatest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// avroVersion and avroSum are Apache Avro for Java; its other jars are Kafka's.
const (
	avroVersion = "1.12.0"
	avroSum     = "1f5fbfff9b7427d6832cc3031a3c81413d3e21d9e2551847d9231c28493f9492  avro-1.12.0.jar"
	avroProject = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>avro</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.avro</groupId><artifactId>avro</artifactId><version>` + avroVersion + `</version>
    <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
  </dependency></dependencies>
</project>
`
)

// pythonPackages are the packages of a Python client, as pip wants them.
//
//go:embed python.txt
var pythonPackages string

// RunJava runs a Java source file with Apache Kafka's own client, Avro and Jackson, and
// returns what it printed. It skips the test, or fails it, as Real does.
func RunJava(t testing.TB, stdin, file string, args ...string) string {
	t.Helper()
	b := &RealBroker{t: t}
	b.requireKafka()
	avro, err := ensureFiles(t.Context(), cacheDir(), "avro", avroVersion, avroSum,
		func(ctx context.Context, dir string) error { return copyDependencies(ctx, avroProject, dir) })
	requireTool(t, err)
	classPath := strings.Join(append(avro, b.kafka.classPath), string(os.PathListSeparator))
	return runStranger(t, stdin, exec.Command(b.kafka.java, append([]string{"-cp", classPath, file}, args...)...))
}

// RunPython runs a Python script with kafka-python, fastavro and Snappy, and returns what
// it printed. It skips the test, or fails it, as Real does.
func RunPython(t testing.TB, file string, args ...string) string {
	t.Helper()
	python, packages, err := findPython(t.Context())
	requireTool(t, err)
	cmd := exec.Command(python, append([]string{file}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	return runStranger(t, "", cmd)
}

func requireTool(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errUnavailable) && os.Getenv("PARTNERS_REQUIRE_KAFKA") != "1":
		t.Skipf("SKIP: %v", err)
	case err != nil:
		t.Fatal(err)
	}
}

func runStranger(t testing.TB, stdin string, cmd *exec.Cmd) string {
	t.Helper()
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
	cmd.WaitDelay = 5 * time.Second
	child, err := startChild(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-child.done:
		err = child.err
	case <-time.After(waitLimit):
		child.killAndWait()
		err = errors.New("it does not end")
	}
	if err != nil {
		t.Fatalf("running %s: %v\n%s", filepath.Base(cmd.Args[0]), err, lastLines(said.String(), 30))
	}
	return out.String()
}

// pythonTag says for which wheels a Python is.
const pythonTag = `import platform, sys, pip
v = sys.version_info
fits = sys.implementation.name == "cpython" and (3, 11) <= v[:2] <= (3, 14) and platform.libc_ver()[0] == "glibc" \
    and platform.machine() == "x86_64"
print(f"cp{v[0]}{v[1]}" if fits else "")`

// findPython finds a Python for which there are wheels, and installs the packages once.
func findPython(ctx context.Context) (python, packages string, err error) {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		said, err := exec.CommandContext(ctx, name, "-c", pythonTag).Output()
		tag := strings.TrimSpace(string(said))
		if err != nil || tag == "" {
			continue
		}
		sum := sha256.Sum256([]byte(pythonPackages))
		version := tag + "-" + hex.EncodeToString(sum[:6])
		// pip compares the hashes of what it installs.
		_, err = ensureFiles(ctx, cacheDir(), "python-kafka", version, "",
			func(ctx context.Context, dir string) error { return pipInstall(ctx, name, dir) })
		return name, filepath.Join(cacheDir(), "python-kafka-"+version), err
	}
	return "", "", fmt.Errorf("%w client for Python: there is no python3 with pip for which wheels are pinned: "+
		"CPython 3.11 to 3.14 on Linux x86-64 with glibc", errUnavailable)
}

func pipInstall(ctx context.Context, python, dir string) error {
	list, err := os.CreateTemp("", "requirements-*.txt")
	if err != nil {
		return fmt.Errorf("making a file for pip: %w", err)
	}
	defer os.Remove(list.Name())
	_, err = list.WriteString(pythonPackages)
	if err = errors.Join(err, list.Close()); err != nil {
		return fmt.Errorf("writing a file for pip: %w", err)
	}
	said, err := exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary",
		":all:", "--require-hashes", "--target", dir, "--requirement", list.Name()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w client for Python: installing its packages with pip: %w: %s", errUnavailable, err,
			lastLines(string(said), 5))
	}
	return nil
}
