// Package components assembles what a process runs: the redirector, for example, is a
// handler, a spool, a shipper and a catalog that follows its topic. A daemon runs one
// component and the demo runs several; that is the only difference between them.
//
//	components.go  one type per component, with its configuration and Run
//	catalog.go     following the catalog topic, and retrying until Kafka answers
//	reload_secrets.go  reloading directories of secrets, with their metrics and log lines
//	readiness.go   the gate that holds requests until a component can serve
package components

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Deps are what every component gets from its process.
type Deps struct {
	Kafka    kafka.Config          // ClientID and Watch are set by forComponent
	Codec    *event.Codec          // of the schema ids that the process was given
	Log      *slog.Logger          // gets the attribute component
	Registry prometheus.Registerer // for the component's metrics
}

// forComponent returns d with a Kafka client id, a log attribute and an outage watch of
// the component's own.
func (d Deps) forComponent(name string) Deps {
	d.Kafka.ClientID = "partners-" + name
	d.Log = d.Log.With("component", name)
	d.Kafka.Watch = d.Kafka.NewWatch(d.Log)
	return d
}

// servingState is the readiness of a component, which sets serving once.
type servingState struct{ serving atomic.Bool }

// Ready implements daemon.Component.
func (r *servingState) Ready() error {
	if !r.serving.Load() {
		return errors.New("starting")
	}
	return nil
}

// Redirector answers short links.
type Redirector struct {
	Deps
	Config    redirect.Config
	Proxies   forwarded.Config
	Listener  net.Listener // for visitors; Run closes it
	TLS       daemon.TLSFiles
	TokenKeys string // directory
	CountryDB string // file in MaxMind format; "" leaves countries empty
	// Clock dates clicks and their tokens; nil: the machine's. Tests set one that is wrong.
	Clock func() time.Time
	servingState
}

// Run implements daemon.Component.
func (c *Redirector) Run(ctx context.Context) error {
	d := c.forComponent("redirector")
	keys, err := token.LoadKeyring(os.DirFS(c.TokenKeys))
	if err != nil {
		return fmt.Errorf("-token-keys: %w", err)
	}
	var countries *redirect.Countries
	if c.CountryDB != "" {
		if countries, err = redirect.OpenCountries(c.CountryDB); err != nil {
			return fmt.Errorf("-country-db: %w", err)
		}
	}
	proxies, err := forwarded.New(c.Proxies, d.Log, d.Registry)
	if err != nil {
		return err
	}
	reloadKeys := newSecretsWatch(d, "redirector").add("-token-keys", keys)
	spool, err := redirect.OpenSpool(c.Config, d.Log, d.Registry)
	if err != nil {
		return err
	}
	defer spool.Close()
	view, err := redirect.LoadCatalog(c.Config, d.Log)
	if err != nil {
		return err
	}
	handler, err := redirect.New(view, keys, d.Codec, spool, proxies, countries, d.Log, d.Registry)
	if err != nil {
		return err
	}
	if c.Clock != nil {
		handler.SetClock(c.Clock)
	}
	producer, err := kafka.NewClient(d.Kafka, d.Log, d.Registry, redirect.ClientOptions()...)
	if err != nil {
		return err
	}
	defer producer.Close()
	if view.Offset() >= 0 {
		c.serving.Store(true) // the stored catalog serves until Kafka answers
	}
	var g daemon.Group
	g.Go("shipper", func(ctx context.Context) error { return c.shipSpool(ctx, d, spool, producer) })
	g.Go("catalog on disk", func(ctx context.Context) error {
		return redirect.StoreCatalogChanges(ctx, c.Config, view, d.Log)
	})
	g.Go("catalog", func(ctx context.Context) error {
		return followCatalog(ctx, d, view, func() {
			if err := redirect.StoreCatalog(c.Config, view); err != nil {
				d.Log.Error("storing the catalog failed; a restart without Kafka would use an older one, or none",
					"error", err)
			}
			c.serving.Store(true)
		})
	})
	g.Go("token keys", reloadKeys)
	listener := c.TLS.Listen(proxies.Listen(c.Listener), d.Log)
	if c.TLS.Cert == "" {
		listener = redirect.Listener{Listener: listener}
	}
	g.Go("listener", daemon.HTTP(listener, handler, d.Log))
	return g.Wait(ctx)
}

// shipSpool sends the spool to Kafka. It starts once the topics have the partitions that
// tokens are bound to, and pauses while they have others, or are getting more; clicks stay
// in the spool meanwhile.
func (c *Redirector) shipSpool(ctx context.Context, d Deps, spool *redirect.Spool, producer *kgo.Client) error {
	p, err := newPlacement(d, "redirector", producer, topic.Clicks)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.await(ctx); err != nil {
		return nil // stopped before Kafka answered: the next start ships the spool
	}
	shipper, err := redirect.NewShipper(spool, producer, d.Kafka.Topic(topic.Clicks), p, d.Codec, d.Kafka.Watch, d.Log,
		d.Registry)
	if err != nil {
		return err
	}
	go p.follow(ctx)
	return shipper.Run(ctx)
}

// Gateway accepts the merchants' events.
type Gateway struct {
	Deps
	Config         ingest.Config
	Proxies        forwarded.Config
	Listener       net.Listener // for merchants; Run closes it
	TLS            daemon.TLSFiles
	TokenKeys      string // directory
	SigningSecrets string // directory
	servingState
	placement atomic.Pointer[placement] // set while it serves
}

// Ready implements daemon.Component.
func (c *Gateway) Ready() error {
	if p := c.placement.Load(); p != nil {
		if err := p.heldError(); err != nil {
			return err
		}
	}
	return c.servingState.Ready()
}

// Run implements daemon.Component.
func (c *Gateway) Run(ctx context.Context) error {
	d := c.forComponent("gateway")
	keys, err := token.LoadKeyring(os.DirFS(c.TokenKeys))
	if err != nil {
		return fmt.Errorf("-token-keys: %w", err)
	}
	secrets, err := signature.LoadKeyring(os.DirFS(c.SigningSecrets))
	if err != nil {
		return fmt.Errorf("-signing-secrets: %w", err)
	}
	proxies, err := forwarded.New(c.Proxies, d.Log, d.Registry)
	if err != nil {
		return err
	}
	watch := newSecretsWatch(d, "gateway")
	reloadKeys, reloadSecrets := watch.add("-token-keys", keys), watch.add("-signing-secrets", secrets)
	gate := newReadinessGate(ingest.Unavailable())
	var g daemon.Group
	g.Go("events", func(ctx context.Context) error { return c.acceptEvents(ctx, d, keys, secrets, proxies, gate) })
	g.Go("token keys", reloadKeys)
	g.Go("signing secrets", reloadSecrets)
	g.Go("listener", daemon.HTTP(c.TLS.Listen(proxies.Listen(c.Listener), d.Log), gate, d.Log))
	return g.Wait(ctx)
}

// acceptEvents opens the gate once the catalog is read: without a catalog every
// workspace would be unknown. It stops after the listener, so that accepted events
// still reach Kafka.
func (c *Gateway) acceptEvents(ctx context.Context, d Deps, keys *token.Keyring, secrets *signature.Keyring,
	proxies *forwarded.Proxies, gate *readinessGate) error {
	producer, err := kafka.NewClient(d.Kafka, d.Log, d.Registry, ingest.ProducerOptions(c.Config)...)
	if err != nil {
		return err
	}
	defer producer.Close()
	p, err := newPlacement(d, "gateway", producer, topic.Clicks, topic.Conversions)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.await(ctx); err != nil {
		return nil
	}
	c.placement.Store(p)
	go p.follow(ctx)
	view := catalog.NewView()
	workspaces := func(id string) (exists, conversionTracking bool) {
		w, ok := view.Workspace(id)
		return ok, ok && w.Access.ConversionTracking
	}
	handler, err := ingest.New(c.Config, d.Kafka, producer, d.Codec, p, secrets, keys, workspaces, proxies, d.Log,
		d.Registry)
	if err != nil {
		return err
	}
	if err := followCatalog(ctx, d, view, func() {
		gate.openTo(handler, p.isHeld)
		c.serving.Store(true)
	}); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), daemon.StopTimeout)
	defer cancel()
	return handler.Drain(last)
}

// connectWarehouse connects to ClickHouse, which may start after this process. It
// returns nil if ctx ends first.
func connectWarehouse(ctx context.Context, d Deps, cfg clickhouse.Config) (wh *clickhouse.Conn) {
	if err := retryUntilDone(ctx, outage.New(d.Log, "ClickHouse"), "connecting to ClickHouse",
		func(ctx context.Context, _ func()) (err error) {
			wh, err = clickhouse.Open(ctx, cfg, d.Log)
			return err
		}); err != nil { // retry gives up only when ctx ends
		return nil
	}
	return wh
}

// Sink copies the topics into ClickHouse.
type Sink struct {
	Deps
	Config     sink.Config
	ClickHouse clickhouse.Config
	servingState
}

// Run implements daemon.Component.
func (c *Sink) Run(ctx context.Context) error {
	d := c.forComponent("sink")
	wh := connectWarehouse(ctx, d, c.ClickHouse)
	if wh == nil {
		return nil
	}
	defer wh.Close()
	s, err := sink.New(c.Config, d.Kafka, d.Codec, wh, d.Log, d.Registry)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-s.Ready():
			c.serving.Store(true)
		case <-ctx.Done():
		}
	}()
	return s.Run(ctx)
}

// Report serves pages, JSON and CSV from the warehouse.
type Report struct {
	Deps
	ClickHouse   clickhouse.Config
	Proxies      forwarded.Config
	Listener     net.Listener // for readers; Run closes it
	TLS          daemon.TLSFiles
	ReaderTokens string // directory
	servingState
}

// Run implements daemon.Component.
func (c *Report) Run(ctx context.Context) error {
	d := c.forComponent("report")
	readers, err := web.LoadReaderTokens(os.DirFS(c.ReaderTokens))
	if err != nil {
		return fmt.Errorf("-reader-tokens: %w", err)
	}
	proxies, err := forwarded.New(c.Proxies, d.Log, d.Registry)
	if err != nil {
		return err
	}
	reloadTokens := newSecretsWatch(d, "report").add("-reader-tokens", readers)
	gate := newReadinessGate(web.Unavailable())
	var g daemon.Group
	g.Go("warehouse", func(ctx context.Context) error {
		wh := connectWarehouse(ctx, d, c.ClickHouse)
		if wh == nil {
			return nil
		}
		defer wh.Close()
		gate.openTo(web.New(wh, readers, proxies, d.Log, d.Registry), nil)
		c.serving.Store(true)
		<-ctx.Done() // the listener has stopped before: no request is under way
		return nil
	})
	g.Go("reader tokens", reloadTokens)
	g.Go("listener", daemon.HTTP(c.TLS.Listen(proxies.Listen(c.Listener), d.Log), gate, d.Log))
	return g.Wait(ctx)
}

// Export writes the CSV of each day on a schedule.
type Export struct {
	Deps
	ClickHouse clickhouse.Config
	Schedule   string        // cron expression in the workspace's timezone
	Config     export.Config // without From and To
	servingState
}

// Run implements daemon.Component.
func (c *Export) Run(ctx context.Context) error {
	d := c.forComponent("export")
	wh := connectWarehouse(ctx, d, c.ClickHouse)
	if wh == nil {
		return nil
	}
	defer wh.Close()
	c.serving.Store(true)
	return export.Schedule(ctx, wh, c.Schedule, c.Config)
}
