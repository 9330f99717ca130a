-- Months of the base tables that `ctl warehouse drop-months` has dropped, and what stays
-- of their rows: a narrow line of each event and of each verdict, without ids, order,
-- customer or click. With them conservation and statements are what they were.

-- +goose Up

-- A month (YYYYMM of arrived_at) is dropped from the moment in which it has a line: the
-- views then count its narrow lines, and its rows no longer. done: no row is left.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS dropped_months
(
    month                 UInt32,
    done                  Bool,
    written_at            DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {{engine "ReplacingMergeTree" "written_at"}}
ORDER BY month
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- How many rows a dropped month had, by table and partition, and the end of their
-- offsets.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS dropped_rows
(
    table_name            LowCardinality(String),
    month                 UInt32,
    src_partition         UInt32,
    rows                  UInt64,
    end_offset            UInt64,
    written_at            DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {{engine "ReplacingMergeTree" "written_at"}}
ORDER BY (table_name, month, src_partition)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS dropped_conversions
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    received_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    entered_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4)
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, received_at)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS dropped_outcomes
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    event_partition       UInt32,
    event_offset          UInt64 CODEC(Delta, LZ4),
    received_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    occurred_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    verdict               LowCardinality(String),
    effect                Int8,
    standing_change_minor Nullable(Int64),
    standing_basis        LowCardinality(String),
    currency              LowCardinality(String),
    exponent              UInt8,
    partner_id            LowCardinality(String),
    program_id            LowCardinality(String),
    rules_version         UInt16
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, received_at)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- One row. All rows of before rows_from are gone: those that arrived in an earlier month
-- (UTC). 1970: nothing was dropped.
-- +goose StatementBegin
CREATE OR REPLACE VIEW dropped_until AS
SELECT
    toDateTime64(addMonths(makeDate(intDiv(max(month), 100), max(month) % 100, 1), toUInt8(count() > 0)), 3, 'UTC')
        AS rows_from
FROM dropped_months;
-- +goose StatementEnd

-- events_and_rows with the narrow lines of what was dropped. Scalar subqueries, so that
-- one query has one answer to which months these are.
-- +goose StatementBegin
CREATE OR REPLACE VIEW events_and_rows AS
SELECT
    workspace_id,
    toDate(received_at) AS day,
    src_partition,
    src_offset,
    src_partition AS event_partition,
    src_offset AS event_offset,
    entered_at,
    false AS judged,
    '' AS verdict,
    received_at
FROM conversions
WHERE NOT has((SELECT groupArray(toString(month)) FROM dropped_months FINAL WHERE NOT done), _partition_id)
UNION ALL
SELECT
    workspace_id,
    toDate(received_at) AS day,
    src_partition,
    src_offset,
    event_partition,
    event_offset,
    toDateTime64(0, 3, 'UTC') AS entered_at,
    true AS judged,
    toString(outcomes.verdict) AS verdict,
    received_at
FROM outcomes
WHERE NOT has((SELECT groupArray(toString(month)) FROM dropped_months FINAL WHERE NOT done), _partition_id)
UNION ALL
SELECT
    workspace_id,
    toDate(received_at) AS day,
    src_partition,
    src_offset,
    src_partition AS event_partition,
    src_offset AS event_offset,
    entered_at,
    false AS judged,
    '' AS verdict,
    received_at
FROM dropped_conversions
WHERE has((SELECT groupArray(toString(month)) FROM dropped_months FINAL), _partition_id)
UNION ALL
SELECT
    workspace_id,
    toDate(received_at) AS day,
    src_partition,
    src_offset,
    event_partition,
    event_offset,
    toDateTime64(0, 3, 'UTC') AS entered_at,
    true AS judged,
    toString(dropped_outcomes.verdict) AS verdict,
    received_at
FROM dropped_outcomes
WHERE has((SELECT groupArray(toString(month)) FROM dropped_months FINAL), _partition_id);
-- +goose StatementEnd

-- What statements of account add up: of all verdicts, dropped or not.
-- +goose StatementBegin
CREATE OR REPLACE VIEW statement_rows AS
SELECT
    workspace_id, src_partition, src_offset, received_at, occurred_at, verdict, effect, standing_change_minor,
    standing_basis, currency, exponent, partner_id, program_id, rules_version
FROM outcomes
WHERE NOT has((SELECT groupArray(toString(month)) FROM dropped_months FINAL WHERE NOT done), _partition_id)
UNION ALL
SELECT
    workspace_id, src_partition, src_offset, received_at, occurred_at, verdict, effect, standing_change_minor,
    standing_basis, currency, exponent, partner_id, program_id, rules_version
FROM dropped_outcomes
WHERE has((SELECT groupArray(toString(month)) FROM dropped_months FINAL), _partition_id);
-- +goose StatementEnd
