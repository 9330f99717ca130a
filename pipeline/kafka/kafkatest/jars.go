package kafkatest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const kafkaVersion = "4.3.1"

// mavenProject is what Maven is asked for. A new version goes here, into kafkaVersion
// and, from `sha256sum *.jar`, into kafka.sha256.
const mavenProject = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`

// jarSums is `sha256sum` of all jars of a broker.
//
//go:embed kafka.sha256
var jarSums string

// errUnavailable: this machine cannot run, or cannot get, Apache Kafka; the text says
// what to install.
var errUnavailable = errors.New("no Apache Kafka")

// jarFetcher lets a package manager copy the jars into dir.
type jarFetcher func(ctx context.Context, dir string) error

// ensureJars returns the files of a broker's class path below cacheDir, fetching them
// first if need be. Several processes may call it at once: one fetches, the others
// wait. The finished directory appears by a rename, and each file is compared with
// sums, whatever put it there.
func ensureJars(ctx context.Context, cacheDir, sums string, get jarFetcher) ([]string, error) {
	return ensureFiles(ctx, cacheDir, "kafka", kafkaVersion, sums, get)
}

// ensureFiles is ensureJars for something else: the directory is name-version.
func ensureFiles(ctx context.Context, cacheDir, name, version, sums string, get jarFetcher) ([]string, error) {
	dir := filepath.Join(cacheDir, name+"-"+version)
	if _, err := os.Stat(dir); err == nil {
		return verifyJars(dir, sums)
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache directory: %w", err)
	}
	lock := flock.New(filepath.Join(cacheDir, name+".lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for another process that fetches %s: %w", name, err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return verifyJars(dir, sums)
	}
	old, err := filepath.Glob(filepath.Join(cacheDir, name+"-fetch-*"))
	for _, left := range old { // by a process that was killed: we hold the lock
		err = errors.Join(err, os.RemoveAll(left))
	}
	if err != nil {
		return nil, fmt.Errorf("removing what an earlier fetch left: %w", err)
	}
	tmp, err := os.MkdirTemp(cacheDir, name+"-fetch-")
	if err != nil {
		return nil, fmt.Errorf("making a directory to fetch into: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := get(ctx, tmp); err != nil {
		return nil, err
	}
	if _, err := verifyJars(tmp, sums); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Rename(tmp, dir)); err != nil {
		return nil, fmt.Errorf("installing the jars: %w", err)
	}
	return verifyJars(dir, sums)
}

// verifyJars returns the files that sums names, all of which are there as it says.
func verifyJars(dir, sums string) (paths []string, err error) {
	for lines := bufio.NewScanner(strings.NewReader(sums)); lines.Scan(); {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return nil, fmt.Errorf("%q is not a line of sha256sum", lines.Text())
		}
		path := filepath.Join(dir, name)
		got, err := fileSHA256(path)
		if err != nil {
			return nil, fmt.Errorf("checking fetched files: %w (remove %s to fetch them again)", err, dir)
		}
		if got != want {
			return nil, fmt.Errorf("checking fetched files: %s has the SHA-256 %s, expected %s: not "+
				"the published file (remove %s to fetch it again)", path, got, want, dir)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func fileSHA256(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// fetchWithMaven fetches a broker with the mvn command.
func fetchWithMaven(ctx context.Context, dir string) error {
	fmt.Fprintf(os.Stderr, "kafkatest: fetching Apache Kafka %s (44 MB, once) with Maven into %s\n",
		kafkaVersion, filepath.Dir(dir))
	return copyDependencies(ctx, mavenProject, dir)
}

// copyDependencies copies the jars of a Maven project into dir.
func copyDependencies(ctx context.Context, project, dir string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: its jars are fetched with mvn, which is not in PATH: install Maven", errUnavailable)
	}
	work, err := os.MkdirTemp("", "kafkatest-")
	if err != nil {
		return fmt.Errorf("making a directory for Maven: %w", err)
	}
	defer os.RemoveAll(work)
	pom := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(pom, []byte(project), 0o644); err != nil {
		return fmt.Errorf("writing Maven's project: %w", err)
	}
	var said bytes.Buffer
	cmd := exec.Command(mvn, "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	cmd.Dir = work
	cmd.Stdout = &said
	cmd.Stderr = &said
	cmd.WaitDelay = 5 * time.Second
	child, err := startChild(cmd)
	if err == nil {
		select {
		case <-child.done:
			err = child.err
		case <-ctx.Done():
			child.killAndWait()
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: fetching its jars with Maven: %w: %s", errUnavailable, err, lastLines(said.String(), 5))
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
