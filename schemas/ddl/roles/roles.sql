-- Roles and row policies. Grant a person partners_reader and, for each workspace, a role partners_workspace_ID (CREATE ROLE `partners_workspace_acme`):
-- the roles that are enabled decide which rows a query sees, in tables and through views. Services that check rights themselves get partners_every_workspace.

CREATE ROLE IF NOT EXISTS partners_writer;
CREATE ROLE IF NOT EXISTS partners_reader;
CREATE ROLE IF NOT EXISTS partners_every_workspace;

GRANT SELECT, INSERT, ALTER, OPTIMIZE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, TRUNCATE ON {{database}}.* TO partners_writer;
GRANT SELECT ON {{database}}.* TO partners_reader;
GRANT SELECT ON {{database}}.* TO partners_every_workspace;

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

-- These hold positions and counts of whole partitions, nothing of a workspace; freshness and conservation need them.
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.progress USING 1 TO partners_writer, partners_every_workspace, partners_reader;
CREATE ROW POLICY OR REPLACE partners_all ON {{database}}.batches USING 1 TO partners_writer, partners_every_workspace, partners_reader;
