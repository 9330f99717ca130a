package components

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nimriz/partners/schemas/secretdir"
	"github.com/prometheus/client_golang/prometheus"
)

// pollInterval is how often a directory of secrets is looked at. A change counts once
// two looks have found the same, so it is in force within twice that time, and a little.
const pollInterval = 2 * time.Second

// secretFiles are the files of one directory: signing secrets, token keys or reader
// tokens.
type secretFiles interface {
	Findings() secretdir.Findings
	Reload() secretdir.Findings
}

// usedSecrets know when each of them was last used.
type usedSecrets interface{ Uses() []secretdir.Use }

// secretsWatch reloads the directories of a component, and tells of files that cannot
// be used.
type secretsWatch struct {
	log        *slog.Logger
	unreadable *prometheus.GaugeVec // files, by flag
	uses       *usesCollector
}

func newSecretsWatch(d Deps, component string) *secretsWatch {
	labels := prometheus.Labels{"component": component}
	w := &secretsWatch{
		log: d.Log,
		unreadable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name:        "partners_secrets_unreadable",
			Help:        "Files of secrets that cannot be used, by flag; a directory that cannot be read is one.",
			ConstLabels: labels,
		}, []string{"flag"}),
		uses: &usesCollector{byFlag: map[string]usedSecrets{}, desc: prometheus.NewDesc(
			"partners_secrets_last_used_timestamp_seconds",
			"When a signing secret or token key that is in force was last used; 0: not since this process started.",
			[]string{"flag", "workspace", "key_id"}, labels)},
	}
	if d.Registry != nil {
		d.Registry.MustRegister(w.unreadable, w.uses)
	}
	return w
}

// add reports what was found at the start, and returns what reloads the files until its
// context ends.
func (w *secretsWatch) add(flag string, files secretFiles) func(context.Context) error {
	if used, ok := files.(usedSecrets); ok {
		w.uses.add(flag, used)
	}
	l := &findingsLog{log: w.log.With("flag", flag), logged: map[string]string{}}
	found := files.Findings()
	l.write(&found)
	w.unreadable.WithLabelValues(flag).Set(float64(found.Unreadable()))
	return func(ctx context.Context) error {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			found := files.Reload()
			l.write(&found)
			w.unreadable.WithLabelValues(flag).Set(float64(found.Unreadable()))
			if len(found.Changed) > 0 {
				l.log.Info("secrets reloaded", "workspaces_changed", len(found.Changed), "first", found.Changed[0],
					"entries", found.Entries)
			}
		}
	}
}

// findingsLog writes each finding once, until it is over.
type findingsLog struct {
	log    *slog.Logger
	logged map[string]string // by file, its problem; an ignored file has none
}

func (l *findingsLog) write(found *secretdir.Findings) {
	now := make(map[string]string, len(found.Problems)+len(found.Ignored))
	for _, p := range found.Problems {
		if now[p.File] == "" { // its first problem will do
			now[p.File] = p.Error()
		}
	}
	for file, problem := range now {
		if l.logged[file] != problem {
			l.log.Error("secrets cannot be read; of what was in force, what is not readably gone stays",
				"error", problem)
		}
	}
	for _, name := range found.Ignored {
		if _, known := l.logged[name]; !known {
			l.log.Warn("a file of secrets is ignored: no workspace has such an id, [a-z0-9-]{1,64}", "file", name)
		}
		now[name] = ""
	}
	for file, problem := range l.logged {
		if now[file] == "" && problem != "" {
			l.log.Info("secrets can be read again", "file", file)
		}
	}
	l.logged = now
}

// usesCollector tells when secrets were last used. It has a series for each that is in
// force, so there are never more than lines in the files.
type usesCollector struct {
	desc *prometheus.Desc

	mu     sync.Mutex // a scrape may come while flags are added
	byFlag map[string]usedSecrets
}

func (c *usesCollector) add(flag string, used usedSecrets) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byFlag[flag] = used
}

// Describe implements prometheus.Collector.
func (c *usesCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *usesCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for flag, secrets := range c.byFlag {
		newest := map[[2]string]float64{} // by workspace and key id: a file may have a key twice
		for _, use := range secrets.Uses() {
			id := [2]string{use.Workspace, use.KeyID}
			at := 0.0
			if !use.At.IsZero() {
				at = float64(use.At.Unix())
			}
			newest[id] = max(newest[id], at)
		}
		for id, at := range newest {
			ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, at, flag, id[0], id[1])
		}
	}
}
