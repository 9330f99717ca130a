package repolint

import (
	"slices"
	"strings"
	"testing"
)

// rule returns the findings about a repository. Each finding names the fix.
type rule struct {
	name  string
	check func(repo) []string
	bad   map[string]repo // by sample, a part of the one finding that it must give
	good  []repo          // samples without a finding
}

// sourceSample is a repository of one package with one file that imports targets.
func sourceSample(file string, targets ...string) repo {
	dir := file[:strings.LastIndexByte(file, '/')]
	return repo{pkgs: []pkg{{path: dir, name: dir[strings.LastIndexByte(dir, '/')+1:], files: []goFile{{
		name:    file,
		test:    strings.HasSuffix(file, "_test.go"),
		lines:   10,
		imports: targets,
	}}}}}
}

// changeFile changes the only file of a repository.
func changeFile(r repo, change func(*goFile)) repo {
	change(&r.pkgs[0].files[0])
	return r
}

// designSample is a repository with one test, TestKills in pipeline/state, and a
// document.
func designSample(text string) repo {
	r := changeFile(sourceSample("pipeline/state/a_test.go"), func(f *goFile) { f.tests = []string{"TestKills"} })
	r.files = []textFile{{"a/DESIGN.md", text}}
	return r
}

// guideSample is a repository with a guide. Its package pipeline/state has a test,
// TestKills, that reads variables.
func guideSample(guided string, variables ...string) repo {
	r := designSample("")
	r.pkgs[0].files[0].variables = variables
	r.files = []textFile{{"pipeline/state/a_test.go", strings.Join(variables, " ")}, {guide, guided}}
	return r
}

// variableName adds the prefix, so that this file is no finding.
func variableName(name string) string { return "PARTNERS_" + name }

// textSample is a repository of one file.
func textSample(path, content string) repo { return repo{files: []textFile{{path, content}}} }

// wideSample is a repository with one file that has a wide line.
func wideSample(w wideLine) repo {
	return changeFile(sourceSample("pipeline/state/a.go"), func(f *goFile) { f.wide = []wideLine{w} })
}

// namesSample is a repository with one file that has so many unexported functions,
// among them oneWord.
func namesSample(file string, unexported int, oneWord ...string) repo {
	return changeFile(sourceSample(file), func(f *goFile) {
		f.unexported = unexported
		f.oneWord = oneWord
	})
}

func allRules() []rule {
	own := func(path string) string { return module + "/" + path }
	return []rule{
		{"ladder", importLadder, map[string]repo{
			"schemas/event/a.go imports " + own("pipeline/token"): sourceSample("schemas/event/a.go",
				own("pipeline/token")),
			"pass in what it needs": sourceSample("pipeline/state/a.go",
				own("connectors/sink")),
			"nothing imports cmd": sourceSample("connectors/sink/a_test.go", own("cmd/internal/daemon")),
		}, []repo{sourceSample("cmd/sink/main.go", own("connectors/sink"), own("pipeline/kafka"), own("schemas/event")),
			sourceSample("pipeline/a/a.go", own("schemas/event"), "fmt")}},
		{"adapters", connectorImports, map[string]repo{
			"kafka, token and outage":    sourceSample("connectors/sink/a.go", own("pipeline/state")),
			"its tests also":             sourceSample("connectors/sink/a.go", own("pipeline/kafka/kafkatest")),
			"do not import each other":   sourceSample("connectors/sink/a.go", own("connectors/redirect")),
			"clickhouse by sink, export": sourceSample("connectors/ingest/a.go", own("connectors/clickhouse")),
			"a_test.go imports " + module: sourceSample("connectors/ingest/a_test.go",
				own("connectors/clickhouse/clickhousetest")),
		}, []repo{sourceSample("connectors/sink/a_test.go", own("pipeline/kafka/kafkatest"),
			own("connectors/clickhouse/clickhousetest")), sourceSample("connectors/ingest/a.go",
			own("connectors/signature"),
			own("pipeline/token"), own("pipeline/kafka"), own("pipeline/outage")),
			sourceSample("connectors/clickhouse/embedded/a.go", own("connectors/clickhouse"))}},
		{"judges", independentJudges, map[string]repo{
			"the oracle may share nothing": sourceSample("pipeline/oracle/a.go", own("pipeline/attribution")),
			"HTTP for the rest":            sourceSample("cmd/demo/internal/traffic/a.go", own("connectors/signature")),
		}, []repo{sourceSample("pipeline/oracle/a_test.go", own("schemas/event"), own("pipeline/oracle")),
			sourceSample("cmd/demo/internal/traffic/a.go", own("schemas/catalog"), own("pipeline/oracle"),
				own("pipeline/token"))}},
		{"one door", oneDoor, map[string]repo{
			"its door is pipeline/state:": sourceSample("pipeline/clicklog/a.go",
				"github.com/cockroachdb/pebble/v2"),
			"its door is pipeline/state, pipeline/clicklog": sourceSample("connectors/sink/a.go",
				"github.com/cockroachdb/pebble/v2/vfs"),
			"not in this repository": sourceSample("pipeline/state/a.go", "github.com/cockroachdb/pebble"),
			"its door is connectors/clickhouse:": sourceSample("connectors/sink/a.go",
				"github.com/ClickHouse/clickhouse-go/v2/lib/driver"),
			"ch-go/proto":          sourceSample("connectors/export/a_test.go", "github.com/ClickHouse/ch-go/proto"),
			"goose/v3":             sourceSample("schemas/ddl/a.go", "github.com/pressly/goose/v3"),
			"purego":               sourceSample("connectors/clickhouse/a.go", "github.com/ebitengine/purego"),
			"kafkatest: ask there": sourceSample("cmd/demo/main.go", "github.com/twmb/franz-go/pkg/kfake"),
			"connectors/ingest/a_test.go imports github.com/twmb/f": sourceSample("connectors/ingest/a_test.go",
				"github.com/twmb/franz-go/pkg/kfake"),
			"its door is schemas/event": sourceSample("connectors/sink/a.go", "github.com/linkedin/goavro/v2"),
		}, []repo{sourceSample("pipeline/clicklog/a.go", "github.com/cockroachdb/pebble/v2/vfs"),
			sourceSample("pipeline/clicklog/bench_test.go", "github.com/cockroachdb/pebble/v2"),
			sourceSample("pipeline/processor/a_test.go", "github.com/twmb/franz-go/pkg/kfake"), sourceSample(
				"pipeline/state/a.go",
				"github.com/cockroachdb/pebble/v2", "github.com/cockroachdb/pebble/v2/sstable"),
			sourceSample("cmd/ctl/a.go", "github.com/twmb/franz-go/pkg/kgo")}},
		{"process", processAccess, map[string]repo{
			"imports flag": sourceSample("pipeline/state/a.go", "flag"),
			"uses os.Exit": changeFile(sourceSample("schemas/event/a.go"), func(f *goFile) {
				f.uses = []string{"os.Exit"}
			}),
			"uses os.Getenv": changeFile(sourceSample("connectors/sink/a.go"), func(f *goFile) {
				f.uses = []string{"os.ReadFile", "os.Getenv"}
			}),
		}, []repo{sourceSample("cmd/a/main.go", "flag"), sourceSample("pipeline/a/a_test.go", "flag"),
			changeFile(sourceSample("pipeline/kafka/kafkatest/a.go"), func(f *goFile) {
				f.uses = []string{"os.Getenv"}
			})}},
		{"package names", packageNames, map[string]repo{"package pipeline/util": sourceSample("pipeline/util/a.go")},
			[]repo{sourceSample("pipeline/state/a.go")}},
		{"package comments", packageComments,
			map[string]repo{"package pipeline/state has no": sourceSample("pipeline/state/a.go")},
			[]repo{sourceSample("cmd/a/a_test.go")}},
		{"no init", noInit, map[string]repo{"a.go has an init": changeFile(sourceSample("pipeline/state/a.go"),
			func(f *goFile) {
				f.inits = 1
			})}, []repo{sourceSample("pipeline/state/a.go")}},
		{"short mains", shortMains, map[string]repo{"has 121 lines": changeFile(sourceSample("cmd/sink/main.go"),
			func(f *goFile) {
				f.main, f.lines = true, 121
			})},
			[]repo{changeFile(sourceSample("cmd/sink/main.go"), func(f *goFile) {
				f.main, f.lines = true, 120
			}), changeFile(sourceSample("cmd/sink/more.go"), func(f *goFile) { f.lines = 500 })}},
		{"few interfaces", fewInterfaces, map[string]repo{"(pipeline/state/a.go Thing)": changeFile(
			sourceSample("pipeline/state/a.go"), func(f *goFile) {
				f.lines, f.interfaces = 999, []string{"Thing"}
			})},
			[]repo{changeFile(sourceSample("pipeline/state/a.go"), func(f *goFile) {
				f.lines, f.interfaces = 1000, []string{"Thing"}
			}),
				changeFile(sourceSample("pipeline/state/a_test.go"), func(f *goFile) {
					f.interfaces = []string{"Fake"}
				})}},
		{"narrow lines", narrowLines, map[string]repo{
			"a.go:7: 101 columns of comment are more than 100": wideSample(wideLine{7, 101, true}),
			"a.go:9: 121 columns of code are more than 120":    wideSample(wideLine{9, 121, false}),
		}, []repo{sourceSample("pipeline/state/a.go")}},
		{"full names", fullNames, map[string]repo{
			"4 of 13 unexported functions": namesSample("pipeline/state/a.go", 13, "run", "close", "take", "keep"),
			"a.go: stand)":                 namesSample("pipeline/state/a.go", 1, "stand"),
		}, []repo{
			namesSample("pipeline/state/a.go", 14, "run", "close", "take", "keep"),
			namesSample("pipeline/state/a_test.go", 1, "stand"),
		}},
		{"no registries", noRegistries, map[string]repo{`"crates` +
			`.io"`: textSample("deploy/Dockerfile", "RUN fetch https://Crates"+".io/x"), `"proxy.golang` +
			`.org"`: textSample("README.md", "GOPROXY=https://proxy.golang"+".org")},
			[]repo{textSample("README.md", "npm pack")}},
		{"self-contained", selfContained, map[string]repo{"README.md: names": textSample("README.md", "see .."+
			"/shared/DESIGN.md"), "pipeline/DESIGN.md: names": textSample("pipeline/DESIGN.md", "in /wo"+"rk/main")},
			[]repo{textSample(".ci/run", "cd /wo"+"rk/main"), textSample("README.md", "shared state, network/x")}},
		{"named tests", namedTests, map[string]repo{
			"a/DESIGN.md:2 names TestGone, which no package has": designSample("see\n`TestGone`"),
			"names TestKills of package sink, which is in state": designSample("`sink`: `TestKills`"),
			"names BenchmarkGone": designSample(
				"| trap | `state`: `TestKills`, `BenchmarkGone` |"),
		}, []repo{designSample("`TestKills`, `state`: `TestKills`, TestGone, `Tests`, `sink`: replay tests"),
			textSample("README.md", "`TestGone`")}},
		{"named tests of the guide", namedTests,
			map[string]repo{"CONTRIBUTING.md:1 names TestGone, which": guideSample("| `state`: `TestGone` |")},
			[]repo{guideSample("| `state`: `TestKills` |")}},
		{"test variables", testVariables, map[string]repo{
			"a_test.go names " + variableName("BENCH_ROWS") + ", on which": guideSample("| `state`: `TestKills` | "+
				variableName("BENCH_ROWS")+" |", variableName("BENCH_ROWS")),
			"has a line on " + variableName("REQUIRE_NPM") + ", which no": guideSample("| `" +
				variableName("REQUIRE_NPM") +
				"` | what |"),
			"a_test.go reads " + longForm + ", and no line": guideSample("| `"+longForm+
				"` | what |\n| `sink`: `TestKills` |", longForm),
			"CONTRIBUTING.md names " + variableName("TEST_X") + ", on which": guideSample("say " +
				variableName("TEST_X") + "=1"),
		}, []repo{guideSample("| `"+longForm+"`, `"+variableName("TEST_SEED")+"` | what |\n| `state`: `TestKills` |",
			longForm, variableName("TEST_SEED")), textSample("README.md", "PARTNERS_TEST_* and "+
			variableName("BROKERS"))}},
		{"top level", topLevel, map[string]repo{"internal: the top level is": textSample("internal/x.go", ""),
			"NOTES.md: the top level is": textSample("NOTES.md", ""), "cmd: the top level is": textSample("cmd", "")},
			[]repo{textSample("cmd/x.go", ""), textSample(".ci/run", ""), textSample(".gitignore", ""),
				textSample("go.mod", ""),
				textSample(guide, "")}},
	}
}

// TestRepository applies the rules to this repository.
func TestRepository(t *testing.T) {
	r := loadRepo(t)
	for _, rule := range allRules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, finding := range rule.check(r) {
				t.Error(finding)
			}
		})
	}
}

// TestRulesCanFail applies the rules to the samples.
func TestRulesCanFail(t *testing.T) {
	for _, rule := range allRules() {
		t.Run(rule.name, func(t *testing.T) {
			if len(rule.bad) == 0 || len(rule.good) == 0 {
				t.Fatal("no samples")
			}
			for want, sample := range rule.bad {
				if got := rule.check(sample); len(got) != 1 || !strings.Contains(got[0], want) {
					t.Errorf("got %q, want one finding with %q", got, want)
				}
			}
			for _, sample := range rule.good {
				if got := rule.check(sample); len(got) > 0 {
					t.Errorf("%+v: got %q, want nothing", sample, got)
				}
			}
		})
	}
}

// TestReading checks what addFile reads, on a file that has one of everything.
func TestReading(t *testing.T) {
	var p pkg
	p.addFile(t, "cmd/x/main.go", []byte(`// Command x is a sample.
package main

import (
	alias "fmt"
	process "os"
)

type Thing interface{ Do() }

type other struct{ init int }

func (other) main() {}

func init() { alias.Println() }

func main() { process.Exit(1) }
`))
	f := p.files[0]
	if p.name != "main" || !p.doc || f.inits != 1 || !f.main || f.lines != 17 ||
		strings.Join(f.imports, " ") != "fmt os" || strings.Join(f.interfaces, " ") != "Thing" ||
		strings.Join(f.uses, " ") != "os.Exit" {
		t.Errorf("read %+v", p)
	}
	p.addFile(t, "cmd/x/x_test.go", []byte("// Package comments of tests count for nothing.\npackage "+
		"main_test\n\nfunc TestA() {}\n\nfunc (other) TestB() {}\n\nfunc Testing() {}\n"))
	if !p.files[1].test || strings.Join(p.files[1].tests, " ") != "TestA" || p.files[1].main || p.name != "main" {
		t.Errorf("read %+v", p)
	}
}

// TestReadingStyle checks which lines are wide and which names have one word.
func TestReadingStyle(t *testing.T) {
	comment, code := strings.Repeat("c", maxCommentColumns-2), strings.Repeat("1", maxCodeColumns-13)
	text := "package a\n\n//" + comment + "\n//ü" + comment + "\nfunc f() {\n\t_ = `" + code + "`\n\t_ = `" + code +
		"111`\n\t// c\n\t_ = `\n" + code + code + "`\n}\n\nfunc openFile() {}\n\nfunc (a) run_now() {}\n"
	read := func(name, header string) goFile {
		t.Helper()
		var p pkg
		p.addFile(t, name, []byte(header+text))
		return p.files[0]
	}
	f := read("a/a.go", "")
	want := []wideLine{{4, 101, true}, {7, 121, false}, {10, 215, false}}
	if !slices.Equal(f.wide, want) || f.unexported != 3 || strings.Join(f.oneWord, " ") != "f" {
		t.Errorf("read %+v", f)
	}
	if f := read("a/a_test.go", ""); !slices.Equal(f.wide, want[:1]) {
		t.Errorf("in a test: %+v", f.wide)
	}
	if f := read("a/a.go", "// Code generated by x. DO NOT EDIT.\n\n"); f.wide != nil {
		t.Errorf("in generated code: %+v", f.wide)
	}
}
