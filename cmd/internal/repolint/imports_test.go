package repolint

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// eachImport collects the findings of see about each import of each Go file.
func eachImport(r repo, see func(p pkg, f goFile, target string) string) (bad []string) {
	for _, p := range r.pkgs {
		for _, f := range p.files {
			for _, target := range f.imports {
				if text := see(p, f, target); text != "" {
					bad = append(bad, fmt.Sprintf("%s imports %s: %s", f.name, target, text))
				}
			}
		}
	}
	return bad
}

// eachOwnImport is eachImport for imports of this module. target is the path from its
// root.
func eachOwnImport(r repo, see func(p pkg, f goFile, target string) string) []string {
	return eachImport(r, func(p pkg, f goFile, target string) string {
		if own, ok := strings.CutPrefix(target, module+"/"); ok {
			return see(p, f, own)
		}
		return ""
	})
}

// isWithin reports whether path is one of dirs or below one.
func isWithin(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// importLadder: cmd → {connectors, pipeline} → schemas.
func importLadder(r repo) []string {
	return eachOwnImport(r, func(p pkg, _ goFile, target string) string {
		switch {
		case isWithin(target, "cmd") && !isWithin(p.path, "cmd"):
			return "nothing imports cmd: what others need belongs below it"
		case isWithin(p.path, "schemas") && !isWithin(target, "schemas"):
			return "schemas imports nothing above it: move the type that is needed into schemas"
		case isWithin(p.path, "pipeline") && isWithin(target, "connectors"):
			return "the engine does not know the connectors: pass in from cmd what it needs"
		}
		return ""
	})
}

// connectorImports: each connector can be deleted without touching another.
func connectorImports(r repo) []string {
	return eachOwnImport(r, func(p pkg, f goFile, target string) string {
		if !isWithin(p.path, "connectors") {
			return ""
		}
		if isWithin(target, "pipeline") {
			ok := target == "pipeline/kafka" || target == "pipeline/token" || target == "pipeline/outage" || f.test &&
				isWithin(target, "pipeline/kafka")
			if ok {
				return ""
			}
			return "of pipeline a connector may use kafka, token and outage alone (its tests also what is below " +
				"kafka): pass the rest in as a function from cmd"
		}
		from, to := connectorName(p.path), connectorName(target)
		if to == "" || from == to || to == "signature" || slices.Contains(sharedConnectors[to], from) {
			return ""
		}
		return "connectors do not import each other (but signature, clickhouse by sink, export and report, and " +
			"forwarded by redirect, ingest and report): let cmd put them together"
	})
}

// sharedConnectors are connectors that some others may import.
var sharedConnectors = map[string][]string{
	"clickhouse": {"sink", "export", "report"},
	"forwarded":  {"redirect", "ingest", "report"},
}

// connectorName returns the connector that a path belongs to, "" for none.
func connectorName(path string) string {
	below, ok := strings.CutPrefix(path, "connectors/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(below, "/")
	return name
}

// independentJudges: the oracle is a second implementation, the verifier applies the
// rules to nothing but records, and the traffic knows the pipeline only from outside.
func independentJudges(r repo) []string {
	return eachOwnImport(r, func(p pkg, f goFile, target string) string {
		switch {
		case isWithin(p.path, "pipeline/verify") && !f.test && !isWithin(target, "schemas", "pipeline/attribution",
			"pipeline/kafka", "pipeline/token"):
			return "the verifier may use schemas, pipeline/attribution, pipeline/kafka and pipeline/token alone: " +
				"what the processor keeps is what it verifies"
		case isWithin(p.path, "pipeline/oracle") && !isWithin(target, "schemas/event", "pipeline/oracle"):
			return "the oracle may share nothing with the pipeline but schemas/event"
		case isWithin(p.path, "cmd/demo/internal/traffic") &&
			!isWithin(target, "schemas", "pipeline/oracle", "pipeline/token", "cmd/demo/internal/traffic"):
			return "the traffic may use schemas, pipeline/oracle and pipeline/token alone, and HTTP for the rest"
		}
		return ""
	})
}

// door is where a library may be imported.
type door struct {
	library string   // import path, including all below it
	in      []string // packages that may import it
	tests   []string // packages whose _test.go may import it too, including all below them
}

// doors lists the libraries with a door. The first match decides.
var doors = []door{
	{"github.com/cockroachdb/pebble/v2/vfs", []string{"pipeline/state", "pipeline/clicklog", "pipeline/engine",
		"pipeline/processor", "pipeline/simtest"}, nil},
	{"github.com/cockroachdb/pebble/v2", []string{"pipeline/state"}, []string{"pipeline/clicklog"}},
	{"github.com/cockroachdb/pebble", nil, nil}, // version 1
	{"github.com/ClickHouse/clickhouse-go", []string{"connectors/clickhouse"}, nil},
	{"github.com/ClickHouse/ch-go", []string{"connectors/clickhouse", "connectors/clickhouse/embedded"}, nil},
	{"github.com/pressly/goose", []string{"connectors/clickhouse"}, nil},
	{"github.com/ebitengine/purego", []string{"connectors/clickhouse/embedded"}, nil},
	{"github.com/twmb/franz-go/pkg/kfake", []string{"pipeline/kafka/embedded", "pipeline/kafka/kafkatest"},
		[]string{"pipeline", "connectors/sink"}},
	{"github.com/linkedin/goavro", []string{"schemas/event"}, nil},
	{"github.com/pires/go-proxyproto", []string{"connectors/forwarded"}, nil},
}

// oneDoor: one place knows each third-party library.
func oneDoor(r repo) []string {
	return eachImport(r, func(p pkg, f goFile, target string) string {
		i := slices.IndexFunc(doors, func(d door) bool { return isWithin(target, d.library) })
		if i < 0 || slices.Contains(doors[i].in, p.path) || f.test && isWithin(p.path, doors[i].tests...) {
			return ""
		}
		if len(doors[i].in) == 0 {
			return "not in this repository"
		}
		return "its door is " + strings.Join(doors[i].in, ", ") + ": add there what is missing"
	})
}

// processAccess: only programs exit, declare flags and read the environment. Packages
// named …test count as tests.
func processAccess(r repo) (bad []string) {
	for _, p := range r.pkgs {
		if isWithin(p.path, "cmd") || strings.HasSuffix(path.Base(p.path), "test") {
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			if slices.Contains(f.imports, "flag") {
				bad = append(bad, f.name+" imports flag: take a Config, and let cmd fill it")
			}
			for _, use := range f.uses {
				if slices.Contains([]string{"os.Exit", "os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv"},
					use) {
					bad = append(bad, fmt.Sprintf("%s uses %s: return an error, take a Config, and leave the "+
						"process to cmd", f.name, use))
				}
			}
		}
	}
	return bad
}
