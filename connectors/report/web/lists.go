package web

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// rowsAnswer is what every list answers.
type rowsAnswer struct {
	Rows any        `json:"rows"`                  // of the list
	AsOf *time.Time `json:"as_of"`                 // joined watermark; nil: nothing is joined yet
	Zone string     `json:"timezone,omitempty"`    // of the days; empty: the list has none
	Next string     `json:"next_cursor,omitempty"` // for the next page; empty: there is none
}

// writeRows answers with rows. zone is that of their days, "" if there are none; next is
// the key of the last row if there are more.
func (s *Server) writeRows(w http.ResponseWriter, req *http.Request, zone string, rows any, next []string) error {
	fresh, err := s.reader.Freshness(req.Context())
	if err != nil {
		return err
	}
	a := rowsAnswer{Rows: rows, Zone: zone}
	if fresh.JoinedWatermark.Unix() > 0 {
		a.AsOf = &fresh.JoinedWatermark
	}
	if next != nil {
		a.Next = encodeCursor(next)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a)
}

// readPage reads one page of a list. next is the key of its last row if there are more.
func readPage[T any](page report.Page, key func(*T) []string,
	read func(page report.Page, each func(*T) error) error) (rows []*T, next []string, err error) {
	rows = []*T{} // [] in JSON, not null
	limit := page.Limit
	page.Limit++ // one more tells whether there are more
	err = read(page, func(row *T) error {
		rows = append(rows, row)
		return nil
	})
	if len(rows) > limit {
		rows = rows[:limit]
		next = key(rows[limit-1])
	}
	return rows, next, err
}

func (s *Server) listPerformance(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query())
	if err != nil {
		return err
	}
	rows, next, err := readPage(page, (*report.Performance).Key,
		func(page report.Page, each func(*report.Performance) error) error {
			return s.reader.Performance(req.Context(), ws.ID, f, page, each)
		})
	if err != nil {
		return err
	}
	return s.writeRows(w, req, f.Zone.Name(), rows, next)
}

func (s *Server) listOutcomes(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query())
	if err != nil {
		return err
	}
	rows, next, err := readPage(page, (*report.Conversion).Key,
		func(page report.Page, each func(*report.Conversion) error) error {
			return s.reader.Conversions(req.Context(), ws.ID, f, page, each)
		})
	if err != nil {
		return err
	}
	return s.writeRows(w, req, f.Zone.Name(), rows, next)
}

func (s *Server) listConservation(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query())
	if err != nil {
		return err
	}
	if err := refuseFilters(f); err != nil {
		return err
	}
	if f.Link != "" {
		return notFilterable("link")
	}
	rows, next, err := readPage(page, (*report.Conservation).Key,
		func(page report.Page, each func(*report.Conservation) error) error {
			return s.reader.Conservation(req.Context(), ws.ID, f, page, each)
		})
	if err != nil {
		return err
	}
	return s.writeRows(w, req, f.Zone.Name(), rows, next)
}

func (s *Server) listCoverage(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query())
	if err != nil {
		return err
	}
	if err := refuseFilters(f); err != nil {
		return err
	}
	const noDays = "coverage is of all clicks: it has no days"
	if !f.From.IsZero() {
		return &report.BadParameter{Name: "from", Text: noDays}
	}
	if !f.To.IsZero() {
		return &report.BadParameter{Name: "to", Text: noDays}
	}
	if req.URL.Query().Get("tz") != "" {
		return &report.BadParameter{Name: "tz", Text: noDays}
	}
	rows, next, err := readPage(page, (*report.Coverage).Key,
		func(page report.Page, each func(*report.Coverage) error) error {
			return s.reader.Coverage(req.Context(), ws.ID, f, page, each)
		})
	if err != nil {
		return err
	}
	return s.writeRows(w, req, "", rows, next)
}

// eventRow is an event with its verdict and why it has that.
type eventRow struct {
	EventID        string      `json:"event_id"`             // the merchant's
	ClickToken     string      `json:"click_token"`          // of the click
	Status         string      `json:"status"`               // judged, waiting, refused
	Verdict        string      `json:"verdict,omitempty"`    // of a judged event
	Reason         string      `json:"reason,omitempty"`     // of the verdict, or the code of a refusal
	Why            string      `json:"why"`                  // in words
	Type           string      `json:"type,omitempty"`       // see event.Types
	EventName      string      `json:"event_name,omitempty"` // the merchant's name for it
	Effect         int8        `json:"effect"`               // +1, 0 or −1
	Amount         *string     `json:"amount"`               // exact decimal number; nil: none
	Currency       string      `json:"currency,omitempty"`   // ISO 4217
	OrderID        string      `json:"order_id,omitempty"`
	ParentEventID  string      `json:"parent_event_id,omitempty"` // that it takes back from
	Review         string      `json:"review,omitempty"`          // see event.Reviews
	Flags          []string    `json:"flags,omitempty"`           // see event.Flags
	OccurredAt     *time.Time  `json:"occurred_at,omitempty"`     // as the merchant says
	ReceivedAt     *time.Time  `json:"received_at,omitempty"`     // by the gateway
	DecidedAt      *time.Time  `json:"decided_at,omitempty"`      // of a judged event
	ClickedAt      *time.Time  `json:"clicked_at,omitempty"`      // of the click, if it is known
	LinkID         string      `json:"link_id,omitempty"`         // of the click
	PartnerID      string      `json:"partner_id,omitempty"`      // of the click
	PartnerName    string      `json:"partner_name,omitempty"`    // at the click
	ProgramID      string      `json:"program_id,omitempty"`      // of the click
	EventPartition *uint32     `json:"event_partition,omitempty"` // of the record in `conversions`
	EventOffset    *uint64     `json:"event_offset,omitempty"`    // of the record in `conversions`
	Chain          []chainLink `json:"chain,omitempty"`           // from the root down
}

type chainLink struct {
	EventID  string `json:"event_id"`
	Type     string `json:"type"`
	Verdict  string `json:"verdict"`            // empty: it waits
	Depth    int    `json:"depth"`              // below the root
	Standing string `json:"standing,omitempty"` // what is left of it, such as 70.00 EUR
}

func (s *Server) listEvents(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	q := req.URL.Query()
	for name, values := range q {
		if name != "event_id" || len(values) != 1 {
			return &report.BadParameter{Name: name, Text: "only event_id, once, is known here"}
		}
	}
	eventID := q.Get("event_id")
	if eventID == "" || len(eventID) > 128 {
		return &report.BadParameter{Name: "event_id", Text: "required: the id of an event, at most 128 bytes"}
	}
	answer, err := s.reader.Why(req.Context(), ws.ID, eventID)
	if err != nil {
		return err
	}
	rows := []eventRow{}
	for _, record := range answer.Records {
		rows = append(rows, newEventRow(record))
	}
	for i := range answer.Refused {
		rows = append(rows, newRefusedRow(&answer.Refused[i]))
	}
	return s.writeRows(w, req, "", rows, nil)
}

func newRefusedRow(r *report.Refusal) eventRow {
	return eventRow{
		EventID:    r.EventID,
		ClickToken: r.ClickToken,
		Status:     "refused",
		Reason:     r.Code,
		Why:        r.Words(),
		ReceivedAt: &r.ReceivedAt,
	}
}

func newEventRow(r *report.Record) eventRow {
	row := eventRow{
		EventID:        r.EventID,
		ClickToken:     r.ClickToken,
		Verdict:        r.Verdict,
		Reason:         r.Reason,
		Type:           r.Type,
		EventName:      r.EventName,
		Effect:         r.Effect,
		Currency:       r.Currency,
		OrderID:        r.OrderID,
		ParentEventID:  r.ParentEventID,
		Review:         r.Review,
		Flags:          r.Flags,
		OccurredAt:     &r.OccurredAt,
		ReceivedAt:     &r.ReceivedAt,
		EventPartition: &r.Partition,
		EventOffset:    &r.Offset,
	}
	if m := r.Amount(); m != nil {
		text := formatDecimal(m.Amount)
		row.Amount = &text
	}
	if r.Wait != nil {
		row.Status = "waiting"
		row.Why = r.Wait.Words()
	} else {
		row.Status = "judged"
		row.Why = r.Words()
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
