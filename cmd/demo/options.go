package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// options are the command line.
type options struct {
	once        bool          // exit after the check
	traffic     bool          // drive traffic and check the ledger
	keepDir     string        // -data; "" for a temporary directory
	seed        uint64        // of the traffic
	clicks      int           // visits
	grace       time.Duration // of the processor
	runNames    []string      // -run: the components to run here
	brokers     []string      // empty for the embedded broker
	topicPrefix string
	codec       *event.Codec // of -schema-ids
	clickhouse  string       // DSN; "" for the embedded ClickHouse
	catalog     string       // file; "" for the demo's own
	portBase    int          // 0 for the usual ports
	library     string       // libchdb.so; "" to fetch it
}

// componentNames are the components that -run may name, in the order of their start.
var componentNames = []string{"broker", "warehouse", "processor", "sink", "gateway", "redirector", "report"}

const usageSummary = "demo: the whole pipeline in one process, with seeded traffic and a ledger that is compared " +
	"with an oracle"

// lookupEnvironment returns PARTNERS_LIBCHDB only. A shell may export variables such as
// PARTNERS_CLICKHOUSE for daemons; they must not make the demo use another warehouse.
func lookupEnvironment(name string) (string, bool) {
	if name != "PARTNERS_LIBCHDB" {
		return "", false
	}
	return os.LookupEnv(name)
}

func parseOptions(args []string, usage io.Writer) (o options, err error) {
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "%s\n\nIt reads one environment variable: PARTNERS_LIBCHDB, for -libchdb.\n\n",
			usageSummary)
		f.PrintDefaults()
	}
	traffic := f.Int("traffic", 1, "0 serves without traffic")
	run := f.String("run", strings.Join(componentNames, ","),
		"the `components` to run here; the others may run as processes of their own")
	brokers := f.String("brokers", "", "use these `host:port,…` instead of the embedded broker")
	f.BoolVar(&o.once, "once", false, "exit after the check, with status 0 only if the ledger equals the oracle's")
	f.StringVar(&o.keepDir, "data", "", "keep data in this `directory`; a temporary one, removed at the end, if empty")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the traffic")
	f.IntVar(&o.clicks, "clicks", 20_000, "visits to short links")
	o.grace = 5 * time.Second
	daemon.DaysFlag(f, &o.grace, "grace", "how long an event may wait for its click or parent, such as `5s` or 3d")
	f.StringVar(&o.topicPrefix, "topic-prefix", "", "prefix of every topic, group and transactional id")
	schemaIDs := ""
	daemon.SchemaIDsFlag(f, &schemaIDs)
	f.StringVar(&o.clickhouse, "clickhouse", "", "use this `DSN` instead of the embedded warehouse")
	f.StringVar(&o.catalog, "catalog", "", "`file` to use instead of the demo's catalog")
	f.IntVar(&o.portBase, "port-base", 0, "move the ports to N … N+4: redirector, gateway, report, ClickHouse, "+
		"Kafka (default 8080, 8081, 8082, 8123, 9092)")
	f.StringVar(&o.library, "libchdb", "", "a libchdb.so to use instead of fetching one")
	if err := daemon.Parse(f, args, lookupEnvironment); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(usage)
			f.Usage()
		}
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.codec, err = daemon.Codec(schemaIDs); err != nil {
		return o, err
	}
	if o.clickhouse != "" {
		if err := (clickhouse.Config{DSN: o.clickhouse}).Validate(); err != nil {
			return o, err
		}
	}
	o.traffic = *traffic != 0
	o.runNames = strings.Split(*run, ",")
	for _, p := range o.runNames {
		if !slices.Contains(componentNames, p) {
			return o, fmt.Errorf("-run: %q is not one of %s", p, strings.Join(componentNames, ", "))
		}
	}
	if *brokers != "" {
		o.brokers = strings.Split(*brokers, ",")
	}
	switch {
	case o.portBase < 0 || o.portBase > 65530:
		return o, fmt.Errorf("-port-base: %d leaves no room for five ports", o.portBase)
	case o.clicks < 0:
		return o, fmt.Errorf("-clicks: %d is negative", o.clicks)
	case o.grace < time.Second:
		return o, fmt.Errorf("-grace: %v is under a second", o.grace)
	}
	missing := slices.DeleteFunc(slices.Clone(componentNames), func(p string) bool {
		return slices.Contains(o.runNames, p)
	})
	switch {
	case o.once && !o.traffic:
		return o, errors.New("-once: with -traffic 0 there is nothing to check")
	case o.once && len(missing) > 0:
		return o, fmt.Errorf("-once: the check needs all components, and -run lacks %s",
			strings.Join(missing, ", "))
	case len(missing) > 0:
		o.traffic = false // other processes may write to these topics, so no check is possible
	}
	return o, nil
}
