package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Placement is whether a record lies in the partition that its token is bound to.
type Placement int

// The placements of a record.
const (
	Placed    Placement = iota // it does, or records could not be misplaced yet
	Misplaced                  // it lies in another one
	// Undecided: topic catalog must first be read to an end that was listed after the
	// record came. By what was read so far it lies in another partition, and its sender may
	// have known a newer record of the installation; or a record that says since when
	// records can be misplaced may be there, unread.
	Undecided
)

// String names a placement as logs do.
func (p Placement) String() string { return [...]string{"placed", "misplaced", "undecided"}[p] }

// Binding is what the records of the installation say of tokens. The zero value binds
// none: there are no records.
type Binding struct {
	Epochs topic.Epochs
	// Since is compared with Kafka timestamps. Records from before count as placed: they
	// may have been judged by a program that does not look at places. Zero: all do.
	Since time.Time
}

// ReadBinding reads what tokens are bound to.
func ReadBinding(ctx context.Context, cfg Config, log *slog.Logger) (Binding, error) {
	install, since, err := readInstallRecords(ctx, cfg, log, nil)
	if install == nil || err != nil {
		return Binding{}, err
	}
	return Binding{install.Epochs, since}, nil
}

// IsMisplaced reports whether a record with a Kafka timestamp lies in another partition
// than its token's. minted is the token's time. The answer depends on nothing else, so
// processor, sink, a rebuild and a verification agree.
func (b Binding) IsMisplaced(partition int32, at time.Time, token string, minted time.Time) bool {
	return len(b.Epochs) > 0 && !b.Since.IsZero() && !at.Before(b.Since) &&
		b.Epochs.Partition(token, minted) != partition
}

// ErrMisplaced: a record is not in the partition that its token is bound to.
var ErrMisplaced = errors.New("wrong partition")

// installInterval is how often a follower lists the end of topic catalog if nobody asks.
const installInterval = 10 * time.Second

// InstallFollower follows topic catalog for the record of the installation and for tokens
// that were given up, and knows how far it has read: nobody may judge where a token
// belongs before having read the topic to an end that was listed later than what he
// judges. It is for concurrent use.
type InstallFollower struct {
	cfg    Config
	log    *slog.Logger
	cancel context.CancelFunc
	ended  sync.WaitGroup
	asked  chan struct{} // holds one: somebody waits for a newer listing

	mu       sync.Mutex
	install  *topic.Install  // nil: no record, as far as was read
	since    time.Time       // since when records can be misplaced; zero: no record says so
	givenUp  map[string]bool // tokens whose journey was given up, by their text
	position int64           // offset behind what was read
	readTo   time.Time       // when the newest end was listed that was reached
	failed   error           // of the last attempt to list or to read; nil: it worked
	failedAt time.Time
	changed  chan struct{} // closed, and replaced, when one of the above changes
}

// FollowInstall begins to follow the record of the installation, and does so until Close.
// It returns at once: see Await.
func FollowInstall(cfg Config, log *slog.Logger) (*InstallFollower, error) {
	cl, err := NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &InstallFollower{
		cfg:     cfg,
		log:     log,
		cancel:  cancel,
		asked:   make(chan struct{}, 1),
		givenUp: make(map[string]bool),
		changed: make(chan struct{}),
	}
	f.ended.Go(func() {
		defer cl.Close()
		f.listEnds(ctx, kadm.NewClient(cl))
	})
	f.ended.Go(func() { f.readCatalog(ctx) })
	return f, nil
}

// Close ends the following. What was read stays.
func (f *InstallFollower) Close() {
	f.cancel()
	f.ended.Wait()
}

// Install returns the record, nil if there is none as far as was read.
func (f *InstallFollower) Install() *topic.Install {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.install
}

// IsGivenUp reports whether the journey of a token was given up, as far as was read.
func (f *InstallFollower) IsGivenUp(token string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.givenUp[token]
}

// Changed returns a channel that is closed when more was read, or reading failed.
func (f *InstallFollower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Await waits until topic catalog was read to an end that was listed at t or later. It
// returns the error of an attempt that failed since t; the next attempt comes by itself.
func (f *InstallFollower) Await(ctx context.Context, t time.Time) error {
	for {
		f.mu.Lock()
		reached, changed := !f.readTo.Before(t), f.changed
		var failed error
		if f.failed != nil && !f.failedAt.Before(t) {
			failed = f.failed
		}
		f.mu.Unlock()
		if reached || failed != nil {
			return failed
		}
		f.ask()
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading record %s: %w", topic.InstallKey, context.Cause(ctx))
		case <-changed:
		}
	}
}

func (f *InstallFollower) ask() {
	select {
	case f.asked <- struct{}{}:
	default:
	}
}

// Placement says whether a record lies in the partition that its token is bound to. minted
// is the token's time, and met when this process came to hold the record.
func (f *InstallFollower) Placement(r *kgo.Record, token string, minted, met time.Time) Placement {
	f.mu.Lock()
	binding, readTo := f.binding(), f.readTo
	f.mu.Unlock()
	switch {
	case len(binding.Epochs) > 0 && binding.Epochs.Partition(token, minted) == r.Partition:
		return Placed
	case binding.Since.IsZero():
		// A record that binds places later begins later than what is judged now, if it is
		// not there yet: see BindPlaces.
		if !readTo.Before(met) {
			return Placed
		}
	case !binding.IsMisplaced(r.Partition, r.Timestamp, token, minted):
		return Placed
	// Listed after the record's time, for clocks that differ and requests under way; or
	// after it was met, however wrong its time is.
	case readTo.After(r.Timestamp.Add(topic.DeliveryLimit)) || !readTo.Before(met):
		return Misplaced
	}
	f.ask()
	return Undecided
}

// Binding is what tokens are bound to, as far as was read.
func (f *InstallFollower) Binding() Binding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.binding()
}

// binding is Binding. The caller holds mu.
func (f *InstallFollower) binding() Binding {
	if f.install == nil {
		return Binding{}
	}
	return Binding{f.install.Epochs, f.since}
}

// MisplacedError says where a misplaced record belongs.
func (f *InstallFollower) MisplacedError(r *kgo.Record, token string, minted time.Time) error {
	install := f.Install()
	if install == nil {
		return ErrMisplaced
	}
	return fmt.Errorf("%w: its key belongs into partition %d of %d, by Kafka's default partitioner (murmur2)",
		ErrMisplaced, install.Epochs.Partition(token, minted), install.Epochs.Now())
}

// update changes what is known, and wakes who waits for that.
func (f *InstallFollower) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Why a Watch is told that something fails.
const (
	listingCatalog = "listing the end of the catalog"
	readingInstall = "reading the record of the installation"
)

func (f *InstallFollower) fail(what string, pause time.Duration, err error) {
	f.cfg.Watch.Failed(what, pause, err)
	f.update(func() {
		f.failed, f.failedAt = fmt.Errorf("reading record %s: %w", topic.InstallKey, err), time.Now()
	})
}

// listEnds lists the end of topic catalog, waits until it is reached, and begins again
// when somebody asks or installInterval has passed.
func (f *InstallFollower) listEnds(ctx context.Context, adm *kadm.Client) {
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	name := f.cfg.Topic(topic.Catalog)
	for ctx.Err() == nil {
		at := time.Now()
		offsets, err := ListOffsets(ctx, adm, name)
		var log LogOffsets
		if err == nil {
			log, err = offsets.Of(name, 0)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, kerr.UnknownTopicOrPartition): // an installation that is not made yet has no record
			f.update(func() { f.readTo = at })
		case err != nil:
			pause := pauses.Next()
			f.fail(listingCatalog, pause, err)
			outage.Sleep(ctx, pause)
			continue
		default:
			pauses.Reset()
			f.cfg.Watch.Clear(listingCatalog)
			if !f.awaitPosition(ctx, log) {
				return
			}
			f.update(func() { f.readTo, f.failed = at, nil })
		}
		select {
		case <-ctx.Done():
		case <-f.asked:
		case <-time.After(installInterval):
		}
	}
}

// awaitPosition waits until a listed end is reached. It reports false if ctx ended first.
func (f *InstallFollower) awaitPosition(ctx context.Context, log LogOffsets) bool {
	for {
		f.mu.Lock()
		// All that compaction left may lie before the end: what was never there is read.
		reached, changed := f.position >= log.End || log.Start >= log.End, f.changed
		f.mu.Unlock()
		if reached {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// readCatalog reads the topic from its start, again and again where reading fails.
func (f *InstallFollower) readCatalog(ctx context.Context) {
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		err := f.readFromStart(ctx, pauses.Reset)
		if ctx.Err() != nil {
			return
		}
		pause := pauses.Next()
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			f.fail(readingInstall, pause, err)
		}
		outage.Sleep(ctx, pause)
	}
}

// readFromStart reads until ctx ends or a fetch is refused. An installation that was read
// once stays what it is until another record takes its place.
func (f *InstallFollower) readFromStart(ctx context.Context, worked func()) error {
	name := f.cfg.Topic(topic.Catalog)
	cl, err := NewClient(f.cfg, f.log, nil, kgo.KeepControlRecords(), kgo.ConsumePartitions(
		map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer cl.Close()
	f.update(func() { f.position = 0 })
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		worked()
		f.cfg.Watch.Clear(readingInstall)
		if err := f.take(fetches.Records()); err != nil {
			return err
		}
	}
}

func (f *InstallFollower) giveUp(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.givenUp[token] = true
}

// take keeps the records of the installation, and how far was read. A record that cannot
// be read stops the follower there: a later release means something by it.
func (f *InstallFollower) take(records []*kgo.Record) error {
	f.mu.Lock()
	install, since, position := f.install, f.since, f.position
	f.mu.Unlock()
	var err error
	for _, r := range records {
		position = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		switch key := string(r.Key); key {
		case topic.InstallKey:
			install, err = parseInstall(r.Value)
		case topic.PlacedSinceKey:
			since, err = parsePlacedSince(r.Value)
		default:
			if text, ok := strings.CutPrefix(key, topic.GivenUpPrefix); ok {
				f.giveUp(text)
			}
		}
		if err != nil {
			return err
		}
	}
	f.update(func() { f.install, f.since, f.position = install, since, position })
	return nil
}
