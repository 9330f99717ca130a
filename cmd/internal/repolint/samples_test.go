package repolint

import (
	"slices"
	"strings"
)

func allRules() []rule {
	return slices.Concat(importRules(), formRules(), styleRules(), textRules(), guideRules())
}

// own returns the import path of a package of this module.
func own(path string) string { return module + "/" + path }

func importRules() []rule {
	const (
		pebble = "github.com/cockroachdb/pebble/v2"
		kfake  = "github.com/twmb/franz-go/pkg/kfake"
	)
	return []rule{
		{"ladder", importLadder, map[string]repo{
			"schemas/event/a.go imports " + own("pipeline/token"): sourceSample("schemas/event/a.go",
				own("pipeline/token")),
			"pass in from cmd":    sourceSample("pipeline/state/a.go", own("connectors/sink")),
			"nothing imports cmd": sourceSample("connectors/sink/a_test.go", own("cmd/internal/daemon")),
		}, []repo{
			sourceSample("cmd/sink/main.go", own("connectors/sink"), own("pipeline/kafka"), own("schemas/event")),
			sourceSample("pipeline/a/a.go", own("schemas/event"), "fmt"),
		}},
		{"adapters", connectorImports, map[string]repo{
			"kafka, token and outage":    sourceSample("connectors/sink/a.go", own("pipeline/state")),
			"its tests also":             sourceSample("connectors/sink/a.go", own("pipeline/kafka/kafkatest")),
			"do not import each other":   sourceSample("connectors/sink/a.go", own("connectors/redirect")),
			"clickhouse by sink, export": sourceSample("connectors/ingest/a.go", own("connectors/clickhouse")),
			"forwarded by redirect":      sourceSample("connectors/sink/a.go", own("connectors/forwarded")),
			"a_test.go imports " + module: sourceSample("connectors/ingest/a_test.go",
				own("connectors/clickhouse/clickhousetest")),
		}, []repo{
			sourceSample("connectors/sink/a_test.go", own("pipeline/kafka/kafkatest"),
				own("connectors/clickhouse/clickhousetest")),
			sourceSample("connectors/ingest/a.go", own("connectors/signature"), own("pipeline/token"),
				own("pipeline/kafka"), own("pipeline/outage")),
			sourceSample("connectors/clickhouse/embedded/a.go", own("connectors/clickhouse")),
			sourceSample("connectors/report/web/a.go", own("connectors/forwarded")),
		}},
		{"judges", independentJudges, map[string]repo{
			"the oracle may share nothing": sourceSample("pipeline/oracle/a.go", own("pipeline/attribution")),
			"HTTP for the rest":            sourceSample("cmd/demo/internal/traffic/a.go", own("connectors/signature")),
			"the verifier may use":         sourceSample("pipeline/verify/a.go", own("pipeline/processor")),
		}, []repo{
			sourceSample("pipeline/verify/a.go", own("pipeline/attribution"), own("pipeline/kafka"),
				own("schemas/event")),
			sourceSample("pipeline/verify/a_test.go", own("pipeline/processor")),
			sourceSample("pipeline/oracle/a_test.go", own("schemas/event"), own("pipeline/oracle")),
			sourceSample("cmd/demo/internal/traffic/a.go", own("schemas/catalog"), own("pipeline/oracle"),
				own("pipeline/token")),
		}},
		{"one door", oneDoor, map[string]repo{
			"its door is pipeline/state:":                   sourceSample("pipeline/clicklog/a.go", pebble),
			"its door is pipeline/state, pipeline/clicklog": sourceSample("connectors/sink/a.go", pebble+"/vfs"),
			"not in this repository": sourceSample("pipeline/state/a.go",
				"github.com/cockroachdb/pebble"),
			"its door is connectors/clickhouse:": sourceSample("connectors/sink/a.go",
				"github.com/ClickHouse/clickhouse-go/v2/lib/driver"),
			"ch-go/proto": sourceSample("connectors/export/a_test.go", "github.com/ClickHouse/ch-go/proto"),
			"goose/v3":    sourceSample("schemas/ddl/a.go", "github.com/pressly/goose/v3"),
			"purego":      sourceSample("connectors/clickhouse/a.go", "github.com/ebitengine/purego"),

			"kafkatest: add there":                sourceSample("cmd/demo/main.go", kfake),
			"connectors/ingest/a_test.go imports": sourceSample("connectors/ingest/a_test.go", kfake),

			"its door is schemas/event": sourceSample("connectors/sink/a.go", "github.com/linkedin/goavro/v2"),

			"its door is connectors/forwarded": sourceSample("cmd/gateway/main.go", "github.com/pires/go-proxyproto"),
		}, []repo{
			sourceSample("pipeline/clicklog/a.go", pebble+"/vfs"),
			sourceSample("pipeline/clicklog/bench_test.go", pebble),
			sourceSample("pipeline/processor/a_test.go", kfake),
			sourceSample("pipeline/state/a.go", pebble, pebble+"/sstable"),
			sourceSample("cmd/ctl/a.go", "github.com/twmb/franz-go/pkg/kgo"),
		}},
		{"process", processAccess, map[string]repo{
			"imports flag":   sourceSample("pipeline/state/a.go", "flag"),
			"uses os.Exit":   usingSample("schemas/event/a.go", "os.Exit"),
			"uses os.Getenv": usingSample("connectors/sink/a.go", "os.ReadFile", "os.Getenv"),
		}, []repo{
			sourceSample("cmd/a/main.go", "flag"),
			sourceSample("pipeline/a/a_test.go", "flag"),
			usingSample("pipeline/kafka/kafkatest/a.go", "os.Getenv"),
		}},
	}
}

// usingSample is a repository with one file that uses functions of package os.
func usingSample(file string, uses ...string) repo {
	return changeFile(sourceSample(file), func(f *goFile) { f.uses = uses })
}

func formRules() []rule {
	withInit := changeFile(sourceSample("pipeline/state/a.go"), func(f *goFile) { f.inits = 1 })
	withMain := func(lines int) repo {
		return changeFile(sourceSample("cmd/sink/main.go"), func(f *goFile) {
			f.main = true
			f.lines = lines
		})
	}
	withInterface := func(file string, lines int) repo {
		return changeFile(sourceSample(file), func(f *goFile) {
			f.lines = lines
			f.interfaces = []string{"Thing"}
		})
	}
	return []rule{
		{"package names", packageNames, map[string]repo{
			"package pipeline/util": sourceSample("pipeline/util/a.go"),
		}, []repo{sourceSample("pipeline/state/a.go")}},
		{"package comments", packageComments, map[string]repo{
			"package pipeline/state has no": sourceSample("pipeline/state/a.go"),
		}, []repo{sourceSample("cmd/a/a_test.go")}},
		{"no init", noInit, map[string]repo{
			"a.go has an init": withInit,
		}, []repo{sourceSample("pipeline/state/a.go")}},
		{"short mains", shortMains, map[string]repo{
			"has 121 lines": withMain(121),
		}, []repo{
			withMain(120),
			changeFile(sourceSample("cmd/sink/more.go"), func(f *goFile) { f.lines = 500 }),
		}},
		{"few interfaces", fewInterfaces, map[string]repo{
			"(pipeline/state/a.go Thing)": withInterface("pipeline/state/a.go", 999),
		}, []repo{
			withInterface("pipeline/state/a.go", 1000),
			withInterface("pipeline/state/a_test.go", 10),
		}},
	}
}

func styleRules() []rule {
	withWide := func(w wideLine) repo {
		return changeFile(sourceSample("pipeline/state/a.go"), func(f *goFile) { f.wide = []wideLine{w} })
	}
	withNames := func(file string, unexported int, oneWord ...string) repo {
		return changeFile(sourceSample(file), func(f *goFile) {
			f.unexported = unexported
			f.oneWord = oneWord
		})
	}
	return []rule{
		{"narrow lines", narrowLines, map[string]repo{
			"a.go:7: 101 columns of comment are more than 100": withWide(wideLine{7, 101, true}),
			"a.go:9: 121 columns of code are more than 120":    withWide(wideLine{9, 121, false}),
		}, []repo{sourceSample("pipeline/state/a.go")}},
		{"full names", fullNames, map[string]repo{
			"4 of 13 unexported functions": withNames("pipeline/state/a.go", 13, "run", "close", "take", "keep"),
			"a.go: stand)":                 withNames("pipeline/state/a.go", 1, "stand"),
		}, []repo{
			withNames("pipeline/state/a.go", 14, "run", "close", "take", "keep"),
			withNames("pipeline/state/a_test.go", 1, "stand"),
		}},
	}
}

// textRules: samples are split so that this file is no finding.
func textRules() []rule {
	return []rule{
		{"no registries", noRegistries, map[string]repo{
			`"crates` + `.io"`:        textSample("deploy/Dockerfile", "RUN fetch https://Crates"+".io/x"),
			`"proxy.golang` + `.org"`: textSample("README.md", "GOPROXY=https://proxy.golang"+".org"),
		}, []repo{textSample("README.md", "npm pack")}},
		{"self-contained", selfContained, map[string]repo{
			"README.md: names":          textSample("README.md", "see .."+"/shared/DESIGN.md"),
			"pipeline/DESIGN.md: names": textSample("pipeline/DESIGN.md", "in /wo"+"rk/main"),
		}, []repo{
			textSample(".ci/run", "cd /wo"+"rk/main"),
			textSample("README.md", "shared state, network/x"),
		}},
		{"top level", topLevel, map[string]repo{
			"internal: the top level is": textSample("internal/x.go", ""),
			"NOTES.md: the top level is": textSample("NOTES.md", ""),
			"cmd: the top level is":      textSample("cmd", ""),
		}, []repo{
			textSample("cmd/x.go", ""),
			textSample(".ci/run", ""),
			textSample(".gitignore", ""),
			textSample("go.mod", ""),
			textSample(guide, ""),
		}},
	}
}

func guideRules() []rule {
	var (
		benchRows  = variableName("BENCH_ROWS")
		requireNPM = variableName("REQUIRE_NPM")
		testSeed   = variableName("TEST_SEED")
		testX      = variableName("TEST_X")
	)
	// line returns a line of the guide's table of variables.
	line := func(variables ...string) string { return "| `" + strings.Join(variables, "`, `") + "` | what |\n" }
	return []rule{
		{"named tests", namedTests, map[string]repo{
			"a/DESIGN.md:2 names TestGone, which no package has": designSample("see\n`TestGone`"),
			"names TestKills of package sink, which is in state": designSample("`sink`: `TestKills`"),
			"CONTRIBUTING.md:1 names TestGone, which no package": guideSample("| `state`: `TestGone` |"),
			"names BenchmarkGone": designSample(
				"| trap | `state`: `TestKills`, `BenchmarkGone` |"),
		}, []repo{
			designSample("`TestKills`, `state`: `TestKills`, TestGone, `Tests`, `sink`: replay tests"),
			textSample("README.md", "`TestGone`"),
			guideSample("| `state`: `TestKills` |"),
		}},
		{"test variables", testVariables, map[string]repo{
			"a_test.go names " + benchRows + ", on which": guideSample("| `state`: `TestKills` | "+benchRows+" |",
				benchRows),
			"has a line on " + requireNPM + ", which no": guideSample(line(requireNPM)),
			"a_test.go reads " + longForm + ", and no line": guideSample(line(longForm)+"| `sink`: `TestKills` |",
				longForm),
			"CONTRIBUTING.md names " + testX + ", on which": guideSample("say " + testX + "=1"),
		}, []repo{
			guideSample(line(longForm, testSeed)+"| `state`: `TestKills` |", longForm, testSeed),
			textSample("README.md", "PARTNERS_TEST_* and "+variableName("BROKERS")),
		}},
	}
}
