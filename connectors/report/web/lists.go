package web

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// dataState says what rows there are.
type dataState struct {
	AsOf     *time.Time `json:"as_of"`               // joined watermark; nil: nothing is joined yet
	RowsFrom *time.Time `json:"rows_from,omitempty"` // rows of before were dropped; nil: none were
}

// rowsAnswer is what every list answers.
type rowsAnswer struct {
	Rows any `json:"rows"` // of the list
	dataState
	Zone string `json:"timezone,omitempty"`    // of the days; empty: the list has none
	Next string `json:"next_cursor,omitempty"` // for the next page; empty: there is none
}

// writeRows answers with rows. zone is that of their days, "" if there are none; next is
// the key of the last row if there are more. state was read before the rows: all that was
// joined by then is among them.
func writeRows(w http.ResponseWriter, zone string, state dataState, rows any, next []string) error {
	a := rowsAnswer{Rows: rows, Zone: zone, dataState: state}
	if next != nil {
		a.Next = encodeCursor(next)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a)
}

// readState reads up to when all events are joined, and from when on rows are there.
func (s *Server) readState(req *http.Request) (state dataState, err error) {
	fresh, err := s.reader.Freshness(req.Context())
	if err != nil {
		return state, err
	}
	if fresh.JoinedWatermark.Unix() > 0 {
		state.AsOf = &fresh.JoinedWatermark
	}
	dropped, err := s.reader.Dropped(req.Context())
	if dropped.Any() {
		state.RowsFrom = &dropped.RowsFrom
	}
	return state, err
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
	f, page, err := parseList(ws, req.URL.Query(), noMore)
	if err != nil {
		return err
	}
	state, err := s.readState(req)
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
	return writeRows(w, f.Zone.Name(), state, rows, next)
}

func (s *Server) listOutcomes(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query(), noMore)
	if err == nil {
		err = refuseClicks(f)
	}
	if err != nil {
		return err
	}
	state, err := s.readState(req)
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
	return writeRows(w, f.Zone.Name(), state, rows, next)
}

func (s *Server) listConservation(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseList(ws, req.URL.Query(), noMore)
	if err != nil {
		return err
	}
	if err := refuseFilters(f); err != nil {
		return err
	}
	if f.Link != "" {
		return notFilterable("link")
	}
	state, err := s.readState(req)
	if err != nil {
		return err
	}
	rows, next, err := readPage(page, (*report.Conservation).Key,
		func(page report.Page, each func(*report.Conservation) error) error {
			return s.reader.Conservation(req.Context(), ws.ID, f, page, each)
		})
	if err != nil {
		return err
	}
	return writeRows(w, f.Zone.Name(), state, rows, next)
}

func (s *Server) listCoverage(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	var search string
	var sort report.CoverageSort
	f, page, err := parseList(ws, req.URL.Query(), func(name, value string) (known bool, err error) {
		switch name {
		case "q":
			search, err = parseSearch(name, value)
		case "sort":
			sort, err = parseWord(name, value, report.CoverageSorts())
		default:
			return false, nil
		}
		return true, err
	})
	if err == nil {
		err = refuseKinds(f)
	}
	if err != nil {
		return err
	}
	state, err := s.readState(req)
	if err != nil {
		return err
	}
	rows, next, err := readPage(page, sort.KeyOf, func(page report.Page, each func(*report.Coverage) error) error {
		return s.reader.Coverage(req.Context(), ws.ID, f, search, sort, page, each)
	})
	if err != nil {
		return err
	}
	return writeRows(w, f.Zone.Name(), state, rows, next)
}
