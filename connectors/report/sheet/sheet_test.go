package sheet

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/nimriz/partners/schemas/ledger"
)

// lines are the rows of a list, each as its ids, amount and currency, or the error.
func lines(list string, opts Options) (rows, assumed []string) {
	l, err := Open(strings.NewReader(list), "x.csv", opts)
	if err != nil {
		return []string{err.Error()}, nil
	}
	for {
		row, err := l.Next()
		if errors.Is(err, io.EOF) {
			return rows, l.Assumptions()
		}
		if err != nil {
			return append(rows, err.Error()), l.Assumptions()
		}
		amount := "–"
		if row.Amount != nil {
			amount = ledger.FormatDecimal(*row.Amount)
		}
		rows = append(rows, strings.TrimSpace(row.OrderID+row.EventID+" "+amount+" "+row.Currency))
	}
}

// utf16Of is a text as Excel saves "Unicode text".
func utf16Of(order binary.AppendByteOrder, text string) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

// What spreadsheets save is what people meant.
func TestForms(t *testing.T) {
	check := func(list, want string, assumed ...string) {
		t.Helper()
		rows, said := lines(list, Options{})
		if strings.Join(rows, " / ") != want || !slices.Equal(said, assumed) {
			t.Errorf("%q\n\tis   %q, assumed %q\n\twant %q, assumed %q", list, rows, said, want, assumed)
		}
	}
	const plain = "0001 10.00 EUR / -17 1010.00 EUR"
	check("order_id,amount,currency\n0001,10.00,EUR\n-17,1010.00,EUR\n", plain)
	check("\ufefforder_id,amount,currency\r\n0001,10.00,EUR\r\n-17,\"1,010.00\",eur\r\n", plain)
	check("order_id;amount;currency\n0001;10,00;EUR\n-17;1.010,00;EUR\n", plain,
		"cells are separated by ;", "amounts with a decimal comma, as 10,00 in line 2")
	check("order_id\tamount\tcurrency\n0001\t10.00\tEUR\n-17\t1 010.00\tEUR\n", plain, "cells are separated by TAB")
	check("sep=;\r\norder_id;amount;currency\r\n0001;10.00;EUR\r\n-17;1'010.00;EUR\r\n;;\r\n", plain,
		"cells are separated by ;, as the line sep= says", "lines without text are left out")
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		check(utf16Of(order, "order_id\tamount\tcurrency\r\n0001\t10,00\tEUR\r\n-17\t1.010,00 €\t\r\n"), plain,
			"cells are separated by TAB", "the text is UTF-16, as its first bytes say",
			"amounts with a decimal comma, as 10,00 in line 2")
	}
	check("Order ID,Amount (EUR)\n0001,10.00\n-17,\"1,010.00\"\n", plain,
		`column "Order ID" is order_id`, `column "Amount (EUR)" is amount`)
	check("Bestellnummer;Betrag;W\xe4hrung\n0001;10,00;EUR\n-17;1.010,00;EUR\n", plain,
		"cells are separated by ;", `column "Bestellnummer" is order_id`, `column "Betrag" is amount`,
		`column "Währung" is currency`, "the text is Windows-1252, for it is not UTF-8",
		"amounts with a decimal comma, as 10,00 in line 2")
	check("order_id,amount\n1,$10.00\n2,-$5\n3,(7.50)\n4,€1\n", "1 10.00 USD / 2 -5 USD / 3 -7.50 / 4 1 EUR",
		"$ is USD: for another currency say -currency")
	check("order_id;amount\n1;1.010\n2;10.00\n", "1 1.010 / 2 10.00", "cells are separated by ;",
		"1.010 in line 2 is 1.010, for 10.00 in line 3 decides how amounts are written")
	check("order_id,amount\n1,\"1,010\"\n2,2.50\n3,1.020\n4,\"2,020\"\n", "1 1010 / 2 2.50 / 3 1.020 / 4 2020",
		"1,010 in line 2 is 1010, for 2.50 in line 3 decides how amounts are written",
		"1.020 in line 4 is 1.020, for 2.50 in line 3 decides how amounts are written")
	check("order_id\tamount\n1\t1.010.000\n2\t1,010\n", "1 1010000 / 2 1.010", "cells are separated by TAB",
		"amounts with a decimal comma, as 1.010.000 in line 2",
		"1,010 in line 3 is 1.010, for 1.010.000 in line 2 decides how amounts are written")
	check("order_id,amount,note\n1,10,50\n2,10,70\n", "1 10 / 2 10",
		`10 in line 2 is a whole amount, and 50 behind it is "note": an amount such as "10,50" stands in quotes`)
	check("order_id,amount,note\n1,€1,110.50 €\n2,€7,\n", "1 1 EUR / 2 7 EUR", `€1 in line 2 is a whole amount, and `+
		`110.50 € behind it is "note": an amount such as "10,50" stands in quotes`)
	check("order_id,amount,quantity\n1,10.50,12\n2,10,12\n", "1 10.50 / 2 10")
	check("order_id,amount,note,currency\n1,1000,12,JPY\n2,1000,00,JPY\n", "1 1000 JPY / 2 1000 JPY")
	check("order_id,amount,currency\n1,$10.00,CAD\n2,10.00 kr,NOK\n", "1 10.00 CAD / 2 10.00 NOK")
	check("Order ID,Qty,Grand total,Tax\n1,12,129.90,20.00\n2,1,10.00,1.00\n", "1 – / 2 –", `column "Order ID" is order_id`,
		`no column is amount, so ids alone are compared: name the column "Grand total" amount if it is, as 129.90 in line 2 seems`)
	check("order_id;Summe;note\n1;;x\n2;1.010,00 €;x\n", "1 – / 2 –", "cells are separated by ;",
		`no column is amount, so ids alone are compared: name the column "Summe" amount if it is, as 1.010,00 € in line 3 seems`)
	check("order_id,Qty,when,then\n1,12,29.11.2026,29.11.26\n", "1 –")
	check("order_id,date\n1,29.11.2026\n2,29/11/2026\n3,2026-11-29 10:00\n4,05/06/2026\n5,2026-01-05T10:00:00Z\n",
		"1 – / 2 – / 3 – / 4 – / 5 –", "days such as 05/06/2026 can be read in two ways: they are not compared")
}

// Days as data frames, databases, mails and spreadsheets write them are days.
func TestDays(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-29 10:00:00+01:00": "2026-11-29", "2026-11-29 10:00:00.123456 UTC": "2026-11-29",
		"2026-11-29T10:00:00+0100": "2026-11-29", "2026-11-29T10:00": "2026-11-29",
		"2026-11-29 10:00:00 +0000 UTC": "2026-11-29",
		"11/29/2026 3:04 PM":            "2026-11-29", "29.11.2026, 15:04": "2026-11-29",
		"Sun, 29 Nov 2026 10:00:00 +0100": "2026-11-29",
		"Sunday, November 29, 2026":       "2026-11-29", "29. November 2026": "2026-11-29", "Nov 29 2026": "2026-11-29",
		"46355": "2026-11-29", "46355.41667": "2026-11-29", "20261129": "2026-11-29",
		"05/06/2026": "2026-06-05 2026-05-06",
		"19999":      "", "2026-13-45": "", "2026-11-29 25:00": "", "2026-11-29 x": "", "T10:00": "", "": "",
	} {
		var got []string
		for _, day := range readDays(text) {
			got = append(got, day.Format("2006-01-02"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// Only what is an export of version 2, with its guards, is taken for one.
func TestExported(t *testing.T) {
	check := func(version int, orderID string, want bool) {
		t.Helper()
		var cells []string
		for _, c := range ledger.ColumnsOf(version) {
			cells = append(cells, map[string]string{"order_id": orderID, "currency": "EUR"}[c.Name])
		}
		list := ledger.Header(version) + "\nx" + strings.Join(cells, ",") + "\n"
		l, err := Open(strings.NewReader(list), "x.csv", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if row, err := l.Next(); err != nil || row.OrderID != orderID || row.Exported != want {
			t.Errorf("version %d, order %q: exported is %t, %v", version, orderID, row.Exported, err)
		}
	}
	check(1, "'=x", false)
	check(2, "'=x", true)
	check(2, "=x", false) // written with -raw
	check(2, "x;=y", false)
	check(2, "x;'=y", true)
}

// What can be meant in two ways is refused, with the place and the way out.
func TestAmbiguous(t *testing.T) {
	check := func(list string, opts Options, want string) {
		t.Helper()
		if rows, _ := lines(list, opts); strings.Join(rows, " / ") != want {
			t.Errorf("%q with %+v\n\tis   %q\n\twant %q", list, opts, rows, want)
		}
	}
	const open = "order_id;amount\n1;1.010\n"
	check(open, Options{}, `x.csv:2:3: amount: "1.010" is 1.010 or 1010, and the list does not say which: choose with `+
		`-decimal point or -decimal comma`)
	check(open, Options{Decimal: "comma"}, "1 1010")
	check(open, Options{Decimal: "point"}, "1 1.010")
	check(open+"2;10,00\n", Options{}, "1 1010 / 2 10.00")
	check(open+"2;10.00\n", Options{}, "1 1.010 / 2 10.00")
	check(open+"2;10.00\n3;10,00\n", Options{}, `x.csv:2:3: amount: "1.010" is 1.010 or 1010, and the list does not say `+
		`which: choose with -decimal point or -decimal comma`)
	check("order_id;amount\n1;10.00\n2;1.010,00\n", Options{}, "1 10.00 / 2 1010.00")
	check("order_id;amount\n1;10,00\n", Options{Decimal: "point"},
		`x.csv:2:3: amount: "10,00" is no number with a decimal point, as -decimal says`)
	// our own export writes three digits of a dinar
	check("order_id,amount,currency\n1,1.010,KWD\n", Options{}, "1 1.010 KWD")
	check("order_id;amount;currency\n1;1.010;KWD\n", Options{}, `x.csv:2:3: amount: "1.010" is 1.010 or 1010, and the list `+
		`does not say which: choose with -decimal point or -decimal comma`)
	// a yen has no decimals
	check("order_id;amount;currency\n1;12.000;JPY\n", Options{}, "1 12000 JPY")
	check("order_id,amount\n1,\"¥12,000\"\n2,\"₩1,200\"\n", Options{}, "1 12000 JPY / 2 1200 KRW")
	check("order_id,amount,currency\n1,\"12,000\",JPY\n2,2.50,USD\n", Options{}, "1 12000 JPY / 2 2.50 USD")
	check("order_id,amount,currency\n1,\"12,000\",JPY\n", Options{Decimal: "comma"}, "1 12.000 JPY")
	check("order_id;amount;currency\n1;10.00 $;EUR\n", Options{}, `x.csv:2:3: amount: "10.00 $" is not an amount of EUR`)
	check("order_id,amount\n1,$1\n", Options{Currency: "CAD"}, "1 1 CAD")
	check("order_id,amount\n1,$1\n", Options{Currency: "EUR"},
		`x.csv:2:3: amount: "$1" is not an amount of EUR, which -currency says`)
	check("order_id,Amount (EUR)\n1,10.00\n", Options{Currency: "USD"},
		"x.csv:1:10: Amount (EUR): its amounts are in EUR, and -currency says USD")
	check("order_id,Amount (EUR)\n1,10.00\n", Options{Currency: "EUR"}, "1 10.00 EUR")
	check("order_id,amount,note\n1,10,00\n", Options{Decimal: "point"}, "1 10")
	check("sep=:\norder_id;amount\n1;2\n", Options{Separator: ";"}, "1 2")
	check("order_id,note;event_id\n1,2;3\n", Options{},
		"x.csv:1:1: the header can be cut in two ways: choose with -separator")
	check("order_id,note;event_id\n1,2;3\n", Options{Separator: ","}, "1 –")
	check("Order No,Order number\n1,2\n", Options{},
		`x.csv:1:10: Order number: this column and "Order No" can both be order_id: name one of them order_id`)
	check("order_id,Order number\n1,2\n", Options{}, "1 –") // the name counts before others
}

// What cannot be read says where and why.
func TestRefused(t *testing.T) {
	check := func(list, want string) {
		t.Helper()
		if rows, _ := lines(list, Options{}); strings.Join(rows, " / ") != want {
			t.Errorf("%q\n\tis   %q\n\twant %q", list, rows, want)
		}
	}
	check("", "x.csv:1:1: no header")
	check("order_id,order_id\n", "x.csv:1:10: order_id: there are two such columns")
	check("sku;total\n1;2\n", `x.csv:1:1: the header has neither order_id nor event_id: separated by ;, its columns `+
		`are ["sku" "total"]`)
	check("sep=;\norder_id;amount\n;1\n", "x.csv:3:1: order_id: order_id or event_id is required")
	check("order_id,amount\n1,10,00\n", "x.csv:2:1: the line does not have the 2 columns of the header; "+
		`an amount such as "10,00" stands in quotes where a comma separates cells`)
	check("order_id,date\n1,2026-13-45\n", `x.csv:2:3: date: "2026-13-45" is not a day such as 2026-01-05`)
	check("order_id,Amount (EUR),currency\n1,10.00,EUR\n2,10.00,usd\n", "1 10.00 EUR / x.csv:3:9: currency: "+
		`"usd" is not EUR, which the column "Amount (EUR)" says`)
	check("order_id,amount_cad,currency\n1,,$\n2,,€\n", `1 – CAD / x.csv:3:4: currency: "€" is not CAD, which the `+
		`column "amount_cad" says`)
	const cut = `, as if an amount were cut at its comma: it stands in quotes where a comma separates cells; if nothing ` +
		`is cut, choose -decimal point`
	check("order_id,amount,note\n1,10,00\n", `x.csv:2:3: amount: "10" has "00" behind it`+cut)
	check("order_id,amount,note\n1,10.50,x\n2,€1,010.00 €\n", `1 10.50 / x.csv:3:3: amount: "€1" has "010.00 €" `+
		`behind it`+cut)
	check("order_id,amount\n", "x.csv:1:1: below the header there is no line with text")
	check("sep=;\norder_id;amount\n;\n", "x.csv:2:1: below the header there is no line with text")
	check("sep=:\norder_id:amount\n1:2\n", `x.csv:1:5: sep=: ":" is none of , ; | TAB: choose with -separator`)
	check("\"sep=::\"\r\norder_id\n1\n", `x.csv:1:5: sep=: "::" is none of , ; | TAB: choose with -separator`)
	check("order_id,amount\n=\"0001\",1\n", `x.csv:2:2: bare " in non-quoted-field: a cell with quotes stands in quotes, `+
		`and ="0001" is written as 0001`)
	check("order_id,currency\n1,abc\n", "x.csv:2:3: currency: \"abc\" is not a currency such as EUR")
	check("order_id,currency\n1,Euro\n", `x.csv:2:3: currency: "Euro" is not a currency such as EUR`)
	check("PK\x03\x04...", "x.csv:1:1: this is a workbook (.xlsx, .ods) or an archive: save it as CSV UTF-8")
	check("o\x00r\x00d\x00", "x.csv:1:1: it has NUL bytes, as UTF-16 without a byte order mark: save it as CSV UTF-8")
	check("order_id\nM\xfcller\n", "x.csv:2:1: order_id: the list is not UTF-8, so it cannot be told which letters "+
		"\"Müller\" has: save it as CSV UTF-8")
	for _, bad := range []string{"-", ".5", "5.", "1e3", "1,01E+03", "--1", "0x1", "1.00000000001", "ten", "1.0.0",
		"1,2,3", "10.000,0.0", "10 USD 5", "=1", strings.Repeat("9", 31)} {
		check("order_id\tamount\n1\t"+bad+"\n", "x.csv:2:3: amount: \""+bad+"\" is not a number such as 10.00")
	}
	for _, good := range []string{"10", "0.5", "-0.05", "9223372036854775807", "100.00"} {
		check("order_id\tamount\n1\t"+good+"\n", "1 "+good)
	}
	wrong := func(opts Options, want string) {
		t.Helper()
		if err := opts.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	wrong(Options{Separator: "x"}, `-separator: "x" is none of`)
	wrong(Options{Decimal: "x"}, `-decimal: "x" is neither`)
	wrong(Options{Currency: "x"}, `-currency: "x" is not a currency`)
}

// The gateway takes ids of 128 characters, whatever their bytes.
func TestLongIDs(t *testing.T) {
	if rows, _ := lines("order_id\n"+strings.Repeat("\U0001F642", maxID)+"\n", Options{}); len(rows) != 1 ||
		strings.Contains(rows[0], "x.csv") {
		t.Error(rows)
	}
	if rows, _ := lines("order_id\n"+strings.Repeat("é", maxID+1)+"\n", Options{}); len(rows) != 1 ||
		rows[0] != "x.csv:2:1: order_id: longer than 128 characters" {
		t.Error(rows)
	}
}

// Whatever a list is, it is read to its end or refused with a place in it; a row that is
// read has an id and all cells, and an amount that is one number whatever marks it has.
func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"order_id,amount\n1,10.00\n", "\ufefforder_id\n\"a\nb\"\n",
		"event_id,date,currency\r\nx,2026-01-05,EUR\r\n", "order_id\n\"", "a,b\n", "", "order_id,ORDER_ID\n",
		"sep=;\norder_id;amount\n1;1.010,00\n", utf16Of(binary.LittleEndian, "Order ID\tBetrag\n1\t$1\n"),
		"order_id\n\xff",
		"order_id|amount\n1|(1 000,00 €)\n", "sep=", "order_id;amount\n1;'-5\n"} {
		f.Add(seed, "", "")
	}
	f.Fuzz(func(t *testing.T, list, separator, decimal string) {
		opts := Options{Separator: separator, Decimal: decimal}
		if opts.Validate() != nil {
			opts = Options{}
		}
		l, err := Open(strings.NewReader(list), "list.csv", opts)
		for err == nil {
			var row Row
			if row, err = l.Next(); err == nil && (row.OrderID == "" && row.EventID == "" ||
				len(row.Cells) != len(l.Header())) {
				t.Fatalf("row %+v", row)
			}
		}
		var bad *BadList
		if !errors.Is(err, io.EOF) && (!errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 || bad.Text == "") {
			t.Fatalf("%v", err)
		}
	})
}
