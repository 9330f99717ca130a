package daemon

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/pipeline/kafka"
)

// DaysFlag declares a flag for a duration, which may be given in days (40d).
func DaysFlag(fs *flag.FlagSet, p *time.Duration, name, usage string) {
	fs.Var((*daysValue)(p), name, usage)
}

// daysValue is the flag.Value of DaysFlag.
type daysValue time.Duration

func (d *daysValue) String() string {
	if day := daysValue(24 * time.Hour); *d%day == 0 {
		return fmt.Sprintf("%dd", *d/day)
	}
	return time.Duration(*d).String()
}

func (d *daysValue) Set(s string) error {
	if text, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return errors.New("want a whole number of days")
		}
		*d = daysValue(n) * daysValue(24*time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want a duration such as 40d or 36h")
	}
	*d = daysValue(v)
	return nil
}

// ClickHouseFlag declares -clickhouse for a program that requires it.
func ClickHouseFlag(fs *flag.FlagSet, cfg *clickhouse.Config) {
	fs.StringVar(&cfg.DSN, "clickhouse", cfg.DSN, "`DSN`, http://user@host:8123/partners or clickhouse://…; pass a "+
		"DSN with a password in the environment variable (required)")
	ClickHouseCAFlag(fs, cfg)
}

// ClickHouseCAFlag declares -clickhouse-ca-file, for a program that declares -clickhouse
// itself.
func ClickHouseCAFlag(fs *flag.FlagSet, cfg *clickhouse.Config) {
	fs.StringVar(&cfg.CAFile, "clickhouse-ca-file", cfg.CAFile, "PEM `file` with the authorities that sign "+
		"ClickHouse's certificate; this machine's if empty")
}

// GroupSuffixFlag declares -group-suffix for what belongs to one of several warehouses.
func GroupSuffixFlag(fs *flag.FlagSet, cfg *kafka.Config) {
	fs.StringVar(&cfg.GroupSuffix, "group-suffix", cfg.GroupSuffix, "`name` of a warehouse beside the first one: its "+
		"sinks are the group clickhouse-sink-NAME; the first one's group if empty")
}

// SchemaIDsFlag declares -schema-ids, whose value Codec reads.
func SchemaIDsFlag(fs *flag.FlagSet, file *string) {
	fs.StringVar(file, "schema-ids", *file, "`file` with the schema ids of a registry, as written by ctl topics "+
		"apply; built in if empty")
}

// ProxyFlags declares -trusted-proxies, -forwarded-header and -proxy-protocol for a
// program that may have proxies in front.
func ProxyFlags(fs *flag.FlagSet, cfg *forwarded.Config) {
	fs.Func("trusted-proxies", "`CIDR,…` of the proxies in front, which are believed who the client is (default none)",
		func(list string) (err error) {
			cfg.TrustedProxies, err = forwarded.ParseProxies(list)
			return err
		})
	fs.StringVar(&cfg.Header, "forwarded-header", cfg.Header, "the one `header` of trusted proxies that is believed: "+
		forwarded.HeaderNone+", "+forwarded.HeaderXForwardedFor+" or "+forwarded.HeaderForwarded)
	fs.BoolVar(&cfg.ProxyProtocol, "proxy-protocol", cfg.ProxyProtocol, "trusted proxies speak the PROXY protocol; "+
		"their connections without it are refused")
}

// ForwardedHostFlag declares -forwarded-host for a program that looks at the host.
func ForwardedHostFlag(fs *flag.FlagSet, cfg *forwarded.Config) {
	fs.BoolVar(&cfg.Host, "forwarded-host", cfg.Host, "trusted proxies say in the header's family (X-Forwarded-Host, "+
		"host=) which host was asked for; without it, Host says so")
}
