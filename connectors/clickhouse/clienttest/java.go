package clienttest

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const javaVersion = "0.10.0"

// mavenProject is what Maven is asked for. A new version goes into javaVersion and, from
// `sha256sum *.jar`, into java.sha256.
const mavenProject = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>clients</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>com.clickhouse</groupId><artifactId>client-v2</artifactId><version>` + javaVersion + `</version>
    </dependency>
    <dependency>
      <groupId>com.clickhouse</groupId><artifactId>clickhouse-jdbc</artifactId><version>` + javaVersion + `</version>
    </dependency>
  </dependencies>
</project>
`

// jarSums is `sha256sum` of all jars.
//
//go:embed java.sha256
var jarSums string

// findJava installs the jars and verifies them.
func findJava() (runtime, error) {
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return runtime{}, fmt.Errorf("%w: there is no %s in PATH: install a JDK and Maven", errUnavailable, tool)
		}
	}
	dir, err := install("clickhouse-java-"+javaVersion, func(ctx context.Context, dir string) error {
		if err := copyJars(ctx, dir); err != nil {
			return err
		}
		_, err := verifyJars(dir)
		return err
	})
	if err != nil {
		return runtime{}, err
	}
	jars, err := verifyJars(dir)
	if err != nil {
		return runtime{}, fmt.Errorf("%w (remove %s to fetch them again)", err, dir)
	}
	return runtime{command: []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp",
		strings.Join(jars, string(os.PathListSeparator))}}, nil
}

func copyJars(ctx context.Context, dir string) error {
	work, err := os.MkdirTemp("", "clienttest-")
	if err != nil {
		return fmt.Errorf("making a directory for Maven: %w", err)
	}
	defer os.RemoveAll(work)
	pom := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(pom, []byte(mavenProject), 0o644); err != nil {
		return fmt.Errorf("writing Maven's project: %w", err)
	}
	return runFetch(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
}

// verifyJars returns the files that jarSums names, all of which are there as it says.
func verifyJars(dir string) (paths []string, err error) {
	for lines := bufio.NewScanner(strings.NewReader(jarSums)); lines.Scan(); {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return nil, fmt.Errorf("java.sha256: %q is not a line of sha256sum", lines.Text())
		}
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("checking the jars of the Java client: %w", err)
		}
		if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != want {
			return nil, fmt.Errorf("checking the jars of the Java client: %s has the SHA-256 %x, expected %s: not the "+
				"published file", path, got, want)
		}
		paths = append(paths, path)
	}
	return paths, nil
}
