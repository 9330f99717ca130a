package dashboards

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// runPromtool runs a command of promtool. Without promtool it skips the test, or fails
// it if PARTNERS_REQUIRE_PROMTOOL is 1.
func runPromtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("PARTNERS_REQUIRE_PROMTOOL") == "1" {
			t.Fatal("PARTNERS_REQUIRE_PROMTOOL=1, and there is no promtool in PATH")
		}
		t.Skip("SKIP: no promtool in PATH (Debian: apt-get install prometheus)")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "alerts"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestAlertsFire(t *testing.T) {
	runPromtool(t, "check", "rules", "partners.yaml")
	runPromtool(t, "test", "rules", "partners_test.yaml", "partners_days_test.yaml")
}

// Each alert has a severity, a summary, a test, and a section in the runbook with
// cause, check and action.
func TestRunbook(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	read := func(file string) string {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := yaml.Unmarshal([]byte(read("alerts/partners.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	book, tests := read("../deploy/RUNBOOK.md"), read("alerts/partners_test.yaml")
	alerts, procedures, _ := strings.Cut(book, "\n# Procedures\n")
	for _, p := range []string{"Upgrade", "Backup and restore", "Add a workspace", "Rotate a secret"} {
		if !strings.Contains(procedures, "\n## "+p+"\n") {
			t.Errorf("the runbook lacks the procedure %q", p)
		}
	}
	sections := map[string]string{}
	for _, s := range strings.Split(alerts, "\n## ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		sections[name] = text
	}
	n := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			if s := r.Labels["severity"]; s != "page" && s != "warn" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["runbook"] != "RUNBOOK.md#"+strings.ToLower(r.Alert) {
				t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
			}
			for _, part := range []string{"**Cause.**", "**Check.**", "**Action.**"} {
				if !strings.Contains(sections[r.Alert], part) {
					t.Errorf("the runbook's section %s lacks %s", r.Alert, part)
				}
			}
			if !strings.Contains(tests, "- name: "+r.Alert+"\n") {
				t.Errorf("%s has no test", r.Alert)
			}
			delete(sections, r.Alert)
		}
	}
	if n < 10 || len(sections) > 0 {
		t.Errorf("%d alerts; sections without an alert: %v", n, sections)
	}
	// The commands in the runbook exist.
	sources, err := filepath.Glob("../cmd/ctl/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("reading the sources of ctl: %d files, %v", len(sources), err)
	}
	ctl := ""
	for _, file := range sources {
		ctl += read(file)
	}
	for _, m := range regexp.MustCompile("`ctl ([a-z-]+(?: [a-z]+)?)").FindAllStringSubmatch(book, -1) {
		if !strings.Contains(ctl, `"`+m[1]+`"`) {
			t.Errorf("the runbook names `ctl %s`", m[1])
		}
	}
}

// The rules about processes cover exactly the jobs that deploy/prometheus.yaml scrapes.
func TestJobs(t *testing.T) {
	var conf struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	for file, into := range map[string]any{"../deploy/prometheus.yaml": &conf, "alerts/partners.yaml": &rules} {
		b, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var want []string
	for _, c := range conf.ScrapeConfigs {
		want = append(want, c.JobName)
	}
	slices.Sort(want)
	exprs := map[string]string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			exprs[r.Alert] = r.Expr
		}
	}
	both := exprs["JobDown"] + exprs["SinkStopped"]
	for what, expr := range map[string]string{"JobDown and SinkStopped": both, "InstanceDown": exprs["InstanceDown"],
		"RestartLoop": exprs["RestartLoop"]} {
		var got []string
		for _, m := range regexp.MustCompile(`job=~?"([a-z|]+)"`).FindAllStringSubmatch(expr, -1) {
			got = append(got, strings.Split(m[1], "|")...)
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s: jobs %v, scraped are %v", what, got, want)
		}
	}
	for _, job := range want {
		if !strings.Contains(both, `absent(up{job="`+job+`"})`) &&
			!strings.Contains(both, `absent(avg_over_time(up{job="`+job+`"}`) {
			t.Errorf("nothing fires when the job %s has vanished", job)
		}
	}
}

// The panels of refused events count as their alert does: also what a series that is new
// begins with, which increase alone does not see.
func TestRefusedEventsPanels(t *testing.T) {
	b, err := os.ReadFile("alerts/partners.yaml")
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string) string {
		metric := "partners_ingest_workspace_" + name + "_total"
		counted := regexp.MustCompile(`\(\(` + metric + ` unless .*?\) or increase\(` + metric + `\[1h\]\)\)`)
		found := counted.FindString(string(b))
		if found == "" {
			t.Fatalf("no alert counts %s", metric)
		}
		return found
	}
	refused, accepted := of("refused"), of("accepted")
	for _, p := range loadDashboards(t)["pipeline.json"].Panels {
		for _, target := range p.Targets {
			rest := strings.NewReplacer(refused, "", accepted, "").Replace(target.Expr)
			if strings.Contains(rest, "partners_ingest_workspace_") {
				t.Errorf("%s: %s\nwant %s and %s", p.Title, target.Expr, refused, accepted)
			}
		}
	}
}
