-- The columns of the second versions of Click, Conversion, Outcome, Progress and
-- Rejection. Rows that were there before have the schemas' defaults; an event that was
-- received before entered the log when it was received.

-- +goose Up

-- +goose StatementBegin
ALTER TABLE clicks
    ADD COLUMN IF NOT EXISTS follow_ms UInt64 AFTER window_ms,
    ADD COLUMN IF NOT EXISTS one_sale_per_order Bool AFTER follow_ms;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE conversions
    ADD COLUMN IF NOT EXISTS entered_at DateTime64(3, 'UTC') DEFAULT received_at CODEC(Delta, LZ4) AFTER received_at,
    ADD COLUMN IF NOT EXISTS customer_hash String AFTER customer_ref,
    ADD COLUMN IF NOT EXISTS references Array(LowCardinality(String)) AFTER customer_hash,
    ADD COLUMN IF NOT EXISTS resolved_by LowCardinality(String) DEFAULT 'token' AFTER references,
    ADD COLUMN IF NOT EXISTS reference_ambiguous Bool AFTER resolved_by;
-- +goose StatementEnd

-- standing_change_minor: what the row changes of its root's standing amount, in the
-- root's currency. The sum over whole chains is their standing amount.
-- +goose StatementBegin
ALTER TABLE outcomes
    ADD COLUMN IF NOT EXISTS standing_change_minor Nullable(Int64) AFTER amount_minor,
    ADD COLUMN IF NOT EXISTS metadata Map(LowCardinality(String), String) AFTER customer_ref,
    ADD COLUMN IF NOT EXISTS resolved_by LowCardinality(String) DEFAULT 'token' AFTER metadata,
    ADD COLUMN IF NOT EXISTS follow_ms UInt64 AFTER window_ms,
    ADD COLUMN IF NOT EXISTS one_sale_per_order Bool AFTER follow_ms;
-- +goose StatementEnd

-- watermark: everything that reached Kafka before it is judged or waits; 1970: unknown.
-- +goose StatementBegin
ALTER TABLE progress
    ADD COLUMN IF NOT EXISTS watermark DateTime64(3, 'UTC') CODEC(Delta, LZ4) AFTER conversions_max_at,
    ADD COLUMN IF NOT EXISTS click_life_ms UInt64 AFTER grace_ms,
    ADD COLUMN IF NOT EXISTS journey_life_ms UInt64 AFTER click_life_ms;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE rejections
    ADD COLUMN IF NOT EXISTS type LowCardinality(String) AFTER detail,
    ADD COLUMN IF NOT EXISTS order_id String AFTER type,
    ADD COLUMN IF NOT EXISTS parent_event_id String AFTER order_id,
    ADD COLUMN IF NOT EXISTS customer_hash String AFTER parent_event_id;
-- +goose StatementEnd
