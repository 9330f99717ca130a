package statement

import (
	"cmp"
	"maps"
	"math/big"
	"slices"
	"strconv"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Amount is an exact decimal number with all digits of its currency.
type Amount struct{ decimal.Decimal }

// String is such as 10.00.
func (a Amount) String() string { return ledger.FormatDecimal(a.Decimal) }

// MarshalJSON writes a string: a number would become a float in many readers.
func (a Amount) MarshalJSON() ([]byte, error) { return strconv.AppendQuote(nil, a.String()), nil }

func (a Amount) plus(b Amount) Amount { return Amount{a.Decimal.Add(b.Decimal)} }

// Figures are the sums of an account, or of all accounts of a currency.
type Figures struct {
	Opening    Amount `json:"opening"`    // what stood when the month began
	Attributed Amount `json:"attributed"` // what leads and sales add
	TakenBack  Amount `json:"taken_back"` // of what stood
	GivenBack  Amount `json:"given_back"` // by reversals of negatives
	Closing    Amount `json:"closing"`    // opening + attributed − taken back + given back
	// of attributed, taken back and given back: dated into earlier months
	AttributedEarlier Amount `json:"attributed_earlier"`
	TakenBackEarlier  Amount `json:"taken_back_earlier"`
	GivenBackEarlier  Amount `json:"given_back_earlier"`
	Counts
}

// Counts are numbers of events with effect. All but the last are of the month.
type Counts struct {
	AttributedEvents uint64 `ch:"attributed_events" json:"attributed_events"`
	TakenBackEvents  uint64 `ch:"taken_back_events" json:"taken_back_events"`
	GivenBackEvents  uint64 `ch:"given_back_events" json:"given_back_events"`
	EarlierEvents    uint64 `ch:"earlier_events" json:"earlier_events"` // of these, dated into earlier months
	// of all up to the closing: effect × amount stands in for what they changed
	ApproximatedEvents uint64 `ch:"approximated_events" json:"approximated_events"`
}

// add adds other.
func (f *Figures) add(other Figures) {
	f.Opening = f.Opening.plus(other.Opening)
	f.Attributed = f.Attributed.plus(other.Attributed)
	f.TakenBack = f.TakenBack.plus(other.TakenBack)
	f.GivenBack = f.GivenBack.plus(other.GivenBack)
	f.Closing = f.Closing.plus(other.Closing)
	f.AttributedEarlier = f.AttributedEarlier.plus(other.AttributedEarlier)
	f.TakenBackEarlier = f.TakenBackEarlier.plus(other.TakenBackEarlier)
	f.GivenBackEarlier = f.GivenBackEarlier.plus(other.GivenBackEarlier)
	f.AttributedEvents += other.AttributedEvents
	f.TakenBackEvents += other.TakenBackEvents
	f.GivenBackEvents += other.GivenBackEvents
	f.EarlierEvents += other.EarlierEvents
	f.ApproximatedEvents += other.ApproximatedEvents
}

// Account is a line of a statement: one partner in one currency. In JSON and CSV it has
// Columns.
type Account struct {
	WorkspaceID string `json:"workspace_id"`
	Month       string `json:"month"`      // such as 2026-11
	Timezone    string `json:"timezone"`   // of the month
	Final       bool   `json:"final"`      // no event of the month can get a row any more
	PartnerID   string `json:"partner_id"` // "": no partner
	PartnerKey  string `json:"partner_key"`
	PartnerName string `json:"partner_name"`
	Currency    string `json:"currency"` // ISO 4217, or ""
	Figures
}

// Key is the account's place in a statement.
func (a *Account) Key() []string { return []string{a.PartnerID, a.Currency} }

// Sums is a row of Query. Amounts are in minor units.
type Sums struct {
	PartnerID         string   `ch:"partner_id"`
	PartnerKey        string   `ch:"partner_key"`
	PartnerName       string   `ch:"partner_name"`
	Currency          string   `ch:"currency"`
	Exponent          uint8    `ch:"exponent"` // digits of the amounts
	Opening           *big.Int `ch:"opening_minor"`
	Attributed        *big.Int `ch:"attributed_minor"`
	TakenBack         *big.Int `ch:"taken_back_minor"`
	GivenBack         *big.Int `ch:"given_back_minor"`
	AttributedEarlier *big.Int `ch:"attributed_earlier_minor"`
	TakenBackEarlier  *big.Int `ch:"taken_back_earlier_minor"`
	GivenBackEarlier  *big.Int `ch:"given_back_earlier_minor"`
	Counts
}

// figures are the sums as decimal numbers, with the closing.
func (s *Sums) figures() Figures {
	amount := func(minor *big.Int) Amount { return Amount{decimal.NewFromBigInt(minor, -int32(s.Exponent))} }
	f := Figures{
		Opening:           amount(s.Opening),
		Attributed:        amount(s.Attributed),
		TakenBack:         amount(s.TakenBack),
		GivenBack:         amount(s.GivenBack),
		AttributedEarlier: amount(s.AttributedEarlier),
		TakenBackEarlier:  amount(s.TakenBackEarlier),
		GivenBackEarlier:  amount(s.GivenBackEarlier),
		Counts:            s.Counts,
	}
	f.Closing = Amount{f.Opening.Add(f.Attributed.Decimal).Sub(f.TakenBack.Decimal).Add(f.GivenBack.Decimal)}
	return f
}

// Collect calls each for the accounts of a statement. read reads the rows of Query, in
// their order; those of one account that differ in their exponent become one.
func Collect(h Head, read func(func(*Sums) error) error, each func(*Account) error) error {
	var current *Account
	err := read(func(s *Sums) error {
		if current != nil && current.PartnerID == s.PartnerID && current.Currency == s.Currency {
			current.add(s.figures())
			return nil
		}
		before := current
		current = &Account{
			WorkspaceID: h.WorkspaceID,
			Month:       h.Month,
			Timezone:    h.Timezone,
			Final:       h.Status == Final,
			PartnerID:   s.PartnerID,
			PartnerKey:  s.PartnerKey,
			PartnerName: s.PartnerName,
			Currency:    s.Currency,
			Figures:     s.figures(),
		}
		if before == nil {
			return nil
		}
		return each(before)
	})
	if err != nil || current == nil {
		return err
	}
	return each(current)
}

// Total is the sum of all accounts of a currency.
type Total struct {
	Currency string `json:"currency"` // ISO 4217, or ""
	Figures
}

// Totals adds up accounts by currency. The zero Totals is empty.
type Totals map[string]Figures

// Add adds an account.
func (t Totals) Add(a *Account) {
	sum := t[a.Currency]
	sum.add(a.Figures)
	t[a.Currency] = sum
}

// List is the totals in the order of their currencies.
func (t Totals) List() []Total {
	list := []Total{} // [] in JSON, not null
	for _, currency := range slices.SortedFunc(maps.Keys(t), cmp.Compare[string]) {
		list = append(list, Total{currency, t[currency]})
	}
	return list
}
