package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
)

// maxLinks is how many events of one chain are printed. Standing amounts take all
// events into account.
const maxLinks = 50

func whyCommands() []command {
	about := "explains why an event, or each event of an order, counts as it does: click, verdict and reason in " +
		"words, the chain from its root down, standing amounts, negatives without effect, offsets"
	return []command{{"why", "EVENT_ID | -order ORDER_ID", about, func(fs *flag.FlagSet) func(context.Context,
		*call) error {
		w := defineWarehouse(fs)
		order := fs.String("order", "", "`id` of an order, instead of EVENT_ID")
		return func(ctx context.Context, c *call) error {
			column, key := report.ByOrderID, *order
			switch {
			case key != "" && len(c.args) > 0:
				return usagef("EVENT_ID beside -order: ask about an event or about an order")
			case key == "" && (len(c.args) != 1 || c.args[0] == ""):
				return usagef("exactly one EVENT_ID is required, or -order")
			case key == "":
				column, key = report.ByEventID, c.args[0]
			}
			return w.withReader(ctx, func(r *report.Reader) error {
				answer, err := r.Why(ctx, w.workspace, column, key)
				if err != nil {
					return err
				}
				c.printAnswer(answer)
				return nil
			})
		}
	}}}
}

// printField prints a line of name and value. Parts of the value come from merchants,
// so it replaces control characters: a terminal must not execute them.
func (c *call) printField(name, format string, a ...any) {
	c.say("  %-9s %s", name, replaceControls(fmt.Sprintf(format, a...)))
}

func replaceControls(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (c *call) printAnswer(a *report.Answer) {
	if a.IsEmpty() {
		subject := a.Key
		if a.Column == report.ByOrderID {
			subject = "order " + a.Key
		}
		c.say("%s: never received in workspace %s: neither accepted nor refused under this id",
			replaceControls(subject), a.Workspace)
		for _, q := range a.Similar {
			ask := "ask without -order"
			if q.Column == report.ByOrderID {
				ask = "ask with -order"
			}
			c.printField("but", "there is %s: %s", q.Words(), ask)
		}
		c.sayDropped(a)
		return
	}
	for _, e := range a.Records {
		c.printRecord(e, len(a.Negatives) > 0)
	}
	if a.More {
		c.say("more records have this id; these are the first %d", len(a.Records))
	}
	if a.Tokens > 1 {
		c.say("event_id_reuse: %s has effect under %d tokens, so it counts %d times",
			replaceControls(a.Key), a.Tokens, a.Tokens)
	}
	for _, count := range a.Counted {
		c.say("order_reuse: order %s is %s", replaceControls(strconv.Quote(count.OrderID)),
			replaceControls(count.Words()))
	}
	for _, r := range a.Refused {
		c.say("%s: refused by the gateway %s with status %d: %s", replaceControls(cmp.Or(r.EventID, a.Key)),
			ledger.FormatTime(r.ReceivedAt), r.Status, replaceControls(r.Words()))
	}
	if a.MoreRefused {
		c.say("more refusals have this id; these are the newest %d", len(a.Refused))
	}
	c.printNegatives(a)
	c.sayDropped(a)
}

// sayDropped says that an answer knows only what is left.
func (c *call) sayDropped(a *report.Answer) {
	if words := a.Dropped.Words(); words != "" {
		c.say("%s", words)
	}
}

// printNegatives prints the negatives without effect that belong to an answer.
func (c *call) printNegatives(a *report.Answer) {
	for _, n := range a.Negatives {
		c.say("%s: %s", replaceControls(n.Subject()), replaceControls(n.Words()))
		at := fmt.Sprintf("received %s, token %s", ledger.FormatTime(n.ReceivedAt), cmp.Or(n.ClickToken, "none"))
		if n.Refusal == nil {
			at += fmt.Sprintf(", conversions %d/%d", n.Partition, n.Offset)
		}
		c.printField("look at", "%s", at)
	}
	if a.MoreNegatives {
		c.say("there may be more negatives without effect than these %d", len(a.Negatives))
	}
}

func (c *call) printRecord(e *report.Record, hasNegatives bool) {
	state := verdictWords(e.Event)
	if e.Wait != nil {
		state = e.State()
	}
	c.say("%s: %s: %s", replaceControls(e.EventID), state, replaceControls(e.Words()))
	c.printClick(e)
	c.printField("event", "%s, happened %s, received %s",
		describeEvent(e.Event), ledger.FormatTime(e.OccurredAt), ledger.FormatTime(e.ReceivedAt))
	if e.Named != nil {
		c.printField("names", "%s", e.Named)
	}
	for _, d := range e.Differs {
		c.printField("differs", "%s: %q at first, %q here", d.Field, d.First, d.This)
	}
	if e.ReasonText != "" {
		c.printField("", "the merchant's reason: %s", e.ReasonText)
	}
	if reward := e.EstimatedReward(); reward != nil {
		c.printField("reward", "%s, an estimate, by the terms %s", reward, e.RewardTerms)
	}
	for _, flag := range e.Flags {
		c.printField("flag", "%s: %s", flag, report.FlagWords(flag))
	}
	c.printChain(e, hasNegatives)
	if e.Wait != nil {
		c.printField("look at", "conversions %d/%d", e.Partition, e.Offset)
		return
	}
	c.printField("look at", "conversions %d/%d, outcomes %d/%d, decided %s", e.Partition, e.Offset, e.OutcomePartition,
		e.OutcomeOffset, ledger.FormatTime(e.DecidedAt))
}

// verdictWords returns a verdict and its reason as stored in the tables.
func verdictWords(e *report.Event) string { return strings.TrimSuffix(e.Verdict+" "+e.Reason, " ") }

// describeEvent returns the type of an event with its amount and order.
func describeEvent(e *report.Event) string {
	text := e.Type
	if m := e.Amount(); m != nil {
		text += " of " + m.String()
	}
	if e.OrderID != "" {
		text += ", order " + e.OrderID
	}
	return text
}

func (c *call) printClick(e *report.Record) {
	click := e.Snapshot
	if click == nil {
		c.printField("click", "unknown here; token %s", e.ClickToken)
		return
	}
	c.printField("click", "%s on %s/%s, link %s, window %s, token %s",
		ledger.FormatTime(*click.At), click.Domain, click.Slug, click.LinkID,
		report.Span(time.Duration(click.WindowMs)*time.Millisecond), e.ClickToken)
	if click.PartnerID == "" {
		c.printField("partner", "none")
	} else {
		c.printField("partner", "%s (%s), then %s and %s; program %s (%s)", click.PartnerName, click.PartnerID,
			click.PartnerRelationship, click.PartnerLifecycle, click.ProgramName, click.ProgramID)
	}
}

// printChain prints the tree of events if it has more than one.
func (c *call) printChain(e *report.Record, hasNegatives bool) {
	if len(e.Chain) == 1 && e.Chain[0].Standing != nil {
		text := e.Chain[0].Standing.Left() + ": nothing was taken back"
		if hasNegatives {
			text += ", but see what was received without effect, below"
		}
		c.printField("standing", "%s", text)
	}
	if len(e.Chain) < 2 {
		return
	}
	name := "chain"
	for i, l := range e.Chain {
		if i == maxLinks {
			c.printField("", "… and %d more", len(e.Chain)-maxLinks)
			break
		}
		const deep = 20 // a chain of reversals must not leave the screen
		line := strings.Repeat("  ", min(l.Depth, deep)) + l.EventID + ": " + describeEvent(l.Event) + ", "
		switch {
		case l.Verdict == "":
			line += "waiting"
		case l.Standing != nil:
			line += verdictWords(l.Event) + "; " + l.Standing.String()
		default:
			line += verdictWords(l.Event)
		}
		if l.Event == e.Event {
			line += "  ← this"
		}
		c.printField(name, "%s", line)
		name = ""
	}
	if e.ChainCut {
		c.printField("", "the chain exceeds the limits (%d events, %d steps): standing amounts are unknown",
			report.MaxChain, report.MaxDepth)
	}
}
