-- What counts more than once, what took nothing back, and finding events by their ids.
--
-- Two narrow tables have a line for each id that some rows of outcomes have, in the order
-- of the ids: the least and the greatest of something of these rows. So a row that is
-- summed up twice changes nothing, and they need no more than that each row was; the
-- deduplication windows only save work. To read them use FINAL: it merges lines of one id
-- as it reads, in little memory.
--
-- The position in them is that of some row of the id, so that the views' rows can be
-- selected by it.
--
-- The views come first and the older rows after them, so that nothing is missing
-- between. The older rows are read in twelve parts, by the month of the year: the client
-- waits at most five minutes for one statement.

-- +goose Up

-- Rows with effect, by event id: the tokens under which the id has it.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS effects_by_event_id
(
    workspace_id    LowCardinality(String),
    event_id        String,
    first_token     SimpleAggregateFunction(min, String),
    last_token      SimpleAggregateFunction(max, String),
    src_partition   SimpleAggregateFunction(max, UInt32),
    src_offset      SimpleAggregateFunction(max, UInt64)
)
ENGINE = {{engine "AggregatingMergeTree"}}
ORDER BY (workspace_id, event_id)
SETTINGS
    index_granularity = 1024, -- most readers look up single ids
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- Attributed sales that name an order, by order id: their positions as numbers, partition
-- before offset.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS sales_by_order_id
(
    workspace_id    LowCardinality(String),
    order_id        String,
    first_sale      SimpleAggregateFunction(min, UInt64),
    last_sale       SimpleAggregateFunction(max, UInt64),
    src_partition   SimpleAggregateFunction(max, UInt32),
    src_offset      SimpleAggregateFunction(max, UInt64)
)
ENGINE = {{engine "AggregatingMergeTree"}}
ORDER BY (workspace_id, order_id)
SETTINGS
    index_granularity = 1024, -- as above
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 20000,
    replicated_deduplication_window_seconds = 604800;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS effects_by_event_id_from_outcomes TO effects_by_event_id AS
SELECT workspace_id, event_id, click_token AS first_token, click_token AS last_token, src_partition, src_offset
FROM outcomes
WHERE effect != 0;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS sales_by_order_id_from_outcomes TO sales_by_order_id AS
SELECT
    workspace_id,
    order_id,
    bitShiftLeft(toUInt64(src_partition), 48) + src_offset AS first_sale,
    first_sale AS last_sale,
    src_partition,
    src_offset
FROM outcomes
WHERE verdict = 'attributed' AND type = 'sale' AND order_id != '';
-- +goose StatementEnd

{{range $before := 12}}
-- +goose StatementBegin
INSERT INTO effects_by_event_id (workspace_id, event_id, first_token, last_token, src_partition, src_offset)
SELECT workspace_id, event_id, click_token AS first_token, click_token AS last_token, src_partition, src_offset
FROM outcomes
WHERE effect != 0 AND toUInt8(right(_partition_id, 2)) = {{$before}} + 1;
-- +goose StatementEnd

-- +goose StatementBegin
INSERT INTO sales_by_order_id (workspace_id, order_id, first_sale, last_sale, src_partition, src_offset)
SELECT
    workspace_id,
    order_id,
    bitShiftLeft(toUInt64(src_partition), 48) + src_offset AS first_sale,
    first_sale AS last_sale,
    src_partition,
    src_offset
FROM outcomes
WHERE verdict = 'attributed' AND type = 'sale' AND order_id != ''
    AND toUInt8(right(_partition_id, 2)) = {{$before}} + 1;
-- +goose StatementEnd
{{end}}

-- Events and refusals by the ids that they name, and rows of outcomes by their receipt.
-- The parts that are there get their index in the background.
-- +goose StatementBegin
ALTER TABLE conversions
    ADD INDEX IF NOT EXISTS by_parent parent_event_id TYPE bloom_filter GRANULARITY 1;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE outcomes
    ADD INDEX IF NOT EXISTS by_parent parent_event_id TYPE bloom_filter GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_receipt received_at TYPE minmax GRANULARITY 1;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE rejections
    ADD INDEX IF NOT EXISTS by_event event_id TYPE bloom_filter GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_order order_id TYPE bloom_filter GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_parent parent_event_id TYPE bloom_filter GRANULARITY 1;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE conversions MATERIALIZE INDEX by_parent;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE outcomes MATERIALIZE INDEX by_parent, MATERIALIZE INDEX by_receipt;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE rejections MATERIALIZE INDEX by_event, MATERIALIZE INDEX by_order, MATERIALIZE INDEX by_parent;
-- +goose StatementEnd

-- The event ids that have effect under more than one token. It reads one workspace, or
-- one id, if asked for one.
-- +goose StatementBegin
CREATE OR REPLACE VIEW reused_event_ids AS
SELECT workspace_id, event_id
FROM effects_by_event_id FINAL
WHERE first_token != last_token;
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
WHERE effect != 0 AND (workspace_id, event_id) IN (SELECT workspace_id, event_id FROM reused_event_ids)
GROUP BY workspace_id, event_id
HAVING tokens > 1;
-- +goose StatementEnd

-- One row for each outcome, in the shape of the CSV export, but for the flag
-- event_id_reused. Money is text with the currency's digits. standing_change is what the
-- row changes of its root's standing amount.
-- +goose StatementBegin
CREATE OR REPLACE VIEW outcome_rows AS
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
    o.flags AS flags,
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

-- outcome_rows with the flag event_id_reused. For one workspace or one event id only the
-- lines of that are read to find out which ids are reused.
-- +goose StatementBegin
CREATE OR REPLACE VIEW conversion_rows AS
SELECT
    o.workspace_id AS workspace_id,
    o.partner_id AS partner_id,
    o.partner_key AS partner_key,
    o.partner_name AS partner_name,
    o.partner_relationship AS partner_relationship,
    o.partner_relationship_now AS partner_relationship_now,
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
    o.amount AS amount,
    o.net_amount AS net_amount,
    o.standing_change AS standing_change,
    o.currency AS currency,
    o.amount_minor AS amount_minor,
    o.quantity AS quantity,
    o.order_id AS order_id,
    o.parent_event_id AS parent_event_id,
    o.parent_type AS parent_type,
    o.reason_text AS reason_text,
    o.clawback AS clawback,
    o.review AS review,
    if(r.event_id = '', o.flags, arrayPushBack(o.flags, 'event_id_reused')) AS flags,
    o.estimated_reward AS estimated_reward,
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
FROM outcome_rows AS o
LEFT ANY JOIN reused_event_ids AS r ON r.workspace_id = o.workspace_id AND r.event_id = o.event_id
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
        c -> CAST((c.1, c.2, arraySum(x -> if((x.1, x.2) = c, x.3, 0), amounts)),
            'Tuple(currency String, exponent UInt8, minor Int128)'),
        arrayDistinct(arrayMap(x -> (x.1, x.2), groupArrayIf((toString(currency), exponent, minor), currency != '') AS amounts))
    )) AS standing,
    min(s.received_at) AS first_received_at,
    max(s.received_at) AS last_received_at
FROM standing_sales AS s
WHERE stands
GROUP BY workspace_id, order_id
HAVING sales > 1
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- Negatives as they were received, and the rows of those that were judged. The view
-- below reads the tables through these two for the reason that events_and_rows has: so
-- they are never older than the Progress that they are held against.
-- +goose StatementBegin
CREATE OR REPLACE VIEW negatives_received AS
SELECT
    workspace_id, src_partition, src_offset, received_at, entered_at, event_id, type, amount_minor, currency, exponent,
    order_id, parent_event_id, click_token
FROM conversions
WHERE type IN ('refund', 'cancellation', 'reversal');
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE VIEW negatives_judged AS
SELECT event_partition, event_offset
FROM outcomes
WHERE type IN ('refund', 'cancellation', 'reversal');
-- +goose StatementEnd

-- Every negative that was received and took nothing back. source says where it is, and
-- reason why:
--   outcomes     the reason of an unattributed one; or 'conflict': its id is that of
--                another event, which stays. Also an event whose id is that of a negative
--   conversions  'overdue': it has no row although its wait is over (wait_ends)
--   rejections   the code with which the gateway refused it
-- A duplicate is none of them: the first event of its content is. An event that is sent
-- again and takes back then stays here as it came first.
-- +goose StatementBegin
CREATE OR REPLACE VIEW negatives_without_effect AS
SELECT
    workspace_id, received_at, event_id, type, amount_minor, currency, exponent, order_id, parent_event_id,
    click_token,
    if(verdict = 'conflict', 'conflict', toString(outcomes.reason)) AS reason,
    review,
    'outcomes' AS source
FROM outcomes
WHERE verdict IN ('unattributed', 'conflict')
    AND
    (
        type IN ('refund', 'cancellation', 'reversal')
        OR verdict = 'conflict' AND (event_partition, assumeNotNull(first_offset)) IN
        (
            SELECT src_partition, src_offset
            FROM negatives_received
            WHERE (src_partition, src_offset) IN
            (
                SELECT event_partition, assumeNotNull(first_offset)
                FROM outcomes
                WHERE verdict = 'conflict' AND type IN ('lead', 'sale')
            )
        )
    )
UNION ALL
SELECT
    workspace_id, received_at, event_id, type, amount_minor, currency, exponent, order_id, parent_event_id,
    click_token,
    'overdue' AS reason,
    '' AS review,
    'conversions' AS source
FROM
(
    WITH
        (
            SELECT groupArray((partition, conversions_position, overdue_before, longer_waits)) FROM wait_ends
        ) AS waits,
        bounds AS
        (
            SELECT w.1 AS partition, w.2 AS judged_end, w.3 AS overdue_before, w.4 AS longer_waits
            FROM (SELECT arrayJoin(waits) AS w)
        )
    SELECT n.*, judged_end, overdue_before, longer_waits
    FROM negatives_received AS n
    INNER JOIN bounds ON bounds.partition = n.src_partition
)
WHERE src_offset < judged_end
    AND entered_at < overdue_before
    AND NOT arrayExists(span -> entered_at BETWEEN span.1 AND span.2, longer_waits)
    AND (src_partition, src_offset) NOT IN (SELECT event_partition, event_offset FROM negatives_judged)
UNION ALL
SELECT
    workspace_id, received_at, event_id, type, NULL AS amount_minor, '' AS currency, 0 AS exponent, order_id,
    parent_event_id, click_token, toString(code) AS reason, '' AS review, 'rejections' AS source
FROM rejections
WHERE type IN ('refund', 'cancellation', 'reversal');
-- +goose StatementEnd
