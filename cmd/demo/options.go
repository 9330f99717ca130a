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
	once, traffic bool
	keepDir       string
	seed          uint64
	clicks        int
	grace         time.Duration
	runNames      []string
	brokers       []string
	topicPrefix   string
	codec         *event.Codec
	clickhouse    string
	catalog       string
	portBase      int
	library       string
}

// parts that -run may name, in the order in which they start.
var componentNames = []string{"broker", "warehouse", "processor", "sink", "gateway", "redirector", "report"}

const usageSummary = "demo: the whole pipeline in one process, with seeded traffic and a ledger checked against an oracle"

// lookupEnvironment is all that the demo takes of it: where this machine has its libchdb,
// which the tests ask for too. PARTNERS_CLICKHOUSE, PARTNERS_BROKERS and their like are
// exported for daemons, and a shell that has them must not send the demo elsewhere.
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
		fmt.Fprintf(f.Output(), "%s\n\nOf the environment it takes PARTNERS_LIBCHDB alone, for -libchdb.\n\n", usageSummary)
		f.PrintDefaults()
	}
	traffic := f.Int("traffic", 1, "0 just serves")
	run := f.String("run", strings.Join(componentNames, ","),
		"the `parts` to run here, so that others can run as processes of their own")
	brokers := f.String("brokers", "", "use these `host:port,…` in place of the embedded broker")
	f.BoolVar(&o.once, "once", false, "exit after the check: 0 only if the ledger is the oracle's")
	f.StringVar(&o.keepDir, "data", "", "keep data in this `directory` (else a temporary one that is removed)")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the traffic")
	f.IntVar(&o.clicks, "clicks", 20_000, "visits to short links")
	o.grace = 5 * time.Second
	daemon.DaysFlag(f, &o.grace, "grace", "how long an event may wait for its click or parent, such as `5s` or 3d")
	f.StringVar(&o.topicPrefix, "topic-prefix", "", "stands before every topic, group and transactional id")
	schemaIDs := ""
	daemon.SchemaIDsFlag(f, &schemaIDs)
	f.StringVar(&o.clickhouse, "clickhouse", "", "use this `DSN` in place of the embedded warehouse")
	f.StringVar(&o.catalog, "catalog", "", "`file` to use in place of the demo's catalog")
	f.IntVar(&o.portBase, "port-base", 0, "move the ports to N … N+4: redirector, gateway, report, ClickHouse, "+
		"Kafka (default 8080, 8081, 8082, 8123, 9092)")
	f.StringVar(&o.library, "libchdb", "", "a libchdb.so to use in place of the one that is fetched")
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
	missing := slices.DeleteFunc(slices.Clone(componentNames), func(p string) bool { return slices.Contains(o.runNames, p) })
	switch {
	case o.once && !o.traffic:
		return o, errors.New("-once: with -traffic 0 there is nothing to check")
	case o.once && len(missing) > 0:
		return o, fmt.Errorf("-once: only all parts together can be checked, and -run lacks %s",
			strings.Join(missing, ", "))
	case len(missing) > 0:
		o.traffic = false // the other parts are somebody else's: what arrives here is not ours to judge
	}
	return o, nil
}
