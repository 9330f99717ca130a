package kafka

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// rightsInterval is how often a program looks whether it lacks a right: rights are
	// given and taken while it runs.
	rightsInterval = time.Minute
	// rightsTimeout bounds one look.
	rightsTimeout = 10 * time.Second
)

// rightsWatch logs which rights a program's user lacks.
type rightsWatch struct {
	cfg      Config
	client   *kgo.Client
	grants   []topic.Grant // that the program needs
	log      *slog.Logger
	needed   string // that were lacking at the last look
	selfHeal string // the same, for healing hanging transactions
	missing  *prometheus.GaugeVec
}

// What a right that a program lacks is needed for: the values of the label needed_for.
const (
	neededForWork     = "work"
	neededForSelfHeal = "self_heal"
)

func newMissingRights(reg prometheus.Registerer) *prometheus.GaugeVec {
	missing := promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{Name: "partners_kafka_missing_rights",
		Help: "Rights on Kafka that the program's user lacks, by what they are needed for: work, self_heal."},
		[]string{"needed_for"})
	for _, purpose := range []string{neededForWork, neededForSelfHeal} {
		missing.WithLabelValues(purpose)
	}
	return missing
}

// WatchRights looks until ctx ends whether a program's user lacks a right on Kafka,
// counts them, and logs which ones: a refused request says neither the operation nor,
// often, of what. While nothing changes nothing is logged.
func WatchRights(ctx context.Context, cfg Config, program string, log *slog.Logger, reg prometheus.Registerer) error {
	cfg.ClientID += "-rights"
	client, err := NewClient(cfg, log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	w := &rightsWatch{cfg: cfg, client: client, grants: cfg.Grants(program), log: log,
		missing: newMissingRights(reg)}
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: rightsInterval / 12}
	for {
		pause := rightsInterval
		if err := w.lookOnce(ctx); err != nil {
			pause = pauses.Next() // Kafka is away: the Watch says so
			log.Debug("the rights on Kafka cannot be seen", "error", cfg.Explain(err), "in", pause)
		} else {
			pauses.Reset()
		}
		if !outage.Sleep(ctx, pause) {
			return nil
		}
	}
}

// lookOnce looks once, and logs what has changed since the last time.
func (w *rightsWatch) lookOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	lacking, err := LackingRights(ctx, w.client, w.grants)
	if err != nil {
		return err
	}
	var needed, selfHeal []string
	for _, g := range lacking {
		if g.SelfHeal {
			selfHeal = append(selfHeal, g.String())
		} else {
			needed = append(needed, g.String())
		}
	}
	w.missing.WithLabelValues(neededForWork).Set(float64(len(needed)))
	w.missing.WithLabelValues(neededForSelfHeal).Set(float64(len(selfHeal)))
	user := w.cfg.Security.who()
	if now := strings.Join(needed, ", "); now != w.needed {
		w.needed = now
		if now != "" {
			w.log.Warn("rights on Kafka are missing: `ctl topics acls` gives them", "to", user, "lacking", now)
		} else {
			w.log.Info("no right on Kafka is missing any more", "to", user)
		}
	}
	if now := strings.Join(selfHeal, ", "); now != w.selfHeal {
		w.selfHeal = now
		if now != "" {
			w.log.Warn("hanging transactions do not heal by themselves; everything else works: rights on Kafka are "+
				"missing that `ctl topics acls -self-heal` gives", "to", user, "lacking", now)
		} else {
			w.log.Info("no right to heal hanging transactions is missing any more", "to", user)
		}
	}
	return nil
}
