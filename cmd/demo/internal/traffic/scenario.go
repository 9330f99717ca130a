package traffic

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

//go:embed scenarios.txt
var scenariosText string

//go:embed journeys.txt
var templatesText string

// step is one event of a scenario or of a journey template.
//
//	ID TYPE [AMOUNT CURRENCY] [of=ID] [order=ID] [name=TEXT] [at=DURATION] [by=foreign]
//	    [token=forged|unclicked|old] [twin] [=> EXPECTED]
//
// AMOUNT is a decimal. A template has a word instead: any (an amount and a currency are
// drawn), same (as drawn last), part (a part of that), more (more than that), other
// (the same amount in another currency). at counts from the click. twin sends the same
// content in another JSON form. by=foreign lets the merchant of another workspace send
// the event. EXPECTED is "refused STATUS CODE", or the verdict as formatRow prints it.
type step struct {
	id, parent, order, name string           // without the journey's prefix; name is the event_name
	typ                     event.Type       // TYPE
	amount, currency        string           // "" for an event without an amount
	at                      *time.Duration   // from the click to occurred_at; nil: the player decides
	foreign                 bool             // another workspace's merchant sends it
	twin                    bool             // same content, other JSON form
	token                   string           // "" for the journey's own
	refused                 *expectedRefusal // nil if the event must be accepted
	want                    string           // the verdict, "" to check none
}

// scenario is the hand-written history of one token.
type scenario struct {
	name       string // for findings
	link       string // the kind of link: see fitsKind
	batch      bool   // send all events in one request
	steps      []step // sent at once
	late       []step // sent after the grace, when all waits of steps have ended
	needsKeys  bool   // a step mints a token
	needsOther bool   // a step needs another workspace with a secret
}

// journeyTemplate is a kind of journey of the volume. It is drawn in proportion to its
// weight.
type journeyTemplate struct {
	weight int
	steps  []step
}

// loadScenarios reads scenarios.txt: "scenario LINK [batch]: NAME", then a step on each
// line. "late" precedes the steps to be sent after the grace.
func loadScenarios() ([]scenario, error) {
	var scenarios []scenario
	late := false
	err := eachLine("scenarios.txt", scenariosText, func(line string) error {
		if head, ok := strings.CutPrefix(line, "scenario "); ok {
			options, name, _ := strings.Cut(head, ": ")
			words := strings.Fields(options)
			isBatch := len(words) > 1 && words[1] == "batch"
			scenarios = append(scenarios, scenario{name: name, link: words[0], batch: isBatch})
			late = false
			return nil
		}
		if len(scenarios) == 0 {
			return fmt.Errorf("a step before the first scenario")
		}
		s := &scenarios[len(scenarios)-1]
		if line == "late" {
			late = true
			return nil
		}
		st, err := parseStep(line)
		if err != nil {
			return err
		}
		s.needsKeys = s.needsKeys || st.token == "unclicked" || st.token == "old"
		s.needsOther = s.needsOther || st.foreign
		if late {
			s.late = append(s.late, st)
		} else {
			s.steps = append(s.steps, st)
		}
		return nil
	})
	return scenarios, err
}

// loadTemplates reads journeys.txt: "journey WEIGHT", then a step on each line.
func loadTemplates() ([]journeyTemplate, error) {
	var templates []journeyTemplate
	err := eachLine("journeys.txt", templatesText, func(line string) error {
		if weight, ok := strings.CutPrefix(line, "journey "); ok {
			n, err := strconv.Atoi(weight)
			templates = append(templates, journeyTemplate{weight: n})
			return err
		}
		st, err := parseStep(line)
		if err == nil && len(templates) == 0 {
			err = fmt.Errorf("a step before the first journey")
		}
		if err == nil {
			templates[len(templates)-1].steps = append(templates[len(templates)-1].steps, st)
		}
		return err
	})
	return templates, err
}

func eachLine(name, text string, f func(line string) error) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("reading %s line %d: %w", name, n, err)
		}
	}
	return nil
}

func parseStep(line string) (step, error) {
	text, want, _ := strings.Cut(line, "=>")
	words := strings.Fields(text)
	if len(words) < 2 {
		return step{}, fmt.Errorf("want ID TYPE …, not %q", line)
	}
	s := step{id: words[0], typ: event.Type(words[1]), want: strings.TrimSpace(want)}
	for _, w := range words[2:] {
		key, value, setting := strings.Cut(w, "=")
		switch {
		case key == "of":
			s.parent = value
		case key == "order":
			s.order = value
		case key == "name":
			s.name = value
		case key == "token":
			s.token = value
		case key == "by" && value == "foreign":
			s.foreign = true
		case key == "at":
			d, err := time.ParseDuration(value)
			if err != nil {
				return step{}, err
			}
			s.at = &d
		case w == "twin":
			s.twin = true
		case !setting && s.amount == "":
			s.amount = w
		case !setting && s.currency == "":
			s.currency = w
		default:
			return step{}, fmt.Errorf("unknown word %q", w)
		}
	}
	if refused, ok := strings.CutPrefix(s.want, "refused "); ok {
		status, code, _ := strings.Cut(refused, " ")
		n, err := strconv.Atoi(status)
		if err != nil {
			return step{}, err
		}
		s.refused, s.want = &expectedRefusal{n, code}, ""
	}
	return s, nil
}

// exponents are the decimal places of the currencies that the traffic uses.
var exponents = map[string]int32{"EUR": 2, "USD": 2, "JPY": 0}

// minorUnits parses the decimal amount of a step.
func minorUnits(amount, currency string) (int64, error) {
	exponent, ok := exponents[currency]
	if !ok {
		return 0, fmt.Errorf("unknown currency %q", currency)
	}
	whole, fraction, _ := strings.Cut(amount, ".")
	if len(fraction) > int(exponent) {
		return 0, fmt.Errorf("too many digits in %s %s", amount, currency)
	}
	return strconv.ParseInt(whole+fraction+strings.Repeat("0", int(exponent)-len(fraction)), 10, 64)
}
