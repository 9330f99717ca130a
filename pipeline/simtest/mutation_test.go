package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/internal/mutant"
)

// mutations break the protocol in one place each. The simulation must notice every one:
// else it shows nothing.
var mutations = []struct {
	broken string
	edit   mutant.Edit
}{
	{"state is applied before the transaction has ended", mutant.Edit{File: "../engine/commit.go", Old: `	ok, err := s.endTransaction()
`, New: `	for _, p := range s.running {
		if err := p.applyCommit(s.env.Now()); err != nil {
			return err
		}
	}
	ok, err := s.endTransaction()
`}},
	{"the session goes on after an error of End", mutant.Edit{File: "../engine/commit.go",
		Old: `		return fmt.Errorf("ending a transaction: %w", err)
	case !ok:`, New: `		if _, err := s.gts.End(context.Background(), kgo.TryAbort); err != nil {
			return fmt.Errorf("ending a transaction: %w", err)
		}
		return nil
	case !ok:`}},
	{"a restore reads what is not committed",
		mutant.Edit{File: "../engine/restore.go", Old: `kgo.ReadCommitted()`,
			New: `kgo.ReadUncommitted()`}},
	{"a standby reads what is not committed",
		mutant.Edit{File: "../engine/standbyreader.go", Old: `kgo.FetchIsolationLevel(kgo.ReadCommitted())`,
			New: `kgo.FetchIsolationLevel(kgo.ReadUncommitted())`}},
	{"a transaction of timers carries no offsets", mutant.Edit{File: "../engine/commit.go",
		Old: `		ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, s.replaceOffsets), kgo.TryCommit)
`, New: `		moved := false
		for _, p := range s.running {
			moved = moved || p.leading.next != p.leading.committed || p.following.next != p.following.committed
		}
		if !moved {
			err := s.gts.Client().Flush(ctx)
			if err == nil {
				err = s.gts.Client().EndTransaction(ctx, kgo.TryCommit)
			}
			done <- answer{err == nil, err}
			return
		}
		ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, s.replaceOffsets), kgo.TryCommit)
`}},
	{"a restore reads to the last stable offset", mutant.Edit{File: "../engine/restore.go", Old: `	if err := p.enterChangelog(at); err != nil {
`, New: `	at.End = max(at.Stable, p.identity.Position)
	if err := p.enterChangelog(at); err != nil {
`}},
	// The flush between the two batches may come at any time; here it comes each time.
	{"the changelog position is in a batch of its own", mutant.Edit{File: "../engine/partition.go",
		Old: `		p.identity.Position, p.identity.At = p.changelogEnd.Load(), now.UnixMilli()
`, New: `		p.identity.Position, p.identity.At = p.changelogEnd.Load(), now.UnixMilli()
		early := p.Store.NewBatch()
		if err := errors.Join(p.identity.putRow(early), early.Commit(), p.Store.Flush()); err != nil {
			return err
		}
`}},
	{"a click that is read again ends no wait", mutant.Edit{File: "../processor/clicks.go",
		Old: `	if _, replay := kafka.Header(r, topic.HeaderReplay); replay`, New: `	if r.Offset < c.log.Next() {
		return t, false, nil
	}
	if _, replay := kafka.Header(r, topic.HeaderReplay); replay`}},
	{"a segment is visible before what it vouches for is durable",
		mutant.Edit{File: "../clicklog/seal.go", Old: `	if err == nil && w.slab.hasOutOfOrder {`,
			New: `	if err == nil && false {`}},
	{"a wait ends before both inputs were read to their ends", mutant.Edit{File: "../engine/loop.go",
		Old: `	reached := hasReached(latest.leading, p.ID, p.leading.next) &&
		hasReached(latest.following, p.ID, p.following.next)
`, New: `	reached := true
`}},
	{"a segment is visible before it is durable", mutant.Edit{File: "../clicklog/seal.go", Old: `	if err == nil {
		err = f.Sync()
	}
`, New: ``}},
	{"a replay counts as the first", mutant.Edit{File: "../processor/clicks.go",
		Old: `		if found { // sent twice`, New: `		if found && false { // sent twice`}},
	{"the state of another partition is taken for one's own",
		mutant.Edit{File: "../engine/identity.go", Old: ` ||
		m.Partition != want.Partition {`, New: ` {`}},
	{"a transaction commits whatever became of its rows", mutant.Edit{File: "../engine/commit.go",
		Old: `	s.env.Step(StepProduced)
	return s.flushProduced(tx)
}`, New: `	s.env.Step(StepProduced)
	return nil
}`}},
}

// quick are mutations that the first seeds notice: a plain go test tries these,
// PARTNERS_TEST_LONG=1 tries all.
var quick = []string{
	"state is applied before the transaction has ended",
	"a restore reads what is not committed",
	"the changelog position is in a batch of its own",
}

// TestMutations runs the simulation of broken processors.
func TestMutations(t *testing.T) {
	seeds, tried := shortSeeds, 0
	if long() {
		seeds = 400 // a segment that is visible too early was noticed after 10, 67, and more than 100
	}
	seed := regexp.MustCompile(`seed (\d+): [^\n]*`)
	for _, m := range mutations {
		if err := m.edit.Check(); err != nil {
			t.Errorf("%s: %v", m.broken, err)
			continue
		}
		if !long() && !slices.Contains(quick, m.broken) {
			continue
		}
		tried++
		t.Run(strings.ReplaceAll(m.broken, " ", "_"), func(t *testing.T) {
			t.Parallel()
			bin := mutant.Build(t, m.edit)
			timeout := time.Duration(0) // none
			if end, ok := t.Deadline(); ok {
				timeout = max(time.Until(end)-10*time.Second, time.Second)
			}
			cmd := exec.CommandContext(t.Context(), bin, "-test.run=^TestSimulation$", "-test.timeout="+
				timeout.String())
			cmd.Env = append(os.Environ(), "PARTNERS_TEST_SEED=1", fmt.Sprint("PARTNERS_TEST_SEEDS=", seeds))
			began := time.Now()
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("%d seeds, and nothing fails", seeds)
			case !errors.As(err, &exit):
				t.Fatal(err)
			case bytes.Contains(out, []byte("panic: test timed out")):
				t.Fatalf("nothing failed in time\n%s", out)
			default:
				found := seed.FindSubmatch(out)
				if found == nil {
					t.Fatalf("it fails without naming a seed\n%s", out)
				}
				t.Logf("noticed after %v: %s", time.Since(began).Round(100*time.Millisecond), found[0])
			}
		})
	}
	if tried < len(quick) {
		t.Errorf("only %d of the quick mutations are tried: one has another name", tried)
	}
}
