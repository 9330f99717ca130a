-- Which warehouse this is. Sinks write its id into the commits of their group, and the
-- group's name into this table: so no sink of another warehouse's group inserts here, and
-- none of this one's group elsewhere. A backup keeps both.

-- +goose Up

-- One line; sink_group is the full name of the sinks' group, empty until a sink has come.
-- The newest row of the least id counts: a replica that is migrated before it has caught
-- up may add an id.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS warehouse
(
    id                    String,
    sink_group            String,
    written_at            DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {{engine "ReplacingMergeTree" "written_at"}}
ORDER BY id
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- Version 7 of a UUID, so the first one made is the least. Replicas drop all but the first row with
-- the token. An unreplicated table has none: killed between token and row it would never
-- get a row.
-- +goose StatementBegin
INSERT INTO warehouse (id, sink_group)
{{if ne (engine "MergeTree") "MergeTree()"}}SETTINGS insert_deduplication_token = 'warehouse'
{{end}}SELECT concat('wh_', toString(generateUUIDv7())) AS id, '' AS sink_group
WHERE (SELECT count() FROM warehouse) = 0;
-- +goose StatementEnd
