package sink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
)

const (
	// repairBeat is how often a repair says that it runs.
	repairBeat = 5 * time.Second
	// repairLockLife is how long sinks believe it. A killed repair keeps them waiting no
	// longer.
	repairLockLife = 30 * time.Second
	// repairBeatLimit is how long a repair goes on without having said so. It ends while
	// sinks still believe that it runs.
	repairBeatLimit = repairLockLife - 2*repairBeat
)

// repairEnd is what sinks wait for.
const repairEnd = "the end of `ctl warehouse repair`, `drop-months` or `ctl rollup rebuild`"

// checkNoRepair returns ErrRepairing if a repair other than holder's own runs.
func checkNoRepair(ctx context.Context, wh *clickhouse.Conn, holder string) error {
	var running []struct {
		Host   string    `ch:"host"`
		BeatAt time.Time `ch:"last_beat"`
	}
	err := wh.Select(ctx, &running, `
		SELECT any(host) AS host, max(beat_at) AS last_beat
		FROM repairs
		WHERE holder != {holder:String}
		GROUP BY holder
		HAVING NOT max(ended) AND last_beat > now64(3) - toIntervalSecond({life:UInt32})
		LIMIT 1`,
		clickhouse.Named("holder", holder),
		clickhouse.Named("life", uint32(repairLockLife.Seconds())))
	if err != nil {
		return fmt.Errorf("looking for a running repair: %w", err)
	}
	for _, r := range running {
		return fmt.Errorf("%w: `ctl warehouse repair`, `drop-months` or `ctl rollup rebuild` on host %s said so at "+
			"%s; if it was killed, its lock ends %v later",
			ErrRepairing, r.Host, r.BeatAt.UTC().Format(time.TimeOnly), repairLockLife)
	}
	return nil
}

// repairLock keeps sinks from claiming partitions while a repair runs.
type repairLock struct {
	wh     *clickhouse.Conn
	holder string
	host   string
	ended  chan struct{} // closed when no beat follows any more
	cancel context.CancelCauseFunc
}

// acquireRepairLock takes the lock, and returns a context that ends with ErrRepairLock if
// it is lost. The caller must then look whether a sink was there before: see CheckIdle.
func acquireRepairLock(ctx context.Context, wh *clickhouse.Conn) (context.Context, *repairLock, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("taking the lock against sinks: %w", err)
	}
	l := &repairLock{wh: wh, holder: rand.Text(), host: host, ended: make(chan struct{})}
	if err := l.beat(ctx, false); err != nil {
		return nil, nil, fmt.Errorf("taking the lock against sinks: %w", err)
	}
	held, cancel := context.WithCancelCause(ctx)
	l.cancel = cancel
	go l.keep(held)
	if err := checkNoRepair(ctx, wh, l.holder); err != nil {
		return nil, nil, errors.Join(err, l.release(ctx))
	}
	return held, l, nil
}

// HoldTables takes the lock of a repair for a caller that computes from all rows: no
// repair runs, no month is dropped and no sink begins until release is called. held ends
// with ErrRepairLock if the lock is lost.
func HoldTables(ctx context.Context, wh *clickhouse.Conn) (held context.Context, release func() error, err error) {
	held, lock, err := acquireRepairLock(ctx, wh)
	if err != nil {
		return nil, nil, err
	}
	return held, func() error { return lock.release(ctx) }, nil
}

// beat says that the repair runs, or that it has ended.
func (l *repairLock) beat(ctx context.Context, ended bool) error {
	into := clickhouse.Insert{Table: "repairs", Columns: []string{"holder", "host", "ended"}}
	return l.wh.Insert(ctx, into, func(row *clickhouse.Batch) error { return row.Append(l.holder, l.host, ended) })
}

// keep beats until ctx ends, or ends it when ClickHouse has not answered for too long.
func (l *repairLock) keep(ctx context.Context) {
	defer close(l.ended)
	last := time.Now()
	for outage.Sleep(ctx, repairBeat) {
		began := time.Now()
		attempt, cancel := context.WithDeadline(ctx, last.Add(repairBeatLimit))
		err := l.beat(attempt, false)
		cancel()
		switch {
		case err == nil:
			last = began
		case time.Since(last) >= repairBeatLimit:
			l.cancel(fmt.Errorf("%w: ClickHouse has not taken a sign of life for %v: %w", ErrRepairLock,
				repairBeatLimit, err))
			return
		}
	}
}

// release lets sinks go on at once. If that fails, they go on when the lock's life ends.
func (l *repairLock) release(ctx context.Context) error {
	l.cancel(context.Canceled)
	<-l.ended
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), repairBeat)
	defer cancel()
	if err := l.beat(ctx, true); err != nil {
		return fmt.Errorf("ending the lock against sinks: %w", err)
	}
	return nil
}
