package deploy

import (
	"flag"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

var rewrite = flag.Bool("rewrite", false, "write kubernetes/base/rules.yaml anew from dashboards/alerts/partners.yaml")

// The overlays are objects of Kubernetes, and what they name exists: our programs with
// their flags, variables, ports and directories, and each other.
func TestKubernetes(t *testing.T) {
	bin := buildPrograms(t)
	for _, c := range overlays(t) {
		t.Run(c.name, func(t *testing.T) {
			if c.namespace == nil || c.namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
				t.Errorf("the namespace is not restricted: %+v", c.namespace)
			}
			for _, w := range c.workloads {
				checkPod(t, w)
				checkVolumes(t, c, w)
				for _, container := range w.containers() {
					checkContainer(t, c, w, container, bin)
				}
				if w.isDaemon() {
					checkServed(t, c, w, bin)
				}
			}
			checkReferences(t, c)
			checkNetwork(t, c, bin)
			checkMonitor(t, c)
			checkSets(t, c)
		})
	}
}

// Mistakes in the manifests are errors, not fields without a reader.
func TestKubernetesMistakes(t *testing.T) {
	for old, mistake := range map[string]string{
		"serviceName: processor-pods":         "servicename: processor-pods",
		"ordinals: {start: 10}":               "ordinals: {begin: 10}",
		"maxUnavailable: 1, unhealthy":        "maxUnavailible: 1, unhealthy",
		"policyTypes: [Ingress, Egress]":      "policyType: [Ingress, Egress]",
		"jobLabel: app":                       "joblabel: app",
		"concurrencyPolicy: Forbid":           "concurrency: Forbid",
		"ttlSecondsAfterFinished: 86400":      "ttlSecondsAfterFinished: 24h",
		"readOnlyRootFilesystem: true, capab": "readOnlyRootFileSystem: true, capab",
		"    groups:":                         "    group:",
	} {
		found := false
		_, err := render(t, "small", func(path, text string) string {
			if path == filepath.Join("kubernetes", "base", "rules.yaml") {
				old, mistake := strings.TrimPrefix(old, "  "), strings.TrimPrefix(mistake, "  ")
				found = found || strings.Contains(text, old)
				return strings.Replace(text, old, mistake, 1)
			}
			found = found || strings.Contains(text, old)
			return strings.Replace(text, old, mistake, 1)
		})
		if !found {
			t.Errorf("no file has %q to change", old)
		} else if err == nil {
			t.Errorf("%q is accepted", mistake)
		}
	}
}

// checkPod checks what a pod may: nothing beside its own files.
func checkPod(t *testing.T, w workload) {
	t.Helper()
	spec := w.template.Spec
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	user := regexp.MustCompile(`--uid (\d+)`).FindStringSubmatch(string(dockerfile))
	s := spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || s.FSGroup == nil ||
		strconv.FormatInt(*s.RunAsUser, 10) != user[1] || *s.FSGroup != *s.RunAsUser ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: the pod's security context is %+v; the image's user is %s", w.name, s, user[1])
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s: its pods get a token of Kubernetes", w.name)
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		t.Errorf("%s: its pods get variables of services", w.name)
	}
	for _, c := range w.containers() {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: container %s's security context is %+v", w.name, c.Name, s)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() ||
			c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: container %s has resources %+v", w.name, c.Name, c.Resources)
		}
		if !regexp.MustCompile(`^registry\.example\.com/nimriz-partners:.+$`).MatchString(c.Image) {
			t.Errorf("%s: the overlay leaves the image %s", w.name, c.Image)
		}
	}
	if w.isDaemon() {
		before := preStopSeconds(t, w)
		if spec.TerminationGracePeriodSeconds == nil || *spec.TerminationGracePeriodSeconds < before+stopSeconds {
			t.Errorf("%s: it is killed after %v s; preStop and stop may take %d s", w.name,
				*spec.TerminationGracePeriodSeconds, before+stopSeconds)
		}
	}
}

// preStopSeconds is the longest time before a pod's program gets SIGTERM.
func preStopSeconds(t *testing.T, w workload) int64 {
	t.Helper()
	life := w.template.Spec.Containers[0].Lifecycle
	switch {
	case life == nil || life.PreStop == nil:
		return 0
	case life.PreStop.Sleep != nil:
		return life.PreStop.Sleep.Seconds
	}
	script := strings.Join(life.PreStop.Exec.Command, " ")
	m := regexp.MustCompile(`(?s)sleep (\d+)\n.*n < (\d+);.*sleep 1\n`).FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("%s: how long does preStop take? %s", w.name, script)
	}
	first, err := strconv.Atoi(m[1])
	turns, err2 := strconv.Atoi(m[2])
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return int64(first + turns)
}

// commandOf returns the command line that a container ends in, of a shell's line too.
func commandOf(c corev1.Container) []string {
	command := slices.Concat(c.Command, c.Args)
	if command[0] == "bash" {
		_, line, _ := strings.Cut(command[len(command)-1], "exec /usr/local/bin/")
		return strings.Fields(regexp.MustCompile(`"\$\([^)]*\)"`).ReplaceAllString(line, "MONTH"))
	}
	return command
}

// checkContainer checks a command line and its variables against the program.
func checkContainer(t *testing.T, c *cluster, w workload, container corev1.Container, bin string) {
	t.Helper()
	command := commandOf(container)
	where := c.name + "/" + w.name
	checkFlags(t, where, bin, command)
	usage := usageOf(t, where, bin, command)
	given := map[string]bool{}
	for _, word := range command {
		given[word] = true
	}
	for _, e := range container.Env {
		name := flagOf(e.Name)
		if !hasFlag(usage, name) {
			t.Errorf("%s: %s has no flag %s for the variable %s", where, command[0], name, e.Name)
		}
		ref := e.ValueFrom
		given[name] = ref == nil || ref.SecretKeyRef == nil || ref.SecretKeyRef.Optional == nil
	}
	if len(container.EnvFrom) != 1 || !strings.HasPrefix(container.EnvFrom[0].ConfigMapRef.Name, "settings-") {
		t.Errorf("%s: it does not read the settings: %+v", where, container.EnvFrom)
	}
	for name := range c.settings(t) {
		given[flagOf(name)] = true
	}
	required := regexp.MustCompile(`(?m)^  (-[a-z-]+)\b[^\n]*\n[^\n]*\(required\)`)
	for _, m := range required.FindAllStringSubmatch(usage, -1) {
		if !given[m[1]] {
			t.Errorf("%s: %s requires %s", where, command[0], m[1])
		}
	}
}

// flagOf returns the flag of an environment variable.
func flagOf(variable string) string {
	return "-" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "PARTNERS_"), "_", "-"))
}

func hasFlag(usage, name string) bool {
	return regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(name) + `(\s|$)`).MatchString(usage)
}

// settings are the variables of all programs.
func (c *cluster) settings(t *testing.T) map[string]string {
	t.Helper()
	for _, m := range c.configMaps {
		if strings.HasPrefix(m.Name, "settings-") {
			return m.Data
		}
	}
	t.Fatal("there is no ConfigMap settings")
	return nil
}

// checkVolumes checks that each mount has a volume, and each path of a command line a
// mount of the right kind.
func checkVolumes(t *testing.T, c *cluster, w workload) {
	t.Helper()
	writable := map[string]bool{}
	volumes := map[string]bool{}
	for _, v := range w.template.Spec.Volumes {
		volumes[v.Name] = true
		writable[v.Name] = v.PersistentVolumeClaim != nil
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440) {
			t.Errorf("%s: secret %s has mode %v", w.name, v.Name, v.Secret.DefaultMode)
		}
		if p := v.PersistentVolumeClaim; p != nil && !slices.ContainsFunc(c.claims,
			func(x corev1.PersistentVolumeClaim) bool { return x.Name == p.ClaimName }) {
			t.Errorf("%s: there is no claim %s", w.name, p.ClaimName)
		}
	}
	if w.set != nil {
		for _, v := range w.set.Spec.VolumeClaimTemplates {
			volumes[v.Name], writable[v.Name] = true, true
			keep := w.set.Spec.PersistentVolumeClaimRetentionPolicy
			if keep == nil || keep.WhenDeleted != "Retain" || keep.WhenScaled != "Retain" {
				t.Errorf("%s: volume %s may go with its pod", w.name, v.Name)
			}
		}
	}
	for _, container := range w.containers() {
		mounts := map[string]string{} // by path, the volume
		for _, m := range container.VolumeMounts {
			if !volumes[m.Name] || m.ReadOnly == writable[m.Name] || m.SubPath != "" { // a subPath is never updated
				t.Errorf("%s: mount %+v", w.name, m)
			}
			mounts[m.MountPath] = m.Name
		}
		for i, word := range commandOf(container) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			name := commandOf(container)[i-1]
			mount := mounts[word]
			if mount == "" {
				mount = mounts[filepath.Dir(word)]
			}
			wants := slices.Contains([]string{"-spool-dir", "-state-dir", "-out"}, name)
			if mount == "" || writable[mount] != wants {
				t.Errorf("%s: %s %s is on volume %q", w.name, name, word, mount)
			}
		}
	}
}

// checkServed checks a daemon's ports, probes, services and budget.
func checkServed(t *testing.T, c *cluster, w workload, bin string) {
	t.Helper()
	container := w.template.Spec.Containers[0]
	usage := usageOf(t, w.name, bin, container.Command)
	ports := map[string]int32{}
	for _, p := range container.Ports {
		ports[p.Name] = p.ContainerPort
	}
	want := map[string]int32{}
	for name, listens := range map[string]string{"http": "-listen", "admin": "-admin-listen"} {
		m := regexp.MustCompile(`(?m)^  ` + listens + ` string\n[^\n]*\(default ":(\d+)"\)`).FindStringSubmatch(usage)
		if m != nil {
			port, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			want[name] = int32(port)
		}
	}
	if !maps.Equal(ports, want) || want["admin"] == 0 {
		t.Errorf("%s: ports %v, the program listens on %v", w.name, ports, want)
	}
	for path, probe := range map[string]*corev1.Probe{"/livez": container.LivenessProbe,
		"/readyz": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "admin" {
			t.Errorf("%s: the probe of %s is %+v", w.name, path, probe)
		}
	}
	var served []string
	for _, s := range c.services {
		if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(w.template.Labels)) {
			continue
		}
		for _, p := range s.Spec.Ports {
			served = append(served, p.Name)
			if ports[p.TargetPort.StrVal] == 0 || p.Name != p.TargetPort.StrVal || s.Labels[componentLabel] != w.name {
				t.Errorf("%s: service %s leads to %+v", w.name, s.Name, p)
			}
			if p.Name == "admin" && s.Spec.ClusterIP != "None" {
				t.Errorf("%s: Prometheus would ask one pod of service %s", w.name, s.Name)
			}
		}
		if w.set != nil && w.set.Spec.ServiceName != w.name+"-pods" {
			t.Errorf("%s: service of its pods' names is %s", w.name, w.set.Spec.ServiceName)
		}
	}
	if slices.Sort(served); !slices.Equal(served, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s: services lead to %v, want %v once each", w.name, served, want)
	}
	budgets := 0
	for _, b := range c.budgets {
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		} else if s.Matches(labels.Set(w.template.Labels)) && b.Spec.MaxUnavailable.IntValue() == 1 {
			budgets++
		}
	}
	if lone := w.name == "export"; lone == (budgets == 1) {
		t.Errorf("%s: %d disruption budgets", w.name, budgets)
	}
	s, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil || !s.Matches(labels.Set(w.template.Labels)) || w.component() != w.name {
		t.Errorf("%s: it does not select its own pods, %v", w.name, w.template.Labels)
	}
}

// checkReferences checks that the README names each Secret and ConfigMap
// that a pod needs and the overlay lacks, with its keys, and no other.
func checkReferences(t *testing.T, c *cluster) {
	t.Helper()
	readme, err := os.ReadFile("kubernetes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\$ kubectl .*create (?:secret generic|configmap) (\S+) (.*)$`).
		FindAllStringSubmatch(string(readme), -1) {
		told[m[1]] = true
		for _, key := range regexp.MustCompile(`--from-file=([a-z.]+)=`).FindAllStringSubmatch(m[2], -1) {
			told[m[1]+" "+key[1]] = true
		}
	}
	needed := map[string]bool{}
	for _, w := range c.workloads {
		for _, v := range w.template.Spec.Volumes {
			if v.Secret != nil && v.Secret.Optional == nil {
				needed[v.Secret.SecretName] = true
			}
			if v.ConfigMap != nil {
				needed[v.ConfigMap.Name] = true
				words := w.template.Spec.Containers[0].Args // the file that they end in
				needed[v.ConfigMap.Name+" "+filepath.Base(words[len(words)-1])] = true
			}
		}
		for _, container := range w.containers() {
			for _, e := range container.Env {
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Optional == nil {
					needed[e.ValueFrom.SecretKeyRef.Name] = true
					needed[e.ValueFrom.SecretKeyRef.Name+" "+e.ValueFrom.SecretKeyRef.Key] = true
				}
			}
		}
	}
	for name := range needed {
		if !told[name] {
			t.Errorf("kubernetes/README.md does not make %s", name)
		}
	}
	for name := range told {
		if !needed[name] && !strings.HasPrefix(name, "kafka-") {
			t.Errorf("kubernetes/README.md makes %s, which no pod reads", name)
		}
	}
}

// checkNetwork checks that each pod may reach what its program has a flag for, and no
// other server.
func checkNetwork(t *testing.T, c *cluster, bin string) {
	t.Helper()
	for _, w := range c.workloads {
		want := map[string]bool{"names-only": true, "prometheus": true}
		for _, container := range w.containers() {
			usage := usageOf(t, w.name, bin, commandOf(container))
			want["kafka"] = want["kafka"] || hasFlag(usage, "-brokers")
			want["clickhouse"] = want["clickhouse"] || hasFlag(usage, "-clickhouse")
			want["visitors"] = want["visitors"] || hasFlag(usage, "-listen")
		}
		for _, p := range c.policies {
			s, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
			if err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
			if got := s.Matches(labels.Set(w.template.Labels)); got != want[p.Name] {
				t.Errorf("policy %s concerns %s: %v, want %v", p.Name, w.name, got, want[p.Name])
			}
		}
	}
	for _, p := range c.policies {
		if p.Name != "kafka" {
			continue
		}
		port := p.Spec.Egress[0].Ports[0]
		for broker := range strings.SplitSeq(c.settings(t)["PARTNERS_BROKERS"], ",") {
			_, text, _ := strings.Cut(broker, ":")
			if n, err := strconv.Atoi(text); err != nil || int32(n) < port.Port.IntVal || int32(n) > *port.EndPort {
				t.Errorf("the policy kafka does not let %s through", broker)
			}
		}
	}
	if len(c.policies) != 5 {
		t.Errorf("%d network policies", len(c.policies))
	}
}

// checkMonitor checks that Prometheus gives the jobs the names that the alerts and
// deploy/prometheus.yaml have.
func checkMonitor(t *testing.T, c *cluster) {
	t.Helper()
	var p struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	loadYAML(t, "prometheus.yaml", &p)
	var want, got []string
	for _, j := range p.ScrapeConfigs {
		want = append(want, j.JobName)
	}
	m := c.monitors[0]
	s, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range c.services {
		if s.Matches(labels.Set(service.Labels)) && service.Spec.Ports[0].Name == m.Spec.Endpoints[0].Port {
			got = append(got, service.Labels[m.Spec.JobLabel])
		}
	}
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("jobs %v, deploy/prometheus.yaml has %v", got, want)
	}
	if n := len(c.rules[0].Spec.Groups); n < 3 {
		t.Errorf("%d groups of rules", n)
	}
}

// checkSets checks what only one program needs: slots with names of one length, a spool
// that fits its volume, pods in as many zones as the overlay says.
func checkSets(t *testing.T, c *cluster) {
	t.Helper()
	for _, w := range c.workloads {
		switch w.name {
		case "processor":
			first := int(w.set.Spec.Ordinals.Start)
			if len(strconv.Itoa(first)) != len(strconv.Itoa(first+w.replicas-1)) {
				t.Errorf("slots %d to %d have names of different length", first, first+w.replicas-1)
			}
			env := w.template.Spec.Containers[0].Env[0]
			if env.Name != "PARTNERS_INSTANCE" || env.ValueFrom.FieldRef == nil ||
				env.ValueFrom.FieldRef.FieldPath != "metadata.name" {
				t.Errorf("a slot's name is %+v", env)
			}
		case "redirector": // refused/ may take a quarter more
			size := w.set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().Value()
			if need := redirect.DefaultConfig().MaxSpoolBytes * 5 / 4; size < need+need/10 {
				t.Errorf("the spool's volume has %d bytes; a full spool has %d", size, need)
			}
		}
		if w.replicas < 1 {
			t.Errorf("%s: the overlay does not say how many pods", w.name)
		}
		if !w.isDaemon() || w.name == "export" {
			continue
		}
		spread := w.template.Spec.TopologySpreadConstraints[0]
		s, err := metav1.LabelSelectorAsSelector(spread.LabelSelector)
		zones := spread.TopologyKey == "topology.kubernetes.io/zone" &&
			spread.WhenUnsatisfiable == corev1.DoNotSchedule && w.replicas > 1
		if err != nil || !s.Matches(labels.Set(w.template.Labels)) || zones != (c.name == "three-zone") {
			t.Errorf("%s: %d pods are spread by %+v", w.name, w.replicas, spread)
		}
	}
}

// The PrometheusRule has the rules of dashboards/alerts, word for word.
func TestKubernetesRules(t *testing.T) {
	alerts, err := os.ReadFile("../dashboards/alerts/partners.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Written by `go test -run TestKubernetesRules ./deploy -rewrite` from " +
		"dashboards/alerts/partners.yaml.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n" +
		"metadata: {name: partners, labels: {app.kubernetes.io/component: monitoring}}\nspec:\n")
	for line := range strings.Lines(string(alerts)) {
		if strings.TrimSpace(line) != "" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	const file = "kubernetes/base/rules.yaml"
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is not dashboards/alerts/partners.yaml: go test -run TestKubernetesRules ./deploy -rewrite", file)
	}
}

// Every file of the manifests is one that a strict YAML parser reads: no name twice.
func TestKubernetesFiles(t *testing.T) {
	files, err := filepath.Glob("kubernetes/*/*.yaml")
	more, err2 := filepath.Glob("kubernetes/overlays/*/*.yaml")
	if err != nil || err2 != nil || len(files) < 10 || len(more) != 2 {
		t.Fatalf("%v, %v: %v, %v", files, more, err, err2)
	}
	for _, file := range slices.Concat(files, more) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, document := range strings.Split(string(text), "\n---\n") {
			var content any
			if err := yaml.Unmarshal([]byte(document), &content); err != nil {
				t.Errorf("%s, document %d: %v", file, i+1, err)
			}
		}
	}
}

// A redirector's preStop waits until Kafka has every click, within its bound, and does not
// wait where nobody answers.
func TestKubernetesDrain(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("PARTNERS_REQUIRE_SENDERS") == "1" {
			t.Fatal("PARTNERS_REQUIRE_SENDERS=1, and there is no bash in PATH")
		}
		t.Skip("SKIP: there is no bash in PATH")
	}
	c, err := render(t, "small", unedited)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.workloads, func(w workload) bool { return w.name == "redirector" })
	command := c.workloads[i].template.Spec.Containers[0].Lifecycle.PreStop.Exec.Command
	for name, want := range map[string]struct{ full, asked int }{
		"shipped after three questions": {2, 3}, "nothing to ship": {0, 1}, "Kafka is away": {1000, 7},
	} {
		asked := 0
		registry := prometheus.NewRegistry()
		backlog := prometheus.NewGauge(prometheus.GaugeOpts{Name: "partners_spool_backlog_bytes", Help: "as a spool's"})
		registry.MustRegister(backlog)
		backlog.Set(4096)
		metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{}) // as the admin listener's
		admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if asked > want.full {
				backlog.Set(0)
			}
			metrics.ServeHTTP(w, r)
		}))
		_, port, _ := strings.Cut(strings.TrimPrefix(admin.URL, "http://"), ":")
		script := strings.NewReplacer("sleep 10", ":", "sleep 1", ":", "n < 100", "n < 7", "/9090", "/"+port).
			Replace(command[2])
		if out, err := exec.Command(command[0], command[1], script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		admin.Close()
		if asked != want.asked {
			t.Errorf("%s: it asked %d times, want %d", name, asked, want.asked)
		}
		if out, err := exec.Command(command[0], command[1], script).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: with nobody there: %v: %s", name, err, out)
		}
	}
}
