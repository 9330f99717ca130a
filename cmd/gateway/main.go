// Command gateway accepts the merchants' signed events. It answers 202 once Kafka has
// them.
package main

import (
	"context"
	"fmt"
	"net"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("gateway", "accepts signed events: 202 means that Kafka has them on all in-sync replicas")
	gateway := components.Gateway{Config: ingest.DefaultConfig(), Proxies: forwarded.DefaultConfig()}
	k := kafka.DefaultConfig()
	d.Kafka(&k)
	f := d.Flags
	listen := f.String("listen", ":8081", "address to serve on")
	daemon.TLSFlags(f, &gateway.TLS)
	f.StringVar(&gateway.TokenKeys, "token-keys", "", "`directory` with one file per workspace id, one base64 key a "+
		"line; all verify (required)")
	f.StringVar(&gateway.SigningSecrets, "signing-secrets", "",
		"`directory` with one file per workspace id, one whsec_… a line, all active (required)")
	f.Float64Var(&gateway.Config.Rate, "rate", gateway.Config.Rate, "events a second that a workspace may send")
	f.IntVar(&gateway.Config.Burst, "burst", gateway.Config.Burst, "events that a workspace may send at once")
	daemon.ProxyFlags(f, &gateway.Proxies)
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(gateway.TLS.Validate(), k.Validate(), gateway.Config.Validate(),
			gateway.Proxies.Validate(),
			daemon.Required("-token-keys", gateway.TokenKeys),
			daemon.Required("-signing-secrets", gateway.SigningSecrets)); err != nil {
			return err
		}
		if gateway.Codec, err = d.Codec(); err != nil {
			return err
		}
		if gateway.Listener, err = net.Listen("tcp", *listen); err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		gateway.Kafka = k
		gateway.Log = d.Log
		gateway.Registry = d.Registry
		return d.Serve(ctx, &gateway, "listen", gateway.Listener.Addr().String())
	})
}
