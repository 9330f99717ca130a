package ingest

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// MaxEventBytes is the largest body of one event.
	MaxEventBytes = 256 << 10
	// MaxBatchBytes is the largest body of a batch.
	MaxBatchBytes = 1 << 20
	// MaxBatchEvents is the largest number of events in a batch.
	MaxBatchEvents = 500
)

// Config sets the limits of the events API. Operators set Rate and Burst by flags;
// tests also set the others.
type Config struct {
	Rate  float64 // events a second of one workspace
	Burst int     // events at once of one workspace; at least MaxBatchEvents
	// UnverifiedRate and UnverifiedBurst bound the requests of one network (IPv4 /24,
	// IPv6 /48) that fail verification. Above the bound they get 429 instead of 401.
	UnverifiedRate  float64 // requests a second
	UnverifiedBurst int     // requests at once
	// AckTimeout is how long an event waits for Kafka's acknowledgement before it is
	// answered unavailable: one second to half of [topic.DeliveryLimit]. If an event
	// could reach Kafka later than that, the processor might already have closed a wait
	// for it.
	AckTimeout time.Duration
}

// DefaultConfig returns settings that fit most installations.
func DefaultConfig() Config {
	return Config{Rate: 500, Burst: 2000, UnverifiedRate: 100, UnverifiedBurst: 1000, AckTimeout: 10 * time.Second}
}

// Validate reports the first value that is out of range, by its flag. Limits without
// flag are named in words.
func (c Config) Validate() error {
	switch {
	case !isPositive(c.Rate):
		return fmt.Errorf("-rate: %v is not a positive number", c.Rate)
	case c.Burst < MaxBatchEvents:
		return fmt.Errorf("-burst: %d would never let a batch of %d events pass", c.Burst, MaxBatchEvents)
	case !isPositive(c.UnverifiedRate):
		return fmt.Errorf("rate of unverified requests: %v is not a positive number", c.UnverifiedRate)
	case c.UnverifiedBurst < 1:
		return fmt.Errorf("burst of unverified requests: %d is less than 1", c.UnverifiedBurst)
	case c.AckTimeout < time.Second || c.AckTimeout > topic.DeliveryLimit/2:
		return fmt.Errorf("timeout of acknowledgements: %v is not between 1s and %v",
			c.AckTimeout, topic.DeliveryLimit/2)
	}
	return nil
}

func isPositive(v float64) bool { return v > 0 && !math.IsInf(v, 0) }

// ProducerOptions returns the options that the handler's Kafka client needs beyond
// kafka.NewClient's own.
//
// A record that waits longer than AckTimeout is dropped, even if a broker may have it
// (AllowIdempotentProduceCancellation): its sender was asked to send again, so keeping
// it would only fill the buffer with copies while Kafka is away. There is no linger:
// the sender is waiting, and under load records collect anyway while requests are in
// flight.
func ProducerOptions(c Config) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(c.AckTimeout),
		kgo.ProduceRequestTimeout(c.AckTimeout),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerLinger(0),
	}
}

// checkProducer refuses a client with which 202 would promise too much, or that would
// keep records indefinitely.
func checkProducer(cl *kgo.Client) error {
	if acks, ok := cl.OptValue(kgo.RequiredAcks).(kgo.Acks); !ok || acks != kgo.AllISRAcks() {
		return errors.New("the producer does not wait for all in-sync replicas")
	}
	if off, ok := cl.OptValue(kgo.DisableIdempotentWrite).(bool); !ok || off {
		return errors.New("the producer is not idempotent")
	}
	if limit, ok := cl.OptValue(kgo.RecordDeliveryTimeout).(time.Duration); !ok || limit <= 0 {
		return errors.New("the producer has no delivery timeout")
	}
	return nil
}
