-- Events by their keys: event id, parent, order and token.
--
-- An index of bloom filters is read whole to find one id: in a workspace of five million
-- events six hundred filters of 15 KB for each column, and for each question. Two narrow
-- tables have, for each key of a row, the time by which its table is sorted. A query that
-- names the times finds its granules by the primary key:
--
--   SELECT * FROM outcomes WHERE workspace_id = 'acme' AND event_id = 'e1' AND occurred_at IN
--   (
--       SELECT occurred_at FROM outcomes_by_key
--       WHERE workspace_id = 'acme' AND key IN (SELECT xxHash32('e1'))
--   )
--
-- A key is a hash of 32 bits: two keys can share one, so a query names the key itself, too.
-- A line that is there twice is one, and one whose row is gone finds nothing. So the tables
-- need no more than that each row was inserted.
--
-- The views come first and the older rows after them, in twelve parts, as in 0008.

-- +goose Up

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS conversions_by_key
(
    workspace_id    LowCardinality(String),
    key             UInt32,
    received_at     DateTime64(3, 'UTC') CODEC(T64, LZ4)
)
ENGINE = {{engine "ReplacingMergeTree"}}
ORDER BY (workspace_id, key, received_at)
SETTINGS
    index_granularity = 1024, -- readers look up single keys
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS outcomes_by_key
(
    workspace_id    LowCardinality(String),
    key             UInt32,
    occurred_at     DateTime64(3, 'UTC') CODEC(T64, LZ4)
)
ENGINE = {{engine "ReplacingMergeTree"}}
ORDER BY (workspace_id, key, occurred_at)
SETTINGS
    index_granularity = 1024, -- as above
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

{{/* The keys of a row. Parents and orders that are absent have no line. */}}
{{$keys := `arrayJoin(arrayConcat(
        [xxHash32(event_id), xxHash32(click_token)],
        arrayFilter(k -> k != xxHash32(''), [xxHash32(parent_event_id), xxHash32(order_id)]))) AS key`}}

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS conversions_by_key_from_conversions TO conversions_by_key AS
SELECT
    workspace_id,
    {{$keys}},
    received_at
FROM conversions;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS outcomes_by_key_from_outcomes TO outcomes_by_key AS
SELECT
    workspace_id,
    {{$keys}},
    occurred_at
FROM outcomes;
-- +goose StatementEnd

{{range $before := 12}}
-- +goose StatementBegin
INSERT INTO conversions_by_key (workspace_id, key, received_at)
SELECT
    workspace_id,
    {{$keys}},
    received_at
FROM conversions
WHERE toUInt8(right(_partition_id, 2)) = {{$before}} + 1;
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO outcomes_by_key (workspace_id, key, occurred_at)
SELECT
    workspace_id,
    {{$keys}},
    occurred_at
FROM outcomes
WHERE toUInt8(right(_partition_id, 2)) = {{$before}} + 1;
-- +goose StatementEnd
{{end}}
