package components

import (
	"context"
	"errors"
	"fmt"
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
	names []string // of the co-partitioned topics that the component may see, without prefix
	adm   *kadm.Client

	state   atomic.Int32   // a placementState
	install *topic.Install // nil: not recorded yet
	epochs  topic.Epochs   // set by await
	differs prometheus.Gauge
	watch   *outage.Watch // over the partition counts
}

func newPlacement(d Deps, component string, cl *kgo.Client, names ...string) *placement {
	p := &placement{
		deps:  d,
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
	if err := retryUntilDone(ctx, p.deps.Kafka.Watch, "reading the partition count", p.readEpochs); err != nil {
		return nil, err
	}
	for p.look(ctx) != nil {
		if !outage.Sleep(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
	return p.epochs, nil
}

// readEpochs reads the record of the installation, or else the count that Kafka shows.
func (p *placement) readEpochs(ctx context.Context, progressed func()) error {
	d := p.deps
	if err := p.readInstall(ctx, progressed); err != nil {
		return err
	}
	if p.install != nil {
		p.epochs = p.install.Epochs
		return nil
	}
	n, err := kafka.ReadPartitionCount(ctx, p.adm, d.Kafka.Topic(topic.Clicks))
	if err != nil {
		return err
	}
	d.Log.Warn(kafka.NotRecorded, "partitions", n)
	p.epochs = topic.OneEpoch(n)
	return nil
}

func (p *placement) readInstall(ctx context.Context, progressed func()) error {
	install, err := kafka.ReadInstall(ctx, p.deps.Kafka, p.deps.Log, progressed)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	p.install = install
	return nil
}

// comparing is what the watches are told about.
const comparing = "comparing the partition count"

// look compares the topics with the record. An outage of Kafka changes nothing.
func (p *placement) look(ctx context.Context) error {
	err := p.compare(ctx)
	switch {
	case err == nil:
		p.state.Store(int32(placementAgreed))
		p.differs.Set(0)
		p.watch.Clear(comparing)
		p.deps.Kafka.Watch.Clear(comparing)
	case errors.Is(err, kafka.ErrPartitions):
		p.state.Store(int32(placementDiffers))
		p.differs.Set(1)
		p.watch.Failed(comparing, placementInterval, err)
	case ctx.Err() == nil:
		p.deps.Kafka.Watch.Failed(comparing, placementInterval, err)
	}
	return err
}

// compare returns kafka.ErrPartitions if the topics differ from the record, or a record
// that was written meanwhile from what this process began with.
func (p *placement) compare(ctx context.Context) error {
	if p.install == nil {
		if err := p.readInstall(ctx, nil); err != nil || p.install == nil {
			return err
		}
	}
	if now := p.install.Epochs.Now(); now != p.epochs.Now() {
		return fmt.Errorf("%w: this process began with %d, the record says %d: start it again", kafka.ErrPartitions,
			p.epochs.Now(), now)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return kafka.CheckPartitions(ctx, p.adm, p.deps.Kafka, p.install, p.names...)
}

// follow looks again and again until ctx ends.
func (p *placement) follow(ctx context.Context) {
	for outage.Sleep(ctx, placementInterval) {
		_ = p.look(ctx) // look keeps and logs what it finds
	}
}
