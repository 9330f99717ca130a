package deploy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/goccy/go-yaml"
	"github.com/nimriz/partners/schemas/ddl"
)

type composition struct {
	Services map[string]struct {
		Image       string
		Environment map[string]string
		Build       any
		Command     []string
		Ports       []string
		Volumes     []string
		Healthcheck struct{ Test []string }
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Networks    map[string]struct {
			Address string `yaml:"ipv4_address"`
		}
	}
	Networks map[string]struct {
		IPAM struct {
			Config []struct {
				Subnet string
				Range  string `yaml:"ip_range"`
			}
		}
	}
	Volumes map[string]any
}

// source is a data source of Grafana.
type source struct {
	Type, UID string
	JSONData  struct{ Username string } `yaml:"jsonData"`
}

// programDir is where buildPrograms puts our programs. TestMain makes and removes it.
var programDir string

func TestMain(m *testing.M) {
	var err error
	if programDir, err = os.MkdirTemp("", "partners-deploy-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(programDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// buildOnce builds our programs, once for all tests.
var buildOnce = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", programDir+"/", "github.com/nimriz/partners/cmd/redirector",
		"github.com/nimriz/partners/cmd/gateway", "github.com/nimriz/partners/cmd/processor",
		"github.com/nimriz/partners/cmd/sink",
		"github.com/nimriz/partners/cmd/report", "github.com/nimriz/partners/cmd/export",
		"github.com/nimriz/partners/cmd/ctl").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// buildPrograms returns the directory of our programs.
func buildPrograms(t *testing.T) string {
	t.Helper()
	if err := buildOnce(); err != nil {
		t.Fatalf("building the programs: %v", err)
	}
	return programDir
}

func loadYAML(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// Everything that the composition names exists: our programs and their flags, mounted
// paths, services that others wait for. All images have a version.
func TestCompose(t *testing.T) {
	var c composition
	loadYAML(t, "compose.yaml", &c)
	bin := buildPrograms(t)
	docker, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		if s.Build == nil && !regexp.MustCompile(`^[a-z/-]+:v?\d+\.\d+`).MatchString(s.Image) {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
		for other, how := range s.DependsOn {
			o, ok := c.Services[other]
			if !ok {
				t.Errorf("%s waits for %s, which there is not", name, other)
			}
			if how.Condition == "service_healthy" && len(o.Healthcheck.Test) == 0 {
				t.Errorf("%s waits for %s to be healthy, which has no health check", name, other)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(from, ".") {
				if _, ok := c.Volumes[from]; !ok {
					t.Errorf("%s: volume %s is not declared", name, from)
				}
			} else if _, err := os.Stat(from); err != nil && !slices.Contains([]string{"./secrets", "./catalog.yaml",
				"./certificates"}, from) { // which the operator creates
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, p := range s.Ports {
			if public := name == "proxy"; public == strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s; the proxy is public, all others local", name, p)
			}
		}
		if s.Build == nil {
			continue
		}
		program, rest := s.Command[0], s.Command[1:]
		if !strings.Contains(string(docker), "./cmd/"+program) {
			t.Errorf("%s: the image has no %s", name, program)
		}
		if name == "migrate" && !slices.Contains(rest, "-brokers") {
			t.Error("migrate has no -brokers: it cannot carry over the sums of an earlier release")
		}
		checkFlags(t, name, bin, s.Command)
		if program != "ctl" {
			checkValues(t, name, bin, s.Command)
			if test := s.Healthcheck.Test; len(test) < 2 || test[0] != "CMD" || test[1] != "ctl" {
				t.Errorf("%s: health check %v; want ctl ready", name, test)
			} else {
				checkFlags(t, name, bin, test[1:])
			}
		}
		for i, word := range rest {
			if host, _, ok := strings.Cut(word, ":9092"); ok && host != "kafka" || i > 0 &&
				strings.Contains(word, "@") && !strings.Contains(word, "@clickhouse:8123/partners") {
				t.Errorf("%s: %s is no service of this file", name, word)
			}
		}
	}
	checkReadme(t, bin)
	checkProxy(t, bin, c)
	var p struct {
		ScrapeConfigs []struct {
			JobName string                       `yaml:"job_name"`
			Static  []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
		Rules []string `yaml:"rule_files"`
	}
	loadYAML(t, "prometheus.yaml", &p)
	var scraped []string
	for _, j := range p.ScrapeConfigs {
		for _, target := range j.Static[0].Targets {
			host, port, _ := strings.Cut(target, ":")
			if _, ok := c.Services[host]; !ok || port != "9090" {
				t.Errorf("job %s scrapes %s", j.JobName, target)
			}
			scraped = append(scraped, host)
		}
	}
	for name, s := range c.Services {
		if daemon := s.Build != nil && s.Command[0] != "ctl"; daemon != slices.Contains(scraped, name) {
			t.Errorf("%s: scraped %v", name, slices.Contains(scraped, name))
		}
	}
	if _, err := os.Stat("../dashboards/alerts/" + p.Rules[0]); err != nil {
		t.Error(err)
	}
	if password := c.Services["grafana"].Environment["GF_SECURITY_ADMIN_PASSWORD"]; !strings.HasPrefix(password,
		"${GRAFANA_PASSWORD:?") {
		t.Errorf("Grafana's password is %q: it must be the operator's", password)
	}
	var d struct {
		Datasources []source
	}
	loadYAML(t, "grafana/provisioning/datasources/partners.yaml", &d)
	for _, kind := range []string{"prometheus", "grafana-clickhouse-datasource"} {
		if !slices.ContainsFunc(d.Datasources, func(x source) bool { return x.Type == kind }) {
			t.Errorf("no data source of type %s, which the dashboards ask for", kind)
		}
	}
	checkClickHouseUsers(t, c, d.Datasources[1].JSONData.Username)
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	loadYAML(t, "grafana/provisioning/dashboards/partners.yaml", &providers)
	if !slices.ContainsFunc(c.Services["grafana"].Volumes, func(v string) bool {
		return strings.Contains(v, "../dashboards:"+providers.Providers[0].Options.Path)
	}) {
		t.Error("the dashboards are not mounted where Grafana looks for them")
	}
}

// checkProxy checks that the proxy leads to the ports that the programs listen on, and
// that they believe it and no one else.
func checkProxy(t *testing.T, bin string, c composition) {
	t.Helper()
	config, err := os.ReadFile("nginx/partners.conf.template")
	if err != nil {
		t.Fatal(err)
	}
	address := c.Services["proxy"].Networks["default"].Address
	network := c.Networks["default"].IPAM.Config[0]
	at, err := netip.ParseAddr(address)
	subnet, err2 := netip.ParsePrefix(network.Subnet)
	others, err3 := netip.ParsePrefix(network.Range)
	if err := errors.Join(err, err2, err3); err != nil || !subnet.Contains(at) || !subnet.Contains(others.Addr()) ||
		others.Contains(at) {
		t.Errorf("the proxy's address %s, in %+v, may be another container's: %v", address, network, err)
	}
	leads := regexp.MustCompile(`set \$([a-z]+) ([a-z]+):([0-9]+);\s+proxy_pass http://\$([a-z]+);`).
		FindAllStringSubmatch(string(config), -1)
	var behind []string
	for _, m := range leads {
		service, port := m[2], m[3]
		behind = append(behind, service)
		s := c.Services[service]
		if m[1] != m[4] || s.Build == nil {
			t.Errorf("the proxy leads to %v", m[1:])
			continue
		}
		usage, _ := exec.Command(filepath.Join(bin, s.Command[0]), "-h").CombinedOutput()
		if !strings.Contains(string(usage), `(default ":`+port+`")`) {
			t.Errorf("the proxy leads to port %s of %s, which does not listen there", port, service)
		}
		line := strings.Join(s.Command, " ")
		if !strings.Contains(line, "-trusted-proxies "+address+" -forwarded-header x-forwarded-for") {
			t.Errorf("%s does not believe the proxy at %s alone: %s", service, address, line)
		}
	}
	if slices.Sort(behind); !slices.Equal(behind, []string{"gateway", "redirector", "report"}) {
		t.Errorf("behind the proxy are %v", behind)
	}
	for _, want := range []string{"proxy_set_header X-Forwarded-For $remote_addr;", "X-Forwarded-Proto $scheme;",
		"proxy_set_header Host $host;", "ssl_certificate /etc/nginx/certificates/cert.pem;",
		"ssl_certificate_key /etc/nginx/certificates/key.pem;", "\naccess_log off;", "\nerror_log stderr crit;"} {
		if !strings.Contains(string(config), want) {
			t.Errorf("the proxy's configuration lacks %q", want)
		}
	}
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)\}`).FindAllStringSubmatch(string(config), -1) {
		if !strings.HasPrefix(c.Services["proxy"].Environment[m[1]], "${"+m[1]+":?") {
			t.Errorf("the proxy's configuration asks for %s, which the operator is not made to give", m[1])
		}
	}
}

// checkClickHouseUsers checks that each service has a user of its own with the role of
// deploy/README.md, and that only the one that migrates may make roles.
func checkClickHouseUsers(t *testing.T, c composition, grafana string) {
	t.Helper()
	text, err := os.ReadFile("clickhouse/users.sql")
	admin, err2 := os.ReadFile("clickhouse/admin.xml")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	roles := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^GRANT ([a-z_]+) TO ([a-z, ]+);$`).FindAllStringSubmatch(string(text), -1) {
		for user := range strings.SplitSeq(m[2], ", ") {
			roles[user] = m[1]
		}
	}
	known := strings.Join(ddl.Roles("partners"), "\n")
	for user, role := range roles {
		if !strings.Contains(string(text), "CREATE USER IF NOT EXISTS "+user+" ") ||
			!strings.Contains(known, "CREATE ROLE IF NOT EXISTS "+role) {
			t.Errorf("users.sql gives %s to %s, one of which is not made", role, user)
		}
	}
	if !strings.Contains(string(text), "CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH no_password SETTINGS "+
		"readonly = 2;") || grafana != "grafana" {
		t.Errorf("Grafana asks as %q, who may write", grafana)
	}
	want := map[string]string{"sink": "partners_writer", "report": "partners_every_workspace",
		"export": "partners_every_workspace", "grafana": "partners_every_workspace"}
	if !maps.Equal(roles, want) {
		t.Errorf("users and roles: %v, want %v", roles, want)
	}
	if !strings.Contains(string(admin), "<access_management>1</access_management>") {
		t.Error("the user admin cannot make roles")
	}
	for name, s := range c.Services {
		m := regexp.MustCompile(`http://([a-z]+)@clickhouse`).FindStringSubmatch(strings.Join(s.Command, " "))
		if m == nil {
			continue
		}
		if user := m[1]; name == "migrate" && user != "admin" || name != "migrate" && user != name {
			t.Errorf("%s asks ClickHouse as %s", name, user)
		}
	}
}

// checkFlags checks that a program has the flags of a command line.
func checkFlags(t *testing.T, where, bin string, command []string) {
	t.Helper()
	usage := usageOf(t, where, bin, command)
	for _, word := range command[1:] {
		if strings.HasPrefix(word, "-") && !hasFlag(usage, word) {
			t.Errorf("%s: %s has no flag %s", where, command[0], word)
		}
	}
}

// checkValues checks that a daemon takes the values of a command line: it reads all of them
// before the last flag, which asks for help.
func checkValues(t *testing.T, where, bin string, command []string) {
	t.Helper()
	args := append(slices.Clone(command[1:]), "-h")
	if said, err := exec.CommandContext(t.Context(), filepath.Join(bin, command[0]),
		args...).CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(string(said), "\n")
		t.Errorf("%s: %s does not take its flags: %v: %s", where, command[0], err, first)
	}
}

// usageOf returns what a program says of its flags, or those of the command of ctl that
// a command line begins with.
func usageOf(t *testing.T, where, bin string, command []string) string {
	t.Helper()
	help := []string{}
	for _, word := range command[1:] {
		if strings.HasPrefix(word, "-") {
			break
		}
		if regexp.MustCompile(`^[a-z-]+$`).MatchString(word) { // no file, and no placeholder
			help = append(help, word)
		}
	}
	usage, err := exec.Command(filepath.Join(bin, command[0]), append(help, "-h")...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %s %s: %v", where, command[0], strings.Join(help, " "), err)
	}
	return string(usage)
}

// checkReadme checks that the flags of the commands in deploy/README.md exist, that all
// daemons are among the commands, and that no two daemons share an address.
func checkReadme(t *testing.T, bin string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{} // by address, the program
	for _, m := range regexp.MustCompile(`(?m)^\$ bin/([^#\n]*)`).FindAllStringSubmatch(string(text), -1) {
		command := strings.Fields(m[1])
		checkFlags(t, "deploy/README.md", bin, command)
		for i, word := range command {
			if word == "-admin-listen" {
				if other := at[command[i+1]]; other != "" {
					t.Errorf("deploy/README.md: %s and %s both listen on %s", command[0], other, command[i+1])
				}
				at[command[i+1]] = command[0]
			}
		}
	}
	if len(at) != 6 {
		t.Errorf("deploy/README.md starts %v", at)
	}
}

// compose.yaml is valid by the official Compose schema, and the schema rejects
// mistakes.
func TestComposeSchema(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(text string) error {
		t.Helper()
		var c map[string]any
		if err := yaml.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(c)
	}
	if err := valid(string(text)); err != nil {
		t.Error(err)
	}
	for old, mistake := range map[string]string{
		"restart: unless-stopped":        "restarts: unless-stopped",
		"service_completed_successfully": "service_completed",
		"retries: 24":                    "retries: [24]",
		"depends_on: *after":             "depends_on: after",
		"ports: [":                       "port: [",
		"\nvolumes: {":                   "\nvolume: {",
		"ulimits: {nofile: 262144}":      "ulimits: {nofile: [262144]}",
		"healthcheck: #":                 "health_check: #",
		"networks: {default: {ipv4":      "networks: {default: {ip4",
	} {
		if !strings.Contains(string(text), old) {
			t.Errorf("the file has no %q to change", old)
		} else if valid(strings.Replace(string(text), old, mistake, 1)) == nil {
			t.Errorf("%q is valid", mistake)
		}
	}
}
