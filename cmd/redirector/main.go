// Command redirector answers short links: it records the click on local disk, then
// redirects, then ships the click to Kafka.
package main

import (
	"context"
	"fmt"
	"net"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("redirector", "answers short links: click on local disk, then 302, then Kafka")
	part, k := components.Redirector{Config: redirect.DefaultConfig()}, kafka.DefaultConfig()
	d.Kafka(&k)
	f := d.Flags
	listen := f.String("listen", ":8080", "address to serve on")
	f.StringVar(&part.Config.SpoolDir, "spool-dir", part.Config.SpoolDir,
		"`directory` for clicks that Kafka has not acknowledged, and for the last good catalog (required)")
	f.StringVar(&part.Config.Capture, "capture", part.Config.Capture,
		"durable: the click is on disk before the answer; async: soon after it")
	f.Int64Var(&part.Config.MaxSpoolBytes, "spool-max-bytes", part.Config.MaxSpoolBytes,
		"size of the spool: how long an outage of Kafka it can bridge")
	f.StringVar(&part.TokenKeys, "token-keys", "", "`directory` with one file per workspace id, one base64 key a "+
		"line; the first mints (required)")
	f.StringVar(&part.CountryDB, "country-db", "", "`file` in MaxMind format; without it countries are empty")
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(k.Validate(), part.Config.Validate(),
			daemon.Required("-token-keys", part.TokenKeys)); err != nil {
			return err
		}
		if part.Codec, err = d.Codec(); err != nil {
			return err
		}
		if part.Listener, err = net.Listen("tcp", *listen); err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		part.Kafka, part.Log, part.Registry = k, d.Log, d.Registry
		return d.Serve(ctx, &part, "listen", part.Listener.Addr().String())
	})
}
