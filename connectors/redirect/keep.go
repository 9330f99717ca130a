package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nimriz/partners/schemas/catalog"
)

const (
	// catalogName is the file of the last good catalog in the spool directory.
	catalogName = "catalog"
	// keepEvery is how often a catalog that goes on changing is stored; a change after
	// a pause is stored within lookEvery.
	keepEvery = 3 * time.Second
	lookEvery = 100 * time.Millisecond
)

// LoadCatalog returns the catalog that KeepCatalog stored in cfg.SpoolDir. Where there
// is none, or none that can be used (which is logged), the view is empty and its Offset
// is −1: then the redirector is of no use before it has read the topic.
func LoadCatalog(cfg Config, log *slog.Logger) (*catalog.View, error) {
	f, err := os.Open(filepath.Join(cfg.SpoolDir, catalogName))
	if errors.Is(err, os.ErrNotExist) {
		return catalog.NewView(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the last good catalog: %w", err)
	}
	defer f.Close()
	view, err := catalog.LoadView(f)
	if errors.Is(err, catalog.ErrSnapshot) {
		log.Error("the last good catalog cannot be used", "file", f.Name(), "error", err)
		return catalog.NewView(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the last good catalog: %w", err)
	}
	return view, nil
}

// KeepCatalog stores the view when it has changed, at most every three seconds, until
// ctx ends; then once more. An empty view is not stored. A failure is logged and tried
// again: the redirector goes on.
func KeepCatalog(ctx context.Context, cfg Config, view *catalog.View, log *slog.Logger) error {
	stored, at := int64(-1), time.Time{} // whether the file has what the view has is not known
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for stopping := false; !stopping; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			stopping = true
		}
		offset := view.Offset() // before it is saved: what comes meanwhile is stored next time
		if offset == stored || time.Since(at) < keepEvery && !stopping {
			continue
		}
		at = time.Now()
		if err := StoreCatalog(cfg, view); err != nil {
			log.Error("the catalog cannot be stored; a restart without Kafka would use an older one", "error", err)
			continue
		}
		stored = offset
	}
	return nil
}

// StoreCatalog stores the view for LoadCatalog. Whoever begins to serve from a view
// that was read from Kafka stores it first: a restart without Kafka must find at least
// that.
func StoreCatalog(cfg Config, view *catalog.View) error {
	var b bytes.Buffer
	if err := view.Save(&b); err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(cfg.SpoolDir, catalogName), b.Bytes(), 0o600,
		renameio.WithTempDir(cfg.SpoolDir)); err != nil {
		return fmt.Errorf("storing the catalog: %w", err)
	}
	return nil
}
