package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
)

// printVerification prints counts first, then what is not derivable, by reason, and the
// first rows that differ.
func (c *call) printVerification(cfg verify.Config, zone string, r *verify.Report) {
	days := "all days"
	if !cfg.From.IsZero() || !cfg.To.IsZero() {
		days = fmt.Sprintf("days of %s from %s to %s", cmp.Or(zone, "UTC"),
			describeInstant(cfg.From.IsZero(), cfg.From.Format("2006-01-02T15:04Z07:00")),
			describeInstant(cfg.To.IsZero(), cfg.To.Format("2006-01-02T15:04Z07:00")))
	}
	c.say("workspace %s, %s: %d events; rules version %d", cfg.Workspace, days, r.Events, event.RulesVersion)
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"Compared", "Rows", "Equal", "Depend on arrival", "Not re-derivable", "Differ", "Missing",
		"Doubled", "Surplus"})
	for _, x := range r.Tallies {
		t.AppendRow(table.Row{x.Name, x.Rows, x.Equal, x.Late, x.Unprovable(), x.Differing, x.Missing, x.Doubled,
			x.Surplus})
	}
	c.say("%s", t.Render())
	if r.Waiting > 0 {
		c.say("%d events have no row and need none yet: they wait, or their token is not re-derivable", r.Waiting)
	}
	for _, x := range r.Tallies {
		c.printTally(x)
	}
	if r.OK() && r.Equal() > 0 {
		c.say("every row that can be derived again is what the rules say")
	}
}

func describeInstant(open bool, text string) string {
	if open {
		return "any"
	}
	return text
}

func (c *call) printTally(x *verify.Tally) {
	if x.Pending > 0 {
		c.say("%s: %d rows are not compared: they are not inserted yet, or came after the state that is verified",
			x.Name, x.Pending)
	}
	if x.Dropped > 0 {
		c.say("%s: %d rows are not compared: they were dropped with their months", x.Name, x.Dropped)
	}
	if x.Late > 0 {
		c.say("%s: %d rows depend on arrival: they are what the rules say if a record reached Kafka later than it is "+
			"dated; the log does not tell", x.Name, x.Late)
	}
	for why, n := range x.NotDerivable {
		if n == 0 {
			continue
		}
		reason := verify.Reason(why)
		c.say("%s: %d rows are not re-derivable: %s%s", x.Name, n, reason, examplesOf(x, reason))
	}
	for _, d := range x.Differences {
		c.printDifference(x.Name, d)
	}
	if more := x.Differing + x.Missing + x.Doubled + x.Surplus - int64(len(x.Differences)); more > 0 {
		c.say("%s: and %d more", x.Name, more)
	}
}

// examplesOf names the first rows that are not derivable for a reason.
func examplesOf(x *verify.Tally, why verify.Reason) string {
	var places []string
	for _, u := range x.Unproved {
		if u.Reason == why {
			places = append(places, fmt.Sprintf("outcomes %s of conversions %s", u.Row, u.Event))
		}
	}
	if len(places) == 0 {
		return ""
	}
	return " (" + strings.Join(places, ", ") + ")"
}

// printDifference prints one row. Parts of it come from merchants.
func (c *call) printDifference(name string, d verify.Difference) {
	var at []string
	if d.Row != nil {
		at = append(at, "outcomes "+d.Row.String())
	}
	if d.Line > 0 {
		at = append(at, fmt.Sprintf("line %d", d.Line))
	}
	if d.Event != nil {
		at = append(at, "conversions "+d.Event.String())
	}
	if d.EventID != "" {
		at = append(at, "event "+replaceControls(d.EventID))
	}
	c.say("%s: %s: %s", name, d.Kind, strings.Join(at, ", "))
	if d.Note != "" {
		c.printField("", "%s", d.Note)
	}
	for _, f := range d.Fields {
		c.printField("", "%s: the rules say %q, the row says %q", f.Field, f.Derived, f.Found)
	}
}
