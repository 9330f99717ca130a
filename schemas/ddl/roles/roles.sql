-- Roles and row policies. Grant a person partners_reader and, for each workspace, a
-- role partners_workspace_ID (CREATE ROLE `partners_workspace_acme`): the roles that
-- are enabled decide which rows a query sees, in tables and through views. Services
-- that check rights themselves get partners_every_workspace.

CREATE ROLE IF NOT EXISTS partners_writer;
CREATE ROLE IF NOT EXISTS partners_reader;
CREATE ROLE IF NOT EXISTS partners_every_workspace;

-- The policies come first: a table without one shows every row to whom it is granted.
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.clicks USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.clicks
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.conversions USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.conversions
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.outcomes USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.outcomes
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.rejections USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.rejections
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.catalog_versions USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.catalog_versions
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.partner_hourly_state USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.partner_hourly_state
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.partner_quarter_hourly_state USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.partner_quarter_hourly_state
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.effects_by_event_id USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.effects_by_event_id
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.sales_by_order_id USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.sales_by_order_id
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.conversions_by_key USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.conversions_by_key
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.outcomes_by_key USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.outcomes_by_key
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.dropped_conversions USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.dropped_conversions
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.dropped_outcomes USING 1 TO partners_writer, partners_every_workspace;
CREATE ROW POLICY OR REPLACE partners_own ON {{database}}.dropped_outcomes
    USING workspace_id IN arrayMap(r -> substring(r, 20), arrayFilter(r -> startsWith(r, 'partners_workspace_'), currentRoles())) TO partners_reader;

-- These hold positions and counts of whole partitions, the warehouse's id, or that a repair
-- runs, nothing of a workspace; freshness and conservation need some of them.
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.progress USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.batches USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.repairs USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.warehouse USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.dropped_months USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.dropped_rows USING 1 TO partners_writer, partners_every_workspace, partners_reader;

GRANT SELECT, INSERT, ALTER, OPTIMIZE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, TRUNCATE
    ON {{database}}.* TO partners_writer;
GRANT SELECT ON {{database}}.* TO partners_every_workspace;

-- A reader gets what has a row policy above, and views of it, by name. Not the
-- materialized views: ClickHouse reads their target without its policy.
REVOKE SELECT ON {{database}}.* FROM partners_reader;
GRANT
    SELECT ON {{database}}.clicks,
    SELECT ON {{database}}.conversions,
    SELECT ON {{database}}.outcomes,
    SELECT ON {{database}}.rejections,
    SELECT ON {{database}}.catalog_versions,
    SELECT ON {{database}}.partner_hourly_state,
    SELECT ON {{database}}.partner_quarter_hourly_state,
    SELECT ON {{database}}.effects_by_event_id,
    SELECT ON {{database}}.sales_by_order_id,
    SELECT ON {{database}}.conversions_by_key,
    SELECT ON {{database}}.outcomes_by_key,
    SELECT ON {{database}}.progress,
    SELECT ON {{database}}.batches,
    SELECT ON {{database}}.repairs,
    SELECT ON {{database}}.warehouse,
    SELECT ON {{database}}.dropped_months,
    SELECT ON {{database}}.dropped_rows,
    SELECT ON {{database}}.dropped_conversions,
    SELECT ON {{database}}.dropped_outcomes,
    SELECT ON {{database}}.dropped_until,
    SELECT ON {{database}}.statement_rows,
    SELECT ON {{database}}.catalog_now,
    SELECT ON {{database}}.partners_now,
    SELECT ON {{database}}.programs_now,
    SELECT ON {{database}}.partner_daily,
    SELECT ON {{database}}.partner_days,
    SELECT ON {{database}}.partner_performance,
    SELECT ON {{database}}.partner_performance_days,
    SELECT ON {{database}}.event_id_reuse,
    SELECT ON {{database}}.reused_event_ids,
    SELECT ON {{database}}.outcome_rows,
    SELECT ON {{database}}.conversion_rows,
    SELECT ON {{database}}.order_reuse,
    SELECT ON {{database}}.dropped_reuse,
    SELECT ON {{database}}.negatives_received,
    SELECT ON {{database}}.negatives_judged,
    SELECT ON {{database}}.negatives_without_effect,
    SELECT ON {{database}}.tiled_ends,
    SELECT ON {{database}}.progress_reached,
    SELECT ON {{database}}.wait_ends,
    SELECT ON {{database}}.events_and_rows,
    SELECT ON {{database}}.conservation,
    SELECT ON {{database}}.workspace_conservation,
    SELECT ON {{database}}.workspace_conservation_days,
    SELECT ON {{database}}.token_coverage,
    SELECT ON {{database}}.freshness
    TO partners_reader;

-- A sink that verifies a repeated insert waits for running ones, and for its replica.
-- Last, because the user that migrates may have no right to grant these.
GRANT SELECT ON system.processes TO partners_writer;
GRANT SYSTEM SYNC REPLICA ON {{database}}.* TO partners_writer;
