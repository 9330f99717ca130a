package web

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// eventsAnswer is the answer about an event id or order id.
type eventsAnswer struct {
	rowsAnswer
	More              bool          `json:"more,omitempty"`         // there are more events than in Rows
	MoreRefused       bool          `json:"more_refused,omitempty"` // there are more refusals than in Rows
	WithoutEffect     []negativeRow `json:"without_effect"`         // negatives, in the order of receipt
	MoreWithoutEffect bool          `json:"more_without_effect,omitempty"`
	Counted           []countedRow  `json:"counted,omitempty"` // orders that count several times
	// Similar is what may have been meant, if nothing is known about the id.
	Similar []report.Question `json:"similar,omitempty"`
}

// eventRow is an event with its verdict and why it has that.
type eventRow struct {
	EventID        string              `json:"event_id"`             // the merchant's
	ClickToken     string              `json:"click_token"`          // of the click
	Status         string              `json:"status"`               // judged, waiting, overdue, refused
	Verdict        string              `json:"verdict,omitempty"`    // of a judged event
	Reason         string              `json:"reason,omitempty"`     // of the verdict, or the code of a refusal
	Why            string              `json:"why"`                  // in words
	Type           string              `json:"type,omitempty"`       // see event.Types
	EventName      string              `json:"event_name,omitempty"` // the merchant's name for it
	Effect         int8                `json:"effect"`               // +1, 0 or −1
	Amount         *string             `json:"amount"`               // exact decimal number; nil: none
	Currency       string              `json:"currency,omitempty"`   // ISO 4217
	OrderID        string              `json:"order_id,omitempty"`
	ParentEventID  string              `json:"parent_event_id,omitempty"` // that it takes back from
	NamedParent    string              `json:"named_parent_event_id,omitempty"`
	Elsewhere      []elsewhereEvent    `json:"elsewhere,omitempty"`       // its parent, under other tokens
	Differs        []report.Difference `json:"differs,omitempty"`         // of a conflict
	Review         string              `json:"review,omitempty"`          // see event.Reviews
	Flags          []string            `json:"flags,omitempty"`           // see event.Flags
	OccurredAt     *time.Time          `json:"occurred_at,omitempty"`     // as the merchant says
	ReceivedAt     *time.Time          `json:"received_at,omitempty"`     // by the gateway
	DecidedAt      *time.Time          `json:"decided_at,omitempty"`      // of a judged event
	ClickedAt      *time.Time          `json:"clicked_at,omitempty"`      // of the click, if it is known
	LinkID         string              `json:"link_id,omitempty"`         // of the click
	PartnerID      string              `json:"partner_id,omitempty"`      // of the click
	PartnerName    string              `json:"partner_name,omitempty"`    // at the click
	ProgramID      string              `json:"program_id,omitempty"`      // of the click
	EventPartition *uint32             `json:"event_partition,omitempty"` // of the record in `conversions`
	EventOffset    *uint64             `json:"event_offset,omitempty"`    // of the record in `conversions`
	Chain          []chainLink         `json:"chain,omitempty"`           // from the root down
}

type chainLink struct {
	EventID  string `json:"event_id"`
	Type     string `json:"type"`
	Verdict  string `json:"verdict"`            // empty: it waits
	Depth    int    `json:"depth"`              // below the root
	Standing string `json:"standing,omitempty"` // what is left of it, such as 70.00 EUR
}

// elsewhereEvent is what a negative could take back, under another token than its own.
type elsewhereEvent struct {
	EventID    string `json:"event_id"`
	ClickToken string `json:"click_token"`
	Type       string `json:"type"`
}

// negativeRow is a negative that was received and has no effect.
type negativeRow struct {
	EventID       string              `json:"event_id"` // the merchant's; a refused one may have none
	ClickToken    string              `json:"click_token"`
	Status        string              `json:"status"`                  // judged, waiting, overdue, refused
	Verdict       string              `json:"verdict,omitempty"`       // unattributed or conflict
	Reason        string              `json:"reason,omitempty"`        // of the verdict, or the code of a refusal
	Why           string              `json:"why"`                     // and what would cure it, in words
	IsRepetition  bool                `json:"is_repetition,omitempty"` // nothing is missing
	Type          string              `json:"type"`
	Amount        *string             `json:"amount"`             // exact decimal number; nil: none
	Currency      string              `json:"currency,omitempty"` // ISO 4217
	OrderID       string              `json:"order_id,omitempty"`
	ParentEventID string              `json:"parent_event_id,omitempty"`
	Elsewhere     []elsewhereEvent    `json:"elsewhere,omitempty"`
	Differs       []report.Difference `json:"differs,omitempty"` // of a conflict
	ReceivedAt    time.Time           `json:"received_at"`
}

// countedRow is an order that counts several times.
type countedRow struct {
	OrderID  string      `json:"order_id"`
	Times    int         `json:"times"`
	Standing int         `json:"standing"` // of how many of them something stands
	Sales    []saleOfRow `json:"sales"`    // in the order of receipt
}

type saleOfRow struct {
	EventID    string `json:"event_id"`
	ClickToken string `json:"click_token"`
	PartnerID  string `json:"partner_id,omitempty"`
}

func (s *Server) listEvents(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	q := req.URL.Query()
	for name, values := range q {
		if name != "event_id" && name != "order_id" || len(values) != 1 {
			return badParameter(name, "only event_id or order_id, once, is known here")
		}
	}
	column, key, err := parseQuestion(q.Get("event_id"), q.Get("order_id"))
	if err != nil {
		return err
	}
	if key == "" {
		return badParameter("event_id", "required, or order_id: the id of an event or order, at most %d characters",
			maxID)
	}
	state, err := s.readState(req) // before the rows: all that was joined by then is among them
	if err != nil {
		return err
	}
	answer, err := s.reader.Why(req.Context(), ws.ID, column, key)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(newEventsAnswer(state, answer))
}

func newEventsAnswer(state dataState, answer *report.Answer) *eventsAnswer {
	rows := []eventRow{}
	for _, record := range answer.Records {
		rows = append(rows, newEventRow(record))
	}
	for i := range answer.Refused {
		rows = append(rows, newRefusedRow(&answer.Refused[i]))
	}
	a := &eventsAnswer{
		rowsAnswer:        rowsAnswer{Rows: rows, dataState: state},
		More:              answer.More,
		MoreRefused:       answer.MoreRefused,
		WithoutEffect:     []negativeRow{},
		MoreWithoutEffect: answer.MoreNegatives,
		Similar:           answer.Similar,
	}
	for _, n := range answer.Negatives {
		a.WithoutEffect = append(a.WithoutEffect, newNegativeRow(n))
	}
	for _, count := range answer.Counted {
		row := countedRow{OrderID: count.OrderID, Times: count.Times(), Standing: count.Standing}
		for _, sale := range count.Sales {
			row.Sales = append(row.Sales, saleOfRow{sale.EventID, sale.ClickToken, sale.PartnerID})
		}
		a.Counted = append(a.Counted, row)
	}
	return a
}

func newRefusedRow(r *report.Refusal) eventRow {
	return eventRow{
		EventID:       r.EventID,
		ClickToken:    r.ClickToken,
		Status:        "refused",
		Reason:        r.Code,
		Why:           r.Words(),
		Type:          r.Type,
		OrderID:       r.OrderID,
		ParentEventID: r.ParentEventID,
		ReceivedAt:    &r.ReceivedAt,
	}
}

func newNegativeRow(n *report.Negative) negativeRow {
	row := negativeRow{
		EventID:       n.EventID,
		ClickToken:    n.ClickToken,
		Status:        n.State(),
		Reason:        n.Reason,
		Why:           n.Words(),
		IsRepetition:  n.Repetition,
		Type:          n.Type,
		Amount:        amountText(n.Event),
		Currency:      n.Currency,
		OrderID:       n.OrderID,
		ParentEventID: n.ParentEventID,
		Elsewhere:     newElsewhere(n.Elsewhere),
		Differs:       n.Differs,
		ReceivedAt:    n.ReceivedAt,
	}
	if n.Refusal != nil {
		row.Reason = n.Refusal.Code
	} else {
		row.Verdict = n.Verdict
	}
	return row
}

func newElsewhere(events []*report.Event) (list []elsewhereEvent) {
	for _, e := range events {
		list = append(list, elsewhereEvent{e.EventID, e.ClickToken, e.Type})
	}
	return list
}

// amountText is an event's amount as a number; nil for an event without one.
func amountText(e *report.Event) *string {
	m := e.Amount()
	if m == nil {
		return nil
	}
	text := formatDecimal(m.Amount)
	return &text
}

func newEventRow(r *report.Record) eventRow {
	row := eventRow{
		EventID:        r.EventID,
		ClickToken:     r.ClickToken,
		Status:         r.State(),
		Verdict:        r.Verdict,
		Reason:         r.Reason,
		Why:            r.Words(),
		Type:           r.Type,
		EventName:      r.EventName,
		Effect:         r.Effect,
		Amount:         amountText(r.Event),
		Currency:       r.Currency,
		OrderID:        r.OrderID,
		ParentEventID:  r.ParentEventID,
		Elsewhere:      newElsewhere(r.Elsewhere),
		Differs:        r.Differs,
		Review:         r.Review,
		Flags:          r.Flags,
		OccurredAt:     &r.OccurredAt,
		ReceivedAt:     &r.ReceivedAt,
		EventPartition: &r.Partition,
		EventOffset:    &r.Offset,
	}
	if r.Named != nil {
		row.NamedParent = r.Named.Parent
	}
	if r.Wait != nil {
		row.Elsewhere = newElsewhere(r.Wait.Elsewhere)
	} else {
		row.DecidedAt = &r.DecidedAt
	}
	if c := r.Snapshot; c != nil {
		row.ClickedAt = c.At
		row.LinkID = c.LinkID
		row.PartnerID = c.PartnerID
		row.PartnerName = c.PartnerName
		row.ProgramID = c.ProgramID
	}
	for _, step := range r.Chain {
		link := chainLink{EventID: step.EventID, Type: step.Type, Verdict: step.Verdict, Depth: step.Depth}
		if step.Standing != nil {
			link.Standing = step.Standing.Left()
		}
		row.Chain = append(row.Chain, link)
	}
	return row
}
