package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
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
	r, err := ReadRecorded(ctx, cfg, log, nil)
	if r.Install == nil || err != nil {
		return Binding{}, err
	}
	return Binding{r.Install.Epochs, r.Since}, nil
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

// installInterval is how often a follower lists the end of topic catalog if no caller asks.
const installInterval = 10 * time.Second

// InstallFollower follows topic catalog for the record of the installation and for tokens
// that were given up, and knows how far it has read: no program may judge where a token
// belongs before having read the topic to an end that was listed later than what he
// judges. It is for concurrent use.
type InstallFollower struct {
	cfg      Config
	log      *slog.Logger
	interval time.Duration // how often the end is listed unasked
	cancel   context.CancelFunc
	ended    sync.WaitGroup
	asked    chan struct{} // holds one: a caller waits for a newer listing

	mu       sync.Mutex
	recorded Recorded        // as far as was read
	givenUp  map[string]bool // tokens whose journey was given up, by their text
	position int64           // offset behind what was read
	everRead bool            // a record was read, of this topic or one of before
	topicID  kadm.TopicID    // of the topic that position is an offset of; zero: not listed yet
	reading  int             // counts the times that reading began: what an earlier one still has does not count
	again    func()          // ends the present reading, so that the next one begins
	readTo   time.Time       // when the newest end was listed that was reached
	failed   error           // of the last attempt to list or to read; nil: it worked
	failedAt time.Time
	bad      error         // of a record that cannot be read, and that no other one has replaced
	changed  chan struct{} // closed, and replaced, when one of the above changes
}

// FollowInstall begins to follow the record of the installation, and does so until Close.
// It returns at once: see Await.
func FollowInstall(cfg Config, log *slog.Logger) (*InstallFollower, error) {
	return followInstall(cfg, log, installInterval)
}

func followInstall(cfg Config, log *slog.Logger, interval time.Duration) (*InstallFollower, error) {
	cl, err := NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &InstallFollower{
		cfg:      cfg,
		log:      log,
		interval: interval,
		cancel:   cancel,
		asked:    make(chan struct{}, 1),
		givenUp:  make(map[string]bool),
		again:    func() {},
		changed:  make(chan struct{}),
	}
	f.ended.Go(func() {
		defer cl.Close()
		f.listEnds(ctx, cl)
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
	return f.recorded.Install
}

// Recorded returns the records of the installation, as far as was read.
func (f *InstallFollower) Recorded() Recorded {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.recorded
}

// Position is how far topic catalog was read.
func (f *InstallFollower) Position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position
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
// returns the error of an attempt that failed since t, if that was not made good; the next
// attempt comes by itself.
func (f *InstallFollower) Await(ctx context.Context, t time.Time) error {
	for {
		f.mu.Lock()
		reached, changed := !f.readTo.Before(t), f.changed
		failed := f.bad
		if f.failed != nil && !f.failedAt.Before(t) {
			failed = f.failed
		}
		f.mu.Unlock()
		if reached {
			return nil
		}
		if failed != nil {
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

// AsOf is the time by which topic catalog must have been listed, so that it says all there
// is to say of a record that was stamped and met at these times: see asOf.
func AsOf(stamped, met time.Time) time.Time { return asOf(time.Time{}, stamped, met) }

// asOf is the time by which topic catalog must have been listed, so that it says all there
// is to say of a token that was minted, of a record that was stamped and met, at these
// times. A wrong clock is no reason to wait: what was listed after the record was met was
// listed after it came. An epoch begins long after it was written, and in whole seconds as
// tokens are minted in: so are these times taken, and most records cost no listing.
func asOf(minted, stamped, met time.Time) time.Time {
	due := minted
	if stamped := stamped.Truncate(time.Second); stamped.After(due) {
		due = stamped
	}
	if met.Before(due) {
		return met
	}
	return due
}

// Placement says whether a record lies in the partition that its token is bound to. minted
// is the token's time, and met when this process came to hold the record.
func (f *InstallFollower) Placement(r *kgo.Record, token string, minted, met time.Time) Placement {
	f.mu.Lock()
	binding, readTo := f.binding(), f.readTo
	f.mu.Unlock()
	switch {
	case len(binding.Epochs) > 0 && binding.Epochs.Partition(token, minted) == r.Partition:
		// An epoch that nobody here has read yet may have moved it.
		if !readTo.Before(asOf(minted, r.Timestamp, met)) {
			return Placed
		}
	case binding.Since.IsZero():
		// A record that binds places later begins later than what is judged now, if it is
		// not there yet: see BindPlaces.
		if !readTo.Before(met) {
			return Placed
		}
	case !binding.IsMisplaced(r.Partition, r.Timestamp, token, minted):
		return Placed
	// Listed after it was met, however wrong its time is.
	case !readTo.Before(met):
		return Misplaced
	}
	f.ask()
	return Undecided
}

// Place returns the partition of a token, for who is about to send a record of it. minted
// is the token's time, and met when this process came to hold it. ok is false while that
// is not known, or partitions are being added: try again when Changed says so.
func (f *InstallFollower) Place(token string, minted, met time.Time) (partition int32, ok bool) {
	f.mu.Lock()
	recorded, readTo := f.recorded, f.readTo
	f.mu.Unlock()
	if recorded.Install == nil || recorded.Growing() != nil {
		return 0, false
	}
	if readTo.Before(asOf(minted, minted, met)) {
		f.ask()
		return 0, false
	}
	return recorded.Install.Epochs.Partition(token, minted), true
}

// CheckPartitions is the function of that name. Counts that the records do not explain
// are compared once more when topic catalog was read to an end that was listed after they
// were seen: whoever adds partitions says so before.
func (f *InstallFollower) CheckPartitions(ctx context.Context, cl *kgo.Client, names ...string) error {
	for again := false; ; again = true {
		err := CheckPartitions(ctx, cl, f.cfg, f.Recorded(), names...)
		if again || !errors.Is(err, ErrPartitions) {
			return err
		}
		if err := f.Await(ctx, time.Now()); err != nil {
			return err
		}
	}
}

// Binding is what tokens are bound to, as far as was read.
func (f *InstallFollower) Binding() Binding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.binding()
}

// binding is Binding. The caller holds mu.
func (f *InstallFollower) binding() Binding {
	if f.recorded.Install == nil {
		return Binding{}
	}
	return Binding{f.recorded.Install.Epochs, f.recorded.Since}
}

// MisplacedError says where a misplaced record belongs.
func (f *InstallFollower) MisplacedError(r *kgo.Record, token string, minted time.Time) error {
	install := f.Install()
	if install == nil {
		return ErrMisplaced
	}
	return fmt.Errorf("%w: its key belongs into partition %d of %d, by Kafka's default partitioner (murmur2)",
		ErrMisplaced, install.Epochs.Partition(token, minted), install.Epochs.Count(minted))
}

// update changes what is known, and wakes who waits for that.
func (f *InstallFollower) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// The reasons under which a Watch keeps failures.
const (
	listingCatalog  = "listing the end of the catalog"
	reachingListing = "reading the catalog to its end"
	readingInstall  = "reading the record of the installation"
)

func (f *InstallFollower) fail(what string, pause time.Duration, err error) {
	f.cfg.Watch.Failed(what, pause, err)
	f.update(func() {
		f.failed, f.failedAt = fmt.Errorf("reading record %s: %w", topic.InstallKey, err), time.Now()
	})
}

// listEnds lists the end of topic catalog, waits until it is reached, and begins again
// when a caller asks or interval has passed.
func (f *InstallFollower) listEnds(ctx context.Context, cl *kgo.Client) {
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		at := time.Now()
		end, err := f.listEnd(ctx, cl)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause := pauses.Next()
			f.fail(listingCatalog, pause, err)
			outage.Sleep(ctx, pause)
			continue
		}
		pauses.Reset()
		f.cfg.Watch.Clear(listingCatalog)
		if !f.awaitPosition(ctx, end) {
			continue // a log that has lost its end does not reach what was listed: list again
		}
		f.cfg.Watch.Clear(reachingListing)
		f.update(func() { f.readTo, f.failed = at, nil })
		select {
		case <-ctx.Done():
		case <-f.asked:
		case <-time.After(f.interval):
		}
	}
}

// listEnd lists the end of the topic. Where it is another topic than was read, or has lost
// records that were read, reading begins anew. An installation that is not made yet has no
// record: its end is 0. What was read once is not gone because a topic is.
func (f *InstallFollower) listEnd(ctx context.Context, cl *kgo.Client) (int64, error) {
	name := f.cfg.Topic(topic.Catalog)
	f.mu.Lock()
	position := f.position
	f.mu.Unlock()
	offsets, err := ListOffsets(ctx, kadm.NewClient(cl), name)
	var log LogOffsets
	if err == nil {
		log, err = offsets.Of(name, 0)
	}
	var id kadm.TopicID
	if err == nil {
		id, err = readTopicID(ctx, cl, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition) && !f.everRead:
		return 0, nil
	case err != nil:
		return 0, err
	case log.Start >= log.End && f.everRead:
		return 0, fmt.Errorf("%w: %s is empty, and records of it were read before", ErrRecreated, name)
	case log.Start >= log.End:
		return 0, nil
	}
	if f.topicID != (kadm.TopicID{}) && f.topicID != id || log.End < position {
		f.reading++
		f.position = 0
		f.again()
	}
	f.topicID = id
	return log.End, nil
}

// readTopicID reads the id that a topic has now. What kadm knows of it may be seconds old.
func readTopicID(ctx context.Context, cl *kgo.Client, name string) (kadm.TopicID, error) {
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &name
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = append(request.Topics, asked)
	answer, err := request.RequestWith(ctx, cl)
	if err != nil {
		return kadm.TopicID{}, fmt.Errorf("reading metadata of %s: %w", name, err)
	}
	for _, t := range answer.Topics {
		return t.TopicID, kerr.ErrorForCode(t.ErrorCode)
	}
	return kadm.TopicID{}, fmt.Errorf("reading metadata of %s: %w", name, kerr.UnknownTopicOrPartition)
}

// awaitPosition waits until a listed end is reached. It reports false if it was not within
// interval.
func (f *InstallFollower) awaitPosition(ctx context.Context, end int64) bool {
	ctx, cancel := context.WithTimeout(ctx, f.interval)
	defer cancel()
	for {
		f.mu.Lock()
		position, changed := f.position, f.changed
		f.mu.Unlock()
		if position >= end {
			return true
		}
		select {
		case <-ctx.Done():
			f.cfg.Watch.Failed(reachingListing, f.interval, fmt.Errorf("%s was read to offset %d, its end is %d",
				f.cfg.Topic(topic.Catalog), position, end))
			return false
		case <-changed:
		}
	}
}

// readCatalog reads the topic from its start, again and again where reading fails.
func (f *InstallFollower) readCatalog(ctx context.Context) {
	pauses := outage.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		run, cancel := context.WithCancel(ctx)
		err := f.readFromStart(run, cancel, pauses.Reset)
		anew := run.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if anew {
			continue
		}
		pause := pauses.Next()
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			f.fail(readingInstall, pause, err)
		}
		outage.Sleep(ctx, pause)
	}
}

// catalogReading is what one reading from the start of topic catalog has found.
type catalogReading struct {
	number   int // InstallFollower.reading when it began
	position int64
	recorded Recorded
	bad      map[string]error // of records that cannot be read, by key
}

// readFromStart reads until ctx ends or a fetch is refused. An installation that was read
// once stays what it is until another record takes its place. again ends ctx.
func (f *InstallFollower) readFromStart(ctx context.Context, again, worked func()) error {
	name := f.cfg.Topic(topic.Catalog)
	cl, err := NewClient(f.cfg, f.log, nil, kgo.KeepControlRecords(), kgo.ConsumePartitions(
		map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer cl.Close()
	var now catalogReading
	f.update(func() {
		f.reading++
		f.position, f.again = 0, again
		now = catalogReading{number: f.reading, recorded: f.recorded, bad: make(map[string]error)}
	})
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		worked()
		f.take(&now, fetches.Records())
	}
}

// take keeps the records of the installation, and how far was read. Behind a record that
// cannot be read only given-up tokens are kept, until another record takes its place: a
// later release means something by it.
func (f *InstallFollower) take(now *catalogReading, records []*kgo.Record) {
	var givenUp []string
	for _, r := range records {
		now.position = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		key := string(r.Key)
		ours, err := now.recorded.note(key, r.Value)
		if !ours {
			if text, ok := strings.CutPrefix(key, topic.GivenUpPrefix); ok {
				givenUp = append(givenUp, text)
			}
			continue
		}
		delete(now.bad, key)
		if err != nil {
			now.bad[key] = err
		}
	}
	bad := errors.Join(slices.Collect(maps.Values(now.bad))...)
	if bad != nil {
		f.cfg.Watch.Failed(readingInstall, f.interval, bad)
	} else {
		f.cfg.Watch.Clear(readingInstall)
	}
	f.update(func() {
		for _, text := range givenUp {
			f.givenUp[text] = true
		}
		if now.number != f.reading {
			return
		}
		if f.bad = bad; bad == nil {
			f.recorded, f.position = now.recorded, now.position
			f.everRead = f.everRead || now.position > 0
		}
	})
}
