-- Conservation that cannot hide a loss: an event without a row waits no longer than its
-- processor lets it. "no longer" is measured by what the processor said it had judged,
-- never by a clock.

-- +goose Up

-- For each partition the newest Progress that both tables, conversions and outcomes,
-- have reached. It has the columns that progress has now.
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

-- For each partition, which of its events must have a row, by the newest Progress that
-- both tables have reached: those below conversions_position that entered before
-- overdue_before, unless they entered within one of the spans of longer_waits. Such a
-- span is there for a while after the grace was lowered. An event ends at entered_at +
-- the largest grace that a Progress has named since, and is overdue when that lies more
-- than five minutes before the watermark. Clocks may differ by the same five minutes:
-- a grace counts for what entered up to then after it was named last. Where the
-- watermark is unknown, overdue_before is 1970.
-- +goose StatementBegin
CREATE OR REPLACE VIEW wait_ends AS
SELECT
    partition,
    argMax(position, newest) AS conversions_position,
    argMax(newest_watermark, newest) AS watermark,
    fromUnixTimestamp64Milli(
        if(
            toUnixTimestamp64Milli(watermark) = 0,
            0,
            toUnixTimestamp64Milli(watermark) - 300000 - argMax(grace, newest)),
        'UTC') AS overdue_before,
    arrayFilter(
        span -> span.1 <= span.2 AND span.1 < overdue_before AND toUnixTimestamp64Milli(watermark) != 0,
        arrayMap(
            named -> (
                fromUnixTimestamp64Milli(toUnixTimestamp64Milli(watermark) - 300000 - named.1, 'UTC'),
                named.2 + INTERVAL 5 MINUTE),
            groupArray((grace, last_named_at)))) AS longer_waits
FROM
(
    SELECT
        p.partition AS partition,
        toInt64(p.grace_ms) AS grace,
        max(p.at) AS last_named_at,
        max(p.src_offset) AS newest,
        argMax(p.conversions_position, p.src_offset) AS position,
        argMax(p.watermark, p.src_offset) AS newest_watermark
    FROM progress AS p
    LEFT JOIN (SELECT partition, end_offset FROM tiled_ends WHERE topic = 'conversions') AS events
        ON events.partition = p.partition
    LEFT JOIN (SELECT partition, end_offset FROM tiled_ends WHERE topic = 'outcomes') AS verdicts
        ON verdicts.partition = p.partition
    WHERE p.conversions_position <= events.end_offset AND p.outcomes_end <= verdicts.end_offset
    GROUP BY partition, grace
    SETTINGS join_use_nulls = 0
)
GROUP BY partition;
-- +goose StatementEnd

-- The events, and the rows of those that were judged, in one list. The two views below
-- read the tables through this one for a reason: a view is opened when the scalar
-- subqueries around it have been answered. So the tables that it sees are never older
-- than the Progress that they are held against, and no batch that arrives meanwhile
-- looks like a loss.
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
    '' AS verdict
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
    toString(outcomes.verdict) AS verdict
FROM outcomes;
-- +goose StatementEnd

-- For each partition: the processor's totals against themselves, against the tables,
-- and the tables against each other. difference is 0, always; it is how many events are
-- not accounted for, by the comparison that finds the most.
-- +goose StatementBegin
CREATE OR REPLACE VIEW conservation AS
WITH
    (
        SELECT groupArray((partition, at, conversions_position, outcomes_end, read, attributed, reversed, duplicate,
            conflict, unattributed, unreadable, waiting))
        FROM progress_reached
    ) AS newest,
    reached AS
    (
        SELECT
            p.1 AS partition,
            p.2 AS at,
            p.3 AS conversions_position,
            p.4 AS outcomes_end,
            p.5 AS read,
            p.6 AS attributed,
            p.7 AS reversed,
            p.8 AS duplicate,
            p.9 AS conflict,
            p.10 AS unattributed,
            p.11 AS unreadable,
            p.12 AS waiting
        FROM (SELECT arrayJoin(newest) AS p)
    ),
    counts AS
    (
        SELECT
            src_partition AS partition,
            countIf(NOT judged AND src_offset < reached.conversions_position) AS events,
            countIf(judged AND src_offset < reached.outcomes_end) AS rows
        FROM events_and_rows INNER JOIN reached ON reached.partition = events_and_rows.src_partition
        GROUP BY src_partition
    )
SELECT
    reached.*,
    counts.events AS conversions_rows,
    counts.rows AS outcomes_rows,
    toInt64(attributed + reversed + duplicate + conflict + unattributed) AS judged,
    greatest(
        abs(toInt64(read) - judged - toInt64(unreadable) - toInt64(waiting)),
        abs(toInt64(conversions_rows) - toInt64(outcomes_rows) - toInt64(waiting)),
        abs(judged - toInt64(outcomes_rows))) AS difference
FROM reached
LEFT JOIN counts ON counts.partition = reached.partition
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd

-- For each workspace and day of receipt (UTC): what was accepted and what became of it.
-- An event without a row waits, until it is overdue (wait_ends): then it is lost. An
-- outcome that is in its table before its event is in the other is left out until then.
-- difference counts events that are lost, rows without an event, and what is there more
-- than once: 0, always.
-- +goose StatementBegin
CREATE OR REPLACE VIEW workspace_conservation AS
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
    day,
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
        day,
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
    GROUP BY workspace_id, day, event_partition, event_offset
)
GROUP BY workspace_id, day
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd
