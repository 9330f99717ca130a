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
	"github.com/twmb/franz-go/pkg/kgo"
)

// placementState is what a placement knows.
type placementState int32

const (
	placementUnknown placementState = iota // Kafka has not answered yet
	placementAgreed                        // the topics have the partitions that tokens are bound to
	placementGrowing                       // `ctl topics grow` is adding partitions, or was broken off
	placementDiffers                       // they have others
)

// String names the state as logs do.
func (s placementState) String() string {
	return [...]string{"unknown", "agreed", "growing", "differs"}[s]
}

// placementInterval is how often the partition counts are looked at.
const placementInterval = 10 * time.Second

// placement knows the partitions that tokens are bound to, as topic catalog says, and
// whether the topics have them. While they do not, nothing may be written: what is sent
// now would be looked for in another partition.
type placement struct {
	deps     Deps
	names    []string // of the co-partitioned topics that the component may see, without prefix
	producer *kgo.Client
	install  *kafka.InstallFollower

	state   atomic.Int32                 // a placementState
	counted atomic.Pointer[topic.Epochs] // where no record is: of the count that Kafka shows
	differs prometheus.Gauge
	watch   *outage.Watch // over the partition counts
}

// newPlacement begins to follow the records of the installation. close ends it.
func newPlacement(d Deps, component string, producer *kgo.Client, names ...string) (*placement, error) {
	install, err := kafka.FollowInstall(d.Kafka, d.Log)
	if err != nil {
		return nil, err
	}
	p := &placement{
		deps:     d,
		names:    names,
		producer: producer,
		install:  install,
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
	return p, nil
}

func (p *placement) close() { p.install.Close() }

// isHeld reports whether nothing may be sent: the topics differ, or are growing.
func (p *placement) isHeld() bool { return p.heldError() != nil }

// heldError is why nothing may be sent; nil: it may, or it is not known yet.
func (p *placement) heldError() error {
	switch placementState(p.state.Load()) {
	case placementGrowing:
		return kafka.ErrGrowing
	case placementDiffers:
		return kafka.ErrPartitions
	}
	return nil
}

// await returns once the topics agree with the record. Its error is ctx's.
func (p *placement) await(ctx context.Context) error {
	if err := retryUntilDone(ctx, p.deps.Kafka.Watch, "reading the partition count", p.readCount); err != nil {
		return err
	}
	for p.look(ctx) != nil {
		if !outage.Sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
	return nil
}

// readCount reads the catalog to its end. Without a record, the count that Kafka shows
// counts.
func (p *placement) readCount(ctx context.Context, progressed func()) error {
	d, began := p.deps, time.Now()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second) // a large catalog takes longer, and is read on
		err := p.install.Await(attempt, began)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		if p.install.Position() > 0 {
			progressed()
		}
	}
	if p.install.Install() != nil {
		return nil
	}
	n, err := kafka.ReadPartitionCount(ctx, kadm.NewClient(p.producer), d.Kafka.Topic(topic.Clicks))
	if err != nil {
		return err
	}
	d.Log.Warn(kafka.NotRecorded, "partitions", n)
	epochs := topic.OneEpoch(n)
	p.counted.Store(&epochs)
	return nil
}

// comparing is what the watches are told about.
const comparing = "comparing the partition count"

// look compares the topics with the record. An outage of Kafka changes nothing.
func (p *placement) look(ctx context.Context) error {
	err := p.compare(ctx)
	state := placementAgreed
	switch {
	case err == nil:
		p.differs.Set(0)
		p.watch.Clear(comparing)
		p.deps.Kafka.Watch.Clear(comparing)
	case errors.Is(err, kafka.ErrGrowing):
		state = placementGrowing
	case errors.Is(err, kafka.ErrPartitions):
		state = placementDiffers
	default:
		if ctx.Err() == nil {
			p.deps.Kafka.Watch.Failed(comparing, placementInterval, err)
		}
		return err
	}
	p.state.Store(int32(state))
	if err != nil {
		p.differs.Set(1)
		p.watch.Failed(comparing, placementInterval, err)
	}
	return err
}

// compare returns kafka.ErrPartitions if the topics differ from the record,
// kafka.ErrGrowing while partitions are being added, and until the producer knows of them.
func (p *placement) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := p.install.CheckPartitions(ctx, p.producer, p.names...); err != nil {
		return err
	}
	if install := p.install.Install(); install != nil {
		return p.checkProducer(install.Epochs)
	}
	return nil
}

// checkProducer returns kafka.ErrGrowing while the producer does not know of partitions
// that were added: it would refuse their records.
func (p *placement) checkProducer(epochs topic.Epochs) error {
	for _, name := range p.names {
		full, last := p.deps.Kafka.Topic(name), epochs.Now()-1
		known, _, _ := p.producer.PartitionLeader(full, 0)
		if leader, _, err := p.producer.PartitionLeader(full, last); known >= 0 && leader < 0 {
			p.producer.ForceMetadataRefresh()
			return fmt.Errorf("%w: the producer does not know of partition %d of %s yet: %w", kafka.ErrGrowing, last,
				full, errors.Join(err, errNotKnown))
		}
	}
	return nil
}

var errNotKnown = errors.New("its metadata is older than the record")

// follow looks again and again until ctx ends: now and then, and when the record changes.
func (p *placement) follow(ctx context.Context) {
	known := p.install.Recorded()
	due := time.NewTicker(placementInterval)
	defer due.Stop()
	for {
		changed := p.install.Changed()
		now := p.install.Recorded()
		if now != known || placementState(p.state.Load()) == placementGrowing {
			known = now
			_ = p.look(ctx) // look keeps and logs what it finds
			if placementState(p.state.Load()) == placementGrowing && !outage.Sleep(ctx, growingPause) {
				return
			}
			if ctx.Err() != nil {
				return
			}
			if placementState(p.state.Load()) == placementGrowing {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-due.C:
			_ = p.look(ctx)
		}
	}
}

// growingPause is how often a placement looks while partitions are being added.
const growingPause = 250 * time.Millisecond

// TryPlace implements redirect.Placer.
func (p *placement) TryPlace(token string, minted, met time.Time) (partition int32, ok bool) {
	if p.isHeld() {
		return 0, false
	}
	if counted := p.counted.Load(); counted != nil && p.install.Install() == nil {
		return counted.Partition(token, minted), true
	}
	return p.install.Place(token, minted, met)
}

// Place implements ingest.Placer. It waits until the partition is known, or ctx ends.
func (p *placement) Place(ctx context.Context, token string, minted time.Time) (int32, error) {
	met := time.Now()
	for {
		changed := p.install.Changed()
		partition, ok := p.TryPlace(token, minted, met)
		if ok {
			return partition, nil
		}
		if p.install.Recorded().Growing() != nil {
			return 0, kafka.ErrGrowing
		}
		if err := p.heldError(); err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("placing a token: reading topic %s: %w", p.deps.Kafka.Topic(topic.Catalog),
				context.Cause(ctx))
		case <-changed:
		}
	}
}
