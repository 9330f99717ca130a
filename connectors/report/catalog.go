package report

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/catalog"
)

// Workspace returns a workspace as the newest catalog has it, nil if the catalog does
// not have it.
func (r *Reader) Workspace(ctx context.Context, id string) (*catalog.Workspace, error) {
	var found []struct {
		JSON string `ch:"json"`
	}
	err := r.conn.Select(ctx, &found, "SELECT json FROM catalog_now WHERE kind = 'workspace' AND key = {key:String}",
		clickhouse.Named("key", "workspace/"+id))
	if err != nil {
		return nil, fmt.Errorf("reading the workspace: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	w := &catalog.Workspace{}
	if err := json.Unmarshal([]byte(found[0].JSON), w); err != nil {
		return nil, fmt.Errorf("reading the workspace: %w", err)
	}
	w.ID = id
	return w, nil
}

// CatalogName is a partner, program or link that a filter may name.
type CatalogName struct {
	ID   string `ch:"id"`
	Name string `ch:"name"` // may be empty
}

// Partners returns the workspace's partners as of now, by name: at most 5000.
func (r *Reader) Partners(ctx context.Context, workspace string) ([]CatalogName, error) {
	return r.readNames(ctx, "partners", workspace, `
SELECT partner_id AS id, partner_name AS name
FROM partners_now
WHERE workspace_id = {w:String}
ORDER BY lower(name), id
LIMIT 5000`)
}

// Programs returns the workspace's programs as of now, by name: at most 5000.
func (r *Reader) Programs(ctx context.Context, workspace string) ([]CatalogName, error) {
	return r.readNames(ctx, "programs", workspace, `
SELECT program_id AS id, program_name AS name
FROM programs_now
WHERE workspace_id = {w:String}
ORDER BY lower(name), id
LIMIT 5000`)
}

// Links returns the workspace's links as of now, by domain and slug, which are their
// names: the first so many.
func (r *Reader) Links(ctx context.Context, workspace string, limit int) ([]CatalogName, error) {
	return r.readNames(ctx, "links", workspace, `
SELECT JSONExtractString(json, 'id') AS id, substring(key, 6) AS name
FROM catalog_now
WHERE kind = 'link' AND workspace_id = {w:String}
ORDER BY name, id
LIMIT `+strconv.Itoa(limit))
}

func (r *Reader) readNames(ctx context.Context, subject, workspace, query string) (names []CatalogName, err error) {
	if err := r.conn.Select(ctx, &names, query, clickhouse.Named("w", workspace)); err != nil {
		return nil, fmt.Errorf("reading the names of %s: %w", subject, err)
	}
	return names, nil
}
