package statement

// Query is a query for the Sums of a statement, by partner, currency and exponent.
// where is the condition on rows of statement_rows that the statement is about; it need not
// name the month. partners is a query for id, partner_key and partner_name.
//
// It has the parameters start and end, the month's bounds in milliseconds (Int64). part
// is where a row counts: 0 in the opening, 1 attributed, 2 taken back, 3 given back. Rows
// are added up once, by part, because the opening is of all rows of the past.
func Query(where, partners string) string {
	return `
SELECT
	l.*,
	n.partner_key AS partner_key,
	n.partner_name AS partner_name
FROM
(
	SELECT
		partner_id,
		currency,
		exponent,
		sumIf(change, part = 0) AS opening_minor,
		sumIf(change, part = 1) AS attributed_minor,
		-sumIf(change, part = 2) AS taken_back_minor,
		sumIf(change, part = 3) AS given_back_minor,
		sumIf(change, part = 1 AND earlier) AS attributed_earlier_minor,
		-sumIf(change, part = 2 AND earlier) AS taken_back_earlier_minor,
		sumIf(change, part = 3 AND earlier) AS given_back_earlier_minor,
		sumIf(events, part = 1) AS attributed_events,
		sumIf(events, part = 2) AS taken_back_events,
		sumIf(events, part = 3) AS given_back_events,
		sumIf(events, earlier) AS earlier_events,
		sum(approximated) AS approximated_events
	FROM
	(
		SELECT
			partner_id,
			currency,
			exponent,
			multiIf(
				received_at < fromUnixTimestamp64Milli({start:Int64}, 'UTC'), 0,
				verdict = 'attributed', 1,
				effect < 0, 2,
				3) AS part,
			part != 0 AND occurred_at < fromUnixTimestamp64Milli({start:Int64}, 'UTC') AS earlier,
			sum(toInt128(ifNull(standing_change_minor, 0))) AS change,
			count() AS events,
			countIf(verdict = 'reversed' AND standing_basis IN ('amount', 'pending')) AS approximated
		FROM statement_rows
		WHERE ` + where + `
			AND received_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
			AND verdict IN ('attributed', 'reversed')
		GROUP BY partner_id, currency, exponent, part, earlier
	)
	GROUP BY partner_id, currency, exponent
	HAVING opening_minor != 0 OR attributed_events > 0 OR taken_back_events > 0 OR given_back_events > 0
) AS l
LEFT ANY JOIN (` + partners + `) AS n ON n.id = l.partner_id
ORDER BY partner_id, currency, exponent
SETTINGS join_use_nulls = 0`
}
