package topic

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Topic names, without prefix.
const (
	Catalog     = "catalog"
	Clicks      = "clicks"
	Conversions = "conversions"
	Outcomes    = "outcomes"
	Changelog   = "attribution-changelog"
	Progress    = "progress"
	Rejections  = "rejections"
	DeadLetters = "dead-letters"
)

// Consumer groups, without prefix.
const (
	ProcessorGroup = "attribution-processor"
	SinkGroup      = "clickhouse-sink"
)

// SuffixedSinkGroup returns the group of the sinks of one of several warehouses: the
// first has no suffix.
func SuffixedSinkGroup(suffix string) string {
	if suffix == "" {
		return SinkGroup
	}
	return SinkGroup + "-" + suffix
}

// Record headers.
const (
	// HeaderToken ("t") is "1" on a click whose token the visitor got: only such a
	// click can bring conversions.
	HeaderToken = "t"
	// HeaderReplay marks a click that may have been sent before. It has no value.
	HeaderReplay = "replay"
	// HeaderWaited marks an outcome whose event waited for its click or its parent, so
	// that its latency says nothing about the processor. It has no value.
	HeaderWaited = "waited"
	// The headers of a dead letter.
	HeaderError           = "error"
	HeaderSourceTopic     = "source-topic"
	HeaderSourcePartition = "source-partition"
	HeaderSourceOffset    = "source-offset"
	HeaderFailedAt        = "failed-at"
)

// DefaultPartitions is the partition count of a new installation.
const DefaultPartitions = 6

// ClickMargin is how long clicks and conversions are kept beyond the click life, so
// that a processor or sink that was stopped still finds its input.
const ClickMargin = 5 * 24 * time.Hour

const (
	ledgerRetention    = 45 * 24 * time.Hour // of outcomes, progress, rejections and dead letters
	tombstoneRetention = 7 * 24 * time.Hour  // of the changelog's tombstones
)

// DefaultClickLife is how long a click can bring conversions.
const DefaultClickLife = 40 * 24 * time.Hour

// DeliveryLimit bounds the time from a record's timestamp to its append in Kafka, for
// clicks and conversions. Producers give up after half of it. The processor does not
// close a wait that ended less than DeliveryLimit (or a tenth of the grace, if that is
// less) ago.
const DeliveryLimit = time.Minute

// Spec is what a topic must look like.
type Spec struct {
	Name       string // with prefix
	Partitions int32
	// Partitioned: partition p belongs to partition p of the inputs. A different count
	// would make every join wrong.
	Partitioned bool
	Config      map[string]string // settings of the topic, by Kafka's names
}

// Specs lists all topics for a partition count and click life. Every name begins with
// prefix.
func Specs(prefix string, partitions int32, clickLife time.Duration) []Spec {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	expire := func(d time.Duration) map[string]string {
		return map[string]string{"cleanup.policy": "delete", "retention.ms": ms(d)}
	}
	compact := map[string]string{"cleanup.policy": "compact"}
	specs := []Spec{
		{Catalog, 1, false, compact},
		{Clicks, partitions, true, expire(clickLife + ClickMargin)},
		{Conversions, partitions, true, expire(clickLife + ClickMargin)},
		{Outcomes, partitions, true, expire(ledgerRetention)},
		{Changelog, partitions, true, map[string]string{
			"cleanup.policy": "compact", "delete.retention.ms": ms(tombstoneRetention)}},
		{Progress, partitions, true, map[string]string{
			"cleanup.policy": "compact,delete", "retention.ms": ms(ledgerRetention)}},
		{Rejections, 1, false, expire(ledgerRetention)},
		{DeadLetters, 1, false, expire(ledgerRetention)},
	}
	for i := range specs {
		specs[i].Name = prefix + specs[i].Name
	}
	return specs
}

// Epoch is a period and the partition count of the tokens minted in it.
type Epoch struct {
	From       time.Time `json:"from"` // inclusive; zero in the first epoch
	Partitions int32     `json:"partitions"`
}

// Epochs maps tokens to partitions. The first epoch begins at the zero time; each later
// one has more partitions: `ctl topics grow` adds it. A token keeps the partition that it
// was minted for.
type Epochs []Epoch

// OneEpoch returns the epochs of an installation whose partition count never changed.
func OneEpoch(partitions int32) Epochs { return Epochs{{Partitions: partitions}} }

// Validate reports epochs that leave tokens without partition, or that do not begin in
// order with ever more partitions.
func (e Epochs) Validate() error {
	if len(e) == 0 || !e[0].From.IsZero() {
		return errors.New("partition epochs: the first must begin at the zero time")
	}
	for i, x := range e {
		if x.Partitions < 1 {
			return fmt.Errorf("partition epochs: epoch %d has %d partitions", i, x.Partitions)
		}
		if i > 0 && (!x.From.After(e[i-1].From) || x.Partitions <= e[i-1].Partitions) {
			return fmt.Errorf(
				"partition epochs: epoch %d must begin later and have more partitions than the one before", i)
		}
	}
	return nil
}

// Partition returns the partition of a token in all co-partitioned topics. minted is
// the token's time.
func (e Epochs) Partition(token string, minted time.Time) int32 {
	return murmur2Partition(token, e.Count(minted))
}

// Count returns the partition count of tokens minted at a time.
func (e Epochs) Count(minted time.Time) int32 {
	if len(e) == 1 {
		return e[0].Partitions
	}
	i, found := slices.BinarySearchFunc(e, minted, func(x Epoch, t time.Time) int { return x.From.Compare(t) })
	if !found {
		i--
	}
	return e[i].Partitions
}

// Now returns the partition count of the newest epoch, which the topics must have, also
// before that epoch begins.
func (e Epochs) Now() int32 { return e[len(e)-1].Partitions }

// murmur2Partition maps a key as Kafka's default partitioner does: the hash without its
// sign bit, modulo n.
func murmur2Partition(key string, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// murmur2 is MurmurHash2 as in Kafka's org.apache.kafka.common.utils.Utils.murmur2,
// with seed 0x9747b28c.
func murmur2(b string) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
