package web

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/ledger"
)

// download is the body of a CSV. It begins with its first line, so an error before that
// can still be answered with a status.
type download struct {
	w      http.ResponseWriter
	name   string        // of the file
	header string        // first line, without its end; "": who writes brings it
	bom    bool          // a byte order mark comes first
	out    *bufio.Writer // to w; nil until the download begins
}

func (d *download) begin() {
	d.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	d.w.Header().Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	d.out = bufio.NewWriter(d.w)
	if d.bom {
		d.out.WriteString(ledger.ByteOrderMark)
	}
	if d.header != "" {
		d.out.WriteString(d.header + "\n") // an error comes back with the next line, or Flush
	}
}

// Write writes text that brings its own lines.
func (d *download) Write(text []byte) (int, error) {
	if d.out == nil {
		d.begin()
	}
	return d.out.Write(text)
}

func (d *download) writeLine(line string) error {
	if d.out == nil {
		d.begin()
	}
	d.out.WriteString(line)
	return d.out.WriteByte('\n')
}

// finish sends what is buffered.
func (d *download) finish() error {
	if d.out == nil { // no line
		d.begin()
	}
	if err := d.out.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(d.w).Flush()
}

// writeCSV streams a CSV. An error after it began cannot change the status any more: it
// cuts the connection, so that half a file is not taken for a whole one, and is counted
// as "aborted".
func (s *Server) writeCSV(w http.ResponseWriter, req *http.Request, name, header string, bom bool,
	write func(d *download) error) error {
	d := &download{w: w, name: name, header: header, bom: bom}
	err := write(d)
	if err != nil && d.out == nil {
		return err
	}
	if err == nil {
		err = d.finish()
	}
	if err == nil {
		return nil
	}
	level := slog.LevelError
	if errors.Is(req.Context().Err(), context.Canceled) {
		level = slog.LevelInfo // the client has left
	}
	s.log.Log(req.Context(), level, "a CSV broke off", "path", req.URL.Path, "error", err)
	panic(http.ErrAbortHandler)
}

// takeBOM takes the parameter bom out of a query. The page's links have it, so that a
// spreadsheet opens what they lead to; for a program no mark is the default.
func takeBOM(q url.Values) (bom bool, err error) {
	values := q["bom"]
	delete(q, "bom")
	switch {
	case len(values) > 1:
		return false, badParameter("bom", "given more than once")
	case len(values) == 0 || values[0] == "" || values[0] == "0":
		return false, nil
	case values[0] == "1":
		return true, nil
	}
	return false, badParameter("bom", "%q is neither 1 nor 0", values[0])
}

// csvName is the name of a download: workspace, list, days and their zone.
func csvName(ws *catalog.Workspace, list string, f report.Filter) string {
	parts := []string{ws.ID, list}
	for _, day := range []time.Time{f.From, f.To} {
		if !day.IsZero() {
			parts = append(parts, formatDay(day))
		}
	}
	zone := strings.NewReplacer("/", "-", "+", "plus").Replace(f.Zone.Name())
	return strings.Join(append(parts, zone), "_") + ".csv"
}

func (s *Server) writeOutcomesCSV(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	query := req.URL.Query()
	bom, err := takeBOM(query)
	if err != nil {
		return err
	}
	f, err := parseFilter(ws, query)
	if err == nil {
		err = refuseClicks(f)
	}
	if err != nil {
		return err
	}
	return s.writeCSV(w, req, csvName(ws, "outcomes", f), ledger.Header(ledger.Version), bom, func(d *download) error {
		return s.reader.ConversionLines(req.Context(), ws.ID, f, d.writeLine)
	})
}

func (s *Server) writePerformanceCSV(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	query := req.URL.Query()
	bom, err := takeBOM(query)
	if err != nil {
		return err
	}
	f, err := parseFilter(ws, query)
	if err != nil {
		return err
	}
	header := strings.Join(performanceColumns(), ",")
	return s.writeCSV(w, req, csvName(ws, "performance", f), header, bom, func(d *download) error {
		return s.reader.Performance(req.Context(), ws.ID, f, report.Page{}, func(p *report.Performance) error {
			cells, err := performanceCells(p)
			if err != nil {
				return err
			}
			line, err := csvLine(cells)
			if err != nil {
				return err
			}
			return d.writeLine(line)
		})
	})
}

// cellsOf are the cells of a row: its fields in order, those of embedded structs
// included. Numbers are bare; texts are escaped.
func cellsOf(row reflect.Value) (cells []string) {
	for i := range row.NumField() {
		field := row.Field(i)
		if row.Type().Field(i).Anonymous {
			cells = append(cells, cellsOf(field)...)
			continue
		}
		switch v := field.Interface().(type) {
		case string:
			cells = append(cells, ledger.EscapeFormula(ledger.Version, ledger.CleanText(v)))
		case *big.Int:
			cells = append(cells, v.String())
		default:
			cells = append(cells, fmt.Sprint(v))
		}
	}
	return cells
}

// csvLine is a line of a CSV, without its end.
func csvLine(cells []string) (string, error) {
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(cells); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(line.String(), "\n"), w.Error()
}
