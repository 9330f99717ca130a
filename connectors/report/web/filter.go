package web

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

var idText = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,200}$`)

// moreParameters reads a parameter that is none of a filter's, if it knows it.
type moreParameters func(name, value string) (known bool, err error)

// noMore knows no parameter.
func noMore(string, string) (known bool, err error) { return false, nil }

// parseList reads the parameters of a workspace's list: a filter, limit and cursor, and
// what more reads.
func parseList(ws *catalog.Workspace, q url.Values, more moreParameters) (f report.Filter, page report.Page,
	err error) {
	page.Limit = defaultLimit
	f, err = parseParameters(ws, q, func(name, value string) (known bool, err error) {
		switch name {
		case "limit":
			page.Limit, err = strconv.Atoi(value)
			if err != nil || page.Limit < 1 || page.Limit > maxLimit {
				return true, badParameter(name, "%q is not a number from 1 to %d", value, maxLimit)
			}
		case "cursor":
			page.After, err = decodeCursor(value)
		default:
			return more(name, value)
		}
		return true, err
	})
	return f, page, err
}

// parseFilter reads the parameters of a workspace's page or CSV: a filter alone.
func parseFilter(ws *catalog.Workspace, q url.Values) (report.Filter, error) {
	return parseParameters(ws, q, noMore)
}

// parseParameters reads a filter. more reads the parameters that are none of a
// filter's; what it does not know is refused, so that a misspelt parameter does not
// quietly select everything. Its days are those of the workspace's zone, or of UTC.
func parseParameters(ws *catalog.Workspace, q url.Values, more moreParameters) (f report.Filter, err error) {
	own, err := report.ZoneOf(ws)
	if err != nil {
		return f, err
	}
	f.Zone = own
	for name, values := range q {
		if len(values) != 1 {
			return f, badParameter(name, "given more than once")
		}
		if values[0] == "" {
			continue // an empty field of a form
		}
		known, err := setFilter(&f, name, values[0])
		if name == "tz" {
			known = true
			f.Zone, err = parseZone(name, values[0], own)
		}
		if !known {
			known, err = more(name, values[0])
		}
		if !known {
			return f, badParameter(name, "no such parameter")
		}
		if err != nil {
			return f, err
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && f.To.Before(f.From) {
		return f, badParameter("to", "%s is before from, %s",
			f.To.Format(time.DateOnly), f.From.Format(time.DateOnly))
	}
	return f, nil
}

// parseZone reads the zone of days: UTC, or the workspace's own. Any other would make a
// third calendar, which no export and no statement has.
func parseZone(name, value string, own calendar.Zone) (calendar.Zone, error) {
	switch value {
	case own.Name():
		return own, nil
	case time.UTC.String():
		return calendar.Zone{}, nil
	}
	return own, badParameter(name, "%.60q is neither UTC nor the workspace's timezone, %s", value, own.Name())
}

func badParameter(name, format string, a ...any) error {
	return &report.BadParameter{Name: name, Text: fmt.Sprintf(format, a...)}
}

// setFilter sets the filter with a name, if there is one.
func setFilter(f *report.Filter, name, value string) (known bool, err error) {
	switch name {
	case "from":
		f.From, err = parseDay(name, value)
	case "to":
		f.To, err = parseDay(name, value)
	case "partner":
		f.Partner, err = parseID(name, value)
	case "program":
		f.Program, err = parseID(name, value)
	case "link":
		f.Link, err = parseID(name, value)
	case "type":
		f.Type, err = parseWords(name, value, event.Texts(event.Types()))
	case "verdict":
		f.Verdict, err = parseWords(name, value, event.Texts(event.Verdicts()))
	case "review":
		f.Review, err = parseWords(name, value, event.Texts(event.Reviews()))
	case "basis":
		if value != "event" && value != "click" {
			err = badParameter(name, "%q is neither event nor click", value)
		}
		f.ByClick = value == "click"
	case "clicks":
		if value != "all" && value != "human" {
			err = badParameter(name, "%q is neither all nor human", value)
		}
		f.People = value == "human"
	default:
		return false, nil
	}
	return true, err
}

func parseDay(name, value string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, value)
	if err != nil || t.Year() < 2000 || t.Year() > 2100 {
		return t, badParameter(name, "%q is not a day such as 2026-03-14", value)
	}
	return t, nil
}

func parseID(name, value string) (string, error) {
	if !idText.MatchString(value) {
		return "", badParameter(name, "%.40q is not an id", value)
	}
	return value, nil
}

// parseWords reads a list with commas.
func parseWords(name, value string, known []string) ([]string, error) {
	words := strings.Split(value, ",")
	for _, word := range words {
		if !slices.Contains(known, word) {
			return nil, badParameter(name, "%.40q is not one of %s", word, strings.Join(known, ", "))
		}
	}
	return words, nil
}

// parseWord reads one of the words that are known.
func parseWord[T ~string](name, value string, known []T) (T, error) {
	if !slices.Contains(known, T(value)) {
		return "", badParameter(name, "%.40q is not one of %s", value, strings.Join(event.Texts(known), ", "))
	}
	return T(value), nil
}

// parseSearch reads a part of a link's address, or its id.
func parseSearch(name, value string) (string, error) {
	value = strings.TrimSpace(value)
	if value != "" && !idText.MatchString(value) {
		return "", badParameter(name, "%.40q is neither a part of a link nor an id", value)
	}
	return value, nil
}

// refuseFilters refuses filters that a list of all events cannot answer, so that they do
// not quietly select everything.
func refuseFilters(f report.Filter) error {
	switch {
	case f.Partner != "":
		return notFilterable("partner")
	case f.Program != "":
		return notFilterable("program")
	}
	if err := refuseKinds(f); err != nil {
		return err
	}
	return refuseClicks(f)
}

// refuseKinds refuses filters of events that a list of clicks cannot answer.
func refuseKinds(f report.Filter) error {
	switch {
	case f.Type != nil:
		return notFilterable("type")
	case f.Verdict != nil:
		return notFilterable("verdict")
	case f.Review != nil:
		return notFilterable("review")
	case f.ByClick:
		return notFilterable("basis")
	}
	return nil
}

// refuseClicks refuses the choice of clicks where none are counted.
func refuseClicks(f report.Filter) error {
	if f.People {
		return notFilterable("clicks")
	}
	return nil
}

func notFilterable(name string) error {
	return badParameter(name, "this list cannot be filtered by it")
}

// encodeCursor makes a cursor of the key of the last row, so that pages neither overlap
// nor leave out anything when rows come in between.
func encodeCursor(key []string) string {
	b, _ := json.Marshal(key) // texts only
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(value string) (key []string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err == nil {
		err = json.Unmarshal(b, &key)
	}
	if err != nil || len(key) == 0 || len(key) > 8 {
		return nil, badParameter("cursor", "not one that was answered as next_cursor")
	}
	return key, nil
}

// filterValues puts a filter back into the parameters that it came from, for links.
func filterValues(f report.Filter) url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("from", formatDay(f.From))
	set("to", formatDay(f.To))
	set("partner", f.Partner)
	set("program", f.Program)
	set("link", f.Link)
	set("type", strings.Join(f.Type, ","))
	set("verdict", strings.Join(f.Verdict, ","))
	set("review", strings.Join(f.Review, ","))
	if f.ByClick {
		q.Set("basis", "click")
	}
	if f.People {
		q.Set("clicks", "human")
	}
	if name := f.Zone.Name(); name == time.UTC.String() {
		q.Set("tz", name)
	}
	return q
}

// formatDay writes a day as a parameter; no day is empty.
func formatDay(day time.Time) string {
	if day.IsZero() {
		return ""
	}
	return day.Format(time.DateOnly)
}
