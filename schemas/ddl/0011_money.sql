-- Money in views as Decimal(38, 4), in minor units as before: Int128 leaves in Parquet,
-- Arrow, ORC and Avro as 16 bytes that no reader adds up. Four digits, so that
-- gross_minor / 100 keeps its cents: the quotient of a decimal has the digits of its
-- dividend. As text a sum is printed without them: 1299. A cast from Int128 is not in
-- every ClickHouse, so it goes by the text. The tables keep Int128.
--
-- And views that are the same under enable_analyzer = 0 and prefer_column_name_to_alias =
-- 1, which profiles may set: no functions with names, no alias that is a column too.

-- +goose Up

-- The newest version of each record of the catalog; removed ones are left out.
-- +goose StatementBegin
CREATE OR REPLACE VIEW catalog_now AS
SELECT last_workspace AS workspace_id, kind, key, last_json AS json
FROM
(
    SELECT
        kind,
        key,
        argMax(catalog_versions.workspace_id, src_offset) AS last_workspace,
        argMax(catalog_versions.json, src_offset) AS last_json
    FROM catalog_versions
    GROUP BY kind, key
)
WHERE last_json != '';
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
    toDecimal128(toString(sum(state.gross_minor)), 4) AS gross_minor,
    toDecimal128(toString(sum(state.negative_minor)), 4) AS negative_minor,
    toDecimal128(toString(sum(state.gross_minor) + sum(state.negative_minor)), 4) AS net_minor,
    toDecimal128(toString(sum(state.standing_minor)), 4) AS standing_minor,
    toDecimal128(toString(sum(state.taken_beyond_minor)), 4) AS taken_beyond_minor,
    toDecimal128(toString(sum(state.given_beyond_minor)), 4) AS given_beyond_minor,
    toDecimal128(toString(sum(state.reward_minor)), 4) AS reward_minor
FROM partner_quarter_hourly_state AS state
GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent;
-- +goose StatementEnd

-- partner_daily with names and status as they are now; empty where the catalog does not
-- know the id. It keeps the types of partner_daily's columns, so it is made anew.
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
    clicks,
    human_clicks,
    tokened_clicks,
    leads,
    sales,
    refunds,
    cancellations,
    reversals,
    toUInt64(negatives - wins) AS taken_back,
    toUInt64(wins) AS given_back,
    approximated_events,
    toDecimal128(toString(gross), 4) AS gross_minor,
    toDecimal128(toString(negative), 4) AS negative_minor,
    toDecimal128(toString(taken), 4) AS taken_back_minor,
    toDecimal128(toString(taken + negative), 4) AS given_back_minor,
    toDecimal128(toString(gross + negative), 4) AS net_minor,
    toDecimal128(toString(standing), 4) AS standing_minor,
    toDecimal128(toString(taken_beyond), 4) AS taken_beyond_minor,
    toDecimal128(toString(given_beyond), 4) AS given_beyond_minor,
    toDecimal128(toString(reward), 4) AS reward_minor
FROM
(
    SELECT
        workspace_id, day, partner_id, program_id, link_id, currency, exponent,
        sum(line.clicks) AS clicks,
        sum(line.human_clicks) AS human_clicks,
        sum(line.tokened_clicks) AS tokened_clicks,
        sum(line.leads) AS leads,
        sum(line.sales) AS sales,
        sum(line.refunds) AS refunds,
        sum(line.cancellations) AS cancellations,
        sum(line.reversals) AS reversals,
        sum(line.refunds) + sum(line.cancellations) + sum(line.reversals) AS negatives,
        least(sum(line.won), negatives) AS wins,
        sum(line.approximated_events) AS approximated_events,
        sum(line.gross_minor) AS gross,
        sum(line.negative_minor) AS negative,
        sum(line.standing_minor) AS standing,
        sum(line.taken_beyond_minor) AS taken_beyond,
        sum(line.given_beyond_minor) AS given_beyond,
        sum(line.reward_minor) AS reward,
        greatest(toInt128(0), sum(line.won_minor) - sum(line.negative_minor)) AS taken
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
    GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent
);
-- +goose StatementEnd

{{/* An amount in minor units as text with its digits. */}}
{{$decimal := `concat(if(%[1]s < 0, '-', ''), toString(intDiv(abs(%[1]s), intExp10(%[2]s))),
        if(%[2]s = 0, '', concat('.', leftPad(toString(abs(%[1]s) %% intExp10(%[2]s)), %[2]s, '0'))))`}}

-- One row for each outcome, in the shape of the CSV export, but for the flag
-- event_id_reused. Money is text with the currency's digits. standing_change is what the
-- row changes of its root's standing amount.
-- +goose StatementBegin
CREATE OR REPLACE VIEW outcome_rows AS
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
    {{printf $decimal "o.amount_minor" "o.exponent"}} AS amount,
    {{printf $decimal "o.effect * o.amount_minor" "o.exponent"}} AS net_amount,
    {{printf $decimal "o.standing_change_minor" "o.exponent"}} AS standing_change,
    o.currency AS currency,
    o.amount_minor AS amount_minor,
    o.quantity AS quantity,
    o.order_id AS order_id,
    o.parent_event_id AS parent_event_id,
    o.parent_type AS parent_type,
    o.reason_text AS reason_text,
    if(o.effect = -1, 'yes', '') AS clawback,
    o.review AS review,
    o.flags AS flags,
    {{printf $decimal "o.estimated_reward_minor" "o.reward_exponent"}} AS estimated_reward,
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

-- Orders that count more than once: several attributed sales name them, and something of
-- each stands. A sale that follows an earlier one of its order is none of them.
--
-- The sales are in the order of receipt: event_ids, click_tokens and partner_ids belong
-- together. standing is what stands of them, by currency.
-- +goose StatementBegin
CREATE OR REPLACE VIEW order_reuse AS
WITH
    candidates AS
    (
        SELECT DISTINCT
            workspace_id, order_id, src_partition, src_offset, click_token, event_id, parent_event_id, event_offset,
            received_at, amount_minor, currency, exponent, partner_id
        FROM outcomes
        WHERE verdict = 'attributed' AND type = 'sale' AND (workspace_id, order_id) IN
        (
            SELECT workspace_id, order_id FROM sales_by_order_id FINAL WHERE first_sale != last_sale
        )
    ),
    followers AS
    (
        SELECT s.src_partition, s.src_offset
        FROM candidates AS s
        INNER JOIN candidates AS earlier
            ON earlier.workspace_id = s.workspace_id AND earlier.order_id = s.order_id
                AND earlier.click_token = s.click_token AND earlier.event_id = s.parent_event_id
        WHERE earlier.event_offset < s.event_offset
    ),
    sales AS
    (
        SELECT *
        FROM candidates
        WHERE (src_partition, src_offset) NOT IN (SELECT src_partition, src_offset FROM followers)
    ),
    -- By token, what took back and gave back. A row comes after the one that it names. The
    -- root of a row is that of its parent. A parent that took nothing is the root itself.
    -- roots are those of parents that took something: few.
    negatives AS
    (
        SELECT
            workspace_id,
            click_token,
            arraySort(groupArray((o.src_offset, o.event_id, o.parent_event_id, o.standing_change_minor, o.currency,
                o.exponent, if(o.amount_minor IS NULL, o.effect, 0)))) AS rows,
            arrayIntersect(groupArray(o.event_id), groupArray(o.parent_event_id)) AS parents,
            arrayFold(
                (known, r) -> mapUpdate(known, map(r.2, if(known[r.3] = '', r.3, known[r.3]))),
                arrayFilter(r -> has(parents, r.2), rows),
                CAST(map(), 'Map(String, String)')) AS roots,
            arrayMap(r -> (if(roots[r.3] = '', r.3, roots[r.3]), r.4, r.5, r.6, r.7), rows) AS changes_of_roots
        FROM outcomes AS o
        WHERE verdict = 'reversed' AND (workspace_id, click_token) IN (SELECT workspace_id, click_token FROM candidates)
        GROUP BY workspace_id, click_token
    ),
    changes AS
    (
        SELECT
            workspace_id,
            click_token,
            c.1 AS root,
            c.3 AS currency,
            c.4 AS exponent,
            sum(toInt128(ifNull(c.2, 0))) AS minor,
            sum(c.5) AS units
        FROM negatives
        ARRAY JOIN changes_of_roots AS c
        GROUP BY workspace_id, click_token, root, currency, exponent
    ),
    standing_sales AS
    (
        SELECT
            s.workspace_id AS workspace_id,
            s.order_id AS order_id,
            s.received_at AS received_at,
            s.src_partition AS src_partition,
            s.src_offset AS src_offset,
            s.event_id AS event_id,
            s.click_token AS click_token,
            s.partner_id AS partner_id,
            s.currency AS currency,
            s.exponent AS exponent,
            if(s.amount_minor IS NULL, 0, assumeNotNull(s.amount_minor) + c.minor) AS minor,
            if(s.amount_minor IS NULL, 1 + c.units, minor) > 0 AS stands
        FROM sales AS s
        LEFT JOIN changes AS c
            ON c.workspace_id = s.workspace_id AND c.click_token = s.click_token AND c.root = s.event_id
                AND c.currency = s.currency AND c.exponent = s.exponent
    )
SELECT
    workspace_id,
    order_id,
    count() AS sales,
    uniqExact(click_token) AS tokens,
    uniqExact(partner_id) AS partners,
    arrayMap(x -> x.4, arraySort(groupArray((received_at, src_partition, src_offset, event_id)))) AS event_ids,
    arrayMap(x -> x.4, arraySort(groupArray((received_at, src_partition, src_offset, click_token)))) AS click_tokens,
    arrayMap(x -> x.4, arraySort(groupArray((received_at, src_partition, src_offset, partner_id)))) AS partner_ids,
    arraySort(arrayMap(
        c -> CAST((c.1, c.2, toDecimal128(toString(arraySum(x -> if((x.1, x.2) = c, x.3, 0), amounts)), 4)),
            'Tuple(currency String, exponent UInt8, minor Decimal(38, 4))'),
        arrayDistinct(arrayMap(
            x -> (x.1, x.2),
            groupArrayIf((toString(currency), exponent, minor), currency != '') AS amounts))
    )) AS standing,
    min(s.received_at) AS first_received_at,
    max(s.received_at) AS last_received_at
FROM standing_sales AS s
WHERE stands
GROUP BY workspace_id, order_id
HAVING sales > 1
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd
