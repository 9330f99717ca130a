package report

import (
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/calendar"
)

// Filter selects what a report is about. The zero Filter selects everything.
type Filter struct {
	Zone     calendar.Zone // of all days
	From, To time.Time     // days, both inclusive; zero: without end
	Partner  string        // id
	Program  string        // id
	Link     string        // id
	Type     []string      // event types, any of them
	Verdict  []string      // verdicts, any of them
	Review   []string      // review states, any of them
	ByClick  bool          // events are on the day of their click, not on their own
	People   bool          // Clicks counts those of people alone
}

// Page is a part of a list.
type Page struct {
	Limit int      // most rows; 0: all
	After []string // the key of the last row of the page before; nil: the first page
}

// BadParameter is a parameter of a request that cannot be.
type BadParameter struct{ Name, Text string }

func (b *BadParameter) Error() string { return b.Name + ": " + b.Text }

// errCursor is the answer to a key that is not one of the list.
func errCursor() error { return &BadParameter{"cursor", "not one of this list"} }

// addDimensions adds the conditions on partner, program and link.
func (f Filter) addDimensions(c *condition) {
	if f.Partner != "" {
		c.andArg("partner_id = {partner:String}", "partner", f.Partner)
	}
	if f.Program != "" {
		c.andArg("program_id = {program:String}", "program", f.Program)
	}
	if f.Link != "" {
		c.andArg("link_id = {link:String}", "link", f.Link)
	}
}

// zoneArg is the argument {tz:String} of queries that tell days by the filter's zone.
func (f Filter) zoneArg() any { return clickhouse.Named("tz", f.Zone.Name()) }

// addDays adds the conditions on a column that holds the day, of type Date.
func (f Filter) addDays(c *condition, column string) {
	if !f.From.IsZero() {
		c.andArg(column+" >= {from:Date}", "from", f.From.Format(time.DateOnly))
	}
	if !f.To.IsZero() {
		c.andArg(column+" <= {to:Date}", "to", f.To.Format(time.DateOnly))
	}
}

// addTimes adds the conditions on a column that holds an instant: it is on one of the
// days. The instants are those of an export of these days.
func (f Filter) addTimes(c *condition, column string) {
	if !f.From.IsZero() {
		c.andArg(column+" >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')", "start",
			f.Zone.DayStart(f.From).UnixMilli())
	}
	if !f.To.IsZero() {
		_, end := f.Zone.Days(f.To, f.To)
		c.andArg(column+" < fromUnixTimestamp64Milli({end:Int64}, 'UTC')", "end", end.UnixMilli())
	}
}

// addEventTimes adds the conditions on the time of an event, or of its click.
func (f Filter) addEventTimes(c *condition) {
	if f.ByClick {
		c.and("clicked_at IS NOT NULL")
	}
	f.addTimes(c, f.eventTime())
}

// eventTime is the time by which an event is on a day, as SQL.
func (f Filter) eventTime() string {
	if f.ByClick {
		return "assumeNotNull(clicked_at)"
	}
	return "occurred_at"
}

// addKinds adds the conditions on type, verdict and review of events.
func (f Filter) addKinds(c *condition) {
	if len(f.Type) > 0 {
		c.andArg("type IN {types:Array(String)}", "types", f.Type)
	}
	if len(f.Verdict) > 0 {
		c.andArg("verdict IN {verdicts:Array(String)}", "verdicts", f.Verdict)
	}
	if len(f.Review) > 0 {
		c.andArg("review IN {reviews:Array(String)}", "reviews", f.Review)
	}
}

// selectsEvents reports whether the filter asks for something that the rollup does not
// know.
func (f Filter) selectsEvents() bool {
	return len(f.Type) > 0 || len(f.Verdict) > 0 || len(f.Review) > 0 || f.ByClick
}

// ofEvents is the condition on rows of outcomes, or of conversion_rows.
func (f Filter) ofEvents(workspace string) *condition {
	c := inWorkspace(workspace)
	f.addDimensions(c)
	f.addEventTimes(c)
	f.addKinds(c)
	return c
}
