package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/catalog"
)

// ErrNotEntitled means that the catalog does not give the workspace exports. Nothing is
// lost by it: what happened is stored all the same.
var ErrNotEntitled = errors.New("the workspace has no exports")

// checkAccess reports a workspace that may not export by its plan or by access.exports,
// as the catalog is now: a manifest of the past gives no right. A workspace that is in
// no catalog here has neither to obey; zoneWithoutCatalog warns of it. One that was
// removed from the catalog has no exports any more.
func checkAccess(ctx context.Context, conn *clickhouse.Conn, workspace string) error {
	var found []struct {
		Versions uint64 `ch:"versions"`
		JSON     string `ch:"json"`
	}
	const query = `
SELECT count() AS versions, argMax(json, src_offset) AS json
FROM catalog_versions
WHERE kind = 'workspace' AND key = {key:String}`
	if err := conn.Select(ctx, &found, query, clickhouse.Named("key", "workspace/"+workspace)); err != nil {
		return fmt.Errorf("reading the workspace's plan: %w", err)
	}
	switch {
	case found[0].Versions == 0:
		return nil
	case found[0].JSON == "":
		return fmt.Errorf("-workspace %q: %w: it was removed from the catalog", workspace, ErrNotEntitled)
	}
	var w catalog.Workspace
	if err := json.Unmarshal([]byte(found[0].JSON), &w); err != nil {
		return fmt.Errorf("reading the workspace's plan: %w", err)
	}
	switch {
	case !w.Entitled():
		return fmt.Errorf("-workspace %q: %w: its plan is %q, and exports come with %s and %s", workspace,
			ErrNotEntitled, w.Plan, catalog.PlanProfessional, catalog.PlanEnterprise)
	case !w.Access.Exports:
		return fmt.Errorf("-workspace %q: %w: its access.exports is off in the catalog", workspace, ErrNotEntitled)
	}
	return nil
}
