package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/calendar"
)

// readZone returns the timezone of the export's days: of the export that it repeats or
// continues, else the workspace's in the catalog before an offset.
func (e *exporter) readZone(ctx context.Context, before uint64) (string, error) {
	switch {
	case e.cfg.AsOf != nil:
		return e.cfg.AsOf.Filters.Timezone, nil
	case e.cfg.Since != nil:
		return e.cfg.Since.Filters.Timezone, nil
	case e.cfg.Timezone != "":
		return e.cfg.Timezone, nil
	}
	zone, err := Zone(ctx, e.conn, e.cfg.Workspace, before)
	if errors.Is(err, ErrUnknown) && !e.cfg.finalOnly {
		return e.zoneWithoutCatalog(ctx, err)
	}
	return zone, err
}

// zoneWithoutCatalog lets a workspace that has events, but is in no catalog here, be
// exported by days of UTC. A workspace without either is a wrong name.
func (e *exporter) zoneWithoutCatalog(ctx context.Context, unknown error) (string, error) {
	var events []struct {
		N uint64 `ch:"n"`
	}
	const query = `
SELECT count() AS n
FROM
(
	SELECT 1 FROM conversions WHERE workspace_id = {w:String} LIMIT 1
	UNION ALL
	SELECT 1 FROM outcomes WHERE workspace_id = {w:String} LIMIT 1
)`
	if err := e.conn.Select(ctx, &events, query, clickhouse.Named("w", e.cfg.Workspace)); err != nil {
		return "", fmt.Errorf("looking for the workspace: %w", err)
	}
	if events[0].N == 0 {
		return "", unknown
	}
	e.cfg.Log.Warn("the catalog does not have this workspace: its days are taken as those of UTC",
		"workspace", e.cfg.Workspace)
	return "UTC", nil
}

// WholeCatalog is above every offset of the catalog.
const WholeCatalog = math.MaxUint64

// Zone returns a workspace's timezone in the catalog before an offset. It is UTC if the
// catalog names none; ErrUnknown if it has no such workspace.
func Zone(ctx context.Context, conn *clickhouse.Conn, workspace string, before uint64) (string, error) {
	var found []struct {
		Versions uint64 `ch:"versions"`
		Zone     string `ch:"zone"`
	}
	const query = `
SELECT count() AS versions, JSONExtractString(argMax(json, src_offset), 'timezone') AS zone
FROM catalog_versions
WHERE kind = 'workspace' AND key = {key:String} AND src_offset < {before:UInt64}`
	if err := conn.Select(ctx, &found, query,
		clickhouse.Named("key", "workspace/"+workspace),
		clickhouse.Named("before", before)); err != nil {
		return "", fmt.Errorf("reading the workspace's timezone: %w", err)
	}
	if found[0].Versions == 0 {
		return "", fmt.Errorf("-workspace %q: %w", workspace, ErrUnknown)
	}
	return cmp.Or(found[0].Zone, "UTC"), nil
}

// resolveDays returns the first instant of the first day and the first instant behind
// the last day, in UTC.
func resolveDays(f Filters) (start, end time.Time, err error) {
	zone, err := calendar.LoadZone(f.Timezone)
	if err != nil {
		return start, end, fmt.Errorf("the workspace's timezone: %w", err)
	}
	first, err := time.Parse(time.DateOnly, f.From)
	if err != nil {
		return start, end, fmt.Errorf("-from: %w", err)
	}
	last, err := time.Parse(time.DateOnly, f.To)
	if err != nil {
		return start, end, fmt.Errorf("-to: %w", err)
	}
	start, end = zone.Days(first, last)
	return start, end, nil
}

// readJoinedWatermark returns the time up to which all events are joined; the zero time
// while no partition has reported.
func readJoinedWatermark(ctx context.Context, conn *clickhouse.Conn) (time.Time, error) {
	var at []struct {
		Watermark time.Time `ch:"joined_watermark"`
	}
	if err := conn.Select(ctx, &at, "SELECT joined_watermark FROM freshness"); err != nil {
		return time.Time{}, fmt.Errorf("reading the joined watermark: %w", err)
	}
	if len(at) != 1 {
		return time.Time{}, nil
	}
	return at[0].Watermark, nil
}

// Joined reports whether the joined watermark has passed an instant.
func Joined(ctx context.Context, conn *clickhouse.Conn, end time.Time) (bool, error) {
	at, err := readJoinedWatermark(ctx, conn)
	return err == nil && !at.Before(end), err
}

// Instants returns the first instant of the first day of the filters, and the first
// behind the last day, in UTC. The filters have a timezone.
func Instants(f Filters) (start, end time.Time, err error) { return resolveDays(f) }
