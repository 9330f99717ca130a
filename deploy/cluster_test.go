package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	componentLabel = "app.kubernetes.io/component"
	partLabel      = "app.kubernetes.io/part-of"
	// stopSeconds is the longest time that a program takes to stop.
	stopSeconds = 36
)

// cluster is an overlay as kustomize renders it, decoded as an API server would with
// fieldValidation=Strict.
type cluster struct {
	name       string // of the overlay
	workloads  []workload
	services   []corev1.Service
	configMaps []corev1.ConfigMap
	claims     []corev1.PersistentVolumeClaim
	budgets    []policyv1.PodDisruptionBudget
	policies   []networkingv1.NetworkPolicy
	monitors   []monitoringv1.ServiceMonitor
	rules      []monitoringv1.PrometheusRule
	namespace  *corev1.Namespace
}

// workload is what makes pods, whatever its kind.
type workload struct {
	kind, name string
	replicas   int
	selector   *metav1.LabelSelector // nil for a Job, which makes its own
	template   corev1.PodTemplateSpec
	set        *appsv1.StatefulSet // nil for other kinds
}

// isDaemon reports whether its pods run until they are stopped.
func (w workload) isDaemon() bool { return w.kind == "StatefulSet" || w.kind == "Deployment" }

// component is the label by which everything else finds the pods.
func (w workload) component() string { return w.template.Labels[componentLabel] }

// containers are those of a pod, with those that run before.
func (w workload) containers() []corev1.Container {
	return slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers)
}

// replicasOf returns 0 if no count is given: what was scaled by hand would then stay so.
func replicasOf(n *int32) int {
	if n == nil {
		return 0
	}
	return int(*n)
}

// decodeStrictly decodes an object with Kubernetes' own type; names that it does not
// know, also in other case, and names that come twice are errors.
func decodeStrictly[T any](object []byte) (T, error) {
	var into T
	strict, err := json.UnmarshalStrict(object, &into)
	if err == nil && len(strict) > 0 {
		err = fmt.Errorf("%v", strict)
	}
	return into, err
}

// decodeAppend decodes one more object into a list.
func decodeAppend[T any](list []T, object []byte) ([]T, error) {
	one, err := decodeStrictly[T](object)
	return append(list, one), err
}

// add decodes an object of any kind that the overlays may have.
func (c *cluster) add(kind string, object []byte) (err error) {
	switch kind {
	case "v1 Namespace":
		var n corev1.Namespace
		n, err = decodeStrictly[corev1.Namespace](object)
		c.namespace = &n
	case "v1 ConfigMap":
		c.configMaps, err = decodeAppend(c.configMaps, object)
	case "v1 Service":
		c.services, err = decodeAppend(c.services, object)
	case "v1 PersistentVolumeClaim":
		c.claims, err = decodeAppend(c.claims, object)
	case "policy/v1 PodDisruptionBudget":
		c.budgets, err = decodeAppend(c.budgets, object)
	case "networking.k8s.io/v1 NetworkPolicy":
		c.policies, err = decodeAppend(c.policies, object)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		c.monitors, err = decodeAppend(c.monitors, object)
	case "monitoring.coreos.com/v1 PrometheusRule":
		c.rules, err = decodeAppend(c.rules, object)
	default:
		return c.addWorkload(kind, object)
	}
	return err
}

func (c *cluster) addWorkload(kind string, object []byte) error {
	var w workload
	switch kind {
	case "apps/v1 StatefulSet":
		s, err := decodeStrictly[appsv1.StatefulSet](object)
		if err != nil {
			return err
		}
		w = workload{"StatefulSet", s.Name, replicasOf(s.Spec.Replicas), s.Spec.Selector, s.Spec.Template, &s}
	case "apps/v1 Deployment":
		d, err := decodeStrictly[appsv1.Deployment](object)
		if err != nil {
			return err
		}
		w = workload{"Deployment", d.Name, replicasOf(d.Spec.Replicas), d.Spec.Selector, d.Spec.Template, nil}
	case "batch/v1 Job":
		j, err := decodeStrictly[batchv1.Job](object)
		if err != nil {
			return err
		}
		w = workload{"Job", j.Name, 1, nil, j.Spec.Template, nil}
	case "batch/v1 CronJob":
		j, err := decodeStrictly[batchv1.CronJob](object)
		if err != nil {
			return err
		}
		w = workload{"CronJob", j.Name, 1, nil, j.Spec.JobTemplate.Spec.Template, nil}
	default:
		return fmt.Errorf("a %s, which this test does not know", kind)
	}
	c.workloads = append(c.workloads, w)
	return nil
}

// render renders an overlay with kustomize, whose files edit may change in memory.
func render(t *testing.T, overlay string, edit func(path string, text string) string) (*cluster, error) {
	t.Helper()
	files := filesys.MakeFsInMemory()
	if err := filepath.WalkDir("kubernetes", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return files.WriteFile("/"+path, []byte(edit(path, string(b))))
	}); err != nil {
		t.Fatalf("reading the manifests: %v", err)
	}
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/kubernetes/overlays/"+overlay)
	if err != nil {
		return nil, err
	}
	c := &cluster{name: overlay}
	for _, r := range rendered.Resources() {
		object, err := r.MarshalJSON()
		if err != nil {
			return nil, err
		}
		if err := c.add(r.GetApiVersion()+" "+r.GetKind(), object); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.GetKind(), r.GetName(), err)
		}
		if namespace := r.GetNamespace(); r.GetKind() != "Namespace" && namespace != "partners" {
			return nil, fmt.Errorf("%s %s is in namespace %q", r.GetKind(), r.GetName(), namespace)
		}
		if r.GetLabels()[partLabel] != "nimriz-partners" || r.GetLabels()[componentLabel] == "" {
			return nil, fmt.Errorf("%s %s: labels %v", r.GetKind(), r.GetName(), r.GetLabels())
		}
	}
	return c, nil
}

func unedited(_, text string) string { return text }

// overlays are what an operator applies.
func overlays(t *testing.T) []*cluster {
	t.Helper()
	var all []*cluster
	for _, name := range []string{"small", "three-zone"} {
		c, err := render(t, name, unedited)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, c)
	}
	return all
}
