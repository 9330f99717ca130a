package statement

import (
	"encoding/csv"
	"strconv"
	"strings"

	"github.com/nimriz/partners/schemas/ledger"
)

// Columns are the columns of an account, in the order of the CSV and of the JSON.
func Columns() []ledger.Column {
	zero := 0
	money := func(name, example, doc string) ledger.Column {
		return ledger.Column{Name: name, Kind: ledger.Decimal, Example: example, Doc: doc}
	}
	count := func(name, example, doc string) ledger.Column {
		return ledger.Column{Name: name, Kind: ledger.Integer, Min: &zero, Example: example, Doc: doc}
	}
	return []ledger.Column{
		{Name: "workspace_id", Example: "acme"},
		{Name: "month", Example: "2026-11", Doc: "Of received_at, in timezone."},
		{Name: "timezone", Example: "Europe/Berlin", Doc: "IANA name of the workspace's zone."},
		{Name: "final", Kind: ledger.Bool, Example: "true",
			Doc: "No event of the month can get a row any more."},
		{Name: "partner_id", Example: "prt_nomura", Doc: "Empty: links without partner."},
		{Name: "partner_key", Example: "nomura", Doc: "As of now; of an export, as of its as_of."},
		{Name: "partner_name", Example: "Nomura Studio", Doc: "As of now; of an export, as of its as_of."},
		{Name: "currency", Example: "EUR",
			Doc: "ISO 4217. Empty: events without an amount; they count and change no sum."},
		money("opening", "1200.00", "What stood when the month began: the closing of the month before."),
		money("attributed", "500.00", "What leads and sales that were received in the month add."),
		money("taken_back", "130.00", "What was taken back in the month of what stood."),
		money("given_back", "30.00", "What reversals gave back in the month, such as chargebacks that were won."),
		money("closing", "1600.00", "opening + attributed − taken_back + given_back: the next month's opening."),
		money("attributed_earlier", "0.00", "Of attributed, what was dated into earlier months."),
		money("taken_back_earlier", "100.00", "Of taken_back, what was dated into earlier months."),
		money("given_back_earlier", "0.00", "Of given_back, what was dated into earlier months."),
		count("attributed_events", "6", "Attributed leads and sales that were received in the month."),
		count("taken_back_events", "3",
			"Reversed events with effect −1 that were received in the month, also where nothing stood."),
		count("given_back_events", "1", "Reversed events with effect +1 that were received in the month."),
		count("earlier_events", "2", "Of all these, what was dated into earlier months."),
		count("approximated_events", "0", "Of all reversed events up to the closing: judged by the first rules, and "+
			"rows of their chains are gone, so effect × amount stands in for what they changed."),
	}
}

// Names are the names of the columns, in order.
func Names() (names []string) {
	for _, c := range Columns() {
		names = append(names, c.Name)
	}
	return names
}

// CSVHeader is the first line of a CSV, without its end.
func CSVHeader() string { return strings.Join(Names(), ",") }

// cells are the values of Columns, in order.
func (a *Account) cells(text func(string) string) []string {
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []string{
		text(a.WorkspaceID),
		a.Month,
		text(a.Timezone),
		strconv.FormatBool(a.Final),
		text(a.PartnerID),
		text(a.PartnerKey),
		text(a.PartnerName),
		text(a.Currency),
		a.Opening.String(),
		a.Attributed.String(),
		a.TakenBack.String(),
		a.GivenBack.String(),
		a.Closing.String(),
		a.AttributedEarlier.String(),
		a.TakenBackEarlier.String(),
		a.GivenBackEarlier.String(),
		count(a.AttributedEvents),
		count(a.TakenBackEvents),
		count(a.GivenBackEvents),
		count(a.EarlierEvents),
		count(a.ApproximatedEvents),
	}
}

// CSVLine is the account as a line of a CSV, without its end. In a raw line no formula
// is escaped.
func (a *Account) CSVLine(raw bool) (string, error) {
	text := ledger.CleanText
	if !raw {
		text = func(t string) string { return ledger.EscapeFormula(ledger.Version, ledger.CleanText(t)) }
	}
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(a.cells(text)); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(line.String(), "\n"), w.Error()
}
