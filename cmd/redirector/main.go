// Command redirector answers short links. It records the click on local disk, redirects
// the visitor, and then sends the click to Kafka.
package main

import (
	"context"
	"fmt"
	"net"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("redirector", "answers short links: click on local disk, then 302, then Kafka")
	redirector := components.Redirector{Config: redirect.DefaultConfig(), Proxies: forwarded.DefaultConfig()}
	k := kafka.DefaultConfig()
	d.Kafka(&k)
	f := d.Flags
	listen := f.String("listen", ":8080", "address to serve on")
	daemon.TLSFlags(f, &redirector.TLS)
	f.StringVar(&redirector.Config.SpoolDir, "spool-dir", redirector.Config.SpoolDir,
		"`directory` for clicks that Kafka has not acknowledged, and for the last good catalog (required)")
	f.StringVar(&redirector.Config.Capture, "capture", redirector.Config.Capture,
		"durable: the click is on disk before the answer; async: soon after it")
	f.Int64Var(&redirector.Config.MaxSpoolBytes, "spool-max-bytes", redirector.Config.MaxSpoolBytes,
		"size of the spool: how long an outage of Kafka it can bridge")
	f.StringVar(&redirector.TokenKeys, "token-keys", "",
		"`directory` with one file per workspace id, one base64 key a "+
			"line; the first mints (required)")
	f.StringVar(&redirector.CountryDB, "country-db", "",
		"`file` in MaxMind format, for the country of a visitor's address")
	daemon.ProxyFlags(f, &redirector.Proxies)
	daemon.ForwardedHostFlag(f, &redirector.Proxies)
	f.StringVar(&redirector.Proxies.CountryHeader, "country-header", redirector.Proxies.CountryHeader,
		"`name` of a header in which trusted proxies say the visitor's country, such as CF-IPCountry; it goes before "+
			"-country-db")
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(redirector.TLS.Validate(), k.Validate(), redirector.Config.Validate(),
			redirector.Proxies.Validate(),
			daemon.Required("-token-keys", redirector.TokenKeys)); err != nil {
			return err
		}
		if redirector.Codec, err = d.Codec(); err != nil {
			return err
		}
		if redirector.Listener, err = net.Listen("tcp", *listen); err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		redirector.Kafka = k
		redirector.Log = d.Log
		redirector.Registry = d.Registry
		return d.Serve(ctx, &redirector, "listen", redirector.Listener.Addr().String())
	})
}
