package components

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// placementState is what a placement knows.
type placementState int32

const (
	placementUnknown placementState = iota // Kafka has not answered yet
	placementAgreed                        // the topics have the partitions that tokens are bound to
	placementDiffers                       // they have others
)

// String names the state as logs do.
func (s placementState) String() string {
	return [...]string{"unknown", "agreed", "differs"}[s]
}

// placementInterval is how often the partition counts are looked at.
const placementInterval = 10 * time.Second

// placement knows the partition counts that tokens are bound to, and whether the topics
// still have them. While they do not, nothing may be written: what is sent now would be
// looked for in another partition.
type placement struct {
	deps  Deps
	topic string   // whose count is the one of tokens if no record says it
	names []string // of the topics to compare, without prefix
	adm   *kadm.Client

	state   atomic.Int32   // a placementState
	install *topic.Install // nil: not recorded; set by await
	epochs  topic.Epochs   // set by await
	differs prometheus.Gauge
	watch   *outage.Watch // over the partition counts
}

func newPlacement(d Deps, component string, cl *kgo.Client, names ...string) *placement {
	p := &placement{
		deps:  d,
		topic: topic.Clicks,
		names: names,
		adm:   kadm.NewClient(cl),
		differs: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "partners_kafka_partitions_differ",
			Help: "1 while the topics have another partition count than tokens are bound to, so that nothing is sent.",
			// One process can run several components.
			ConstLabels: prometheus.Labels{"component": component},
		}),
		watch: outage.New(d.Log, "topics with the recorded partition count"),
	}
	if d.Registry != nil {
		d.Registry.MustRegister(p.differs)
	}
	return p
}

// isHeld reports whether nothing may be sent, because the topics differ.
func (p *placement) isHeld() bool { return placementState(p.state.Load()) == placementDiffers }

// await returns the epochs once the topics agree with them. Its error is ctx's.
func (p *placement) await(ctx context.Context) (topic.Epochs, error) {
	if err := retryUntilDone(ctx, p.deps.Kafka.Watch, "reading the partition count",
		func(ctx context.Context, _ func()) error { return p.readInstall(ctx) }); err != nil {
		return nil, err
	}
	for {
		switch err := p.look(ctx); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			return p.epochs, nil
		}
		if !outage.Sleep(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
}

// readInstall reads the record of the installation, or else the count that Kafka shows.
func (p *placement) readInstall(ctx context.Context) (err error) {
	d := p.deps
	p.install, err = kafka.ReadInstall(ctx, d.Kafka, d.Log)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	if p.install != nil {
		p.epochs = p.install.Epochs
		return nil
	}
	n, err := kafka.ReadPartitionCount(ctx, p.adm, d.Kafka.Topic(p.topic))
	if err != nil {
		return err
	}
	d.Log.Warn("the partition count is not recorded, so added partitions would go unnoticed: run `ctl topics apply`",
		"partitions", n)
	p.epochs = topic.OneEpoch(n)
	return nil
}

// look compares the topics with the record. An outage of Kafka changes nothing.
func (p *placement) look(ctx context.Context) error {
	const counting = "comparing the partition count"
	var err error
	if p.install != nil {
		ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		err = kafka.CheckPartitions(ctx, p.adm, p.deps.Kafka, p.install, p.names...)
	}
	switch {
	case err == nil:
		p.state.Store(int32(placementAgreed))
		p.differs.Set(0)
		p.watch.Clear(counting)
	case errors.Is(err, kafka.ErrPartitions):
		p.state.Store(int32(placementDiffers))
		p.differs.Set(1)
		p.watch.Failed(counting, placementInterval, err)
	}
	return err
}

// follow looks again and again until ctx ends.
func (p *placement) follow(ctx context.Context) {
	for outage.Sleep(ctx, placementInterval) {
		_ = p.look(ctx) // look keeps and logs what it finds
	}
}
