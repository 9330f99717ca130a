package simtest

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stepDisk is before an operation that changes a file.
const stepDisk = "disk"

var steps = []string{processor.StepAssigned, processor.StepOpened, processor.StepRestored, processor.StepPolled,
	processor.StepJudged, processor.StepFlushed, processor.StepProduced, processor.StepEndFailed,
	processor.StepEnded, processor.StepApplied, processor.StepRevoked, stepDisk}

// inTransaction are the steps that the session's goroutine takes between a poll and the
// end of a transaction: no callback runs meanwhile.
var inTransaction = map[string]bool{processor.StepPolled: true, processor.StepJudged: true,
	processor.StepFlushed: true, processor.StepProduced: true, processor.StepEndFailed: true,
	processor.StepEnded: true, processor.StepApplied: true}

// fault is something that goes wrong for the process l at the moment when it takes a
// step. It may sleep if that is what goes wrong.
type fault struct {
	name   string
	inject func(w *world, l *life, step string)
}

var faults = []fault{
	{"kill", func(w *world, l *life, step string) {
		l.m.crash(l, w.below(101), func(d *vfs.MemFS) *vfs.MemFS { return d })
		w.after(w.upTo(2*time.Second), l.m.start)
	}},
	{"kill, lost", func(w *world, l *life, step string) {
		l.m.crash(l, 100, func(*vfs.MemFS) *vfs.MemFS { return vfs.NewCrashableMem() })
		w.after(w.upTo(time.Second), l.m.start)
	}},
	{"kill, older", func(w *world, l *life, step string) {
		l.m.crash(l, 100, func(d *vfs.MemFS) *vfs.MemFS {
			if l.m.old == nil {
				return d
			}
			return l.m.old.CrashClone(vfs.CrashCloneCfg{})
		})
		w.after(w.upTo(time.Second), l.m.start)
	}},
	{"kill, other", func(w *world, l *life, step string) {
		a := int32(w.below(partitions))
		l.m.crash(l, 100, func(d *vfs.MemFS) *vfs.MemFS {
			d, err := exchange(d, a, (a+1)%partitions)
			if err != nil {
				w.fail(fmt.Errorf("exchanging directories: %w", err))
			}
			return d
		})
		w.after(w.upTo(time.Second), l.m.start)
	}},
	{"network", func(w *world, l *life, step string) {
		l.cable.unplug([]error{errRefused, errDown}[w.below(2)])
		w.after(w.upTo(3*time.Second), l.cable.plug)
	}},
	{"stop", func(w *world, l *life, step string) {
		w.startAll() // somebody must be there to take over
		l.cable.freeze()
		// Now and then every deadline passes but that of the watchdog, whose process
		// leaves goroutines behind when it goes. Not where others wait for the stopped
		// goroutine with a lock: virtual time would not move.
		longest := 3 * time.Second
		if inTransaction[step] && w.below(4) == 0 {
			longest = 45 * time.Second
		}
		time.Sleep(sessionTimeout + w.upTo(longest))
		l.cable.thaw()
	}},
	{"rebalance", func(w *world, l *life, step string) {
		other := w.machines[0]
		if other == l.m {
			other = w.machines[1]
		}
		if other.running() == nil {
			w.after(0, other.start)
			return
		}
		w.after(0, func() {
			if err := other.stop(); err != nil && !selfEnded(err) {
				w.fail(err)
			}
			w.after(w.upTo(time.Second), other.start)
		})
	}},
	{"abort", func(w *world, l *life, step string) {
		w.refuse(refusals[w.below(len(refusals))], topic.ProcessorGroup+"-"+l.m.name)
	}},
	{"request lost", func(w *world, l *life, step string) { w.lose(l, true) }},
	{"answer lost", func(w *world, l *life, step string) { w.lose(l, false) }},
	{"clock", func(w *world, l *life, step string) {
		l.m.shift.Store(-int64(2 * time.Hour))
		w.after(w.upTo(4*time.Second), func() { l.m.shift.Store(0) })
	}},
}

// refusal is a request of a transaction that the broker refuses once.
type refusal struct {
	name  string
	fault kfake.Fault
}

var refusals = []refusal{
	{"offsets, generation", kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration}},
	{"offsets, member", kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownMemberID}},
	{"end, state", kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState, TopLevel: true}},
	{"changelog, epoch", kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Changelog,
		Err: kerr.InvalidProducerEpoch}},
	{"changelog, too large", kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Changelog,
		Err: kerr.MessageTooLarge}},
	{"outcomes, too large", kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Outcomes,
		Err: kerr.MessageTooLarge}},
	{"progress, too large", kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Progress,
		Err: kerr.MessageTooLarge}},
}

// refuse lets the broker refuse the next such request of a transactional id. The id is
// compared here: a fault that selects on what its request's site does not name never
// matches, and kfake's Produce names no transactional id.
func (w *world) refuse(r refusal, transactionalID string) {
	r.fault.When = func(req kmsg.Request) bool {
		id := ""
		switch req := req.(type) {
		case *kmsg.TxnOffsetCommitRequest:
			id = req.TransactionalID
		case *kmsg.EndTxnRequest:
			id = req.TransactionalID
		case *kmsg.ProduceRequest:
			if req.TransactionID != nil {
				id = *req.TransactionID
			}
		}
		if id != transactionalID {
			return false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refused[r.name]++
		return true
	}
	w.cluster.Fault(r.fault)
}

// lose loses what is said about EndTxn: once, or until the client has given up.
func (w *world) lose(l *life, requests bool) {
	l.cable.requests.Store(requests)
	if w.below(2) == 0 {
		l.cable.losing.Store(1)
		return
	}
	l.cable.losing.Store(1 << 30)
	w.after(w.upTo(8*time.Second), func() { l.cable.losing.Store(0) })
}

// cell is a fault at a step.
type cell struct{ step, fault string }

// impossible says which faults cannot be at which steps, and why.
var impossible = map[cell]string{
	{stepDisk, "stop"}: "a process that is stopped while it writes a file holds locks that others wait for, which " +
		"virtual time takes for work; it is the same as one stopped at the step that waits for the file",
}

// cells are all faults at all steps.
func cells() (all []cell) {
	for _, s := range steps {
		for _, f := range faults {
			if c := (cell{s, f.name}); impossible[c] == "" {
				all = append(all, c)
			}
		}
	}
	return all
}

func (c cell) injector() func(*world, *life, string) {
	i := slices.IndexFunc(faults, func(f fault) bool { return f.name == c.fault })
	return faults[i].inject
}

// matrix is how often each fault was injected at each step.
type matrix map[cell]int

func (m matrix) String() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, s := range steps {
		fmt.Fprintf(t, "\t%s", s)
	}
	fmt.Fprintln(t, "\t")
	for _, f := range faults {
		fmt.Fprint(t, f.name)
		for _, s := range steps {
			if c := (cell{s, f.name}); impossible[c] != "" {
				fmt.Fprint(t, "\t-")
			} else {
				fmt.Fprintf(t, "\t%d", m[c])
			}
		}
		fmt.Fprintln(t, "\t")
	}
	t.Flush()
	return b.String()
}
