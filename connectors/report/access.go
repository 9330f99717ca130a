package report

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/catalog"
)

// workspaceNow is a workspace as the newest catalog has it, nil if it has none.
func (r *Reader) workspaceNow(ctx context.Context, id string) (*catalog.Workspace, error) {
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

// feature is what a route shows, by the access flag that it needs beside the plan. They
// say who may look, never what is kept.
type feature string

const (
	partnerReporting    feature = "partner_reporting"
	conversionReporting feature = "conversion_reporting"
	exports             feature = "exports"
)

// missing is the first of the features that a workspace does not have, or "plan"; empty
// if it has all.
func missing(w *catalog.Workspace, need ...feature) string {
	if w == nil || !w.Entitled() {
		return "plan"
	}
	has := map[feature]bool{partnerReporting: w.Access.PartnerReporting,
		conversionReporting: w.Access.ConversionReporting, exports: w.Access.Exports}
	for _, f := range need {
		if !has[f] {
			return "access." + string(f)
		}
	}
	return ""
}

// Name is a partner, program or link that a filter may name.
type Name struct {
	ID   string `ch:"id"`
	Name string `ch:"name"`
}

// names lists what filters may name: what the catalog has now.
func (r *Reader) names(ctx context.Context, workspace string) (partners, programs, links []Name, err error) {
	for _, x := range []struct {
		into  *[]Name
		query string
	}{
		{&partners, "SELECT partner_id AS id, partner_name AS name FROM partners_now WHERE workspace_id = " +
			"{w:String} ORDER BY lower(name), id LIMIT 5000"},
		{&programs, "SELECT program_id AS id, program_name AS name FROM programs_now WHERE workspace_id = " +
			"{w:String} ORDER BY lower(name), id LIMIT 5000"},
		{&links, "SELECT JSONExtractString(json, 'id') AS id, substring(key, 6) AS name FROM catalog_now WHERE " +
			"kind = 'link' AND workspace_id = {w:String} ORDER BY name, id LIMIT 5000"},
	} {
		if err := r.conn.Select(ctx, x.into, x.query, clickhouse.Named("w", workspace)); err != nil {
			return nil, nil, nil, fmt.Errorf("reading names: %w", err)
		}
	}
	return partners, programs, links, nil
}
