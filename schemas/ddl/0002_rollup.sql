-- The rollup: sums by the hour, fed by every insert into clicks and outcomes.
--
-- The hour of a click is clicked_at, that of an outcome is occurred_at. Clicks and
-- events without an amount are on the line with currency '', an amount on the line of
-- its currency, a reward on the line of the reward's currency; so one outcome can touch
-- two lines. Sums of minor units are Int128: two amounts of nineteen digits must not
-- wrap around.
--
-- To read it, sum again: rows of one key are merged whenever ClickHouse sees fit.

-- +goose Up

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS partner_hourly_state
(
    workspace_id    LowCardinality(String),
    hour            DateTime('UTC'),
    partner_id      LowCardinality(String),
    program_id      LowCardinality(String),
    link_id         LowCardinality(String),
    currency        LowCardinality(String),
    exponent        UInt8,
    clicks          SimpleAggregateFunction(sum, UInt64),
    human_clicks    SimpleAggregateFunction(sum, UInt64),
    tokened_clicks  SimpleAggregateFunction(sum, UInt64),
    leads           SimpleAggregateFunction(sum, UInt64),
    sales           SimpleAggregateFunction(sum, UInt64),
    refunds         SimpleAggregateFunction(sum, UInt64),
    cancellations   SimpleAggregateFunction(sum, UInt64),
    reversals       SimpleAggregateFunction(sum, UInt64),
    gross_minor     SimpleAggregateFunction(sum, Int128),
    negative_minor  SimpleAggregateFunction(sum, Int128),
    reward_minor    SimpleAggregateFunction(sum, Int128)
)
ENGINE = {{engine "AggregatingMergeTree"}}
PARTITION BY toYYYYMM(hour)
ORDER BY (workspace_id, hour, partner_id, program_id, link_id, currency, exponent)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS partner_hourly_from_clicks TO partner_hourly_state AS
SELECT
    workspace_id,
    toDateTime(toStartOfHour(clicked_at), 'UTC') AS hour,
    partner_id,
    program_id,
    link_id,
    count() AS clicks,
    countIf(NOT is_bot) AS human_clicks,
    countIf(token_status = 'appended') AS tokened_clicks
FROM clicks
GROUP BY workspace_id, hour, partner_id, program_id, link_id;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS partner_hourly_from_outcomes TO partner_hourly_state AS
SELECT
    workspace_id,
    toDateTime(toStartOfHour(occurred_at), 'UTC') AS hour,
    partner_id,
    program_id,
    link_id,
    line.1 AS currency,
    line.2 AS exponent,
    countIf(line.3 AND verdict = 'attributed' AND type = 'lead') AS leads,
    countIf(line.3 AND verdict = 'attributed' AND type = 'sale') AS sales,
    countIf(line.3 AND verdict = 'reversed' AND type = 'refund') AS refunds,
    countIf(line.3 AND verdict = 'reversed' AND type = 'cancellation') AS cancellations,
    countIf(line.3 AND verdict = 'reversed' AND type = 'reversal') AS reversals,
    sum(if(line.3 AND verdict = 'attributed', amount, 0)) AS gross_minor,
    sum(if(line.3 AND verdict = 'reversed', effect * amount, 0)) AS negative_minor,
    sum(if(line.4, reward, 0)) AS reward_minor
FROM
(
    SELECT
        workspace_id, occurred_at, partner_id, program_id, link_id, verdict, type, effect,
        toInt128(ifNull(amount_minor, 0)) AS amount,
        toInt128(ifNull(estimated_reward_minor, 0)) AS reward,
        -- The lines that an outcome touches: (currency, exponent, the event is here,
        -- its reward is here).
        arrayJoin(if(estimated_reward_minor IS NULL OR (reward_currency = currency AND reward_exponent = exponent),
            [(toString(currency), exponent, true, true)],
            [(toString(currency), exponent, true, false),
                (toString(reward_currency), reward_exponent, false, true)])) AS line
    FROM outcomes
    WHERE verdict IN ('attributed', 'reversed')
)
GROUP BY workspace_id, hour, partner_id, program_id, link_id, currency, exponent;
-- +goose StatementEnd
