package report

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	queryTime, csvTime, disputeTime = 30 * time.Second, 15 * time.Minute, 2 * time.Minute
	// maxForm is the largest form, maxClaims the largest list of claims that is taken.
	maxForm, maxClaims = 64 << 10, 10 << 20
)

// Server answers people and programs over HTTP.
type Server struct {
	reader  *Reader
	readers *Readers
	log     *slog.Logger
	watch   *outage.Watch // over ClickHouse
	metrics *metrics
	now     func() time.Time
	mux     *http.ServeMux
	// queryTime bounds what one request asks of ClickHouse; a CSV may take csvTime.
	queryTime, csvTime time.Duration
}

// NewServer makes the handler of a warehouse. reg may be nil.
func NewServer(conn *clickhouse.Conn, readers *Readers, log *slog.Logger, reg prometheus.Registerer) *Server {
	s := &Server{
		reader:    New(conn),
		readers:   readers,
		log:       log,
		watch:     outage.New(log, "ClickHouse"),
		metrics:   newMetrics(reg),
		now:       time.Now,
		mux:       http.NewServeMux(),
		queryTime: queryTime,
		csvTime:   csvTime,
	}
	for pattern, handle := range s.routes() {
		s.mux.Handle(pattern, s.measured(pattern, handle))
	}
	return s
}

// routes are all that is answered, by pattern: those of schemas/openapi/report.json.
func (s *Server) routes() map[string]http.HandlerFunc {
	specification := openapi.Report()
	return map[string]http.HandlerFunc{
		"GET /{$}":          s.page,
		"GET /why":          s.whyPage,
		"GET /dispute":      s.disputePage,
		"POST /dispute":     s.disputePage,
		"POST /session":     s.signIn,
		"POST /session/end": s.signOut,
		"GET /v1/openapi.json": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(specification)
		},
		"GET /v1/workspaces/{w}/performance":     s.list(s.performance, partnerReporting),
		"GET /v1/workspaces/{w}/outcomes":        s.list(s.outcomes, partnerReporting, conversionReporting),
		"GET /v1/workspaces/{w}/conservation":    s.list(s.conservation, partnerReporting),
		"GET /v1/workspaces/{w}/coverage":        s.list(s.coverage, partnerReporting),
		"GET /v1/workspaces/{w}/events":          s.list(s.events, partnerReporting, conversionReporting),
		"GET /v1/workspaces/{w}/performance.csv": s.list(s.performanceCSV, partnerReporting, exports),
		"GET /v1/workspaces/{w}/outcomes.csv":    s.list(s.outcomesCSV, partnerReporting, conversionReporting, exports),
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, req)
}

// problem is an RFC 9457 answer.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (p *problem) Error() string { return p.Detail }

func refuse(w http.ResponseWriter, p *problem) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// Unavailable answers every request 503: for a server that has no warehouse yet.
func Unavailable() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "5")
		refuse(w, &problem{Status: http.StatusServiceUnavailable,
			Code: "unavailable", Detail: "the warehouse does not answer yet"})
	})
}

// statusGone counts requests whose sender left; nobody reads it.
const statusGone = 499

// answering is what a Watch is told of. Nobody knows when the next request comes.
const answering = "answering requests, which get 503"

// asProblem sorts an error: a parameter's is the caller's, everything else ours.
func (s *Server) asProblem(req *http.Request, err error) *problem {
	var p *problem
	var bad *BadParameter
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &bad):
		return &problem{Status: http.StatusBadRequest, Code: "bad_parameter", Field: bad.Name, Detail: bad.Error()}
	case errors.Is(req.Context().Err(), context.DeadlineExceeded):
		s.log.Warn("a query took too long", "path", req.URL.Path, "error", err)
		return &problem{Status: http.StatusServiceUnavailable,
			Code: "timeout", Detail: "this took longer than it may; ask for fewer days"}
	case req.Context().Err() != nil:
		return &problem{Status: statusGone, Code: "gone", Detail: "nobody waits for this answer any more"}
	}
	if clickhouse.Unreachable(err) {
		s.watch.Failed(answering, 0, fmt.Errorf("%s: %w", req.URL.Path, err))
		return &problem{Status: http.StatusServiceUnavailable,
			Code: "unavailable", Detail: "the warehouse does not answer; try again"}
	}
	s.log.Error("answering a request", "path", req.URL.Path, "error", err)
	return &problem{Status: http.StatusInternalServerError,
		Code: "internal", Detail: "the warehouse refused the question; its operator's log says why"}
}

// enter lets a request in: its reader must be of this workspace, and the workspace must
// have the features.
func (s *Server) enter(req *http.Request, workspace string, need ...feature) (*catalog.Workspace, error) {
	who, err := s.readers.who(req, s.now())
	if err != nil {
		return nil, &problem{Status: http.StatusUnauthorized,
			Code: "unauthorized", Detail: "sign in, or send Authorization: Bearer with a reader token"}
	}
	if workspace == "" {
		workspace = who.workspace
	}
	if who.workspace != workspace {
		return nil, &problem{Status: http.StatusForbidden,
			Code: "forbidden", Detail: "this reader token is of another workspace"}
	}
	ws, err := s.reader.workspaceNow(req.Context(), workspace)
	if err != nil {
		return nil, err
	}
	s.watch.Clear(answering)
	if lacks := missing(ws, need...); lacks != "" {
		return &catalog.Workspace{ID: workspace}, &problem{
			Status: http.StatusForbidden,
			Code:   "not_entitled",
			Field:  lacks,
			Detail: "the workspace's " + strings.TrimPrefix(lacks, "access.") +
				" does not include this; what happened is stored all the same",
		}
	}
	return ws, nil
}

// bound gives an answer as long as its queries may take, and a little for saying that
// they took longer, whatever the HTTP server allows others. Who stops reading holds no
// query open beyond that.
func (s *Server) bound(w http.ResponseWriter, limit time.Duration) {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + limit/10 +
		time.Second)); err != nil {
		s.log.Warn("bounding an answer", "error", err)
	}
}

// list makes a handler of an answer that needs a session and features.
func (s *Server) list(answer func(http.ResponseWriter, *http.Request, string) error, need ...feature) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		limit := s.queryTime
		if strings.HasSuffix(req.URL.Path, ".csv") {
			limit = s.csvTime
		}
		s.bound(w, limit)
		ctx, cancel := context.WithTimeout(req.Context(), limit)
		defer cancel()
		req = req.WithContext(ctx)
		workspace := req.PathValue("w")
		_, err := s.enter(req, workspace, need...)
		if err == nil {
			err = answer(w, req, workspace)
		}
		if err != nil {
			refuse(w, s.asProblem(req, err))
		}
	}
}

// rowsAnswer is what every list answers.
type rowsAnswer struct {
	Rows any        `json:"rows"`
	AsOf *time.Time `json:"as_of"`
	Next string     `json:"next_cursor,omitempty"`
}

func (s *Server) answerRows(w http.ResponseWriter, req *http.Request, rows any, next []string) error {
	fresh, err := s.reader.Freshness(req.Context())
	if err != nil {
		return err
	}
	a := rowsAnswer{Rows: rows}
	if fresh.JoinedWatermark.Unix() > 0 {
		a.AsOf = &fresh.JoinedWatermark
	}
	if next != nil {
		a.Next = cursor(next)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a)
}

// paged collects up to f.limit rows and tells whether there are more.
func paged[T any](f Filter, read func(limit int, each func(*T) error) error, key func(*T) []string) (rows []*T,
	next []string, err error) {
	rows = []*T{}
	err = read(f.limit+1, func(row *T) error {
		rows = append(rows, row)
		return nil
	})
	if len(rows) > f.limit {
		rows = rows[:f.limit]
		next = key(rows[f.limit-1])
	}
	return rows, next, err
}

func (s *Server) performance(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query(), "limit", "cursor")
	if err != nil {
		return err
	}
	rows, next, err := paged(f, func(limit int, each func(*Performance) error) error {
		return s.reader.Performance(req.Context(), workspace, f, limit, each)
	}, (*Performance).key)
	if err != nil {
		return err
	}
	return s.answerRows(w, req, rows, next)
}

func (s *Server) outcomes(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query(), "limit", "cursor")
	if err != nil {
		return err
	}
	rows, next, err := paged(f, func(limit int, each func(*Conversion) error) error {
		return s.reader.Conversions(req.Context(), workspace, f, false, limit, each)
	}, (*Conversion).key)
	if err != nil {
		return err
	}
	return s.answerRows(w, req, rows, next)
}

// daysOnly refuses the filters that a list cannot answer, so that they do not quietly
// select everything.
func daysOnly(f Filter, link bool) error {
	for name, set := range map[string]bool{
		"partner": f.Partner != "",
		"program": f.Program != "",
		"link":    f.Link != "" && !link,
		"type":    f.Type != nil,
		"verdict": f.Verdict != nil,
		"review":  f.Review != nil,
		"basis":   f.ByClick,
	} {
		if set {
			return &BadParameter{name, "this list cannot be filtered by it"}
		}
	}
	return nil
}

func (s *Server) conservation(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query(), "limit", "cursor")
	if err == nil {
		err = daysOnly(f, false)
	}
	if err != nil {
		return err
	}
	rows, next, err := paged(f, func(limit int, each func(*Conservation) error) error {
		return s.reader.Conservation(req.Context(), workspace, f, limit, each)
	}, func(c *Conservation) []string { return []string{c.Day} })
	if err != nil {
		return err
	}
	return s.answerRows(w, req, rows, next)
}

func (s *Server) coverage(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query(), "limit", "cursor")
	if err == nil {
		err = daysOnly(f, true)
	}
	for name, day := range map[string]time.Time{"from": f.From, "to": f.To} {
		if err == nil && !day.IsZero() {
			err = &BadParameter{name, "coverage is of all clicks: it has no days"}
		}
	}
	if err != nil {
		return err
	}
	rows, next, err := paged(f, func(limit int, each func(*Coverage) error) error {
		return s.reader.Coverage(req.Context(), workspace, f, limit, each)
	}, func(c *Coverage) []string { return []string{c.LinkID} })
	if err != nil {
		return err
	}
	return s.answerRows(w, req, rows, next)
}

// eventRow is an event with its verdict and why it has that.
type eventRow struct {
	EventID        string      `json:"event_id"`
	ClickToken     string      `json:"click_token"`
	Status         string      `json:"status"` // judged, waiting, refused
	Verdict        string      `json:"verdict,omitempty"`
	Reason         string      `json:"reason,omitempty"`
	Why            string      `json:"why"`
	Type           string      `json:"type,omitempty"`
	EventName      string      `json:"event_name,omitempty"`
	Effect         int8        `json:"effect"`
	Amount         *string     `json:"amount"`
	Currency       string      `json:"currency,omitempty"`
	OrderID        string      `json:"order_id,omitempty"`
	ParentEventID  string      `json:"parent_event_id,omitempty"`
	Review         string      `json:"review,omitempty"`
	Flags          []string    `json:"flags,omitempty"`
	OccurredAt     *time.Time  `json:"occurred_at,omitempty"`
	ReceivedAt     *time.Time  `json:"received_at,omitempty"`
	DecidedAt      *time.Time  `json:"decided_at,omitempty"`
	ClickedAt      *time.Time  `json:"clicked_at,omitempty"`
	LinkID         string      `json:"link_id,omitempty"`
	PartnerID      string      `json:"partner_id,omitempty"`
	PartnerName    string      `json:"partner_name,omitempty"`
	ProgramID      string      `json:"program_id,omitempty"`
	EventPartition *uint32     `json:"event_partition,omitempty"`
	EventOffset    *uint64     `json:"event_offset,omitempty"`
	Chain          []chainLink `json:"chain,omitempty"`
}

type chainLink struct {
	EventID string `json:"event_id"`
	Type    string `json:"type"`
	Verdict string `json:"verdict"`
	Depth   int    `json:"depth"`
	Stands  string `json:"stands,omitempty"`
}

func (s *Server) events(w http.ResponseWriter, req *http.Request, workspace string) error {
	q := req.URL.Query()
	for name, values := range q {
		if name != "event_id" || len(values) != 1 {
			return &BadParameter{name, "only event_id, once, is known here"}
		}
	}
	eventID := q.Get("event_id")
	if eventID == "" || len(eventID) > 128 {
		return &BadParameter{"event_id", "required: the id of an event, at most 128 bytes"}
	}
	answer, err := s.reader.Why(req.Context(), workspace, eventID)
	if err != nil {
		return err
	}
	rows := []eventRow{}
	for _, e := range answer.Events {
		rows = append(rows, rowOf(e))
	}
	for i := range answer.Refused {
		r := &answer.Refused[i]
		rows = append(rows, eventRow{
			EventID:    r.EventID,
			ClickToken: r.ClickToken,
			Status:     "refused",
			Reason:     r.Code,
			Why:        r.Words(),
			ReceivedAt: &r.ReceivedAt,
		})
	}
	return s.answerRows(w, req, rows, nil)
}

func rowOf(e *Answered) eventRow {
	row := eventRow{EventID: e.EventID, ClickToken: e.ClickToken, Status: "judged", Verdict: e.Verdict,
		Reason: e.Reason, Type: e.Type, EventName: e.EventName, Effect: e.Effect, Currency: e.Currency, OrderID: e.OrderID,
		ParentEventID: e.ParentEventID, Review: e.Review, Flags: e.Flags, OccurredAt: &e.OccurredAt,
		ReceivedAt: &e.ReceivedAt, EventPartition: &e.Partition, EventOffset: &e.Offset}
	if m := e.Amount(); m != nil {
		text := m.Amount.String()
		row.Amount = &text
	}
	if e.Wait != nil {
		row.Status, row.Why = "waiting", e.Wait.Words()
	} else {
		row.Why, row.DecidedAt = e.Words(), &e.DecidedAt
	}
	if c := e.Frozen; c != nil {
		row.ClickedAt, row.LinkID, row.PartnerID, row.PartnerName, row.ProgramID = c.At, c.LinkID, c.PartnerID, c.PartnerName, c.ProgramID
	}
	for _, l := range e.Chain {
		link := chainLink{EventID: l.EventID, Type: l.Type, Verdict: l.Verdict, Depth: l.Depth}
		if l.Stands != nil {
			link.Stands = l.Stands.String()
		}
		row.Chain = append(row.Chain, link)
	}
	return row
}

// cell makes a text safe for spreadsheets, which take what begins so for a formula, and
// for readers of UTF-8, as an export does: what is none, and NUL, becomes U+FFFD.
func cell(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}

// csvOut streams a CSV. An error after it began cannot change the status any more: it
// cuts the connection, so that nobody takes half a file for a whole one, and is counted
// as "aborted".
func (s *Server) csvOut(w http.ResponseWriter, req *http.Request, name string, header []string,
	rows func(write func([]string) error) error) error {
	out := csv.NewWriter(w)
	begin := func() {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		out.Write(header)
	}
	begun := false
	err := rows(func(row []string) error {
		if !begun {
			begin()
			begun = true
		}
		return out.Write(row)
	})
	if err != nil && !begun {
		return err
	}
	if !begun {
		begin()
	}
	if err == nil {
		out.Flush()
		err = out.Error()
	}
	if err == nil {
		err = http.NewResponseController(w).Flush() // the rest of it, while an error can still be told
	}
	if err != nil {
		level := slog.LevelError
		if errors.Is(req.Context().Err(), context.Canceled) {
			level = slog.LevelInfo // who asked has left
		}
		s.log.Log(req.Context(), level, "a CSV broke off", "path", req.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *Server) performanceCSV(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query())
	if err != nil {
		return err
	}
	header := performanceColumns
	return s.csvOut(w, req, workspace+"-performance.csv", header, func(write func([]string) error) error {
		return s.reader.Performance(req.Context(), workspace, f, 0, func(p *Performance) error {
			n := func(v uint64) string { return strconv.FormatUint(v, 10) }
			return write([]string{cell(p.WorkspaceID), p.Day, cell(p.PartnerID), cell(p.PartnerKey),
				cell(p.PartnerName), cell(p.PartnerRelationship), cell(p.PartnerLifecycle), cell(p.ProgramID), cell(
					p.ProgramKey), cell(p.ProgramName),
				cell(p.ProgramStatus), cell(p.LinkID), cell(p.Currency), strconv.Itoa(int(p.Exponent)), n(p.Clicks), n(
					p.HumanClicks), n(p.TokenedClicks), n(p.Leads), n(p.Sales), n(p.Refunds), n(p.Cancellations), n(
					p.Reversals),
				p.GrossMinor.String(), p.NegativeMinor.String(), p.NetMinor.String(), p.RewardMinor.String()})
		})
	})
}

var conversionColumnNames = strings.Fields(`workspace_id partner_id partner_key partner_name partner_relationship partner_relationship_now program_id program_key program_name assignment_id link_id domain slug destination
	clicked_at occurred_at received_at event_id type event_name verdict reason effect amount net_amount currency amount_minor quantity order_id parent_event_id parent_type reason_text clawback review flags
	estimated_reward reward_currency reward_terms utm_source utm_medium utm_campaign utm_term utm_content sub1 sub2 sub3 sub4 sub5 experiment variant country device is_bot click_token event_partition event_offset`)

func (s *Server) outcomesCSV(w http.ResponseWriter, req *http.Request, workspace string) error {
	f, err := parseFilter(req.URL.Query())
	if err != nil {
		return err
	}
	return s.csvOut(w, req, workspace+"-outcomes.csv", conversionColumnNames, func(write func([]string) error) error {
		return s.reader.Conversions(req.Context(), workspace, f, false, 0, func(c *Conversion) error {
			return write(c.cells())
		})
	})
}

func (c *Conversion) cells() []string {
	number := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	clicked, minor, quantity := "", "", ""
	if c.ClickedAt != nil {
		clicked = stamp(*c.ClickedAt)
	}
	if c.AmountMinor != nil {
		minor = strconv.FormatInt(*c.AmountMinor, 10)
	}
	if c.Quantity != nil {
		quantity = strconv.Itoa(int(*c.Quantity))
	}
	return []string{cell(c.WorkspaceID), cell(c.PartnerID), cell(c.PartnerKey), cell(c.PartnerName),
		cell(c.PartnerRelationship), cell(c.PartnerRelationshipNow), cell(c.ProgramID), cell(c.ProgramKey), cell(
			c.ProgramName), cell(c.AssignmentID),
		cell(c.LinkID), cell(c.Domain), cell(c.Slug), cell(c.Destination), clicked, stamp(c.OccurredAt), stamp(
			c.ReceivedAt), cell(c.EventID), cell(c.Type), cell(c.EventName), cell(c.Verdict), cell(
			c.Reason), strconv.Itoa(int(c.Effect)),
		number(c.Amount), number(c.NetAmount), cell(c.Currency), minor, quantity, cell(c.OrderID), cell(
			c.ParentEventID), cell(c.ParentType), cell(c.ReasonText), c.Clawback, cell(c.Review), cell(
			strings.Join(c.Flags, "|")),
		number(c.EstimatedReward), cell(c.RewardCurrency), cell(c.RewardTerms), cell(c.UTMSource), cell(
			c.UTMMedium), cell(c.UTMCampaign), cell(c.UTMTerm), cell(c.UTMContent), cell(c.Sub1), cell(c.Sub2), cell(
			c.Sub3), cell(c.Sub4), cell(c.Sub5),
		cell(c.Experiment), cell(c.Variant), cell(c.Country), cell(c.Device), strconv.FormatBool(c.IsBot),
		cell(c.ClickToken), strconv.FormatUint(uint64(c.EventPartition), 10), strconv.FormatUint(c.EventOffset, 10)}
}

// sameSite refuses a form that another site's page sends: browsers say where a request
// comes from. Programs that say nothing have no cookie either.
func sameSite(req *http.Request) bool {
	if site := req.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin" || site == "none"
	}
	origin := req.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == req.Host
}

func (s *Server) signIn(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	if !sameSite(req) {
		refuse(w, &problem{Status: http.StatusForbidden,
			Code: "cross_site", Detail: "this form came from another site"})
		return
	}
	if err := req.ParseForm(); err != nil {
		refuse(w, &problem{Status: http.StatusBadRequest, Code: "bad_parameter", Detail: "the form cannot be read"})
		return
	}
	who, ok := s.readers.find(strings.TrimSpace(req.PostForm.Get("token")))
	if !ok || who.workspace != strings.TrimSpace(req.PostForm.Get("workspace")) {
		s.metrics.signIns.WithLabelValues("refused").Inc()
		s.render(w, http.StatusUnauthorized, "signin", &signInPage{head: head{Title: "Sign in"},
			Workspace: req.PostForm.Get("workspace"), Failed: true})
		return
	}
	s.metrics.signIns.WithLabelValues("accepted").Inc()
	s.readers.signIn(w, req, who, s.now())
	http.Redirect(w, req, "/", http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, req *http.Request) {
	if !sameSite(req) {
		refuse(w, &problem{Status: http.StatusForbidden, Code: "cross_site", Detail: "this form came from another site"})
		return
	}
	signOut(w, req)
	http.Redirect(w, req, "/", http.StatusSeeOther)
}

// render writes a page with a style that only this answer may have.
func (s *Server) render(w http.ResponseWriter, code int, name string, data page) {
	var b [16]byte
	rand.Read(b[:])
	data.setNonce(base64.RawStdEncoding.EncodeToString(b[:]))
	var out bytes.Buffer
	if err := templates().ExecuteTemplate(&out, name, data); err != nil {
		s.log.Error("rendering a page", "page", name, "error", err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%s'; form-action 'self'; "+
		"base-uri 'none'; frame-ancestors 'none'", data.nonce()))
	w.WriteHeader(code)
	io.Copy(w, &out)
}
