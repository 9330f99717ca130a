package statement

// Query is a query for the Sums of a statement, by partner, currency and exponent.
// where is the condition on rows of outcomes that the statement is about; it need not
// name the month. partners is a query for id, partner_key and partner_name.
//
// It has the parameters start and end, the month's bounds in milliseconds (Int64).
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
		sumIf(change, before) AS opening_minor,
		sumIf(change, adds) AS attributed_minor,
		-sumIf(change, takes) AS taken_back_minor,
		sumIf(change, gives) AS given_back_minor,
		sumIf(change, adds AND earlier) AS attributed_earlier_minor,
		-sumIf(change, takes AND earlier) AS taken_back_earlier_minor,
		sumIf(change, gives AND earlier) AS given_back_earlier_minor,
		countIf(adds) AS attributed_events,
		countIf(takes) AS taken_back_events,
		countIf(gives) AS given_back_events,
		countIf(NOT before AND earlier) AS earlier_events,
		countIf(verdict = 'reversed' AND standing_basis IN ('amount', 'pending')) AS approximated_events
	FROM
	(
		SELECT
			partner_id,
			currency,
			exponent,
			verdict,
			standing_basis,
			toInt128(ifNull(standing_change_minor, 0)) AS change,
			received_at < fromUnixTimestamp64Milli({start:Int64}, 'UTC') AS before,
			occurred_at < fromUnixTimestamp64Milli({start:Int64}, 'UTC') AS earlier,
			NOT before AND verdict = 'attributed' AS adds,
			NOT before AND verdict = 'reversed' AND effect < 0 AS takes,
			NOT before AND verdict = 'reversed' AND effect >= 0 AS gives
		FROM outcomes
		WHERE ` + where + `
			AND received_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
			AND verdict IN ('attributed', 'reversed')
	)
	GROUP BY partner_id, currency, exponent
	HAVING opening_minor != 0 OR attributed_events > 0 OR taken_back_events > 0 OR given_back_events > 0
) AS l
LEFT ANY JOIN (` + partners + `) AS n ON n.id = l.partner_id
ORDER BY partner_id, currency, exponent
SETTINGS join_use_nulls = 0`
}
