-- two partners have the same name
INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES
	('acme', 'partner', 'partner/acme/p0', '{"id":"p0","name":"Nomura","relationship":"approved"}', 0, 0),
	('acme', 'partner', 'partner/acme/p2', '{"id":"p2","name":"Nomura","relationship":"review"}', 0, 1);

INSERT INTO clicks (workspace_id, click_token, clicked_at, link_id, partner_id, program_id, token_status,
	src_partition, src_offset)
SELECT
	'acme', toString(number), toDateTime64('2026-03-05 00:00:00', 3, 'UTC') + 3600 * number,
	concat('l', toString(number % 3)), concat('p', toString(number % 2)), if(number % 2 = 0, 'g0', ''),
	if(number % 5 = 0, 'withheld', 'appended'), 0, number
FROM numbers(300);

INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, type, effect, occurred_at,
	received_at, amount_minor, currency, exponent, link_id, partner_id, partner_name, program_id, event_partition,
	event_offset, src_partition, src_offset)
SELECT
	'acme', if(number % 50 = 1, 'same', toString(number)), toString(number),
	['attributed', 'reversed', 'unattributed'][1 + number % 3], if(number % 3 = 2, 'outside_window', ''), ['too_fast'],
	['sale', 'refund', 'lead'][1 + number % 3], [1, -1, 0][1 + number % 3],
	toDateTime64('2026-03-05 01:00:00', 3, 'UTC') + 3600 * number,
	toDateTime64('2026-03-05 01:00:00', 3, 'UTC') + 3600 * number,
	1000, 'EUR', 2, concat('l', toString(number % 3)), concat('p', toString(number % 2)), 'Nomura',
	if(number % 2 = 0, 'g0', ''), 0, number, 0, number
FROM numbers(200);

-- two partners that are not in the catalog, and amounts in one currency with different exponents
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, occurred_at, received_at,
	amount_minor, standing_change_minor, currency, exponent, link_id, partner_id, event_partition, event_offset, src_partition, src_offset)
SELECT
	'acme', concat('k', toString(number)), concat('k', toString(number)), 'reversed', 'refund', -1,
	'2026-03-06 00:00:00', '2026-03-06 00:00:00', 3000, -1000, 'KWD', 2 + number % 2, 'l0',
	concat('p', toString(2 + number)), 1, number, 1, number
FROM numbers(3);

INSERT INTO conversions (workspace_id, event_id, click_token, type, occurred_at, received_at, src_partition,
	src_offset)
SELECT
	'acme', toString(number), toString(number), 'sale',
	toDateTime64('2026-03-05 01:00:00', 3, 'UTC') + 3600 * number,
	toDateTime64('2026-03-05 01:00:00', 3, 'UTC') + 3600 * number, 0, number
FROM numbers(200);

-- an order that was sold twice, and a refund that found no parent
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, type, effect, occurred_at, received_at,
	amount_minor, standing_change_minor, currency, exponent, order_id, link_id, partner_id, event_partition,
	event_offset, src_partition, src_offset)
VALUES
	('acme', 'created', 'd0', 'attributed', '', 'sale', 1, '2026-03-07', '2026-03-07', 1000, 1000, 'EUR', 2, 'o1', 'l0', 'p1', 2, 0, 2, 0),
	('acme', 'paid', 'd0', 'attributed', '', 'sale', 1, '2026-03-07', '2026-03-07', 1000, 1000, 'EUR', 2, 'o1', 'l0', 'p1', 2, 1, 2, 1),
	('acme', 'back', 'd0', 'unattributed', 'parent_not_found', 'refund', 0, '2026-03-07', '2026-03-07', 1000, NULL, 'EUR', 2, 'o1', 'l0', 'p1', 2, 2, 2, 2);

INSERT INTO rejections (workspace_id, event_id, code, received_at, src_partition, src_offset) VALUES
	('acme', 'x', 'bad_signature', '2026-03-06 00:00:00', 0, 0);

INSERT INTO progress (partition, at, read, attributed, reversed, unattributed, conversions_position, outcomes_end,
	src_partition, src_offset)
SELECT 0, now64(3), 200, 67, 67, 66, 200, 200, 0, 0;

INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES
	('x', 'clicks', 0, 0, 300, 300), ('x', 'conversions', 0, 0, 200, 200), ('x', 'outcomes', 0, 0, 200, 200),
	('x', 'progress', 0, 0, 1, 1);
