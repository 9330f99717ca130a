package scenario

import (
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// situation is something that the rules decide, recognized by a row and the other rows
// of its token. A simulation in which it never comes about shows nothing of it.
type situation struct {
	name string
	is   func(o *event.Outcome, token []*event.Outcome) bool
}

var situations = []situation{
	{"a follower", func(o *event.Outcome, _ []*event.Outcome) bool { return isFollower(o) }},
	{"a follower of a follower", func(o *event.Outcome, token []*event.Outcome) bool {
		return isFollower(o) && isFollower(rowWithEffect(token, o.ParentEventID))
	}},
	{"a follower before what it follows", func(o *event.Outcome, token []*event.Outcome) bool {
		return isFollower(o) && o.EventOffset < rowWithEffect(token, o.ParentEventID).EventOffset
	}},
	{"a follower without flat reward", func(o *event.Outcome, _ []*event.Outcome) bool {
		return isFollower(o) && strings.HasSuffix(o.Click.RewardTerms, " EUR") && o.EstimatedRewardMinor == nil
	}},
	{"a follower too late", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Reason == event.ReasonOutsideWindow && o.ParentType != ""
	}},
	{"a follower in a program without", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Reason == event.ReasonOutsideWindow && o.ParentEventID != "" && o.Click.FollowMs == 0
	}},
	{"a follower of a negative", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type.Positive() && o.Reason == event.ReasonWrongParent && o.ParentType != ""
	}},
	{"a follower of itself", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type.Positive() && o.Reason == event.ReasonWrongParent && o.ParentEventID == o.EventID
	}},
	{"a follower of an unattributed one", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type.Positive() && o.Reason == event.ReasonParentUnattributed
	}},
	{"a follower that waits in vain", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type.Positive() && o.Reason == event.ReasonParentNotFound
	}},
	{"an order repeated and attributed", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Verdict == event.Attributed && hasFlag(o, event.FlagOrderRepeated)
	}},
	{"an order repeated and unattributed", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Reason == event.ReasonOrderRepeated
	}},
	{"a further part of an order", func(o *event.Outcome, token []*event.Outcome) bool {
		first := rowWithEffect(token, o.ParentEventID)
		return o.Type == event.Sale && o.Verdict == event.Attributed && !hasFlag(o, event.FlagOrderRepeated) &&
			first != nil && first.Type == event.Sale && first.OrderID != "" && first.OrderID == o.OrderID
	}},
	{"an ambiguous reversal", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type == event.Reversal && o.Reason == event.ReasonParentAmbiguous
	}},
	{"a won chargeback", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type == event.Reversal && o.Effect > 0 && o.ParentType == string(event.Reversal)
	}},
	{"a negative sent again, mended", func(o *event.Outcome, token []*event.Outcome) bool {
		for _, earlier := range token {
			if o.Verdict == event.Reversed && earlier.Verdict == event.Unattributed &&
				earlier.EventID == o.EventID && earlier.EventOffset < o.EventOffset {
				return true
			}
		}
		return false
	}},
	{"a cancellation that turns to a lead after a sale's wait", func(o *event.Outcome, token []*event.Outcome) bool {
		for _, sale := range token {
			if o.Type == event.Cancellation && o.ParentType == string(event.Lead) && sale.Type == event.Sale &&
				sale.Reason == event.ReasonParentNotFound && sale.EventOffset < o.EventOffset {
				return true
			}
		}
		return false
	}},
	{"the attributed one of two positives", func(o *event.Outcome, token []*event.Outcome) bool {
		for _, other := range token {
			if o.Verdict == event.Reversed && o.OrderID != "" && other.OrderID == o.OrderID &&
				other.Verdict == event.Unattributed && string(other.Type) == o.ParentType {
				return true
			}
		}
		return false
	}},
	{"a take-back of what no longer stands", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.StandingChangeMinor != nil && *o.StandingChangeMinor != int64(o.Effect)**o.AmountMinor &&
			!hasFlag(o, event.FlagCurrencyMismatch)
	}},
	{"a negative without effect or click", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Click == nil && hasFlag(o, event.FlagWithoutEffect)
	}},
	{"a conflict about money", func(o *event.Outcome, _ []*event.Outcome) bool {
		return hasFlag(o, event.FlagMoneyDiffers)
	}},
	{"a conflict about something else", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Verdict == event.Conflict && !hasFlag(o, event.FlagMoneyDiffers)
	}},
	{"a positive dated back", func(o *event.Outcome, _ []*event.Outcome) bool {
		return o.Type.Positive() && hasFlag(o, event.FlagDatedBack)
	}},
	{"a negative dated back", func(o *event.Outcome, _ []*event.Outcome) bool {
		return !o.Type.Positive() && hasFlag(o, event.FlagDatedBack)
	}},
	{"a row with metadata", func(o *event.Outcome, _ []*event.Outcome) bool { return len(o.Metadata) > 0 }},
}

// CountSituations counts the rows in which each situation came about, also those in
// which none did: 0.
func CountSituations(outcomes []event.Outcome) map[string]int {
	tokens := make(map[string][]*event.Outcome)
	for i := range outcomes {
		o := &outcomes[i]
		tokens[o.ClickToken] = append(tokens[o.ClickToken], o)
	}
	counts := make(map[string]int)
	for _, s := range situations {
		counts[s.name] = 0
		for _, token := range tokens {
			for _, o := range token {
				if s.is(o, token) {
					counts[s.name]++
				}
			}
		}
	}
	return counts
}

// isFollower reports whether a row is that of a positive attributed after the window.
func isFollower(o *event.Outcome) bool {
	return o != nil && o.Verdict == event.Attributed && o.ParentType != ""
}

// rowWithEffect returns the token's row with effect of an event id, nil if none has.
func rowWithEffect(token []*event.Outcome, id string) *event.Outcome {
	for _, o := range token {
		if o.EventID == id && o.Effect != 0 {
			return o
		}
	}
	return nil
}

func hasFlag(o *event.Outcome, flag string) bool { return slices.Contains(o.Flags, flag) }
