// Command gateway takes the merchants' signed events and answers 202 when Kafka has
// them.
package main

import (
	"context"
	"fmt"
	"net"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/pipeline/kafka"
)

func main() {
	d := daemon.New("gateway", "takes signed events: 202 means that Kafka has them on all in-sync replicas")
	part, k := components.Gateway{Config: ingest.DefaultConfig()}, kafka.DefaultConfig()
	d.Kafka(&k)
	f := d.Flags
	listen := f.String("listen", ":8081", "address to serve on")
	f.StringVar(&part.TokenKeys, "token-keys", "", "`directory` with one file per workspace id, one base64 key a "+
		"line; all verify (required)")
	f.StringVar(&part.SigningSecrets, "signing-secrets", "",
		"`directory` with one file per workspace id, one whsec_… a line, all active (required)")
	f.Float64Var(&part.Config.Rate, "rate", part.Config.Rate, "events a second that a workspace may send")
	f.IntVar(&part.Config.Burst, "burst", part.Config.Burst, "events that a workspace may send at once")
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(k.Validate(), part.Config.Validate(), daemon.Required("-token-keys", part.TokenKeys),
			daemon.Required("-signing-secrets", part.SigningSecrets)); err != nil {
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
