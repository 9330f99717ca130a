package dispute

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
	"golang.org/x/text/unicode/norm"
)

// keysOf are the ids that a claim may name, the likeliest first: as it is written, and
// where that looks like a cell of a CSV of ours in which a formula is escaped, as it was
// before. In an export that escapes formulas it is the other way round. Then what
// ="0001" means, by which programs keep a spreadsheet from dropping zeros, and the same
// texts in the other forms of Unicode, which look the same: some systems write é as one
// character, others as two.
func keysOf(id string, exported bool) []string {
	before := ledger.UnescapeFormula(id)
	keys := []string{id, before}
	if exported {
		slices.Reverse(keys)
	}
	if text := textFormula.FindStringSubmatch(before); text != nil {
		keys = append(keys, strings.ReplaceAll(text[1], `""`, `"`))
	}
	for _, form := range []norm.Form{norm.NFC, norm.NFD} {
		for _, key := range slices.Clone(keys) {
			keys = append(keys, form.String(key))
		}
	}
	var each []string
	for _, key := range keys {
		if !slices.Contains(each, key) {
			each = append(each, key)
		}
	}
	return each
}

// isKnown reports whether anything is known of a key.
func (ev *evidence) isKnown(key string) bool {
	_, refused := ev.refused[key]
	return refused || len(ev.judged[key])+len(ev.waiting[key]) > 0
}

// knows reports whether anything is known of what an id may name.
func (ev *evidence) knows(id string, exported bool) bool {
	return id != "" && slices.ContainsFunc(keysOf(id, exported), ev.isKnown)
}

// chooseKey is the id that a claim is answered by: the first that anything is known of.
// second is the next, if a CSV of ours writes both in the same way, or they look the same.
func (ev *evidence) chooseKey(id string, exported bool) (key, second string) {
	keys := keysOf(id, exported)
	known := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !ev.isKnown(key) })
	looks := func(key string) string { return norm.NFC.String(ledger.UnescapeFormula(key)) }
	switch {
	case len(known) == 0:
		return keys[0], ""
	case len(known) == 1 || looks(known[0]) != looks(known[1]):
		return known[0], ""
	}
	return known[0], known[1]
}

// warnOfSecond says that a claim may mean another id, too, if the claimant may know. Of
// what is not judged nobody but the workspace may.
func (d *Dispute) warnOfSecond(f *Finding, second string, ev *evidence) {
	if second == "" {
		return
	}
	like := "which a CSV of ours writes in the same way"
	if norm.NFC.String(second) == norm.NFC.String(f.key) {
		like = "which looks the same and has other characters"
	}
	if d.partner == "" || slices.ContainsFunc(ev.judged[second], func(e *report.Event) bool { return !d.hides(e) }) {
		f.Words += fmt.Sprintf("; there is also %s, %s", second, like)
	}
}

const (
	// widestNumber is how many digits an id may have that a spreadsheet took for a
	// number; it keeps 15 of them.
	widestNumber = 15
	// maxHints is how many unknown ids of a list are looked for as numbers.
	maxHints = 500
)

var (
	numberID    = regexp.MustCompile(`^[0-9]{1,15}$`)
	shortenedID = regexp.MustCompile(`^[0-9]([.,][0-9]+)?[eE]\+[0-9]+$`)
	// roundedID has more digits than a spreadsheet keeps, and zeros in place of the others.
	roundedID = regexp.MustCompile(`^[1-9][0-9]{14}0+$`)
	// decimalID is a number that a program took for one with decimals.
	decimalID   = regexp.MustCompile(`^([0-9]{1,15})[.,]0+$`)
	textFormula = regexp.MustCompile(`(?s)^="(.*)"$`)
)

// sameNumbers are the ids that equal one as numbers; none if it is no number.
func sameNumbers(id string) (ids []string) {
	number := id
	if m := decimalID.FindStringSubmatch(id); m != nil {
		number = m[1]
	} else if !numberID.MatchString(id) {
		return nil
	}
	bare := strings.TrimLeft(number, "0")
	if bare == "" {
		bare = "0"
	}
	for zeros := range widestNumber - len(bare) + 1 {
		if same := strings.Repeat("0", zeros) + bare; same != id {
			ids = append(ids, same)
		}
	}
	return ids
}

// addHints says of ids that were never received what a spreadsheet may have made of
// them: numbers, without zeros at their start.
func (d *Dispute) addHints(ctx context.Context, column report.KeyColumn, findings []Finding) error {
	unknown := map[string][]*Finding{} // by each id that would be the same number
	var keys []string
	for i := range findings {
		f := &findings[i]
		switch {
		case f.Verdict != NeverReceived || f.column != column:
		case shortenedID.MatchString(f.key):
			f.Words += "; a spreadsheet has shortened this number"
		case roundedID.MatchString(f.key):
			f.Words += "; a spreadsheet may have made zeros of its last digits"
		case d.hints < maxHints:
			same := sameNumbers(f.key)
			d.hints += min(len(same), 1)
			for _, same := range same {
				if unknown[same] == nil {
					keys = append(keys, same)
				}
				unknown[same] = append(unknown[same], f)
			}
		}
	}
	exist := map[*Finding][]string{}
	for len(keys) > 0 {
		n := report.FitKeys(keys)
		judged, _, err := d.reader.FindEvents(ctx, d.workspace, column, keys[:n])
		if err != nil {
			return err
		}
		for _, e := range judged {
			for _, f := range unknown[column.Key(e)] {
				if !d.hides(e) && !slices.Contains(exist[f], column.Key(e)) {
					exist[f] = append(exist[f], column.Key(e))
				}
			}
		}
		keys = keys[n:]
	}
	for f, ids := range exist {
		if slices.Sort(ids); len(ids) == 1 {
			f.Words += fmt.Sprintf("; %s exists, which is the same number", ids[0])
		} else {
			f.Words += fmt.Sprintf("; %s exist, which are the same number", nameSeveral(ids))
		}
	}
	return nil
}
