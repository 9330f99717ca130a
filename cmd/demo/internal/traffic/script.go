package traffic

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

//go:embed stories.txt
var scenariosText string

//go:embed shapes.txt
var templatesText string

// step is one event of a story or a shape.
//
//	ID TYPE [AMOUNT CURRENCY] [of=ID] [order=ID] [name=TEXT] [at=DURATION] [by=foreign] [token=forged|unclicked|old] [twin] [=> EXPECTED]
//
// AMOUNT is a decimal, or in shapes a word: any (an amount and currency that is drawn),
// same (the one drawn last), part (a part of it), more (more than it), other (as much
// in another currency). at counts from the click. twin writes the same event in another
// way. by=foreign is another workspace's merchant. EXPECTED is "refused STATUS CODE" or
// the row's verdict as rowText prints it.
type step struct {
	id, parent, order, name string
	typ                     event.Type
	amount, currency        string
	at                      *time.Duration
	foreign, twin           bool
	token                   string
	refused                 *expectedRefusal
	want                    string
}

// scenario is a token's history written by hand.
type scenario struct {
	name        string
	link        string // which link: see findTarget
	batch       bool   // all events in one request
	steps, late []step // late: to be sent when the waits of steps are over
	needsKeys   bool
	needsOther  bool // another workspace with a secret
}

// journeyTemplate is a journey of the volume; of all journeys weight parts are like this.
type journeyTemplate struct {
	weight int
	steps  []step
}

// loadScenarios reads stories.txt: "story LINK [batch]: NAME", then a step on each line,
// "late" before those that come after the grace.
func loadScenarios() ([]scenario, error) {
	var stories []scenario
	late := false
	err := eachLine("stories.txt", scenariosText, func(line string) error {
		if head, ok := strings.CutPrefix(line, "story "); ok {
			options, name, _ := strings.Cut(head, ": ")
			words := strings.Fields(options)
			stories = append(stories, scenario{name: name, link: words[0], batch: len(words) > 1 && words[1] == "batch"})
			late = false
			return nil
		}
		if len(stories) == 0 {
			return fmt.Errorf("a step before the first story")
		}
		s := &stories[len(stories)-1]
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
	return stories, err
}

// loadTemplates reads shapes.txt: "shape WEIGHT", then a step on each line.
func loadTemplates() ([]journeyTemplate, error) {
	var shapes []journeyTemplate
	err := eachLine("shapes.txt", templatesText, func(line string) error {
		if weight, ok := strings.CutPrefix(line, "shape "); ok {
			n, err := strconv.Atoi(weight)
			shapes = append(shapes, journeyTemplate{weight: n})
			return err
		}
		st, err := parseStep(line)
		if err == nil && len(shapes) == 0 {
			err = fmt.Errorf("a step before the first shape")
		}
		if err == nil {
			shapes[len(shapes)-1].steps = append(shapes[len(shapes)-1].steps, st)
		}
		return err
	})
	return shapes, err
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

// exponents are the digits of the currencies that traffic is in.
var exponents = map[string]int32{"EUR": 2, "USD": 2, "JPY": 0}

// minorUnits reads a decimal of a step.
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
