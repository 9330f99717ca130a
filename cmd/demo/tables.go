package main

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/nimriz/partners/cmd/internal/tablerows"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// tableOutcomes reads the table outcomes into records, with their click snapshots.
func tableOutcomes(ctx context.Context, wh *clickhouse.Conn) (out []event.Outcome, err error) {
	err = tablerows.EachOutcome(ctx, wh, "1", nil, func(_ uint32, _ uint64, o *event.Outcome) error {
		out = append(out, *o)
		return nil
	})
	return out, err
}

// tableDaily reads partner_daily into the oracle's rows, without rows that are all
// zero. It reads every column of such a row.
func tableDaily(ctx context.Context, wh *clickhouse.Conn) (out []oracle.DailyRow, err error) {
	var columns []string
	fields := reflect.VisibleFields(reflect.TypeFor[oracle.DailyRow]())
	fields = slices.DeleteFunc(fields, func(f reflect.StructField) bool { return f.Anonymous })
	for _, f := range fields {
		conversion := map[reflect.Kind]string{
			reflect.String: "toString",
			reflect.Int32:  "toInt32",
			reflect.Int64:  "toInt64",
		}[f.Type.Kind()]
		columns = append(columns, conversion+"("+columnName(f.Name)+")")
	}
	rows, err := wh.Rows(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM partner_daily")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r oracle.DailyRow
		var targets []any
		for _, f := range fields {
			targets = append(targets, reflect.ValueOf(&r).Elem().FieldByIndex(f.Index).Addr().Interface())
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		if r.DailySums != (oracle.DailySums{}) {
			out = append(out, r)
		}
	}
	return out, rows.Err()
}

var wordEnd = regexp.MustCompile(`([a-z])([A-Z])`)

// columnName returns the column of a field: partner_id for PartnerID.
func columnName(field string) string {
	return strings.ToLower(wordEnd.ReplaceAllString(field, "${1}_${2}"))
}

// partnerRow is a line of the partner table; the counts are sums over all days.
type partnerRow struct {
	Workspace    string `ch:"workspace_id"` // id
	Partner      string `ch:"partner"`      // name, "" without a partner
	Relationship string `ch:"relationship"` // as in the catalog
	Program      string `ch:"program"`      // name
	Clicks       uint64 `ch:"clicks"`
	Leads        int64  `ch:"leads"`
	Sales        int64  `ch:"sales"`
	Refunds      int64  `ch:"refunds"`
	Cancelled    int64  `ch:"cancellations"`
	Reversals    int64  `ch:"reversals"` // that took something back, such as a chargeback
	Won          int64  `ch:"won"`       // that gave something back, such as a chargeback that was won
	Money        string `ch:"money"`     // lines of currency, exponent, net in minor units
}

// moneyLines formats exact amounts, one currency per line. Currencies are never added.
func (p *partnerRow) moneyLines() string {
	var lines []string
	for line := range strings.Lines(p.Money) {
		var currency string
		var exponent uint8
		var minor int64
		if n, err := fmt.Sscan(line, &currency, &exponent, &minor); err == nil && n == 3 {
			lines = append(lines, currency+" "+ledger.FormatDecimal(ledger.MinorUnits(minor, exponent)))
		}
	}
	return strings.Join(lines, "\n")
}

// statusWords are the words for a relationship, as on the report's page.
var statusWords = map[string]string{
	"approved":    "Approved",
	"review":      "Review",
	"invited":     "Invited",
	"declined":    "Declined",
	"banned":      "Banned",
	"deactivated": "Deactivated",
}

// printTables prints the partner table and the conservation line.
func (d *demo) printTables(ctx context.Context, wh *clickhouse.Conn) error {
	var partners []partnerRow
	if err := wh.Select(ctx, &partners, `
SELECT
	workspace_id,
	any(partner_name) AS partner,
	any(partner_relationship) AS relationship,
	any(program_name) AS program,
	toUInt64(sum(clicks_sum)) AS clicks,
	toInt64(sum(leads_sum)) AS leads,
	toInt64(sum(sales_sum)) AS sales,
	toInt64(sum(refunds_sum)) AS refunds,
	toInt64(sum(cancellations_sum)) AS cancellations,
	toInt64(sum(reversals_sum) - sum(given_back_sum)) AS reversals,
	toInt64(sum(given_back_sum)) AS won,
	arrayStringConcat(arraySort(groupArrayIf(
		concat(toString(currency), ' ', toString(exponent), ' ', toString(standing)),
		currency != '' AND (standing != 0 OR sales_sum != 0))), '\n') AS money
FROM
(
	SELECT
		workspace_id, partner_id, program_id, currency,
		any(exponent) AS exponent,
		any(partner_name) AS partner_name,
		any(partner_relationship) AS partner_relationship,
		any(program_name) AS program_name,
		sum(clicks) AS clicks_sum,
		sum(leads) AS leads_sum,
		sum(sales) AS sales_sum,
		sum(refunds) AS refunds_sum,
		sum(cancellations) AS cancellations_sum,
		sum(reversals) AS reversals_sum,
		sum(given_back) AS given_back_sum,
		sum(standing_minor) AS standing
	FROM partner_performance_days(tz = 'UTC')
	GROUP BY workspace_id, partner_id, program_id, currency
)
GROUP BY workspace_id, partner_id, program_id
ORDER BY workspace_id, clicks DESC`); err != nil {
		return err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"Workspace", "Partner", "Status", "Program", "Clicks", "Leads", "Sales", "Refunds",
		"Cancelled", "Reversals", "Won", "Net revenue"})
	var columns []table.ColumnConfig
	for n := 5; n <= 12; n++ {
		columns = append(columns, table.ColumnConfig{Number: n, Align: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	for _, p := range partners {
		name, badge := p.Partner, statusWords[p.Relationship]
		if name == "" {
			name, badge = "(no partner)", ""
		}
		t.AppendRow(table.Row{p.Workspace, name, badge, p.Program, p.Clicks, p.Leads, p.Sales, p.Refunds, p.Cancelled,
			p.Reversals, p.Won, p.moneyLines()})
	}
	d.printLine("\n%s\n", t.Render())
	return d.printConservation(ctx, wh)
}

func (d *demo) printConservation(ctx context.Context, wh *clickhouse.Conn) error {
	var found []struct {
		Workspaces string `ch:"workspaces"`
		ledger.Conservation
	}
	if err := wh.Select(ctx, &found, `
SELECT
	arrayStringConcat(arraySort(groupUniqArray(toString(w.workspace_id))), ', ') AS workspaces,
	`+ledger.ConservationSums("w")+`
FROM workspace_conservation AS w`); err != nil {
		return err
	}
	var partitions []struct {
		Difference int64 `ch:"difference"`
	}
	if err := wh.Select(ctx, &partitions,
		"SELECT toInt64(sum(c.difference)) AS difference FROM conservation AS c"); err != nil {
		return err
	}
	c := found[0].Conservation
	c.Difference += partitions[0].Difference
	d.printLine("conservation: %s", c)
	if c.Difference != 0 {
		return fmt.Errorf("conservation: difference %d in workspaces %s", c.Difference, found[0].Workspaces)
	}
	return nil
}
