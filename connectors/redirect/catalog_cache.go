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
	// catalogFile is the file in the spool directory that holds the last good catalog.
	catalogFile = "catalog"
	// catalogStoreInterval is the shortest time between two writes of a catalog that
	// keeps changing.
	catalogStoreInterval = 3 * time.Second
	// catalogCheckInterval is how often the view is checked for a change, and so the
	// delay with which a change after a pause is stored.
	catalogCheckInterval = 100 * time.Millisecond
)

// LoadCatalog returns the catalog that was last stored in cfg.SpoolDir. If there is no
// file, or (logged) none that can be used, the returned view is empty and its Offset is
// −1: the redirector cannot serve any link before it has read the topic.
func LoadCatalog(cfg Config, log *slog.Logger) (*catalog.View, error) {
	f, err := os.Open(filepath.Join(cfg.SpoolDir, catalogFile))
	if errors.Is(err, os.ErrNotExist) {
		return catalog.NewView(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the last good catalog: %w", err)
	}
	defer f.Close()
	view, err := catalog.LoadView(f)
	if errors.Is(err, catalog.ErrSnapshot) {
		log.Error("cannot use the last good catalog", "file", f.Name(), "error", err)
		return catalog.NewView(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the last good catalog: %w", err)
	}
	return view, nil
}

// StoreCatalogChanges stores the view after each change, at most every three seconds,
// until ctx ends, and then once more. It does not store an empty view. It logs a failed
// write and tries again, because the redirector can go on without the file.
func StoreCatalogChanges(ctx context.Context, cfg Config, view *catalog.View, log *slog.Logger) error {
	stored := int64(-1) // offset of the stored view; −1: the file may be older than the view
	var storedAt time.Time
	tick := time.NewTicker(catalogCheckInterval)
	defer tick.Stop()
	for stopping := false; !stopping; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			stopping = true
		}
		// Read the offset before the view: a change in between is stored next time.
		offset := view.Offset()
		if offset == stored || time.Since(storedAt) < catalogStoreInterval && !stopping {
			continue
		}
		storedAt = time.Now()
		if err := StoreCatalog(cfg, view); err != nil {
			log.Error("cannot store the catalog; a restart without Kafka would use an older one", "error", err)
			continue
		}
		stored = offset
	}
	return nil
}

// StoreCatalog stores the view for LoadCatalog. Call it with a view that was read from
// Kafka before serving from that view, so that a restart without Kafka finds at least
// the same links.
func StoreCatalog(cfg Config, view *catalog.View) error {
	var b bytes.Buffer
	if err := view.Save(&b); err != nil {
		return err
	}
	path := filepath.Join(cfg.SpoolDir, catalogFile)
	if err := renameio.WriteFile(path, b.Bytes(), 0o600, renameio.WithTempDir(cfg.SpoolDir)); err != nil {
		return fmt.Errorf("storing the catalog: %w", err)
	}
	return nil
}
