package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/nimriz/partners/connectors/report"
)

// maxLinks is how many events of one chain are printed; what stands is computed over
// all.
const maxLinks = 50

func whyCommands() []command {
	return []command{{"why", "EVENT_ID", "says why an event counts as it does: click, verdict and reason in " +
		"words, the chain from its root down, what stands, offsets", func(fs *flag.FlagSet) func(context.Context,
		*call) error {
		w := defineWarehouse(fs)
		return func(ctx context.Context, c *call) error {
			if len(c.args) != 1 || c.args[0] == "" {
				return usagef("exactly one EVENT_ID is required")
			}
			return w.ask(ctx, func(r *report.Reader) error {
				answer, err := r.Why(ctx, w.workspace, c.args[0])
				if err != nil {
					return err
				}
				c.answer(answer)
				return nil
			})
		}
	}}}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// field prints a line of name and value. Merchants wrote parts of it: a terminal is not
// to obey them.
func (c *call) field(name, format string, a ...any) {
	c.say("  %-9s %s", name, printable(fmt.Sprintf(format, a...)))
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (c *call) answer(a *report.Answer) {
	if len(a.Events) == 0 && len(a.Refused) == 0 {
		c.say("%s: never received in workspace %s: neither accepted nor refused under this id", a.EventID, a.Workspace)
		return
	}
	for _, e := range a.Events {
		c.answered(e)
	}
	if a.More {
		c.say("more records have this id; these are the first %d", len(a.Events))
	}
	if a.Tokens > 1 {
		c.say("event_id_reuse: %s has effect under %d tokens, so it counts %d times", a.EventID, a.Tokens, a.Tokens)
	}
	for _, r := range a.Refused {
		c.say("%s: refused by the gateway %s with status %d: %s", a.EventID, stamp(r.ReceivedAt), r.Status, r.Words())
	}
}

func (c *call) answered(e *report.Answered) {
	if e.Wait != nil {
		c.say("%s: waiting: %s", e.EventID, e.Wait.Words())
	} else {
		c.say("%s: %s: %s", e.EventID, verdict(e.Event), e.Words())
	}
	c.click(e)
	c.field("event", "%s, happened %s, received %s", what(e.Event), stamp(e.OccurredAt), stamp(e.ReceivedAt))
	if e.ReasonText != "" {
		c.field("", "the merchant's reason: %s", e.ReasonText)
	}
	if reward := e.EstimatedReward(); reward != nil {
		c.field("reward", "%s, an estimate, by the terms %s", reward, e.RewardTerms)
	}
	for _, flag := range e.Flags {
		c.field("flag", "%s: %s", flag, report.FlagWords(flag))
	}
	c.chain(e)
	if e.Wait != nil {
		c.field("look at", "conversions %d/%d", e.Partition, e.Offset)
		return
	}
	c.field("look at", "conversions %d/%d, outcomes %d/%d, decided %s", e.Partition, e.Offset, e.OutcomePartition,
		e.OutcomeOffset, stamp(e.DecidedAt))
}

// verdict is with its reason, as the tables have them.
func verdict(e *report.Event) string { return strings.TrimSuffix(e.Verdict+" "+e.Reason, " ") }

// what is the kind of an event with its amount and order.
func what(e *report.Event) string {
	text := e.Type
	if m := e.Amount(); m != nil {
		text += " of " + m.String()
	}
	if e.OrderID != "" {
		text += ", order " + e.OrderID
	}
	return text
}

func (c *call) click(e *report.Answered) {
	click := e.Frozen
	if click == nil {
		c.field("click", "unknown here; token %s", e.ClickToken)
		return
	}
	c.field("click", "%s on %s/%s, link %s, window %s, token %s", stamp(*click.At), click.Domain, click.Slug,
		click.LinkID,
		report.Span(time.Duration(click.WindowMs)*time.Millisecond), e.ClickToken)
	if click.PartnerID == "" {
		c.field("partner", "none")
	} else {
		c.field("partner", "%s (%s), then %s and %s; program %s (%s)", click.PartnerName, click.PartnerID,
			click.PartnerRelationship, click.PartnerLifecycle, click.ProgramName, click.ProgramID)
	}
}

// chain prints the tree if there is more in it than the event itself.
func (c *call) chain(e *report.Answered) {
	if len(e.Chain) == 1 && e.Chain[0].Stands != nil {
		if m := e.Chain[0].Stands.Money; m != nil {
			c.field("stands", "%s: nothing was taken back", m)
		} else {
			c.field("stands", "yes, without amount: nothing was taken back")
		}
	}
	if len(e.Chain) < 2 {
		return
	}
	name := "chain"
	for i, l := range e.Chain {
		if i == maxLinks {
			c.field("", "… and %d more", len(e.Chain)-maxLinks)
			break
		}
		const deep = 20 // a chain of reversals must not leave the screen
		line := strings.Repeat("  ", min(l.Depth, deep)) + l.EventID + ": " + what(l.Event) + ", "
		switch {
		case l.Verdict == "":
			line += "waiting"
		case l.Stands != nil:
			line += verdict(l.Event) + "; " + l.Stands.String()
		default:
			line += verdict(l.Event)
		}
		if l.Event == e.Event {
			line += "  ← this"
		}
		c.field(name, "%s", line)
		name = ""
	}
	if e.ChainCut {
		c.field("", "the chain is longer than can be followed (%d events, %d steps), so what stands is not said",
			report.MaxChain, report.MaxDepth)
	}
}
