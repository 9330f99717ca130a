package web

import (
	"fmt"
	"math/big"
	"reflect"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// amountColumn is the name in performance.csv of a column of the list: an amount in minor
// units is a decimal there, so exponent has no column.
func amountColumn(name string) (column string, isAmount bool) {
	if amount, ok := strings.CutSuffix(name, "_minor"); ok {
		return amount + "_amount", true
	}
	return name, false
}

// performanceColumns are the columns of performance.csv.
func performanceColumns() (columns []string) {
	for _, name := range report.ColumnNames[report.Performance]() {
		if name != "exponent" {
			column, _ := amountColumn(name)
			columns = append(columns, column)
		}
	}
	return columns
}

// performanceCells are the cells of a line of performance.csv.
func performanceCells(p *report.Performance) (cells []string, err error) {
	names := report.ColumnNames[report.Performance]()
	for i, cell := range cellsOf(reflect.ValueOf(p).Elem()) {
		if names[i] == "exponent" {
			continue
		}
		if _, isAmount := amountColumn(names[i]); isAmount {
			minor, ok := new(big.Int).SetString(cell, 10)
			if !ok {
				return nil, fmt.Errorf("writing %s: %q is not an integer", names[i], cell)
			}
			cell = ledger.FormatDecimal(decimal.NewFromBigInt(minor, -int32(p.Exponent)))
		}
		cells = append(cells, cell)
	}
	return cells, nil
}
