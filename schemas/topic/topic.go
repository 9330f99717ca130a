package topic

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Topic names, before any prefix.
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

// Consumer groups, before any prefix.
const (
	ProcessorGroup = "attribution-processor"
	SinkGroup      = "clickhouse-sink"
)

// Record headers.
const (
	// HeaderToken ("t") is "1" on a click whose token was shown to the visitor: only
	// such a click can bring conversions.
	HeaderToken = "t"
	// HeaderReplay marks a click that may already have been sent.
	HeaderReplay = "replay"
	// HeaderWaited marks an outcome whose event waited for its click or its parent: the
	// time until its verdict was not ours to shorten.
	HeaderWaited = "waited"
	// The headers of a dead letter.
	HeaderError           = "error"
	HeaderSourceTopic     = "source-topic"
	HeaderSourcePartition = "source-partition"
	HeaderSourceOffset    = "source-offset"
	HeaderFailedAt        = "failed-at"
)

// DefaultPartitions is the partition count of a fresh install.
const DefaultPartitions = 6

// Retention beyond what the contents need, so that a stopped processor or sink finds
// its input again.
const (
	ClickMargin = 5 * 24 * time.Hour
	factsLife   = 45 * 24 * time.Hour
	tombstones  = 7 * 24 * time.Hour
)

// DefaultClickLife is how long a click can bring conversions.
const DefaultClickLife = 40 * 24 * time.Hour

// DeliveryLimit is how long a record of clicks or conversions may be under way, from
// its timestamp to its place in the log. Producers give up after half of it; the
// processor closes no wait that ended within it, if a tenth of the grace is as much.
const DeliveryLimit = time.Minute

// Spec is what a topic must look like.
type Spec struct {
	Name       string
	Partitions int32
	// Partitioned: partition p belongs to partition p of the inputs, so a count that
	// differs makes every join wrong.
	Partitioned bool
	Config      map[string]string
}

// Specs lists all topics for the given partition count and click life. prefix stands
// before every name.
func Specs(prefix string, partitions int32, clickLife time.Duration) []Spec {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	del := func(d time.Duration) map[string]string {
		return map[string]string{"cleanup.policy": "delete", "retention.ms": ms(d)}
	}
	compact := map[string]string{"cleanup.policy": "compact"}
	specs := []Spec{
		{Catalog, 1, false, compact},
		{Clicks, partitions, true, del(clickLife + ClickMargin)},
		{Conversions, partitions, true, del(clickLife + ClickMargin)},
		{Outcomes, partitions, true, del(factsLife)},
		{Changelog, partitions, true, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": ms(
			tombstones)}},
		{Progress, partitions, true, map[string]string{"cleanup.policy": "compact,delete", "retention.ms": ms(
			factsLife)}},
		{Rejections, 1, false, del(factsLife)},
		{DeadLetters, 1, false, del(factsLife)},
	}
	for i := range specs {
		specs[i].Name = prefix + specs[i].Name
	}
	return specs
}

// Epoch is a stretch of mint times and the partition count of its tokens.
type Epoch struct {
	From       time.Time `json:"from"` // inclusive; zero in the first epoch
	Partitions int32     `json:"partitions"`
}

// Epochs decides co-partitioning. The first epoch begins at the zero time; each later
// one has more partitions.
type Epochs []Epoch

// OneEpoch is an install that never grew.
func OneEpoch(partitions int32) Epochs { return Epochs{{Partitions: partitions}} }

// Validate reports epochs that would send one token to two partitions or that would
// shrink.
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

// Partition returns the partition of a token by its text and mint time, for all topics
// that are co-partitioned.
func (e Epochs) Partition(token string, minted time.Time) int32 {
	n := e[0].Partitions
	if len(e) > 1 {
		i, found := slices.BinarySearchFunc(e, minted, func(x Epoch, t time.Time) int { return x.From.Compare(t) })
		if !found {
			i--
		}
		n = e[i].Partitions
	}
	return murmur2Partition(token, n)
}

// Now returns the partition count of tokens that are minted today: what the topics must
// have.
func (e Epochs) Now() int32 { return e[len(e)-1].Partitions }

// murmur2Partition is what Kafka's default partitioner does with a key: the hash
// without its sign bit, modulo n.
func murmur2Partition(key string, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// murmur2 is the variant of org.apache.kafka.common.utils.Utils.murmur2 (seed
// 0x9747b28c).
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
