-- The rollup by quarters of an hour, one writer each, with what stands.
--
-- partner_quarter_hourly_state replaces partner_hourly_state. A quarter of an hour is
-- the finest grain in which every time zone's day begins. The key names the topic and
-- partition whose rows are summed, so that the sums of one sink's partition can be
-- compared with its rows. standing_minor is the sum of outcomes.standing_change_minor.
--
-- A database that has sums by the hour stops at the SELECT in the middle until
-- `ctl migrate` has carried them over: only a program can follow the chains of events.
-- The file is then run again from its start. Inserts in between are summed in both
-- tables.

-- +goose Up

-- standing_basis says where standing_change_minor comes from. Empty: from the record,
-- or there is none. For rows of rules version 1, whose records do not have it:
--   chain    computed from the chain, of which all rows are here
--   amount   effect * amount_minor stands in, because rows of the chain are missing
--   pending  effect * amount_minor (or null) stands in until `ctl migrate` runs again
-- +goose StatementBegin
ALTER TABLE outcomes
    ADD COLUMN IF NOT EXISTS standing_basis LowCardinality(String)
        DEFAULT if(rules_version < 2 AND effect != 0, 'pending', '') AFTER standing_change_minor;
-- +goose StatementEnd

-- The quarter of a click is that of clicked_at, the quarter of an outcome that of
-- occurred_at. Clicks and events without an amount are on the line with currency '', an
-- amount and what it changes of the standing amount on the line of its currency, a
-- reward on the line of the reward's currency; so one outcome can touch two lines. A
-- standing change is in the root's currency and 0 where the row's own is another: the
-- row's own line is the root's wherever it is not 0.
--
-- src_topic is clicks or outcomes. 'carried-over' marks sums of whole hours from
-- partner_hourly_state whose rows are gone: they are in the hour's first quarter, and
-- standing_minor is gross + negative.
--
-- taken_beyond_minor is what was taken back beyond what stood, given_beyond_minor what
-- was given back beyond what was taken: of reversed events the part of the amount that
-- changed nothing, by the sign of their effect. Neither is ever below 0.
--
-- approximated_events counts reversed events in whose place effect * amount stands in
-- standing_minor.
--
-- To read it, sum again: rows of one key are merged whenever ClickHouse sees fit.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS partner_quarter_hourly_state
(
    workspace_id    LowCardinality(String),
    quarter_hour    DateTime('UTC'),
    partner_id      LowCardinality(String),
    program_id      LowCardinality(String),
    link_id         LowCardinality(String),
    currency        LowCardinality(String),
    exponent        UInt8,
    src_topic       LowCardinality(String),
    src_partition   UInt32,
    clicks          SimpleAggregateFunction(sum, UInt64),
    human_clicks    SimpleAggregateFunction(sum, UInt64),
    tokened_clicks  SimpleAggregateFunction(sum, UInt64),
    leads           SimpleAggregateFunction(sum, UInt64),
    sales           SimpleAggregateFunction(sum, UInt64),
    refunds         SimpleAggregateFunction(sum, UInt64),
    cancellations   SimpleAggregateFunction(sum, UInt64),
    reversals       SimpleAggregateFunction(sum, UInt64),
    approximated_events SimpleAggregateFunction(sum, UInt64),
    gross_minor     SimpleAggregateFunction(sum, Int128),
    negative_minor  SimpleAggregateFunction(sum, Int128),
    standing_minor  SimpleAggregateFunction(sum, Int128),
    taken_beyond_minor SimpleAggregateFunction(sum, Int128),
    given_beyond_minor SimpleAggregateFunction(sum, Int128),
    reward_minor    SimpleAggregateFunction(sum, Int128)
)
ENGINE = {{engine "AggregatingMergeTree"}}
PARTITION BY toYYYYMM(quarter_hour)
ORDER BY (workspace_id, quarter_hour, partner_id, program_id, link_id, currency, exponent, src_topic, src_partition)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS partner_quarter_hourly_from_clicks TO partner_quarter_hourly_state AS
SELECT
    workspace_id,
    toDateTime(toStartOfFifteenMinutes(clicked_at), 'UTC') AS quarter_hour,
    partner_id,
    program_id,
    link_id,
    'clicks' AS src_topic,
    src_partition,
    count() AS clicks,
    countIf(NOT is_bot) AS human_clicks,
    countIf(token_status = 'appended') AS tokened_clicks
FROM clicks
GROUP BY workspace_id, quarter_hour, partner_id, program_id, link_id, src_partition;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS partner_quarter_hourly_from_outcomes TO partner_quarter_hourly_state AS
SELECT
    workspace_id,
    toDateTime(toStartOfFifteenMinutes(occurred_at), 'UTC') AS quarter_hour,
    partner_id,
    program_id,
    link_id,
    line.1 AS currency,
    line.2 AS exponent,
    'outcomes' AS src_topic,
    src_partition,
    countIf(line.3 AND verdict = 'attributed' AND type = 'lead') AS leads,
    countIf(line.3 AND verdict = 'attributed' AND type = 'sale') AS sales,
    countIf(line.3 AND verdict = 'reversed' AND type = 'refund') AS refunds,
    countIf(line.3 AND verdict = 'reversed' AND type = 'cancellation') AS cancellations,
    countIf(line.3 AND verdict = 'reversed' AND type = 'reversal') AS reversals,
    countIf(line.3 AND verdict = 'reversed' AND standing_basis IN ('amount', 'pending')) AS approximated_events,
    sum(if(line.3 AND verdict = 'attributed', amount, 0)) AS gross_minor,
    sum(if(line.3 AND verdict = 'reversed', effect * amount, 0)) AS negative_minor,
    sum(if(line.3, standing_change, 0)) AS standing_minor,
    sum(if(line.3 AND verdict = 'reversed' AND effect < 0, amount + standing_change, 0)) AS taken_beyond_minor,
    sum(if(line.3 AND verdict = 'reversed' AND effect > 0, amount - standing_change, 0)) AS given_beyond_minor,
    sum(if(line.4, reward, 0)) AS reward_minor
FROM
(
    SELECT
        workspace_id, occurred_at, partner_id, program_id, link_id, src_partition, verdict, type, effect,
        standing_basis,
        toInt128(ifNull(amount_minor, 0)) AS amount,
        toInt128(ifNull(standing_change_minor, 0)) AS standing_change,
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
GROUP BY workspace_id, quarter_hour, partner_id, program_id, link_id, currency, exponent, src_partition;
-- +goose StatementEnd

-- The sums by the hour must be in the new table, to the last unit. Once a view of the
-- old rollup is gone the switch has begun, and this was checked.
-- +goose StatementBegin
SELECT throwIf(count() > 0, 'the rollup by the hour is not carried over yet: run ctl migrate of this release')
FROM
(
    SELECT month, workspace_id, currency, exponent
    FROM
    (
        SELECT
            toYYYYMM(hour) AS month, workspace_id, currency, exponent,
            toInt128(clicks) AS clicks, toInt128(human_clicks) AS human_clicks,
            toInt128(tokened_clicks) AS tokened_clicks, toInt128(leads) AS leads, toInt128(sales) AS sales,
            toInt128(refunds) AS refunds, toInt128(cancellations) AS cancellations,
            toInt128(reversals) AS reversals, gross_minor, negative_minor, reward_minor
        FROM partner_hourly_state
        UNION ALL
        SELECT
            toYYYYMM(quarter_hour) AS month, workspace_id, currency, exponent,
            -toInt128(clicks) AS clicks, -toInt128(human_clicks) AS human_clicks,
            -toInt128(tokened_clicks) AS tokened_clicks, -toInt128(leads) AS leads, -toInt128(sales) AS sales,
            -toInt128(refunds) AS refunds, -toInt128(cancellations) AS cancellations,
            -toInt128(reversals) AS reversals, -gross_minor, -negative_minor, -reward_minor
        FROM partner_quarter_hourly_state
    )
    GROUP BY month, workspace_id, currency, exponent
    HAVING sum(clicks) != 0 OR sum(human_clicks) != 0 OR sum(tokened_clicks) != 0 OR sum(leads) != 0
        OR sum(sales) != 0 OR sum(refunds) != 0 OR sum(cancellations) != 0 OR sum(reversals) != 0
        OR sum(gross_minor) != 0 OR sum(negative_minor) != 0 OR sum(reward_minor) != 0
)
WHERE
(
    SELECT count()
    FROM system.tables
    WHERE database = currentDatabase() AND name IN ('partner_hourly_from_clicks', 'partner_hourly_from_outcomes')
) = 2;
-- +goose StatementEnd

-- Nor may an event of rules version 1 go into the switch without its standing change. One
-- that came after a carry-over is summed in both tables, so the sums do not show it.
-- +goose StatementBegin
SELECT throwIf(count() > 0, 'standing changes are not carried over yet: run ctl migrate of this release')
FROM outcomes
WHERE standing_basis = 'pending' AND
(
    SELECT count()
    FROM system.tables
    WHERE database = currentDatabase() AND name IN ('partner_hourly_from_clicks', 'partner_hourly_from_outcomes')
) = 2;
-- +goose StatementEnd

-- standing_minor is the net revenue. net_minor, gross + negative, is standing_minor -
-- taken_beyond_minor + given_beyond_minor.
-- +goose StatementBegin
CREATE OR REPLACE VIEW partner_daily AS
SELECT
    workspace_id,
    toDate(quarter_hour) AS day,
    partner_id,
    program_id,
    link_id,
    currency,
    exponent,
    sum(state.clicks) AS clicks,
    sum(state.human_clicks) AS human_clicks,
    sum(state.tokened_clicks) AS tokened_clicks,
    sum(state.leads) AS leads,
    sum(state.sales) AS sales,
    sum(state.refunds) AS refunds,
    sum(state.cancellations) AS cancellations,
    sum(state.reversals) AS reversals,
    sum(state.approximated_events) AS approximated_events,
    sum(state.gross_minor) AS gross_minor,
    sum(state.negative_minor) AS negative_minor,
    sum(state.gross_minor) + sum(state.negative_minor) AS net_minor,
    sum(state.standing_minor) AS standing_minor,
    sum(state.taken_beyond_minor) AS taken_beyond_minor,
    sum(state.given_beyond_minor) AS given_beyond_minor,
    sum(state.reward_minor) AS reward_minor
FROM partner_quarter_hourly_state AS state
GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent;
-- +goose StatementEnd

-- partner_daily with names and status as they are now; empty where the catalog does not
-- know the id.
-- +goose StatementBegin
CREATE OR REPLACE VIEW partner_performance AS
SELECT
    daily.workspace_id AS workspace_id,
    daily.day AS day,
    daily.partner_id AS partner_id,
    partners_now.partner_key AS partner_key,
    partners_now.partner_name AS partner_name,
    partners_now.partner_relationship AS partner_relationship,
    partners_now.partner_lifecycle AS partner_lifecycle,
    daily.program_id AS program_id,
    programs_now.program_key AS program_key,
    programs_now.program_name AS program_name,
    programs_now.program_status AS program_status,
    daily.link_id AS link_id,
    daily.currency AS currency,
    daily.exponent AS exponent,
    daily.clicks AS clicks,
    daily.human_clicks AS human_clicks,
    daily.tokened_clicks AS tokened_clicks,
    daily.leads AS leads,
    daily.sales AS sales,
    daily.refunds AS refunds,
    daily.cancellations AS cancellations,
    daily.reversals AS reversals,
    daily.approximated_events AS approximated_events,
    daily.gross_minor AS gross_minor,
    daily.negative_minor AS negative_minor,
    daily.net_minor AS net_minor,
    daily.standing_minor AS standing_minor,
    daily.taken_beyond_minor AS taken_beyond_minor,
    daily.given_beyond_minor AS given_beyond_minor,
    daily.reward_minor AS reward_minor
FROM partner_daily AS daily
LEFT JOIN partners_now ON partners_now.workspace_id = daily.workspace_id AND partners_now.partner_id = daily.partner_id
LEFT JOIN programs_now ON programs_now.workspace_id = daily.workspace_id AND programs_now.program_id = daily.program_id
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- One row for each outcome, in the shape of the CSV export. Money is text with the
-- currency's digits. standing_change is what the row changes of its root's standing
-- amount.
-- +goose StatementBegin
CREATE OR REPLACE VIEW conversion_rows AS
WITH (minor, digits) -> concat(if(minor < 0, '-', ''), toString(intDiv(abs(minor), intExp10(digits))),
    if(digits = 0, '', concat('.', leftPad(toString(abs(minor) % intExp10(digits)), digits, '0')))) AS decimal
SELECT
    o.workspace_id AS workspace_id,
    o.partner_id AS partner_id,
    o.partner_key AS partner_key,
    o.partner_name AS partner_name,
    o.partner_relationship AS partner_relationship,
    partners_now.partner_relationship AS partner_relationship_now,
    o.program_id AS program_id,
    o.program_key AS program_key,
    o.program_name AS program_name,
    o.assignment_id AS assignment_id,
    o.link_id AS link_id,
    o.domain AS domain,
    o.slug AS slug,
    o.destination AS destination,
    o.clicked_at AS clicked_at,
    o.occurred_at AS occurred_at,
    o.received_at AS received_at,
    o.event_id AS event_id,
    o.type AS type,
    o.event_name AS event_name,
    o.verdict AS verdict,
    o.reason AS reason,
    o.effect AS effect,
    decimal(o.amount_minor, o.exponent) AS amount,
    decimal(o.effect * o.amount_minor, o.exponent) AS net_amount,
    decimal(o.standing_change_minor, o.exponent) AS standing_change,
    o.currency AS currency,
    o.amount_minor AS amount_minor,
    o.quantity AS quantity,
    o.order_id AS order_id,
    o.parent_event_id AS parent_event_id,
    o.parent_type AS parent_type,
    o.reason_text AS reason_text,
    if(o.effect = -1, 'yes', '') AS clawback,
    o.review AS review,
    if(
        (o.workspace_id, o.event_id) IN (SELECT workspace_id, event_id FROM event_id_reuse),
        arrayPushBack(o.flags, 'event_id_reused'),
        o.flags) AS flags,
    decimal(o.estimated_reward_minor, o.reward_exponent) AS estimated_reward,
    o.reward_currency AS reward_currency,
    o.reward_terms AS reward_terms,
    o.utm_source AS utm_source,
    o.utm_medium AS utm_medium,
    o.utm_campaign AS utm_campaign,
    o.utm_term AS utm_term,
    o.utm_content AS utm_content,
    o.sub1 AS sub1,
    o.sub2 AS sub2,
    o.sub3 AS sub3,
    o.sub4 AS sub4,
    o.sub5 AS sub5,
    o.experiment AS experiment,
    o.variant AS variant,
    o.country AS country,
    o.device AS device,
    o.is_bot AS is_bot,
    o.click_token AS click_token,
    o.event_partition AS event_partition,
    o.event_offset AS event_offset
FROM outcomes AS o
LEFT JOIN partners_now ON partners_now.workspace_id = o.workspace_id AND partners_now.partner_id = o.partner_id
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- Nothing is added to the sums by the hour any more. The table stays as it was when it
-- was carried over; nothing reads it.
-- +goose StatementBegin
DROP VIEW IF EXISTS partner_hourly_from_clicks;
-- +goose StatementEnd

-- +goose StatementBegin
DROP VIEW IF EXISTS partner_hourly_from_outcomes;
-- +goose StatementEnd
