package repolint

import (
	"strings"
	"testing"
)

// rule finds what is wrong in a repository; each finding says the fix.
type rule struct {
	name  string
	check func(repo) []string
	// bad are samples, each of which must give one finding with the text that is its
	// key; good must give none.
	bad  map[string]repo
	good []repo
}

// source is a repository of one package with one file that imports targets.
func source(file string, targets ...string) repo {
	dir := file[:strings.LastIndexByte(file, '/')]
	return repo{pkgs: []pkg{{path: dir, name: dir[strings.LastIndexByte(dir, '/')+1:], files: []goFile{{
		name:    file,
		test:    strings.HasSuffix(file, "_test.go"),
		lines:   10,
		imports: targets,
	}}}}}
}

// with changes the only file of a repository.
func with(r repo, change func(*goFile)) repo {
	change(&r.pkgs[0].files[0])
	return r
}

// documented is a repository with one test, TestKills in pipeline/state, and a
// document.
func documented(text string) repo {
	r := with(source("pipeline/state/a_test.go"), func(f *goFile) { f.tests = []string{"TestKills"} })
	r.files = []textFile{{"a/DESIGN.md", text}}
	return r
}

// steered is a repository whose package pipeline/state has a test, TestKills, that
// reads variables, and with a guide.
func steered(guided string, variables ...string) repo {
	r := documented("")
	r.pkgs[0].files[0].variables = variables
	r.files = []textFile{{"pipeline/state/a_test.go", strings.Join(variables, " ")}, {guide, guided}}
	return r
}

// variable is put together so that this file is not a finding.
func variable(name string) string { return "PARTNERS_" + name }

// text is a repository of one file.
func text(path, content string) repo { return repo{files: []textFile{{path, content}}} }

func rules() []rule {
	own := func(path string) string { return module + "/" + path }
	return []rule{
		{"ladder", ladder, map[string]repo{
			"schemas/event/a.go imports " + own("pipeline/token"): source("schemas/event/a.go", own("pipeline/token")),
			"pass in what it needs": source("pipeline/state/a.go",
				own("connectors/sink")),
			"nothing imports cmd": source("connectors/sink/a_test.go", own("cmd/internal/daemon")),
		}, []repo{source("cmd/sink/main.go", own("connectors/sink"), own("pipeline/kafka"), own("schemas/event")),
			source("pipeline/a/a.go", own("schemas/event"), "fmt")}},
		{"adapters", adapters, map[string]repo{
			"kafka, token and outage":    source("connectors/sink/a.go", own("pipeline/state")),
			"its tests also":             source("connectors/sink/a.go", own("pipeline/kafka/kafkatest")),
			"do not import each other":   source("connectors/sink/a.go", own("connectors/redirect")),
			"clickhouse by sink, export": source("connectors/ingest/a.go", own("connectors/clickhouse")),
			"a_test.go imports " + module: source("connectors/ingest/a_test.go",
				own("connectors/clickhouse/clickhousetest")),
		}, []repo{source("connectors/sink/a_test.go", own("pipeline/kafka/kafkatest"),
			own("connectors/clickhouse/clickhousetest")), source("connectors/ingest/a.go", own("connectors/signature"),
			own("pipeline/token"), own("pipeline/kafka"), own("pipeline/outage")),
			source("connectors/clickhouse/embedded/a.go", own("connectors/clickhouse"))}},
		{"judges", judges, map[string]repo{
			"the oracle may share nothing": source("pipeline/oracle/a.go", own("pipeline/attribution")),
			"HTTP for the rest":            source("cmd/demo/internal/traffic/a.go", own("connectors/signature")),
		}, []repo{source("pipeline/oracle/a_test.go", own("schemas/event"), own("pipeline/oracle")),
			source("cmd/demo/internal/traffic/a.go", own("schemas/catalog"), own("pipeline/oracle"),
				own("pipeline/token"))}},
		{"one door", oneDoor, map[string]repo{
			"its door is pipeline/state:": source("pipeline/clicklog/a.go",
				"github.com/cockroachdb/pebble/v2"),
			"its door is pipeline/state, pipeline/clicklog": source("connectors/sink/a.go",
				"github.com/cockroachdb/pebble/v2/vfs"),
			"not in this repository": source("pipeline/state/a.go", "github.com/cockroachdb/pebble"),
			"its door is connectors/clickhouse:": source("connectors/sink/a.go",
				"github.com/ClickHouse/clickhouse-go/v2/lib/driver"),
			"ch-go/proto":          source("connectors/export/a_test.go", "github.com/ClickHouse/ch-go/proto"),
			"goose/v3":             source("schemas/ddl/a.go", "github.com/pressly/goose/v3"),
			"purego":               source("connectors/clickhouse/a.go", "github.com/ebitengine/purego"),
			"kafkatest: ask there": source("cmd/demo/main.go", "github.com/twmb/franz-go/pkg/kfake"),
			"connectors/ingest/a_test.go imports github.com/twmb/f": source("connectors/ingest/a_test.go",
				"github.com/twmb/franz-go/pkg/kfake"),
			"its door is schemas/event": source("connectors/sink/a.go", "github.com/linkedin/goavro/v2"),
		}, []repo{source("pipeline/clicklog/a.go", "github.com/cockroachdb/pebble/v2/vfs"),
			source("pipeline/clicklog/bench_test.go", "github.com/cockroachdb/pebble/v2"),
			source("pipeline/processor/a_test.go", "github.com/twmb/franz-go/pkg/kfake"), source("pipeline/state/a.go",
				"github.com/cockroachdb/pebble/v2", "github.com/cockroachdb/pebble/v2/sstable"),
			source("cmd/ctl/a.go", "github.com/twmb/franz-go/pkg/kgo")}},
		{"process", process, map[string]repo{
			"imports flag": source("pipeline/state/a.go", "flag"),
			"uses os.Exit": with(source("schemas/event/a.go"), func(f *goFile) { f.uses = []string{"os.Exit"} }),
			"uses os.Getenv": with(source("connectors/sink/a.go"), func(f *goFile) {
				f.uses = []string{"os.ReadFile", "os.Getenv"}
			}),
		}, []repo{source("cmd/a/main.go", "flag"), source("pipeline/a/a_test.go", "flag"),
			with(source("pipeline/kafka/kafkatest/a.go"), func(f *goFile) {
				f.uses = []string{"os.Getenv"}
			})}},
		{"package names", packageNames, map[string]repo{"package pipeline/util": source("pipeline/util/a.go")},
			[]repo{source("pipeline/state/a.go")}},
		{"package comments", packageComments,
			map[string]repo{"package pipeline/state has no": source("pipeline/state/a.go")},
			[]repo{source("cmd/a/a_test.go")}},
		{"no init", noInit, map[string]repo{"a.go has an init": with(source("pipeline/state/a.go"), func(f *goFile) {
			f.inits = 1
		})}, []repo{source("pipeline/state/a.go")}},
		{"short mains", shortMains, map[string]repo{"has 121 lines": with(source("cmd/sink/main.go"), func(f *goFile) {
			f.main, f.lines = true, 121
		})},
			[]repo{with(source("cmd/sink/main.go"), func(f *goFile) {
				f.main, f.lines = true, 120
			}), with(source("cmd/sink/more.go"), func(f *goFile) { f.lines = 500 })}},
		{"few interfaces", fewInterfaces, map[string]repo{"(pipeline/state/a.go Thing)": with(
			source("pipeline/state/a.go"), func(f *goFile) {
				f.lines, f.interfaces = 999, []string{"Thing"}
			})},
			[]repo{with(source("pipeline/state/a.go"), func(f *goFile) {
				f.lines, f.interfaces = 1000, []string{"Thing"}
			}),
				with(source("pipeline/state/a_test.go"), func(f *goFile) { f.interfaces = []string{"Fake"} })}},
		{"no registries", noRegistries, map[string]repo{`"crates` +
			`.io"`: text("deploy/Dockerfile", "RUN fetch https://Crates"+".io/x"), `"proxy.golang` +
			`.org"`: text("README.md", "GOPROXY=https://proxy.golang"+".org")},
			[]repo{text("README.md", "npm pack")}},
		{"stands alone", standsAlone, map[string]repo{"README.md: names": text("README.md", "see .."+
			"/shared/DESIGN.md"), "pipeline/DESIGN.md: names": text("pipeline/DESIGN.md", "in /wo"+"rk/main")},
			[]repo{text(".ci/run", "cd /wo"+"rk/main"), text("README.md", "shared state, network/x")}},
		{"named tests", namedTests, map[string]repo{
			"a/DESIGN.md:2 names TestGone, which no package has": documented("see\n`TestGone`"),
			"names TestKills of package sink, which is in state": documented("`sink`: `TestKills`"),
			"names BenchmarkGone": documented(
				"| trap | `state`: `TestKills`, `BenchmarkGone` |"),
		}, []repo{documented("`TestKills`, `state`: `TestKills`, TestGone, `Tests`, `sink`: replay tests"),
			text("README.md", "`TestGone`")}},
		{"named tests of the guide", namedTests,
			map[string]repo{"CONTRIBUTING.md:1 names TestGone, which": steered("| `state`: `TestGone` |")},
			[]repo{steered("| `state`: `TestKills` |")}},
		{"test variables", testVariables, map[string]repo{
			"a_test.go names " + variable("BENCH_ROWS") + ", on which": steered("| `state`: `TestKills` | "+
				variable("BENCH_ROWS")+" |", variable("BENCH_ROWS")),
			"has a line on " + variable("REQUIRE_NPM") + ", which no": steered("| `" + variable("REQUIRE_NPM") +
				"` | what |"),
			"a_test.go reads " + longForm + ", and no line": steered("| `"+longForm+
				"` | what |\n| `sink`: `TestKills` |", longForm),
			"CONTRIBUTING.md names " + variable("TEST_X") + ", on which": steered("say " + variable("TEST_X") + "=1"),
		}, []repo{steered("| `"+longForm+"`, `"+variable("TEST_SEED")+"` | what |\n| `state`: `TestKills` |",
			longForm, variable("TEST_SEED")), text("README.md", "PARTNERS_TEST_* and "+variable("BROKERS"))}},
		{"top level", topLevel, map[string]repo{"internal: the top level is": text("internal/x.go", ""),
			"NOTES.md: the top level is": text("NOTES.md", ""), "cmd: the top level is": text("cmd", "")},
			[]repo{text("cmd/x.go", ""), text(".ci/run", ""), text(".gitignore", ""), text("go.mod", ""),
				text(guide, "")}},
	}
}

// TestRepository holds the rules against this repository.
func TestRepository(t *testing.T) {
	r := load(t)
	for _, rule := range rules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, finding := range rule.check(r) {
				t.Error(finding)
			}
		})
	}
}

// TestRulesCanFail holds samples against the rules.
func TestRulesCanFail(t *testing.T) {
	for _, rule := range rules() {
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

// TestReading checks what the rules are given, on a file that has one of everything.
func TestReading(t *testing.T) {
	var p pkg
	p.add(t, "cmd/x/main.go", []byte(`// Command x is a sample.
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
	p.add(t, "cmd/x/x_test.go", []byte("// Package comments of tests count for nothing.\npackage "+
		"main_test\n\nfunc TestA() {}\n\nfunc (other) TestB() {}\n\nfunc Testing() {}\n"))
	if !p.files[1].test || strings.Join(p.files[1].tests, " ") != "TestA" || p.files[1].main || p.name != "main" {
		t.Errorf("read %+v", p)
	}
}
