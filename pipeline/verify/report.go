package verify

// Kind is how a row is not what it should be.
type Kind string

// The kinds.
const (
	Differs Kind = "differs" // a field has another value
	Missing Kind = "missing" // the event must have a row, and has none
	Doubled Kind = "doubled" // the event has another row
	Surplus Kind = "surplus" // the row is about no event of the log
	Altered Kind = "altered" // the file is not the one that its manifest describes
)

// maxShown is how many differences, and how many rows that cannot be derived, a tally
// keeps.
const maxShown = 20

// Difference is a row that is not what it should be.
type Difference struct {
	Kind    Kind              `json:"kind"`
	EventID string            `json:"event_id"`
	Event   *Place            `json:"event,omitzero"` // in conversions; nil: of no event
	Row     *Place            `json:"row,omitzero"`   // in outcomes; nil: there is none
	Line    int64             `json:"line,omitzero"`  // of a CSV, from 1; 0: none
	Fields  []FieldDifference `json:"fields,omitzero"`
	Note    string            `json:"note,omitzero"` // for people
}

// Unproved is a row that cannot be derived.
type Unproved struct {
	Reason Reason
	Event  Place // in conversions
	Row    Place // in outcomes
}

// Tally counts the rows of one place in which the ledger is: outcomes, the warehouse, or
// a CSV. Each row is in exactly one of the counts.
type Tally struct {
	Name  string
	Rows  int64 // of the workspace and the days that are there
	Equal int64 // every field is what the rules say
	// Late rows are what the rules say if a record reached Kafka later than the processor
	// waits, and not what they say by the times in the log. So they depend on when
	// records arrived, of which the log keeps no trace.
	Late         int64
	NotDerivable [reasonCount]int64 // by Reason
	Differing    int64
	Doubled      int64
	Surplus      int64
	Missing      int64 // rows that are not there, and are not in Rows
	// Pending rows are not in Rows: the sink has not inserted them yet, or the CSV has them
	// and they came after the state that is verified.
	Pending int64
	// Dropped rows are not in Rows: the warehouse has dropped them because of their age.
	Dropped int64
	// Differences are the first of them, and Unproved the first rows that cannot be
	// derived.
	Differences []Difference
	Unproved    []Unproved

	altered bool
}

// OK reports whether nothing is other than the rules say.
func (t *Tally) OK() bool {
	return t.Differing+t.Doubled+t.Surplus+t.Missing == 0 && !t.altered
}

// Unprovable is the number of rows that cannot be derived.
func (t *Tally) Unprovable() (n int64) {
	for _, count := range t.NotDerivable {
		n += count
	}
	return n
}

// addDifference counts a difference, and keeps it if it is among the first. describe
// adds what is dear to find out.
func (t *Tally) addDifference(d Difference, describe func(*Difference) error) error {
	switch d.Kind {
	case Differs:
		t.Differing++
	case Missing:
		t.Missing++
	case Doubled:
		t.Doubled++
	case Surplus:
		t.Surplus++
	case Altered:
		t.altered = true
	}
	if len(t.Differences) >= maxShown {
		return nil
	}
	if describe != nil {
		if err := describe(&d); err != nil {
			return err
		}
	}
	t.Differences = append(t.Differences, d)
	return nil
}

func (t *Tally) addUnproved(why Reason, event, row Place) {
	t.NotDerivable[why]++
	if t.NotDerivable[why] <= 3 && len(t.Unproved) < maxShown {
		t.Unproved = append(t.Unproved, Unproved{Reason: why, Event: event, Row: row})
	}
}

// Report is what Run found.
type Report struct {
	Events  int64 // processed events of the workspace, within the days
	Waiting int64 // of them: those that wait, or whose token cannot be derived, without a row
	// Tallies are of outcomes, of the table and of the CSV, as far as they were compared.
	Tallies []*Tally
}

// Rows is how many rows were found, in all places.
func (r *Report) Rows() (n int64) {
	for _, t := range r.Tallies {
		n += t.Rows
	}
	return n
}

// Equal is how many rows are what the rules say, in all places.
func (r *Report) Equal() (n int64) {
	for _, t := range r.Tallies {
		n += t.Equal
	}
	return n
}

// OK reports whether nothing is other than the rules say. Rows that cannot be derived
// are no fault, and no proof either.
func (r *Report) OK() bool {
	for _, t := range r.Tallies {
		if !t.OK() {
			return false
		}
	}
	return true
}
