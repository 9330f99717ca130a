package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"
)

// Config selects a cluster and the names that are used in it.
type Config struct {
	// Brokers are the seed brokers, host:port.
	Brokers []string
	// TopicPrefix is prepended to every topic, consumer group and transactional id.
	TopicPrefix string
	// GroupSuffix names the sinks' group of a warehouse beside the first one, from
	// -group-suffix: clickhouse-sink-SUFFIX. Empty: the first one's.
	GroupSuffix string
	// ClientID names the program in the brokers' logs and in our metrics.
	ClientID string
	// Security is how we and the brokers know each other.
	Security Security
	// Watch follows whether brokers can be reached; the client's own warnings about
	// that and about its retries are then logged at level debug. nil: they are logged
	// as warnings. NewWatch makes one.
	Watch *outage.Watch
	// Dial opens connections to brokers; nil is plain TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// DefaultConfig has no brokers: they must be given.
func DefaultConfig() Config { return Config{ClientID: "partners"} }

// Validate reports what is missing, by flag.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("-brokers: at least one host:port is required")
	}
	for _, b := range c.Brokers {
		if !strings.Contains(b, ":") {
			return fmt.Errorf("-brokers: %q is not host:port", b)
		}
	}
	return errors.Join(c.ValidateGroupSuffix(), c.Security.Validate())
}

// ValidateGroupSuffix reports a suffix that is none.
func (c Config) ValidateGroupSuffix() error {
	if !groupSuffix.MatchString(c.GroupSuffix) {
		return fmt.Errorf("-group-suffix: %q is not at most 40 letters, digits, _ and -", c.GroupSuffix)
	}
	return nil
}

var groupSuffix = regexp.MustCompile(`^[A-Za-z0-9_-]{0,40}$`)

// NewWatch makes a Watch over the brokers. What it logs says by flag what to change.
func (c Config) NewWatch(log *slog.Logger) *outage.Watch {
	w := outage.New(log, "Kafka")
	w.Explain = c.Explain
	return w
}

// Topic returns the name of a topic in this cluster.
func (c Config) Topic(name string) string { return c.TopicPrefix + name }

// Group returns the name of a consumer group in this cluster.
func (c Config) Group(name string) string { return c.TopicPrefix + name }

// SinkGroup returns the name of the consumer group of a warehouse's sinks.
func (c Config) SinkGroup() string { return c.Group(topic.SuffixedSinkGroup(c.GroupSuffix)) }

// Grants returns the rights that a program needs in this cluster, one by one.
func (c Config) Grants(program string) []topic.Grant {
	return topic.Grants(program, c.TopicPrefix, c.GroupSuffix)
}

// NewClient makes a client with the settings that all our clients share, then opts. reg
// may be nil.
//
// MetadataMinAge is 250 ms instead of 5 s: that is how long a client takes to notice a
// new leader, or a topic that was created a moment ago.
func NewClient(cfg Config, log *slog.Logger, reg prometheus.Registerer, opts ...kgo.Opt) (*kgo.Client, error) {
	all, err := Options(cfg, log, reg)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	return cl, nil
}

// Options returns the settings that all our clients share. It is for sessions, whose
// client franz-go makes itself.
func Options(cfg Config, log *slog.Logger, reg prometheus.Registerer) ([]kgo.Opt, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID(cfg.ClientID),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.WithLogger(kslog.New(slog.New(quietHandler{log.With("client", cfg.ClientID).Handler(), cfg.Watch != nil}))),
	}
	if cfg.Watch != nil {
		opts = append(opts, kgo.WithHooks(reachability{cfg.Watch}))
	}
	opts = append(opts, cfg.Security.options(cfg.Dial)...)
	if reg != nil {
		labelled := prometheus.WrapRegistererWith(prometheus.Labels{"client": cfg.ClientID}, reg)
		opts = append(opts, kgo.WithHooks(kprom.NewMetrics("partners", kprom.Subsystem("kafka"),
			kprom.Registerer(labelled))))
	}
	return opts, nil
}

// quietHandler drops what franz-go logs at level info, several lines for each
// transaction, unless the level is debug.
type quietHandler struct {
	slog.Handler
	watched bool // a Watch reports outages: warnings about retries go to level debug
}

func (w quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return w.Handler.Enabled(ctx, level) && (level != slog.LevelInfo || w.Handler.Enabled(ctx, slog.LevelDebug))
}

// Handle implements slog.Handler.
func (w quietHandler) Handle(ctx context.Context, r slog.Record) error {
	if w.watched && r.Level >= slog.LevelWarn && isRetried(r) {
		if !w.Handler.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return w.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (w quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{w.Handler.WithAttrs(attrs), w.watched}
}

// WithGroup implements slog.Handler.
func (w quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{w.Handler.WithGroup(name), w.watched}
}

// isRetried reports whether a log record is about an error that the client retries.
// While brokers are away there is one for each connection and partition.
func isRetried(r slog.Record) (is bool) {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			is = Retryable(err)
			return false
		}
		return true
	})
	return is
}

// Retryable reports whether repeating can cure an error of a client: brokers cannot be
// reached, do not answer, do not let us in or lack a right for us (a person mends that
// without a restart), or ask for a retry; or the attempt was canceled.
func Retryable(err error) bool {
	for _, lost := range []error{context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF,
		net.ErrClosed, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, kgo.ErrClientClosed} {
		if errors.Is(err, lost) {
			return true
		}
	}
	var operation *net.OpError
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.As(err, &operation) || isAccess(err)
}

// reachability reports to a Watch whether brokers can be reached.
type reachability struct{ watch *outage.Watch }

const reachingBrokers = "reaching brokers"

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (r reachability) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	// A canceled connection only shows that the client is closing.
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrClientClosed) {
		r.watch.Failed(reachingBrokers, 0, err)
	}
}

// OnBrokerRead implements kgo.HookBrokerRead: any answer shows that brokers can be
// reached, but those that come before we are let in.
func (r reachability) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch kmsg.Key(key) {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return
	}
	if err == nil {
		r.watch.Clear(reachingBrokers)
	}
}
