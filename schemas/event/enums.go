package event

// Types lists all types, in the order of the schema.
func Types() []Type { return []Type{Lead, Sale, Refund, Cancellation, Reversal} }

// Verdicts lists all verdicts, in the order of the schema.
func Verdicts() []Verdict {
	return []Verdict{Attributed, Reversed, Duplicate, Conflict, Unattributed}
}

// Reviews lists the values of Review. A row without effect has none.
func Reviews() []Review { return []Review{ReviewClear, ReviewNeeded} }

// Reasons lists all reasons of Unattributed: in the order in which the rules check them,
// and then those of later versions of the rules.
func Reasons() []string {
	return []string{
		ReasonExpired,
		ReasonClickNotFound,
		ReasonWorkspaceMismatch,
		ReasonTokenFull,
		ReasonBeforeClick,
		ReasonOutsideWindow,
		ReasonWrongParent,
		ReasonParentAmbiguous,
		ReasonParentNotFound,
		ReasonParentUnattributed,
		ReasonOrderRepeated,
		ReasonGivenUp,
	}
}

// Flags lists all flags of an Outcome, in the order in which a row lists them.
func Flags() []string {
	return []string{
		FlagBotClick,
		FlagPartnerReview,
		FlagNoPartner,
		FlagTooFast,
		FlagOverReversed,
		FlagCurrencyMismatch,
		FlagAmountMissing,
		FlagParentInferred,
		FlagWithoutEffect,
		FlagMoneyDiffers,
		FlagOrderRepeated,
		FlagDatedBack,
	}
}

// Texts returns the values of such a list as texts.
func Texts[T ~string](values []T) []string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return texts
}
