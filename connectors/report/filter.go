package report

import (
	"time"
)

// Filter selects what a report is about. The zero Filter selects everything.
type Filter struct {
	From, To time.Time // days in UTC, both inclusive; zero: without end
	Partner  string    // id
	Program  string    // id
	Link     string    // id
	Type     []string  // event types, any of them
	Verdict  []string  // verdicts, any of them
	Review   []string  // review states, any of them
	ByClick  bool      // events are on the day of their click, not on their own
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

// addDays adds the conditions on the day; column is an expression of type Date.
func (f Filter) addDays(c *condition, column string) {
	if !f.From.IsZero() {
		c.andArg(column+" >= {from:Date}", "from", f.From.Format(time.DateOnly))
	}
	if !f.To.IsZero() {
		c.andArg(column+" <= {to:Date}", "to", f.To.Format(time.DateOnly))
	}
}

// addEventDays adds the conditions on the day of an event, or of its click.
func (f Filter) addEventDays(c *condition) {
	if f.ByClick {
		c.and("clicked_at IS NOT NULL")
	}
	f.addDays(c, f.eventDay())
}

// eventDay is the day on which an event counts, as SQL.
func (f Filter) eventDay() string {
	if f.ByClick {
		return "assumeNotNull(toDate(clicked_at))"
	}
	return "toDate(occurred_at)"
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
	f.addEventDays(c)
	f.addKinds(c)
	return c
}
