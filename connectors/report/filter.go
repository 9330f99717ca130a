package report

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

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Filter selects what a report is about. Empty texts select everything.
type Filter struct {
	From, To               time.Time // days in UTC, both inclusive; zero: without end
	Partner, Program, Link string    // ids
	Type, Verdict, Review  []string  // event types, verdicts, review states; any of each
	// ByClick puts events on the day of their click, not on their own.
	ByClick bool

	limit int
	after []string // the key behind which a page of rows begins
}

// BadParameter is a request's parameter that cannot be.
type BadParameter struct{ Name, Text string }

func (b *BadParameter) Error() string { return b.Name + ": " + b.Text }

const (
	defaultLimit = 100
	maxLimit     = 1000
)

var (
	types    = []string{"lead", "sale", "refund", "cancellation", "reversal"}
	verdicts = []string{"attributed", "reversed", "duplicate", "conflict", "unattributed"}
	reviews  = []string{"clear", "review"}
	id       = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,200}$`)
)

// parseFilter reads the parameters of a request. allowed are those beside the filter's
// own; everything else is refused, so that a misspelt one does not quietly select
// everything.
func parseFilter(q url.Values, allowed ...string) (f Filter, err error) {
	f.limit = defaultLimit
	for name, values := range q {
		if len(values) != 1 {
			return f, &BadParameter{name, "given more than once"}
		}
		value := values[0]
		if value == "" {
			continue // an empty field of a form
		}
		var bad error
		switch name {
		case "from":
			f.From, bad = day(name, value)
		case "to":
			f.To, bad = day(name, value)
		case "partner":
			f.Partner, bad = text(name, value)
		case "program":
			f.Program, bad = text(name, value)
		case "link":
			f.Link, bad = text(name, value)
		case "type":
			f.Type, bad = oneOf(name, value, types)
		case "verdict":
			f.Verdict, bad = oneOf(name, value, verdicts)
		case "review":
			f.Review, bad = oneOf(name, value, reviews)
		case "basis":
			if value != "event" && value != "click" {
				bad = &BadParameter{name, fmt.Sprintf("%q is neither event nor click", value)}
			}
			f.ByClick = value == "click"
		default:
			if !slices.Contains(allowed, name) {
				return f, &BadParameter{name, "no such parameter"}
			}
			switch name {
			case "limit":
				if f.limit, bad = strconv.Atoi(value); bad != nil || f.limit < 1 || f.limit > maxLimit {
					bad = &BadParameter{name, fmt.Sprintf("%q is not a number from 1 to %d", value, maxLimit)}
				}
			case "cursor":
				f.after, bad = parseCursor(value)
			}
		}
		if bad != nil {
			return f, bad
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && f.To.Before(f.From) {
		return f, &BadParameter{"to", fmt.Sprintf("%s is before from, %s",
			f.To.Format(time.DateOnly), f.From.Format(time.DateOnly))}
	}
	return f, nil
}

func day(name, value string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, value)
	if err != nil || t.Year() < 2000 || t.Year() > 2100 {
		return t, &BadParameter{name, fmt.Sprintf("%q is not a day such as 2026-03-14", value)}
	}
	return t, nil
}

func text(name, value string) (string, error) {
	if !id.MatchString(value) {
		return "", &BadParameter{name, fmt.Sprintf("%.40q is not an id", value)}
	}
	return value, nil
}

func oneOf(name, value string, known []string) ([]string, error) {
	list := strings.Split(value, ",")
	for _, x := range list {
		if !slices.Contains(known, x) {
			return nil, &BadParameter{name, fmt.Sprintf("%.40q is not one of %s", x, strings.Join(known, ", "))}
		}
	}
	return list, nil
}

// A cursor is the key of the last row, so that pages neither overlap nor leave out
// anything when rows come in between.
func cursor(key []string) string {
	b, _ := json.Marshal(key) // texts only
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(value string) (key []string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err == nil {
		err = json.Unmarshal(b, &key)
	}
	if err != nil || len(key) == 0 || len(key) > 8 {
		return nil, &BadParameter{"cursor", "not one that was answered as next_cursor"}
	}
	return key, nil
}

// values puts a filter back into the parameters that it came from, for links.
func (f Filter) values() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	if !f.From.IsZero() {
		q.Set("from", f.From.Format(time.DateOnly))
	}
	if !f.To.IsZero() {
		q.Set("to", f.To.Format(time.DateOnly))
	}
	set("partner", f.Partner)
	set("program", f.Program)
	set("link", f.Link)
	set("type", strings.Join(f.Type, ","))
	set("verdict", strings.Join(f.Verdict, ","))
	set("review", strings.Join(f.Review, ","))
	if f.ByClick {
		q.Set("basis", "click")
	}
	return q
}

// condition is a part of a query with its arguments. Its texts are constants of this
// package: nothing of a request is ever in them.
type condition struct {
	sql  []string
	args []any
}

func (c *condition) and(sql, name string, value any) {
	c.sql = append(c.sql, sql)
	if name != "" {
		c.args = append(c.args, clickhouse.Named(name, value))
	}
}

func (c *condition) text() string { return strings.Join(c.sql, " AND ") }

// who is the condition on workspace and dimensions.
func (f Filter) who(c *condition) {
	if f.Partner != "" {
		c.and("partner_id = {partner:String}", "partner", f.Partner)
	}
	if f.Program != "" {
		c.and("program_id = {program:String}", "program", f.Program)
	}
	if f.Link != "" {
		c.and("link_id = {link:String}", "link", f.Link)
	}
}

// days is the condition on a day; column is an expression of type Date.
func (f Filter) days(c *condition, column string) {
	if !f.From.IsZero() {
		c.and(column+" >= {from:Date}", "from", f.From.Format(time.DateOnly))
	}
	if !f.To.IsZero() {
		c.and(column+" <= {to:Date}", "to", f.To.Format(time.DateOnly))
	}
}

// kinds is the condition on events.
func (f Filter) kinds(c *condition) {
	if len(f.Type) > 0 {
		c.and("type IN {types:Array(String)}", "types", f.Type)
	}
	if len(f.Verdict) > 0 {
		c.and("verdict IN {verdicts:Array(String)}", "verdicts", f.Verdict)
	}
	if len(f.Review) > 0 {
		c.and("review IN {reviews:Array(String)}", "reviews", f.Review)
	}
}
