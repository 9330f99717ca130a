// Package components puts components together into the parts that a process runs: the
// redirector is a handler, a spool, a shipper and a catalog that follows its topic. A
// daemon runs one part, the demo several; there is no other difference between them.
package components

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
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

// Deps is what every part gets from its process.
type Deps struct {
	Kafka    kafka.Config
	Codec    *event.Codec
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// forComponent gives a part its own Kafka client id, log attribute, and watch over Kafka.
func (d Deps) forComponent(name string) Deps {
	d.Kafka.ClientID = "partners-" + name
	d.Log = d.Log.With("part", name)
	d.Kafka.Watch = outage.New(d.Log, "Kafka")
	return d
}

// servingState is nil when the part serves.
type servingState struct{ serving atomic.Bool }

// Ready implements daemon.Part.
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
	Listener  net.Listener
	TokenKeys string // directory
	CountryDB string // file, may be empty
	servingState
}

// Run implements daemon.Part.
func (p *Redirector) Run(ctx context.Context) error {
	d := p.forComponent("redirector")
	keys, err := token.LoadKeyring(os.DirFS(p.TokenKeys))
	if err != nil {
		return fmt.Errorf("-token-keys: %w", err)
	}
	var countries *redirect.Countries
	if p.CountryDB != "" {
		if countries, err = redirect.OpenCountries(p.CountryDB); err != nil {
			return fmt.Errorf("-country-db: %w", err)
		}
	}
	spool, err := redirect.OpenSpool(p.Config, d.Log, d.Registry)
	if err != nil {
		return err
	}
	defer spool.Close()
	view, err := redirect.LoadCatalog(p.Config, d.Log)
	if err != nil {
		return err
	}
	handler, err := redirect.New(view, keys, d.Codec, spool, countries, d.Log, d.Registry)
	if err != nil {
		return err
	}
	producer, err := kafka.NewClient(d.Kafka, d.Log, d.Registry, redirect.ClientOptions()...)
	if err != nil {
		return err
	}
	defer producer.Close()
	if view.Offset() >= 0 {
		p.serving.Store(true) // the catalog of the last run serves until Kafka answers
	}
	var g daemon.Group
	g.Go("shipper", func(ctx context.Context) error { return p.shipSpool(ctx, d, spool, producer) })
	g.Go("catalog on disk", func(ctx context.Context) error { return redirect.KeepCatalog(ctx, p.Config, view, d.Log) })
	g.Go("catalog", func(ctx context.Context) error {
		return followCatalog(ctx, d, view, func() {
			if err := redirect.StoreCatalog(p.Config, view); err != nil {
				d.Log.Error("the catalog cannot be stored; a restart without Kafka would use an older one, or none",
					"error", err)
			}
			p.serving.Store(true)
		})
	})
	g.Go("token keys", func(ctx context.Context) error {
		return reloadSecrets(ctx, d.Log, "-token-keys", p.TokenKeys, keys.Reload)
	})
	g.Go("listener", daemon.HTTP(p.Listener, handler, d.Log))
	return g.Wait(ctx)
}

// shipSpool begins when Kafka says how many partitions there are; until then the spool
// gathers.
func (p *Redirector) shipSpool(ctx context.Context, d Deps, spool *redirect.Spool, producer *kgo.Client) error {
	e, err := readEpochs(ctx, d, producer)
	if err != nil {
		return nil // stopped before Kafka answered: the spool is shipped after the next start
	}
	shipper, err := redirect.NewShipper(spool, producer, d.Kafka.Topic(topic.Clicks), redirect.Partitions(e), d.Codec,
		d.Kafka.Watch, d.Log, d.Registry)
	if err != nil {
		return err
	}
	return shipper.Run(ctx)
}

// Gateway takes the merchants' events.
type Gateway struct {
	Deps
	Config         ingest.Config
	Listener       net.Listener
	TokenKeys      string // directory
	SigningSecrets string // directory
	servingState
}

// Run implements daemon.Part.
func (p *Gateway) Run(ctx context.Context) error {
	d := p.forComponent("gateway")
	keys, err := token.LoadKeyring(os.DirFS(p.TokenKeys))
	if err != nil {
		return fmt.Errorf("-token-keys: %w", err)
	}
	secrets, err := signature.LoadKeyring(os.DirFS(p.SigningSecrets))
	if err != nil {
		return fmt.Errorf("-signing-secrets: %w", err)
	}
	front := newReadinessGate(ingest.Unavailable())
	var g daemon.Group
	g.Go("events", func(ctx context.Context) error { return p.acceptEvents(ctx, d, keys, secrets, front) })
	g.Go("token keys", func(ctx context.Context) error {
		return reloadSecrets(ctx, d.Log, "-token-keys", p.TokenKeys, keys.Reload)
	})
	g.Go("signing secrets", func(ctx context.Context) error {
		return reloadSecrets(ctx, d.Log, "-signing-secrets", p.SigningSecrets, secrets.Reload)
	})
	g.Go("listener", daemon.HTTP(p.Listener, front, d.Log))
	return g.Wait(ctx)
}

// acceptEvents opens front once the catalog is read: without it every workspace would be
// unknown. It stops after the listener: what was accepted gets to Kafka.
func (p *Gateway) acceptEvents(ctx context.Context, d Deps, keys *token.Keyring, secrets *signature.Keyring,
	front *readinessGate) error {
	producer, err := kafka.NewClient(d.Kafka, d.Log, d.Registry, ingest.ProducerOptions(p.Config)...)
	if err != nil {
		return err
	}
	defer producer.Close()
	e, err := readEpochs(ctx, d, producer)
	if err != nil {
		return nil
	}
	view := catalog.NewView()
	workspaces := func(id string) (exists, conversionTracking bool) {
		w, ok := view.Workspace(id)
		return ok, ok && w.Access.ConversionTracking
	}
	handler, err := ingest.New(p.Config, d.Kafka, producer, d.Codec, e, secrets, keys, workspaces, d.Log, d.Registry)
	if err != nil {
		return err
	}
	if err := followCatalog(ctx, d, view, func() {
		front.openTo(handler)
		p.serving.Store(true)
	}); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), daemon.StopTimeout)
	defer cancel()
	return handler.Drain(last)
}

// connectWarehouse connects to ClickHouse, which may start after us; nil if ctx ended first.
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

// Sink fills ClickHouse.
type Sink struct {
	Deps
	Config     sink.Config
	ClickHouse clickhouse.Config
	servingState
}

// Run implements daemon.Part.
func (p *Sink) Run(ctx context.Context) error {
	d := p.forComponent("sink")
	wh := connectWarehouse(ctx, d, p.ClickHouse)
	if wh == nil {
		return nil
	}
	defer wh.Close()
	s, err := sink.New(p.Config, d.Kafka, d.Codec, wh, d.Log, d.Registry)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-s.Ready():
			p.serving.Store(true)
		case <-ctx.Done():
		}
	}()
	return s.Run(ctx)
}

// Report answers people and programs from the warehouse.
type Report struct {
	Deps
	ClickHouse   clickhouse.Config
	Listener     net.Listener
	ReaderTokens string // directory
	servingState
}

// Run implements daemon.Part.
func (p *Report) Run(ctx context.Context) error {
	d := p.forComponent("report")
	readers, err := web.LoadReaderTokens(os.DirFS(p.ReaderTokens))
	if err != nil {
		return err
	}
	front := newReadinessGate(web.Unavailable())
	var g daemon.Group
	g.Go("warehouse", func(ctx context.Context) error {
		wh := connectWarehouse(ctx, d, p.ClickHouse)
		if wh == nil {
			return nil
		}
		defer wh.Close()
		front.openTo(web.New(wh, readers, d.Log, d.Registry))
		p.serving.Store(true)
		<-ctx.Done() // after the listener: requests under way have ended
		return nil
	})
	g.Go("reader tokens", func(ctx context.Context) error {
		return reloadSecrets(ctx, d.Log, "-reader-tokens", p.ReaderTokens, readers.Reload)
	})
	g.Go("listener", daemon.HTTP(p.Listener, front, d.Log))
	return g.Wait(ctx)
}

// Export writes a CSV of each day, on a schedule.
type Export struct {
	Deps
	ClickHouse clickhouse.Config
	Schedule   string
	Config     export.Config
	servingState
}

// Run implements daemon.Part.
func (p *Export) Run(ctx context.Context) error {
	d := p.forComponent("export")
	wh := connectWarehouse(ctx, d, p.ClickHouse)
	if wh == nil {
		return nil
	}
	defer wh.Close()
	p.serving.Store(true)
	return export.Schedule(ctx, wh, p.Schedule, p.Config)
}
