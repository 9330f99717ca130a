-- Days of any time zone. The views without a parameter stay as they are: their days are
-- those of UTC.

-- +goose Up

-- partner_daily by the days of a time zone: partner_days(tz = 'Europe/Berlin'). tz is an
-- IANA name, a constant. A quarter of an hour is on the day of its first instant; days of
-- every zone have begun with a quarter of an hour of UTC since 1979-10-01 10:40 UTC. Of
-- days before, what happened in the quarter in which a day begins is all on the day
-- before, if the day does not begin with it.
--
-- taken_back counts the reversed events that took something back (effect -1), given_back
-- those that gave it back (effect +1): chargebacks that were won. Their amounts are
-- taken_back_minor and given_back_minor, neither ever below 0; negative_minor is
-- given_back_minor - taken_back_minor. The rollup does not tell the two apart: what gave
-- back is read from outcomes. Of rows that were dropped because of their age, and of sums
-- that were carried over, what gave back counts as less taken back.
-- +goose StatementBegin
CREATE OR REPLACE VIEW partner_days AS
SELECT
    workspace_id,
    day,
    {tz:String} AS timezone,
    partner_id,
    program_id,
    link_id,
    currency,
    exponent,
    sum(line.clicks) AS clicks,
    sum(line.human_clicks) AS human_clicks,
    sum(line.tokened_clicks) AS tokened_clicks,
    sum(line.leads) AS leads,
    sum(line.sales) AS sales,
    sum(line.refunds) AS refunds,
    sum(line.cancellations) AS cancellations,
    sum(line.reversals) AS reversals,
    toUInt64(greatest(0, toInt64(refunds + cancellations + reversals) - toInt64(sum(line.won)))) AS taken_back,
    toUInt64(refunds + cancellations + reversals - taken_back) AS given_back,
    sum(line.approximated_events) AS approximated_events,
    sum(line.gross_minor) AS gross_minor,
    sum(line.negative_minor) AS negative_minor,
    greatest(toInt128(0), sum(line.won_minor) - negative_minor) AS taken_back_minor,
    taken_back_minor + negative_minor AS given_back_minor,
    gross_minor + negative_minor AS net_minor,
    sum(line.standing_minor) AS standing_minor,
    sum(line.taken_beyond_minor) AS taken_beyond_minor,
    sum(line.given_beyond_minor) AS given_beyond_minor,
    sum(line.reward_minor) AS reward_minor
FROM
(
    SELECT
        workspace_id,
        toDate(quarter_hour, {tz:String}) AS day,
        partner_id, program_id, link_id, currency, exponent,
        clicks, human_clicks, tokened_clicks, leads, sales, refunds, cancellations, reversals,
        toUInt64(0) AS won,
        approximated_events, gross_minor, negative_minor,
        toInt128(0) AS won_minor,
        standing_minor, taken_beyond_minor, given_beyond_minor, reward_minor
    FROM partner_quarter_hourly_state
    UNION ALL
    SELECT
        workspace_id,
        toDate(toStartOfFifteenMinutes(occurred_at), {tz:String}) AS day,
        partner_id, program_id, link_id, currency, exponent,
        toUInt64(0) AS clicks, toUInt64(0) AS human_clicks, toUInt64(0) AS tokened_clicks,
        toUInt64(0) AS leads, toUInt64(0) AS sales, toUInt64(0) AS refunds, toUInt64(0) AS cancellations,
        toUInt64(0) AS reversals,
        toUInt64(1) AS won,
        toUInt64(0) AS approximated_events, toInt128(0) AS gross_minor, toInt128(0) AS negative_minor,
        toInt128(ifNull(amount_minor, 0)) AS won_minor,
        toInt128(0) AS standing_minor, toInt128(0) AS taken_beyond_minor, toInt128(0) AS given_beyond_minor,
        toInt128(0) AS reward_minor
    FROM outcomes
    WHERE verdict = 'reversed' AND effect = 1
) AS line
GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent;
-- +goose StatementEnd

-- partner_performance by the days of a time zone:
-- partner_performance_days(tz = 'Europe/Berlin').
-- +goose StatementBegin
CREATE OR REPLACE VIEW partner_performance_days AS
SELECT
    days.workspace_id AS workspace_id,
    days.day AS day,
    days.timezone AS timezone,
    days.partner_id AS partner_id,
    partners_now.partner_key AS partner_key,
    partners_now.partner_name AS partner_name,
    partners_now.partner_relationship AS partner_relationship,
    partners_now.partner_lifecycle AS partner_lifecycle,
    days.program_id AS program_id,
    programs_now.program_key AS program_key,
    programs_now.program_name AS program_name,
    programs_now.program_status AS program_status,
    days.link_id AS link_id,
    days.currency AS currency,
    days.exponent AS exponent,
    days.clicks AS clicks,
    days.human_clicks AS human_clicks,
    days.tokened_clicks AS tokened_clicks,
    days.leads AS leads,
    days.sales AS sales,
    days.refunds AS refunds,
    days.cancellations AS cancellations,
    days.reversals AS reversals,
    days.taken_back AS taken_back,
    days.given_back AS given_back,
    days.approximated_events AS approximated_events,
    days.gross_minor AS gross_minor,
    days.negative_minor AS negative_minor,
    days.taken_back_minor AS taken_back_minor,
    days.given_back_minor AS given_back_minor,
    days.net_minor AS net_minor,
    days.standing_minor AS standing_minor,
    days.taken_beyond_minor AS taken_beyond_minor,
    days.given_beyond_minor AS given_beyond_minor,
    days.reward_minor AS reward_minor
FROM partner_days(tz = {tz:String}) AS days
LEFT JOIN partners_now ON partners_now.workspace_id = days.workspace_id AND partners_now.partner_id = days.partner_id
LEFT JOIN programs_now ON programs_now.workspace_id = days.workspace_id AND programs_now.program_id = days.program_id
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- events_and_rows with the time of receipt.
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
FROM outcomes;
-- +goose StatementEnd

-- workspace_conservation by the days of receipt of a time zone:
-- workspace_conservation_days(tz = 'Europe/Berlin').
-- +goose StatementBegin
CREATE OR REPLACE VIEW workspace_conservation_days AS
WITH
    (
        SELECT groupArray((partition, end_offset)) FROM tiled_ends WHERE topic = 'conversions'
    ) AS ends,
    (
        SELECT groupArray((partition, conversions_position, overdue_before, longer_waits)) FROM wait_ends
    ) AS waits,
    bounds AS
    (
        SELECT e.1 AS partition, e.2 AS events_end, w.2 AS judged_end, w.3 AS overdue_before, w.4 AS longer_waits
        FROM (SELECT arrayJoin(ends) AS e) AS known
        LEFT JOIN (SELECT arrayJoin(waits) AS w) AS reached ON reached.w.1 = known.e.1
    )
SELECT
    workspace_id,
    received_on AS day,
    {tz:String} AS timezone,
    sum(events) AS received,
    sum(of_attributed) AS attributed,
    sum(of_reversed) AS reversed,
    sum(of_duplicate) AS duplicate,
    sum(of_conflict) AS conflict,
    sum(of_unattributed) AS unattributed,
    countIf(events > 0 AND rows = 0 AND NOT overdue) AS waiting,
    sum(if(
        events = 0,
        toInt64(rows),
        abs(toInt64(events) - 1) + greatest(toInt64(rows) - 1, 0) + toInt64(rows = 0 AND overdue))) AS difference
FROM
(
    SELECT
        workspace_id,
        toDate(received_at, {tz:String}) AS received_on,
        event_partition,
        event_offset,
        countIf(NOT judged) AS events,
        countIf(judged) AS rows,
        countIf(verdict = 'attributed') AS of_attributed,
        countIf(verdict = 'reversed') AS of_reversed,
        countIf(verdict = 'duplicate') AS of_duplicate,
        countIf(verdict = 'conflict') AS of_conflict,
        countIf(verdict = 'unattributed') AS of_unattributed,
        max(NOT judged AND event_offset < judged_end AND entered_at < overdue_before
            AND NOT arrayExists(span -> entered_at BETWEEN span.1 AND span.2, longer_waits)) AS overdue
    FROM events_and_rows AS r
    LEFT JOIN bounds ON bounds.partition = r.event_partition
    WHERE NOT judged OR event_offset < events_end
    GROUP BY workspace_id, received_on, event_partition, event_offset
)
GROUP BY workspace_id, received_on
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd
