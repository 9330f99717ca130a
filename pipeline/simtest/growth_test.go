package simtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/topic"
)

// growths are the partition counts to which every seed's installation grows.
var growths = []int32{4, 6}

// nearby is how near a token's time is to the beginning of an epoch that is counted.
const nearby = 2 * time.Second

// errBrokenOff breaks `topics grow` off.
var errBrokenOff = errors.New("broken off")

// grow adds partitions twice, each time broken off after any of its steps, and repeated
// some time later.
func (w *world) grow(ctx context.Context) {
	steps := append(append([]string{"intent"}, topic.CoPartitioned()...), "shown", "recorded", "")
	for _, n := range growths {
		time.Sleep(w.upTo(20 * time.Second))
		want := kafka.DefaultGrowConfig()
		want.Partitions, want.Lead = n, time.Second
		want.At = time.Now().Add(want.Lead + time.Second + w.upTo(6*time.Second)).Truncate(time.Second)
		w.mu.Lock()
		w.begins = append(w.begins, want.At)
		w.mu.Unlock()
		for done := false; !done; {
			last := steps[w.below(len(steps))]
			want.Step = func(name string) error {
				if name == last {
					return errBrokenOff
				}
				return nil
			}
			_, err := kafka.Grow(ctx, w.client, w.config(), want, w.log("grow"))
			switch {
			case errors.Is(err, errBrokenOff):
				time.Sleep(w.upTo(5 * time.Second))
			case err != nil:
				w.fail(fmt.Errorf("growing to %d: %w", n, err))
				return
			}
			done = err == nil
		}
		time.Sleep(time.Until(want.At.Add(2 * nearby)))
	}
}

// place waits until a token can be placed, as a redirector and a gateway do.
func (w *world) place(text string) int32 {
	met := time.Now()
	raw, err := token.Parse(text)
	if err != nil {
		w.fail(err)
		return 0
	}
	minted := token.Time(&raw)
	for {
		changed := w.placer.Changed()
		partition, ok := w.placer.Place(text, minted, met)
		switch {
		case !ok:
			<-changed
		case !w.knows(partition):
			w.client.ForceMetadataRefresh()
			time.Sleep(100 * time.Millisecond)
		default:
			w.countNear(minted)
			return partition
		}
	}
}

// knows reports whether the client has heard of a partition, of each topic that it writes.
func (w *world) knows(partition int32) bool {
	for _, name := range []string{topic.Clicks, topic.Conversions} {
		first, _, _ := w.client.PartitionLeader(name, 0)
		if leader, _, _ := w.client.PartitionLeader(name, partition); first >= 0 && leader < 0 {
			return false
		}
	}
	return true
}

func (w *world) countNear(minted time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.begins, func(at time.Time) bool { return minted.Sub(at).Abs() <= nearby }) {
		w.near++
	}
}

// count is how many partitions there are.
func (w *world) count() int32 { return w.placer.Install().Epochs.Now() }
