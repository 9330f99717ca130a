// Package daemon holds what all programs share: flags with environment fallback, a
// logger, the admin listener, signals, and an ordered stop. A main declares its flags
// from a component's DefaultConfig and wires; everything else is here.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// envPrefix begins the environment variable of each flag: -state-dir is
// PARTNERS_STATE_DIR.
const envPrefix = "PARTNERS_"

// StopTimeout bounds the stop of one component. It is longer than a gateway waits for
// Kafka's acknowledgement, so that requests under way get their answer.
const StopTimeout = 12 * time.Second

// Daemon is one process.
type Daemon struct {
	Name     string               // of the program, such as gateway
	Flags    *flag.FlagSet        // a main adds its own
	Log      *slog.Logger         // set by Main, before it calls run
	Registry *prometheus.Registry // served at /metrics

	adminListen string     // -admin-listen
	logLevel    slog.Level // -log-level
	schemaIDs   string     // -schema-ids, a file; "" for the built-in ids

	kafka *kafka.Config // set by Kafka; nil for a program that does not use it
}

// New returns a daemon with the flags that all of them have. about is one sentence for
// the usage.
func New(name, about string) *Daemon {
	d := &Daemon{Name: name, Flags: NewFlags(name, about), Registry: prometheus.NewRegistry(), logLevel: slog.LevelInfo}
	d.Registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.Flags.StringVar(&d.adminListen, "admin-listen", ":9090", "address of /metrics, /livez, /readyz and /debug/pprof")
	d.Flags.TextVar(&d.logLevel, "log-level", d.logLevel, "debug, info, warn or error")
	return d
}

// NewFlags returns a flag set whose usage describes the program and the environment
// variables.
func NewFlags(name, about string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the caller of Parse prints the error, once
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "%s: %s\n\nEach flag may be given as an environment variable: -some-flag as "+
			"%sSOME_FLAG.\n\n", name, about, envPrefix)
		fs.PrintDefaults()
	}
	return fs
}

// Parse reads args. A flag that is not among them takes the value of its environment
// variable, if that is set.
func Parse(fs *flag.FlagSet, args []string, environ func(string) (string, bool)) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var problems []error
	fs.VisitAll(func(f *flag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := environ(name); ok && !given[f.Name] {
			if err := f.Value.Set(v); err != nil {
				problems = append(problems, fmt.Errorf("invalid value %q of environment variable %s: %w", v, name, err))
			}
		}
	})
	return errors.Join(problems...)
}

// Kafka declares the flags of a program that uses Kafka.
func (d *Daemon) Kafka(cfg *kafka.Config) {
	cfg.ClientID = "partners-" + d.Name
	d.kafka = cfg
	KafkaFlags(d.Flags, cfg)
	d.Flags.StringVar(&d.schemaIDs, "schema-ids", "", "`file` with the schema ids of a registry, as written by "+
		"ctl topics apply; built in if empty")
}

// KafkaFlags declares -brokers, -topic-prefix and the flags of the connection.
func KafkaFlags(fs *flag.FlagSet, cfg *kafka.Config) {
	fs.Func("brokers", "seed brokers, `host:port,…` (required)", func(s string) error {
		cfg.Brokers = nil
		for broker := range strings.SplitSeq(s, ",") {
			cfg.Brokers = append(cfg.Brokers, strings.TrimSpace(broker))
		}
		return nil
	})
	fs.StringVar(&cfg.TopicPrefix, "topic-prefix", cfg.TopicPrefix,
		"prefix of every topic, group and transactional id")
	securityFlags(fs, &cfg.Security)
}

// securityFlags declares how a program and the brokers know each other. Secrets are
// files, never flags.
func securityFlags(fs *flag.FlagSet, s *kafka.Security) {
	fs.BoolVar(&s.TLS, "kafka-tls", s.TLS, "speak TLS with the brokers")
	fs.StringVar(&s.CAFile, "kafka-ca-file", s.CAFile, "PEM `file` with the authorities that sign the brokers' "+
		"certificates; this machine's if empty")
	fs.StringVar(&s.CertFile, "kafka-cert-file", s.CertFile, "PEM `file` with this program's certificate, for "+
		"mutual TLS")
	fs.StringVar(&s.KeyFile, "kafka-key-file", s.KeyFile, "PEM `file` with its private key")
	fs.StringVar(&s.Mechanism, "kafka-sasl-mechanism", s.Mechanism, "`how` the user logs in: PLAIN, SCRAM-SHA-256, "+
		"SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM; not at all if empty")
	fs.StringVar(&s.User, "kafka-user", s.User, "`name` of the user, for PLAIN and SCRAM")
	fs.StringVar(&s.PasswordFile, "kafka-password-file", s.PasswordFile, "`file` with the user's password, read at "+
		"each login")
	fs.StringVar(&s.TokenFile, "kafka-oauth-token-file", s.TokenFile, "`file` with a bearer token, for OAUTHBEARER, "+
		"read at each login; something else keeps it fresh")
	fs.StringVar(&s.AWSCredentialsFile, "kafka-aws-credentials-file", s.AWSCredentialsFile, "`file` with AWS "+
		"credentials, for AWS_MSK_IAM, as `aws configure export-credentials` prints them, read at each login; "+
		"something else keeps it fresh")
	fs.BoolVar(&s.Insecure, "kafka-insecure", s.Insecure, "allow PLAIN, OAUTHBEARER and AWS_MSK_IAM without TLS: "+
		"everybody on the way can read the secret")
}

// Codec returns the codec for the schema ids of -schema-ids.
func (d *Daemon) Codec() (*event.Codec, error) {
	c, err := Codec(d.schemaIDs)
	return c, Usage(err)
}

// Codec returns the codec for the schema ids in a lock file, or for the built-in ones
// if file is empty. A file that lacks the built-in ids was made by a release that forgot
// what is written with them; they are read all the same.
func Codec(file string) (*event.Codec, error) {
	if file == "" {
		return event.NewCodec(event.DefaultIDs())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("-schema-ids: %w", err)
	}
	ids, err := event.ParseIDs(b)
	if err != nil {
		return nil, fmt.Errorf("-schema-ids %s: %w", file, err)
	}
	if _, err := event.NewCodec(ids); err != nil { // what is written has its ids in the file
		return nil, fmt.Errorf("-schema-ids %s: %w", file, err)
	}
	return event.NewCodec(event.WithBuiltIn(ids))
}

// ErrUsage marks errors whose cause is the command line. Main exits with status 2, on
// which a supervisor should not restart the program.
var ErrUsage = errors.New("wrong command line")

// Usage joins everything that is wrong with a command line into one ErrUsage. It
// returns nil if all problems are nil.
func Usage(problems ...error) error {
	var all []string
	for _, err := range problems {
		if err != nil {
			all = append(all, err.Error())
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUsage, strings.Join(all, "; "))
}

// Required returns an error that names the flag if it has no value.
func Required(flag, value string) error {
	if value == "" {
		return fmt.Errorf("%s: missing", flag)
	}
	return nil
}

// Exit is an error with its own exit status, for programs whose callers act on it.
type Exit struct {
	Code int
	Err  error
}

func (e *Exit) Error() string { return e.Err.Error() }
func (e *Exit) Unwrap() error { return e.Err }

// Main parses the command line, runs until SIGTERM or SIGINT, and exits: 0 after a
// clean stop, 2 for a wrong command line, the code of an Exit, 1 for anything else.
func (d *Daemon) Main(run func(ctx context.Context) error) {
	os.Exit(d.runMain(os.Args[1:], run))
}

func (d *Daemon) runMain(args []string, run func(ctx context.Context) error) int {
	if err := Parse(d.Flags, args, os.LookupEnv); errors.Is(err, flag.ErrHelp) {
		d.Flags.SetOutput(os.Stdout)
		d.Flags.Usage()
		return 0
	} else if err != nil || d.Flags.NArg() > 0 {
		if err == nil {
			err = fmt.Errorf("unexpected argument %q", d.Flags.Arg(0))
		}
		fmt.Fprintf(os.Stderr, "%s: %v (-h lists all flags)\n", d.Name, err)
		return 2
	}
	d.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: d.logLevel})).With("daemon", d.Name)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		d.Log.Error("stopped", "error", err)
		var exit *Exit
		if errors.As(err, &exit) {
			return exit.Code
		}
		if errors.Is(err, ErrUsage) {
			return 2
		}
		return 1
	}
	d.Log.Info("stopped")
	return 0
}

// Component is one of the parts that a process runs.
type Component interface {
	// Run runs until ctx is done, then stops cleanly.
	Run(ctx context.Context) error
	// Ready returns nil once the component serves, before that the reason why not.
	Ready() error
}

// Serve runs a component beside the admin listener. It logs `ready` with attrs once the
// component serves, and which rights on Kafka the program's user lacks.
func (d *Daemon) Serve(ctx context.Context, component Component, attrs ...any) error {
	ln, err := net.Listen("tcp", d.adminListen)
	if err != nil {
		return fmt.Errorf("-admin-listen: %w", err)
	}
	var g Group
	g.Go("admin listener", HTTP(ln, d.adminHandler(component.Ready), d.Log))
	if d.kafka != nil {
		g.Go("rights", d.watchRights)
	}
	g.Go(d.Name, component.Run)
	g.Go("readiness", func(ctx context.Context) error {
		for component.Ready() != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
		d.Log.Info("ready", append([]any{"admin", ln.Addr().String()}, attrs...)...)
		<-ctx.Done()
		return nil
	})
	return g.Wait(ctx)
}

func (d *Daemon) watchRights(ctx context.Context) error {
	k := *d.kafka
	// The component's own Watch reports outages; a second one would repeat each line.
	k.Watch = k.NewWatch(slog.New(slog.DiscardHandler))
	return kafka.WatchRights(ctx, k, d.Name, d.Log, d.Registry)
}

func (d *Daemon) adminHandler(ready func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(d.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// maxHeaderBytes bounds a request's header. Browsers and proxies send far less.
const maxHeaderBytes = 32 << 10

// HTTP returns a task that serves ln until its context ends. It then lets the requests
// under way finish, for at most a second less than StopTimeout. If ln has a ConnContext,
// it is the server's.
func HTTP(ln net.Listener, h http.Handler, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
			WriteTimeout: 60 * time.Second, IdleTimeout: 120 * time.Second,
			MaxHeaderBytes: maxHeaderBytes, DisableGeneralOptionsHandler: true, ErrorLog: errorLog(log)}
		if l, ok := ln.(interface {
			ConnContext(context.Context, net.Conn) context.Context
		}); ok {
			srv.ConnContext = l.ConnContext
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout-time.Second)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			log.Warn("aborting requests that did not finish in time", "error", err)
			return srv.Close()
		}
		return nil
	}
}
