-- The lock of `ctl warehouse repair`: while it runs it writes a row every few seconds,
-- and sinks wait with claiming partitions. A row that is older than half a minute, or
-- ended, holds nothing: its repair is finished or was killed.

-- +goose Up

-- holder is one run, on a host; beat_at is ClickHouse's clock.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS repairs
(
    holder                String,
    host                  String,
    beat_at               DateTime64(3, 'UTC') DEFAULT now64(3),
    ended                 Bool
)
ENGINE = {{engine "ReplacingMergeTree" "beat_at"}}
ORDER BY holder
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd
