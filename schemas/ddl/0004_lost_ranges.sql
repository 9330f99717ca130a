-- A range of the log that no longer exists and was never inserted, whole or in part:
-- `ctl rollup rebuild` records it as a batch, so that the tables can go on behind it,
-- and marks it here. lost is the number of offsets, some of which may have been no
-- records (transaction markers). 0 for all other batches.

-- +goose Up

-- +goose StatementBegin
ALTER TABLE batches ADD COLUMN IF NOT EXISTS lost UInt64 DEFAULT 0 AFTER dead_lettered;
-- +goose StatementEnd
