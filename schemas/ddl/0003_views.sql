-- Views for reports. Nothing is stored here: a view can be replaced by a later
-- migration.

-- +goose Up

-- The newest version of each record of the catalog; removed ones are left out.
-- +goose StatementBegin
CREATE OR REPLACE VIEW catalog_now AS
SELECT
    argMax(catalog_versions.workspace_id, src_offset) AS workspace_id,
    kind,
    key,
    argMax(catalog_versions.json, src_offset) AS json
FROM catalog_versions
GROUP BY kind, key
HAVING json != '';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE VIEW partners_now AS
SELECT
    workspace_id,
    JSONExtractString(json, 'id') AS partner_id,
    JSONExtractString(json, 'key') AS partner_key,
    JSONExtractString(json, 'name') AS partner_name,
    JSONExtractString(json, 'relationship') AS partner_relationship,
    JSONExtractString(json, 'lifecycle') AS partner_lifecycle
FROM catalog_now
WHERE kind = 'partner';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE VIEW programs_now AS
SELECT
    workspace_id,
    JSONExtractString(json, 'id') AS program_id,
    JSONExtractString(json, 'key') AS program_key,
    JSONExtractString(json, 'name') AS program_name,
    JSONExtractString(json, 'status') AS program_status
FROM catalog_now
WHERE kind = 'program';
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE VIEW partner_daily AS
SELECT
    workspace_id,
    toDate(hour) AS day,
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
    sum(state.gross_minor) AS gross_minor,
    sum(state.negative_minor) AS negative_minor,
    sum(state.gross_minor) + sum(state.negative_minor) AS net_minor,
    sum(state.reward_minor) AS reward_minor
FROM partner_hourly_state AS state
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
    daily.gross_minor AS gross_minor,
    daily.negative_minor AS negative_minor,
    daily.net_minor AS net_minor,
    daily.reward_minor AS reward_minor
FROM partner_daily AS daily
LEFT JOIN partners_now ON partners_now.workspace_id = daily.workspace_id AND partners_now.partner_id = daily.partner_id
LEFT JOIN programs_now ON programs_now.workspace_id = daily.workspace_id AND programs_now.program_id = daily.program_id
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- An event id that has effect under more than one token: the merchant has sent one
-- order with two tokens, so it counts twice.
-- +goose StatementBegin
CREATE OR REPLACE VIEW event_id_reuse AS
SELECT
    workspace_id,
    event_id,
    uniqExact(click_token) AS tokens,
    count() AS events,
    min(outcomes.received_at) AS first_received_at,
    max(outcomes.received_at) AS last_received_at
FROM outcomes
WHERE effect != 0
GROUP BY workspace_id, event_id
HAVING tokens > 1;
-- +goose StatementEnd

-- One row for each outcome, in the shape of the CSV export. Money is text with the
-- currency's digits.
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

-- How far the tables go: of each topic and partition the end of the gapless run of
-- finished batches. All rows below end_offset are in the base table.
-- +goose StatementBegin
CREATE OR REPLACE VIEW tiled_ends AS
SELECT
    topic,
    partition,
    any(id) AS topic_id,
    min(start) AS first_offset,
    min(stop) AS end_offset,
    count() AS runs -- more than one: batches are missing, or overlap
FROM
(
    SELECT
        topic,
        partition,
        topic_id AS id,
        min(start_offset) OVER (PARTITION BY topic, partition) AS start,
        end_offset AS stop,
        leadInFrame(toInt64(start_offset), 1, -1) OVER (PARTITION BY topic, partition ORDER BY start_offset, end_offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS following
    FROM (SELECT DISTINCT topic, partition, topic_id, start_offset, end_offset FROM batches)
)
WHERE following != stop
GROUP BY topic, partition;
-- +goose StatementEnd

-- For each partition the newest Progress that both tables, conversions and outcomes,
-- have reached.
-- +goose StatementBegin
CREATE OR REPLACE VIEW progress_reached AS
SELECT *
FROM progress
WHERE (partition, src_offset) IN
(
    SELECT p.partition, max(p.src_offset)
    FROM progress AS p
    LEFT JOIN (SELECT partition, end_offset FROM tiled_ends WHERE topic = 'conversions') AS events
        ON events.partition = p.partition
    LEFT JOIN (SELECT partition, end_offset FROM tiled_ends WHERE topic = 'outcomes') AS verdicts
        ON verdicts.partition = p.partition
    WHERE p.conversions_position <= events.end_offset AND p.outcomes_end <= verdicts.end_offset
    GROUP BY p.partition
    SETTINGS join_use_nulls = 0
);
-- +goose StatementEnd

-- For each partition: the processor's totals against themselves, against the tables,
-- and the tables against each other. difference is 0, always.
-- +goose StatementBegin
CREATE OR REPLACE VIEW conservation AS
WITH
    reached AS (SELECT * FROM progress_reached),
    events AS
    (
        SELECT c.src_partition AS partition, count() AS rows
        FROM conversions AS c INNER JOIN reached ON reached.partition = c.src_partition
        WHERE c.src_offset < reached.conversions_position
        GROUP BY partition
    ),
    verdicts AS
    (
        SELECT o.src_partition AS partition, count() AS rows
        FROM outcomes AS o INNER JOIN reached ON reached.partition = o.src_partition
        WHERE o.src_offset < reached.outcomes_end
        GROUP BY partition
    )
SELECT
    reached.partition AS partition,
    reached.at AS at,
    reached.conversions_position AS conversions_position,
    reached.outcomes_end AS outcomes_end,
    reached.read AS read,
    reached.attributed AS attributed,
    reached.reversed AS reversed,
    reached.duplicate AS duplicate,
    reached.conflict AS conflict,
    reached.unattributed AS unattributed,
    reached.unreadable AS unreadable,
    reached.waiting AS waiting,
    events.rows AS conversions_rows,
    verdicts.rows AS outcomes_rows,
    toInt64(attributed + reversed + duplicate + conflict + unattributed) AS judged,
    abs(toInt64(read) - judged - toInt64(unreadable) - toInt64(waiting))
        + abs(toInt64(conversions_rows) - toInt64(outcomes_rows) - toInt64(waiting))
        + abs(judged - toInt64(outcomes_rows)) AS difference
FROM reached
LEFT JOIN events ON events.partition = reached.partition
LEFT JOIN verdicts ON verdicts.partition = reached.partition
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- For each workspace and day of receipt (UTC): what was accepted and what became of it.
-- An outcome that is in its table before its event is in the other is left out until
-- then. difference is 0, always.
-- +goose StatementBegin
CREATE OR REPLACE VIEW workspace_conservation AS
SELECT
    workspace_id,
    day,
    sum(events) AS received,
    sum(verdicts['attributed']) AS attributed,
    sum(verdicts['reversed']) AS reversed,
    sum(verdicts['duplicate']) AS duplicate,
    sum(verdicts['conflict']) AS conflict,
    sum(verdicts['unattributed']) AS unattributed,
    countIf(events > 0 AND rows = 0) AS waiting,
    sum(if(events = 0, toInt64(rows), abs(toInt64(events) - 1) + greatest(toInt64(rows) - 1, 0))) AS difference
FROM
(
    SELECT
        workspace_id,
        day,
        event_partition,
        event_offset,
        countIf(verdict = '') AS events,
        countIf(verdict != '') AS rows,
        sumMap(map(verdict, toUInt64(1))) AS verdicts
    FROM
    (
        SELECT
            workspace_id,
            toDate(received_at) AS day,
            src_partition AS event_partition,
            src_offset AS event_offset,
            '' AS verdict
        FROM conversions
        UNION ALL
        SELECT workspace_id, toDate(received_at) AS day, event_partition, event_offset, toString(verdict) AS verdict
        FROM outcomes
        LEFT JOIN (SELECT partition, end_offset FROM tiled_ends WHERE topic = 'conversions') AS reached
            ON reached.partition = outcomes.event_partition
        WHERE event_offset < reached.end_offset
        SETTINGS join_use_nulls = 0
    )
    GROUP BY workspace_id, day, event_partition, event_offset
)
GROUP BY workspace_id, day;
-- +goose StatementEnd

-- For each link: how many clicks carried a token to the merchant, and why the rest did
-- not (token_reason → clicks).
-- +goose StatementBegin
CREATE OR REPLACE VIEW token_coverage AS
SELECT
    workspace_id,
    link_id,
    any(clicks.domain) AS domain,
    any(clicks.slug) AS slug,
    count() AS clicks,
    countIf(token_status = 'appended') AS tokened_clicks,
    tokened_clicks / clicks AS coverage,
    countIf(token_status = 'withheld') AS withheld_clicks,
    countIf(token_status = 'off') AS off_clicks,
    sumMapIf(map(toString(token_reason), toUInt64(1)), token_status != 'appended') AS reasons
FROM clicks
GROUP BY workspace_id, link_id;
-- +goose StatementEnd

-- One row: joined_watermark is the time up to which clicks and conversions of all
-- partitions are judged and in the tables. A partition that has caught up counts as
-- fresh as its newest Progress, unless that is more than 30 s old. A partition that
-- never reported holds the watermark at 1970.
-- +goose StatementBegin
CREATE OR REPLACE VIEW freshness AS
SELECT
    min(watermark) AS joined_watermark,
    min(reported_at) AS oldest_progress_at,
    count() AS partitions,
    countIf(NOT fresh) AS partitions_behind,
    sum(waiting_events) AS waiting,
    min(oldest_waiting) AS oldest_waiting_received_at
FROM
(
    SELECT
        reached.at AS reported_at,
        reached.waiting AS waiting_events,
        reached.oldest_waiting_received_at AS oldest_waiting,
        reached.caught_up AND reached.at >= now64(3) - INTERVAL 30 SECOND AS fresh,
        if(fresh, reached.at, least(reached.clicks_max_at, reached.conversions_max_at)) AS watermark
    FROM
    (
        SELECT DISTINCT partition
        FROM batches
        WHERE topic IN ('clicks', 'conversions', 'outcomes', 'progress')
    ) AS known
    LEFT JOIN progress_reached AS reached ON reached.partition = known.partition
    SETTINGS join_use_nulls = 0
);
-- +goose StatementEnd
