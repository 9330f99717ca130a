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
	// MaxBatchEvents is how many events a batch may have.
	MaxBatchEvents = 500
)

// Config is what an operator can set.
type Config struct {
	// Rate is how many events a workspace may send a second, Burst how many at once.
	Rate  float64
	Burst int
	// UnverifiedRate and UnverifiedBurst bound the requests of one network (IPv4 /24,
	// IPv6 /48) that fail verification; beyond, they get 429 in place of 401.
	UnverifiedRate  float64
	UnverifiedBurst int
	// AckTimeout is how long an event may wait for Kafka's acknowledgement before it is
	// answered unavailable: a second to half of [topic.DeliveryLimit]. An event that
	// reached Kafka later could be the one for which another had waited in vain.
	AckTimeout time.Duration
}

// DefaultConfig is what fits most installs.
func DefaultConfig() Config {
	return Config{Rate: 500, Burst: 2000, UnverifiedRate: 100, UnverifiedBurst: 1000, AckTimeout: 10 * time.Second}
}

// Validate reports what is wrong, by flag.
func (c Config) Validate() error {
	switch {
	case !positive(c.Rate):
		return fmt.Errorf("-rate: %v is not a positive number", c.Rate)
	case c.Burst < MaxBatchEvents:
		return fmt.Errorf("-burst: %d would never let a batch of %d events pass", c.Burst, MaxBatchEvents)
	case !positive(c.UnverifiedRate):
		return fmt.Errorf("UnverifiedRate: %v is not a positive number", c.UnverifiedRate)
	case c.UnverifiedBurst < 1:
		return fmt.Errorf("UnverifiedBurst: %d is less than 1", c.UnverifiedBurst)
	case c.AckTimeout < time.Second || c.AckTimeout > topic.DeliveryLimit/2:
		return fmt.Errorf("AckTimeout: %v is not between 1s and %v", c.AckTimeout, topic.DeliveryLimit/2)
	}
	return nil
}

func positive(v float64) bool { return v > 0 && !math.IsInf(v, 0) }

// ProducerOptions are what the handler's Kafka client needs beyond kafka.NewClient's
// own settings.
//
// Records that wait longer than AckTimeout are dropped even where a broker may have got
// them (AllowIdempotentProduceCancellation): their sender has been told to send again,
// so keeping them would only fill the buffer with copies while Kafka is away. No
// linger: a sender is waiting, and under load records gather anyway while requests are
// in flight.
func ProducerOptions(c Config) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(c.AckTimeout),
		kgo.ProduceRequestTimeout(c.AckTimeout),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerLinger(0),
	}
}

// checkProducer refuses a client with which 202 would not mean what it promises, or
// with which records would be kept for ever.
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
