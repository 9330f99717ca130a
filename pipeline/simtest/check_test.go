package simtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/internal/scenario"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// settle waits until every event has its row, and holds the ledger against the oracle.
func (w *world) settle(ctx context.Context) (*scenario.Ledger, error) {
	if w.grace > shortGrace {
		if err := w.prompt(ctx); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(2*time.Minute + 2*w.grace)
	for {
		time.Sleep(4*time.Second + w.grace/4)
		l, err := scenario.ReadLedger(ctx, w.config())
		if err != nil {
			return nil, err
		}
		want := l.Expected(w.grace).Outcomes
		var wrong error
		if diff := oracle.Diff(want, l.Outcomes); diff != nil {
			wrong = fmt.Errorf("the ledger is not the oracle's: %d rows, want %d:\n%s",
				len(l.Outcomes), len(want), strings.Join(diff[:min(len(diff), 10)], "\n"))
		}
		if wrong = errors.Join(wrong, l.CheckConservation()); wrong == nil {
			return l, nil
		}
		if err := w.failure(); err != nil {
			return l, err
		}
		if len(l.Outcomes) > len(want) || time.Now().After(deadline) {
			return l, wrong
		}
	}
}

// prompt checks, long before any wait is over, that nobody waits who need not. The end
// of a wait puts right what was overlooked, so it hides that verdicts come late.
func (w *world) prompt(ctx context.Context) error {
	time.Sleep(time.Minute) // a recovery that reads topic catalog anew, twice, can take half of it
	l, err := scenario.ReadLedger(ctx, w.config())
	if err != nil {
		return err
	}
	have := make(map[oracle.Position]bool)
	for _, o := range l.Outcomes {
		have[oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}] = true
	}
	for _, o := range l.ExpectedUnexpired(w.grace).Outcomes {
		if !have[oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}] {
			return fmt.Errorf("the event at partition %d offset %d still waits: it is %s %s, and all that it "+
				"needs is there", o.EventPartition, o.EventOffset, o.Verdict, o.Reason)
		}
	}
	return nil
}

// answers is what a state directory answers, in a form to compare.
type answers struct {
	rows   map[string]string
	clicks map[string]string
}

// restoreAlone runs a slot alone on a disk until every partition is restored there,
// ends it in peace, and asks its files.
func (w *world) restoreAlone(name string, disk *vfs.MemFS, tokens map[string]bool) (map[int32]answers, error) {
	m := &machine{w: w, name: name, disk: disk}
	partitions := w.count()
	restored := make(chan struct{}, 2*partitions)
	w.mu.Lock()
	w.restored = restored
	w.mu.Unlock()
	m.start()
	for range partitions {
		select {
		case <-restored:
		case <-time.After(time.Minute):
			return nil, fmt.Errorf("%s does not restore its partitions", name)
		}
	}
	if err := m.stop(); err != nil {
		return nil, err
	}
	all := make(map[int32]answers)
	for id := range partitions {
		i, err := processor.Inspect(m.disk, stateDir, id, w.log(name))
		if err != nil {
			return nil, err
		}
		a := answers{make(map[string]string), make(map[string]string)}
		err = i.Rows(func(key, value []byte) bool {
			a.rows[string(key)] = string(value)
			return true
		})
		for tok := range tokens {
			raw, bad := token.Parse(tok)
			wire, at, ok, bad2 := i.Click((*[20]byte)(&raw))
			if err = errors.Join(err, bad, bad2); ok {
				a.clicks[tok] = fmt.Sprintf("%d %s", at, wire)
			}
		}
		if err := errors.Join(err, i.Close()); err != nil {
			return nil, fmt.Errorf("asking partition %d of %s: %w", id, name, err)
		}
		all[id] = a
	}
	return all, nil
}

// checkStates compares what both machines' disks and one that starts empty answer, with
// each other, with the clicks in Kafka, and with the oracle.
func (w *world) checkStates(l *scenario.Ledger) error {
	tokens := make(map[string]bool)
	first := make(map[string]string)
	for i, k := range l.Clicks {
		tokens[k.ClickToken] = true
		if first[k.ClickToken] == "" {
			first[k.ClickToken] = fmt.Sprintf("%d %s", k.At, l.ClickBytes[i])
		}
	}
	for _, e := range l.Events {
		tokens[e.ClickToken] = true
	}
	anew, err := w.restoreAlone("slot-anew", vfs.NewCrashableMem(), tokens)
	if err != nil {
		return err
	}
	for _, m := range w.machines {
		kept, err := w.restoreAlone(m.name, m.disk, tokens)
		if err != nil {
			return err
		}
		for id := range w.count() {
			if err := errors.Join(same("row", kept[id].rows, anew[id].rows), same("click", kept[id].clicks,
				anew[id].clicks)); err != nil {
				return fmt.Errorf("partition %d of %s, against one made anew: %w", id, m.name, err)
			}
		}
	}
	clicks := make(map[string]string)
	for _, a := range anew {
		maps.Copy(clicks, a.clicks)
	}
	if err := same("click", clicks, first); err != nil {
		return fmt.Errorf("against the log: %w", err)
	}
	return standing(anew, l.Expected(w.grace))
}

func same(what string, got, want map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[k]; !ok || g != want[k] {
			return fmt.Errorf("%s %q is %q (there: %v), want %q; %d of %d", what, k, g, ok, want[k], len(got),
				len(want))
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			return fmt.Errorf("%s %q is there and should not be", what, k)
		}
	}
	return nil
}

// standing compares what is left of each event, and that nothing waits, with the oracle.
func standing(states map[int32]answers, want oracle.Result) error {
	got := make(map[oracle.Position]oracle.Money)
	for id, a := range states {
		for key, value := range a.rows {
			if !bytes.HasPrefix([]byte(key), event.JourneyPrefix(new([20]byte))[:1]) {
				if bytes.HasPrefix([]byte(key), event.DeadlineKey(0, new([20]byte), 0)[:1]) {
					return fmt.Errorf("partition %d: an event still waits: %x", id, key)
				}
				continue
			}
			_, kind, ok := event.ParseJourneyKey([]byte(key))
			if !ok {
				return fmt.Errorf("partition %d: no key of a journey: %x", id, key)
			}
			if kind != event.KindEvent {
				continue
			}
			var e event.JourneyEvent
			if err := event.DecodeEvent([]byte(value), &e); err != nil {
				return fmt.Errorf("partition %d: %x: %w", id, key, err)
			}
			if e.Effect != 0 {
				m := oracle.Money{Minor: e.Standing(), Currency: e.Currency, Exponent: e.Exponent}
				got[oracle.Position{Partition: id, Offset: e.Offset}] = m
			}
		}
	}
	for p, m := range want.Standing {
		if g, ok := got[p]; !ok || g != m {
			return fmt.Errorf("of the event at partition %d offset %d %v is left (there: %v), the oracle says %v",
				p.Partition, p.Offset, g, ok, m)
		}
	}
	if len(got) != len(want.Standing) {
		return fmt.Errorf("%d events have something left, the oracle says %d", len(got), len(want.Standing))
	}
	return nil
}
