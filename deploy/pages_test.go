package deploy

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/topic"
)

// pages are what operators read.
func pages() []string {
	return []string{"README.md", "RUNBOOK.md", "UPGRADE.md", "BACKUP.md", "DISASTER.md", "MONITORING.md",
		"kubernetes/README.md"}
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	promptLine = regexp.MustCompile(`(?m)^\$ (.*(?:\\\n.*)*)$`)
	inlineCode = regexp.MustCompile("(?s)`((?:bin/)?(?:ctl|export|sink|kubectl)\\s[^`]+)`")
	shellBlock = regexp.MustCompile("(?s)\n```sh\n(.*?)\n```")
	sqlBlock   = regexp.MustCompile("(?s)\n```sql\n(.*?)\n```")
)

// commands returns the command lines of a page: after a prompt, in a shell's block, and
// within text.
func commands(text string) (lines []string) {
	for _, m := range promptLine.FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.ReplaceAll(m[1], "\\\n", " "))
	}
	for _, m := range shellBlock.FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.Split(m[1], "\n")...)
	}
	fenced := regexp.MustCompile("(?s)\n```.*?\n```")
	for _, m := range inlineCode.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// Every command on the pages names programs, commands, flags, files, groups and objects
// of Kubernetes that there are.
func TestPagesCommands(t *testing.T) {
	bin := buildPrograms(t)
	programs := []string{"redirector", "gateway", "processor", "sink", "report", "export", "ctl"}
	all := overlays(t)
	checked := map[string]int{}
	for _, page := range pages() {
		for _, line := range commands(readPage(t, page)) {
			line, _, _ = strings.Cut(line, " #") // a comment
			for _, part := range regexp.MustCompile(`&&|\||;| -- `).Split(line, -1) {
				words := strings.Fields(strings.Trim(strings.TrimSpace(part), "&()"))
				if len(words) == 0 {
					continue
				}
				switch program := filepath.Base(words[0]); {
				case program == "export" && (words[0] == "export" && strings.Contains(part, "=")): // of the shell
				case slices.Contains(programs, program) && len(words) > 1:
					checked[program]++
					checkFlags(t, page, bin, append([]string{program}, words[1:]...))
				case program == "kubectl":
					checked[program]++
					checkKubectl(t, page, words, all)
				case program == "kafka-consumer-groups.sh" && len(words) > 1:
					checked[program]++
					if i := slices.Index(words, "--group"); i < 0 ||
						!slices.Contains([]string{topic.SinkGroup, topic.ProcessorGroup}, words[i+1]) {
						t.Errorf("%s: %s: of which group?", page, part)
					}
				case program == "promtool":
					checked[program]++
					if _, err := os.Stat(filepath.Join("..", words[len(words)-1])); err != nil {
						t.Errorf("%s: %v", page, err)
					}
				}
			}
		}
	}
	for _, program := range []string{"ctl", "kubectl", "promtool", "sink", "export"} {
		if checked[program] == 0 {
			t.Errorf("no page has a command of %s", program)
		}
	}
	if checked["ctl"] < 40 {
		t.Errorf("only %d commands of ctl were found", checked["ctl"])
	}
}

// checkKubectl checks that overlays, components and objects of a command exist.
func checkKubectl(t *testing.T, page string, words []string, all []*cluster) {
	t.Helper()
	names := map[string]bool{"job/setup": true}
	components := map[string]bool{"shared": true}
	for _, c := range all {
		for _, w := range c.workloads {
			names[strings.ToLower(w.kind)+"/"+w.name] = true
			components[w.component()] = true
		}
	}
	for i, word := range words[1:] {
		before := words[i]
		switch {
		case before == "-k":
			if _, err := os.Stat(filepath.Join("..", word, "kustomization.yaml")); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		case before == "-l":
			selected := strings.Trim(strings.Join(words[i+1:], " "), "'")
			for _, name := range regexp.MustCompile(`[a-z]+`).FindAllString(strings.TrimPrefix(selected, componentLabel), -1) {
				if name != "in" && !components[name] {
					t.Errorf("%s: no object is of component %s", page, name)
				}
			}
		case before == "-n" && word != "partners":
			t.Errorf("%s: namespace %s", page, word)
		case strings.Contains(word, "/") && regexp.MustCompile(`^[a-z]+/[a-z]+$`).MatchString(word) && !names[word]:
			t.Errorf("%s: there is no %s", page, word)
		}
	}
}

// A link between the pages leads to a page and a heading that there are.
func TestPagesLinks(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	links := 0
	for _, page := range pages() {
		for _, m := range regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`).FindAllStringSubmatch(readPage(t, page), -1) {
			links++
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if m[2] == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(readPage(t, target), -1) {
				plain := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(h[1]), "")
				anchors = append(anchors, strings.ReplaceAll(plain, " ", "-"))
			}
			if !slices.Contains(anchors, m[2]) {
				t.Errorf("%s links to %s, which has no heading #%s", page, target, m[2])
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links were found", links)
	}
}

// Every statement in a block of SQL is one that ClickHouse understands, on the tables
// that ctl migrate makes. Backups, which the embedded ClickHouse has no place for, are
// only parsed.
func TestPagesSQL(t *testing.T) {
	bin := buildPrograms(t)
	dsn := clickhousetest.ForTest(t)
	if out, err := exec.Command(filepath.Join(bin, "ctl"), "migrate", "-clickhouse", dsn).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	statements := 0
	for _, page := range pages() {
		for _, m := range sqlBlock.FindAllStringSubmatch(readPage(t, page), -1) {
			for statement := range strings.SplitSeq(m[1], ";") {
				statements++
				query := "EXPLAIN AST " + statement
				if strings.HasPrefix(strings.TrimSpace(statement), "SELECT") {
					query = statement
				}
				resp, err := http.Post("http://"+at.Host+"/?database="+url.QueryEscape(strings.Trim(at.Path, "/")), "",
					strings.NewReader(query))
				if err != nil {
					t.Fatal(err)
				}
				said, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %s: %v %s", page, statement, err, said)
				}
			}
		}
	}
	if statements < 8 {
		t.Errorf("only %d statements were found", statements)
	}
}

// A metric that a page names is documented by the package that has it.
func TestPagesMetrics(t *testing.T) {
	documented := ""
	for _, pattern := range []string{"../connectors/*/doc.go", "../connectors/*/*/doc.go", "../pipeline/*/doc.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			documented += readPage(t, file)
		}
	}
	for _, page := range pages() {
		for _, name := range regexp.MustCompile(`\bpartners_[a-z0-9_]+`).FindAllString(readPage(t, page), -1) {
			other := regexp.MustCompile(`^partners_(writer|reader|every_workspace|workspace_.*|test|kafka_.*)$`)
			if !other.MatchString(name) && !regexp.MustCompile(`\b`+name+`\b`).MatchString(documented) {
				t.Errorf("%s names %s, which no doc.go has", page, name)
			}
		}
	}
}
