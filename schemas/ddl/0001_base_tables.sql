-- Base tables: one row for each record of a topic, found by (src_partition,
-- src_offset).
--
-- arrived_at is the record's timestamp in Kafka, never the clock of the insert: the
-- month of a row, and with it the part it goes to, is the same when an insert is
-- repeated. clicked_at is the redirector's clock when the visitor clicked.
--
-- The deduplication windows let the sink repeat an insert: every table of a chain,
-- targets of materialized views included, needs its own. They count blocks (one for
-- each insert and month) and, when replicated, seconds. The sink reads them back and
-- refuses less than 10,000 blocks.

-- +goose Up

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS clicks
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    clicked_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    click_token           String,
    link_id               LowCardinality(String),
    domain                LowCardinality(String),
    slug                  LowCardinality(String),
    destination           LowCardinality(String),
    trigger               LowCardinality(String),
    token_status          LowCardinality(String),
    token_reason          LowCardinality(String),
    partner_id            LowCardinality(String),
    partner_key           LowCardinality(String),
    partner_name          LowCardinality(String),
    partner_relationship  LowCardinality(String),
    partner_lifecycle     LowCardinality(String),
    program_id            LowCardinality(String),
    program_key           LowCardinality(String),
    program_name          LowCardinality(String),
    program_status        LowCardinality(String),
    assignment_id         LowCardinality(String),
    assigned_at           Nullable(DateTime64(3, 'UTC')),
    window_ms             UInt64,
    reward_terms          LowCardinality(String),
    utm_source            LowCardinality(String),
    utm_medium            LowCardinality(String),
    utm_campaign          LowCardinality(String),
    utm_term              LowCardinality(String),
    utm_content           LowCardinality(String),
    sub1                  String,
    sub2                  String,
    sub3                  String,
    sub4                  String,
    sub5                  String,
    experiment            LowCardinality(String),
    variant               LowCardinality(String),
    referrer_host         LowCardinality(String),
    country               LowCardinality(String),
    device                LowCardinality(String),
    os                    LowCardinality(String),
    browser               LowCardinality(String),
    is_bot                Bool,
    bot_reason            LowCardinality(String),
    catalog_offset        Int64,
    INDEX by_offset src_offset TYPE minmax GRANULARITY 1,
    INDEX by_time clicked_at TYPE minmax GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, click_token) -- a token begins with its time, so this is the order of time too
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS conversions
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    event_id              String,
    click_token           String,
    type                  LowCardinality(String),
    event_name            LowCardinality(String),
    occurred_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    received_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    amount_minor          Nullable(Int64),
    currency              LowCardinality(String),
    exponent              UInt8,
    quantity              Nullable(Int32),
    order_id              String,
    parent_event_id       String,
    reason_text           String,
    customer_ref          String,
    metadata              Map(LowCardinality(String), String),
    content_sha256        FixedString(32),
    key_id                LowCardinality(String),
    INDEX by_offset src_offset TYPE minmax GRANULARITY 1,
    INDEX by_event event_id TYPE bloom_filter GRANULARITY 1,
    INDEX by_order order_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, received_at, event_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS outcomes
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    event_id              String,
    click_token           String,
    verdict               LowCardinality(String),
    reason                LowCardinality(String),
    flags                 Array(LowCardinality(String)),
    review                LowCardinality(String),
    type                  LowCardinality(String),
    event_name            LowCardinality(String),
    effect                Int8,
    occurred_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    received_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    decided_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    amount_minor          Nullable(Int64),
    currency              LowCardinality(String),
    exponent              UInt8,
    quantity              Nullable(Int32),
    order_id              String,
    parent_event_id       String,
    parent_type           LowCardinality(String),
    reason_text           String,
    customer_ref          String,
    estimated_reward_minor Nullable(Int64),
    reward_currency       LowCardinality(String),
    -- The exponent of an amount travels with it, that of a reward in another currency
    -- is looked up. ISO 4217, currencies whose digits are not two.
    reward_exponent       UInt8 MATERIALIZED multiIf(reward_currency = '', 0, reward_currency = currency, exponent,
        reward_currency IN ('BIF', 'BYR', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF',
            'UGX', 'VND', 'VUV', 'XAF', 'XAG', 'XAU', 'XDR', 'XOF', 'XPF'), 0,
        reward_currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND'), 3,
        reward_currency = 'CLF', 4,
        2),
    content_sha256        FixedString(32),
    event_partition       UInt32,
    event_offset          UInt64 CODEC(Delta, LZ4),
    first_offset          Nullable(UInt64),
    rules_version         UInt16,
    -- The click as it was frozen: empty, null or false where no snapshot may be shown.
    clicked_at            Nullable(DateTime64(3, 'UTC')),
    link_id               LowCardinality(String),
    domain                LowCardinality(String),
    slug                  LowCardinality(String),
    destination           LowCardinality(String),
    trigger               LowCardinality(String),
    token_status          LowCardinality(String),
    token_reason          LowCardinality(String),
    partner_id            LowCardinality(String),
    partner_key           LowCardinality(String),
    partner_name          LowCardinality(String),
    partner_relationship  LowCardinality(String),
    partner_lifecycle     LowCardinality(String),
    program_id            LowCardinality(String),
    program_key           LowCardinality(String),
    program_name          LowCardinality(String),
    program_status        LowCardinality(String),
    assignment_id         LowCardinality(String),
    assigned_at           Nullable(DateTime64(3, 'UTC')),
    window_ms             UInt64,
    reward_terms          LowCardinality(String),
    utm_source            LowCardinality(String),
    utm_medium            LowCardinality(String),
    utm_campaign          LowCardinality(String),
    utm_term              LowCardinality(String),
    utm_content           LowCardinality(String),
    sub1                  String,
    sub2                  String,
    sub3                  String,
    sub4                  String,
    sub5                  String,
    experiment            LowCardinality(String),
    variant               LowCardinality(String),
    referrer_host         LowCardinality(String),
    country               LowCardinality(String),
    device                LowCardinality(String),
    os                    LowCardinality(String),
    browser               LowCardinality(String),
    is_bot                Bool,
    bot_reason            LowCardinality(String),
    catalog_offset        Int64,
    INDEX by_offset src_offset TYPE minmax GRANULARITY 1,
    INDEX by_event event_id TYPE bloom_filter GRANULARITY 1,
    INDEX by_order order_id TYPE bloom_filter GRANULARITY 1,
    INDEX by_token click_token TYPE bloom_filter GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, occurred_at, event_id, event_partition, event_offset) -- the order of an export
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS rejections
(
    workspace_id          LowCardinality(String),
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    webhook_id            String,
    event_id              String,
    click_token           String,
    received_at           DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    status                UInt16,
    code                  LowCardinality(String),
    field                 LowCardinality(String),
    detail                String,
    body_sha256           FixedString(32),
    key_id                LowCardinality(String),
    INDEX by_offset src_offset TYPE minmax GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, received_at, event_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS progress
(
    src_partition         UInt32,
    src_offset            UInt64 CODEC(Delta, LZ4),
    arrived_at            DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    partition             UInt32,
    at                    DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    clicks_position       UInt64 CODEC(Delta, LZ4),
    conversions_position  UInt64 CODEC(Delta, LZ4),
    clicks_max_at         DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    conversions_max_at    DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    outcomes_end          UInt64 CODEC(Delta, LZ4),
    read                  UInt64 CODEC(Delta, LZ4),
    attributed            UInt64 CODEC(Delta, LZ4),
    reversed              UInt64 CODEC(Delta, LZ4),
    duplicate             UInt64 CODEC(Delta, LZ4),
    conflict              UInt64 CODEC(Delta, LZ4),
    unattributed          UInt64 CODEC(Delta, LZ4),
    unreadable            UInt64 CODEC(Delta, LZ4),
    waiting               UInt64 CODEC(Delta, LZ4),
    oldest_waiting_received_at Nullable(DateTime64(3, 'UTC')),
    caught_up             Bool,
    grace_ms              UInt64
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (partition, src_offset)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS catalog_versions
(
    workspace_id          LowCardinality(String),
    kind                  LowCardinality(String), -- workspace, domain, program, partner, link
    key                   String,
    json                  String CODEC(ZSTD(1)), -- empty: the record was removed
    src_partition         UInt32,
    src_offset            UInt64,
    arrived_at            DateTime64(3, 'UTC')
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toYYYYMM(arrived_at)
ORDER BY (workspace_id, kind, key, src_offset)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- The finished batches of the sink: of one topic and partition, [start_offset,
-- end_offset) tile the log. topic is the name without prefix, topic_id is Kafka's, as
-- kafka-topics.sh prints it. A second row for one batch is as good as one.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS batches
(
    topic_id              LowCardinality(String),
    topic                 LowCardinality(String),
    partition             UInt32,
    start_offset          UInt64 CODEC(Delta, LZ4),
    end_offset            UInt64 CODEC(Delta, LZ4),
    rows                  UInt64,
    dropped_replays       UInt64,
    dead_lettered         UInt64,
    inserted_at           DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, LZ4)
)
ENGINE = {{engine "ReplacingMergeTree"}}
ORDER BY (topic, partition, start_offset, end_offset, topic_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd
