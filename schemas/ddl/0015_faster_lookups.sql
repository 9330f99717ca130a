-- Large ledgers: what a report asks about an event, an order or a month costs less.

-- +goose Up

-- An index on ids that believes one of 1,000 blocks wrongly, not one of 40. A question
-- about a sale has ten keys: a quarter of the blocks of a workspace was read for it.
-- +goose StatementBegin
ALTER TABLE conversions
    ADD INDEX IF NOT EXISTS ids_of_events event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS ids_of_orders order_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS ids_of_parents parent_event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS tokens_of_clicks click_token TYPE bloom_filter(0.001) GRANULARITY 1;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE outcomes
    ADD INDEX IF NOT EXISTS ids_of_events event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS ids_of_orders order_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS ids_of_parents parent_event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS tokens_of_clicks click_token TYPE bloom_filter(0.001) GRANULARITY 1;
-- +goose StatementEnd

-- Before the indexes are built: a statement that drops waits for all mutations before it.
-- +goose StatementBegin
ALTER TABLE conversions
    DROP INDEX IF EXISTS by_event, DROP INDEX IF EXISTS by_order, DROP INDEX IF EXISTS by_parent,
    DROP INDEX IF EXISTS by_token;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE outcomes
    DROP INDEX IF EXISTS by_event, DROP INDEX IF EXISTS by_order, DROP INDEX IF EXISTS by_parent,
    DROP INDEX IF EXISTS by_token;
-- +goose StatementEnd

-- The parts that are there get their indexes in the background. Until then a question
-- about old months reads them whole.
-- +goose StatementBegin
ALTER TABLE conversions
    MATERIALIZE INDEX ids_of_events, MATERIALIZE INDEX ids_of_orders, MATERIALIZE INDEX ids_of_parents,
    MATERIALIZE INDEX tokens_of_clicks;
-- +goose StatementEnd

-- +goose StatementBegin
ALTER TABLE outcomes
    MATERIALIZE INDEX ids_of_events, MATERIALIZE INDEX ids_of_orders, MATERIALIZE INDEX ids_of_parents,
    MATERIALIZE INDEX tokens_of_clicks;
-- +goose StatementEnd

-- workspace_conservation for the days of a time zone:
-- workspace_conservation_days(tz = 'Europe/Berlin').
--
-- An event is known by its offset. For a day and partition, events and rows are two lists
-- of offsets; where they are equal, as almost always, nothing waits and nothing differs.
-- Of what is there more than once each further one is a difference, and so is a row
-- without event. A group of each event, as workspace_conservation has, costs three times
-- as much.
-- +goose StatementBegin
CREATE OR REPLACE VIEW workspace_conservation_days AS
WITH
    (
        SELECT (groupArray(partition), groupArray(end_offset)) FROM tiled_ends WHERE topic = 'conversions'
    ) AS ends,
    (
        SELECT
            (
                groupArray(partition),
                groupArray(conversions_position),
                groupArray(overdue_before),
                groupArrayArray(arrayMap(span -> (wait_ends.partition, span.1, span.2), longer_waits))
            )
        FROM wait_ends
    ) AS waits
SELECT
    workspace_id,
    received_on AS day,
    {tz:String} AS timezone,
    sum(length(events)) AS received,
    sum(of_attributed) AS attributed,
    sum(of_reversed) AS reversed,
    sum(of_duplicate) AS duplicate,
    sum(of_conflict) AS conflict,
    sum(of_unattributed) AS unattributed,
    toUInt64(sum(without_row - overdue)) AS waiting,
    sum(toInt64(length(events) + length(rows)) - toInt64(different + judged_once) + toInt64(overdue)) AS difference
FROM
(
    SELECT
        workspace_id,
        received_on,
        of_attributed, of_reversed, of_duplicate, of_conflict, of_unattributed,
        arraySort(event_offsets) AS events,
        arraySort(row_offsets) AS rows,
        length(arrayCompact(events)) AS different,
        if(events = rows, different, length(arrayIntersect(events, rows))) AS judged_once,
        different - judged_once AS without_row,
        if(without_row = 0, 0,
            length(arrayFilter(late -> NOT has(rows, late), arrayDistinct(late_offsets)))) AS overdue
    FROM
    (
        SELECT
            workspace_id,
            toDate(received_at, {tz:String}) AS received_on,
            event_partition,
            groupArrayIf(event_offset, NOT judged) AS event_offsets,
            groupArrayIf(event_offset, judged) AS row_offsets,
            groupArrayIf(
                event_offset,
                NOT judged
                    AND event_offset < transform(event_partition, waits.1, waits.2, toUInt64(0))
                    AND entered_at < transform(event_partition, waits.1, waits.3, toDateTime64(0, 3, 'UTC'))
                    AND NOT arrayExists(
                        span -> span.1 = event_partition AND entered_at BETWEEN span.2 AND span.3, waits.4)
            ) AS late_offsets,
            countIf(verdict = 'attributed') AS of_attributed,
            countIf(verdict = 'reversed') AS of_reversed,
            countIf(verdict = 'duplicate') AS of_duplicate,
            countIf(verdict = 'conflict') AS of_conflict,
            countIf(verdict = 'unattributed') AS of_unattributed
        FROM events_and_rows
        WHERE NOT judged OR event_offset < transform(event_partition, ends.1, ends.2, toUInt64(0))
        GROUP BY workspace_id, received_on, event_partition
    )
)
GROUP BY workspace_id, received_on
SETTINGS join_use_nulls = 0;
-- +goose StatementEnd
