// Command report serves the partner performance page, and the same figures as JSON and
// CSV.
package main

import (
	"context"
	"fmt"
	"net"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/forwarded"
)

func main() {
	d := daemon.New("report", "serves the partner performance page, and the same figures as JSON and CSV")
	component := components.Report{Proxies: forwarded.DefaultConfig()}
	wh := clickhouse.Config{}
	f := d.Flags
	listen := f.String("listen", ":8082", "address to serve on")
	daemon.TLSFlags(f, &component.TLS)
	daemon.ClickHouseFlag(f, &wh)
	f.StringVar(&component.ReaderTokens, "reader-tokens", "", "`directory` with one file per workspace id, "+
		"NAME:SHA-256-OF-THE-TOKEN a line (required)")
	daemon.ProxyFlags(f, &component.Proxies)
	daemon.ForwardedHostFlag(f, &component.Proxies)
	d.Main(func(ctx context.Context) (err error) {
		if err := daemon.Usage(component.TLS.Validate(), wh.Validate(), component.Proxies.Validate(),
			daemon.Required("-reader-tokens", component.ReaderTokens)); err != nil {
			return err
		}
		if component.Listener, err = net.Listen("tcp", *listen); err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		component.ClickHouse = wh
		component.Log = d.Log
		component.Registry = d.Registry
		return d.Serve(ctx, &component, "listen", component.Listener.Addr().String())
	})
}
