-- What event_id_reuse and order_reuse can no longer list since months were dropped: of
-- these ids several tokens or sales are known by the tables that find them, and fewer than
-- two by the rows that are there.

-- +goose Up

-- kind is event_id: it had effect under several tokens; or order_id: several attributed
-- sales named it, and which of them stand, or follow another, their rows would say.
-- Without a dropped month it has no line.
-- +goose StatementBegin
CREATE OR REPLACE VIEW dropped_reuse AS
SELECT
    workspace_id,
    'event_id' AS kind,
    event_id AS id,
    (SELECT rows_from FROM dropped_until) AS rows_from
FROM effects_by_event_id FINAL
WHERE first_token != last_token
    AND (SELECT count() FROM dropped_months) > 0
    AND (workspace_id, event_id) NOT IN (SELECT workspace_id, event_id FROM event_id_reuse)
UNION ALL
SELECT
    workspace_id,
    'order_id' AS kind,
    order_id AS id,
    (SELECT rows_from FROM dropped_until) AS rows_from
FROM sales_by_order_id FINAL
WHERE first_sale != last_sale
    AND (SELECT count() FROM dropped_months) > 0
    AND (workspace_id, order_id) NOT IN
    (
        SELECT workspace_id, order_id
        FROM outcomes
        WHERE verdict = 'attributed' AND type = 'sale' AND (workspace_id, order_id) IN
        (
            SELECT workspace_id, order_id FROM sales_by_order_id FINAL WHERE first_sale != last_sale
        )
        GROUP BY workspace_id, order_id
        HAVING uniqExact(src_partition, src_offset) > 1
    );
-- +goose StatementEnd
