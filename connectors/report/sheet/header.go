package sheet

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/nimriz/partners/schemas/currency"
)

// Column is a column that means something. All others are kept.
type Column string

// The columns, by their names in a header.
const (
	OrderID  Column = "order_id"
	EventID  Column = "event_id"
	Amount   Column = "amount"
	Currency Column = "currency"
	Date     Column = "date"
)

// aliases are other names of columns, as networks, shops and partners write them:
// letters and digits only, small. A name that means one thing here and another there,
// such as id, transaction or total, is none.
var aliases = map[Column][]string{
	OrderID: {"order", "orderid", "orderno", "ordernr", "ordernum", "ordernumber", "orderref", "orderreference",
		"bestellnummer", "bestellnr", "bestellid", "auftragsnummer", "auftragsnr", "numerodecommande", "ndecommande",
		"numerodepedido", "ndepedido", "idpedido", "numeroordine", "ordernummer", "ordrenummer", "numerzamowienia"},
	EventID: {"eventid", "eventno", "eventnumber", "conversionid"},
	Amount: {"amount", "orderamount", "ordervalue", "saleamount", "salesamount", "salevalue", "price", "value",
		"betrag",
		"bestellwert", "auftragswert", "umsatz", "montant",
		"importe", "importo", "valor", "bedrag", "kwota"},
	Currency: {"currency", "currencycode", "ordercurrency", "waehrung", "wahrung", "währung",
		"devise", "moneda", "divisa", "valuta", "moeda", "waluta"},
	Date: {"date", "day", "orderdate", "saledate", "datum", "bestelldatum", "fecha", "data"},
}

// amountHeader takes apart such names as Amount (EUR), Betrag in EUR and amount_usd.
var amountHeader = regexp.MustCompile(`^(.+?)(?: *\(([A-Za-z]{3})\)| *\[([A-Za-z]{3})\]|` +
	`(?: in)? ([A-Z]{3})|_([A-Za-z]{3}))$`)

// splitAmountHeader returns the name of a column, and the currency that it says of all
// amounts below it.
func splitAmountHeader(name string) (base, code string) {
	name = strings.TrimSpace(name)
	parts := amountHeader.FindStringSubmatch(name)
	if parts == nil {
		return name, ""
	}
	code = strings.ToUpper(strings.Join(parts[2:], ""))
	if known, ok := currency.Lookup(code); !ok || !known.Money {
		return name, ""
	}
	return parts[1], code
}

// simplify leaves the letters and digits of a name, small and without accents that
// keyboards lack.
func simplify(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		case r == '#', r == '№': // Order #
			return 'n'
		}
		return -1
	}, name)
	return strings.NewReplacer("é", "e", "ú", "u", "º", "", "°", "", "ó", "o").Replace(name)
}

func isName(name string, c Column) bool { return strings.ToLower(strings.TrimSpace(name)) == string(c) }

func isAlias(name string, c Column) bool {
	if c == Amount {
		name, _ = splitAmountHeader(name)
	}
	return slices.Contains(aliases[c], simplify(name))
}

// findColumns finds the columns of a header that mean something: by their names, or
// where none has it, by other names.
func findColumns(header []string) map[Column][]int {
	found := map[Column][]int{}
	for _, c := range []Column{OrderID, EventID, Amount, Currency, Date} {
		for _, is := range []func(string, Column) bool{isName, isAlias} {
			for i, name := range header {
				if is(name, c) {
					found[c] = append(found[c], i)
				}
			}
			if len(found[c]) > 0 {
				break
			}
		}
	}
	return found
}
