package verify

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// Export is a CSV with what its manifest says about it.
type Export struct {
	File     string    // the CSV
	SHA256   string    // of the CSV, in hex
	Rows     int64     // of the CSV, header not counted
	Version  int       // of the columns
	Raw      bool      // no formula is escaped
	From, To time.Time // of occurred_at; To is not included
	Partner  string    // only rows of this partner id; empty: of any
	Program  string    // of this program id; empty: of any
	Link     string    // of this link id; empty: of any
	Type     []string  // of these types; empty: of any
	Verdict  []string  // of these verdicts
	Review   []string  // of these review states; empty: of any
	// AsOf are the ends of outcomes by partition: rows behind them are not in the file.
	AsOf map[int32]int64
	// Since are the ends of the export that it continues; nil: it continues none.
	Since map[int32]int64
}

// selects reports whether the filters select a row, but for those by offset.
func (x *Export) selects(o *event.Outcome, click *event.Click) bool {
	if click == nil {
		click = &event.Click{}
	}
	isOneOf := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	isOnly := func(only, value string) bool { return only == "" || only == value }
	return o.OccurredAt >= event.MillisOf(x.From) && o.OccurredAt < event.MillisOf(x.To) &&
		isOneOf(x.Verdict, string(o.Verdict)) && isOneOf(x.Type, string(o.Type)) &&
		isOneOf(x.Review, string(o.Review)) && isOnly(x.Partner, click.PartnerID) &&
		isOnly(x.Program, click.ProgramID) && isOnly(x.Link, click.LinkID)
}

// hadArrived reports whether a row of outcomes lies in the range of the file.
func (x *Export) hadArrived(partition int32, offset int64) bool {
	return offset < x.AsOf[partition] && (x.Since == nil || offset >= x.Since[partition])
}

// exportFile is the CSV of a run. Its lines are digested first, and kept on disk by
// partition: they are in another order than the events.
type exportFile struct {
	*Export
	tally   *Tally
	columns []ledger.Column
	fields  map[string]ledger.Field
	files   map[int32]*lineFile
	dir     string
	wanted  []wantedLine // whose cells are shown
}

// wantedLine is a line that differs, and the index of its difference in the tally.
type wantedLine struct {
	line       int64
	difference int
	derived    []string
}

// lineFile has the digests of a partition's lines.
//
//	+-----------------+----------+------------+
//	| offset of event | line     | digest     |
//	| 8 B             | 8 B      | 16 B       |
//	+-----------------+----------+------------+
type lineFile struct {
	file *os.File
	out  *bufio.Writer
}

const lineSize = 8 + 8 + 16

// isCompared reports whether the rules decide a column. The status of the partner now is
// the catalog's.
func isCompared(c ledger.Column) bool { return c.Name != "partner_relationship_now" }

// reusedFlag is on rows of an export whose event id counts under several tokens. The
// rules see one token.
const reusedFlag = "event_id_reused"

// openExport reads the CSV once.
func (v *verifier) openExport(ctx context.Context) error {
	x := &exportFile{
		Export:  v.Export,
		tally:   &Tally{Name: filepath.Base(v.Export.File)},
		columns: ledger.ColumnsOf(v.Export.Version),
		fields:  make(map[string]ledger.Field),
		files:   make(map[int32]*lineFile),
		dir:     v.dir,
	}
	for _, f := range ledger.OutcomeFields() {
		x.fields[f.Name] = f
	}
	v.export = x
	known := make(map[int32]bool)
	for _, p := range v.source.Partitions {
		known[p.ID] = true
	}
	sum := sha256.New()
	n := int64(0)
	err := x.eachLine(sum, func(line int64, cells []string) error {
		if n++; n%progressRecords == 0 {
			v.reportProgress("reading "+x.tally.Name, n, x.Rows)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return x.addLine(line, cells, known)
	})
	if err != nil {
		return fmt.Errorf("reading %s: %w", x.File, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != x.SHA256 || n != x.Rows {
		return x.tally.addDifference(Difference{
			Kind: Altered,
			Note: fmt.Sprintf("%d rows with sha256 %s; the manifest describes %d rows with %s",
				n, got, x.Rows, x.SHA256),
		}, nil)
	}
	return nil
}

// eachLine calls do with the cells of each row, and the number of the line that it
// begins in. All bytes go into sum, which may be nil.
func (x *exportFile) eachLine(sum hash.Hash, do func(line int64, cells []string) error) error {
	f, err := os.Open(x.File)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if sum != nil {
		in = io.TeeReader(f, sum)
	}
	buffered := bufio.NewReaderSize(in, 1<<20)
	if mark, _ := buffered.Peek(len(ledger.ByteOrderMark)); string(mark) == ledger.ByteOrderMark {
		buffered.Discard(len(mark))
	}
	r := csv.NewReader(buffered)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("reading the header: %w", err)
	}
	if text := strings.Join(header, ","); text != ledger.Header(x.Version) {
		return fmt.Errorf("the header is not that of schema_version %d: %.200q", x.Version, text)
	}
	r.FieldsPerRecord = len(x.columns)
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if err := do(int64(line), cells); err != nil {
			return err
		}
	}
}

// addLine keeps a row's digest with its partition.
func (x *exportFile) addLine(line int64, cells []string, known map[int32]bool) error {
	partition, err := strconv.ParseInt(cells[len(cells)-2], 10, 32)
	offset, err2 := strconv.ParseInt(cells[len(cells)-1], 10, 64)
	if err := errors.Join(err, err2); err != nil || !known[int32(partition)] {
		x.tally.Rows++
		return x.tally.addDifference(Difference{
			Kind: Surplus,
			Line: line,
			Note: fmt.Sprintf("its event_partition and event_offset are %q and %q",
				cells[len(cells)-2], cells[len(cells)-1]),
		}, nil)
	}
	f := x.files[int32(partition)]
	if f == nil {
		file, err := os.Create(filepath.Join(x.dir, fmt.Sprintf("lines-%d", partition)))
		if err != nil {
			return err
		}
		f = &lineFile{file, bufio.NewWriterSize(file, 32<<10)}
		x.files[int32(partition)] = f
	}
	var b [lineSize]byte
	binary.BigEndian.PutUint64(b[0:], uint64(offset))
	binary.BigEndian.PutUint64(b[8:], uint64(line))
	sum := x.digestCells(cells)
	copy(b[16:], sum[:])
	_, err = f.out.Write(b[:])
	return err
}

// digestCells digests the cells that are compared.
func (x *exportFile) digestCells(cells []string) (short digest) {
	var b []byte
	for i, c := range x.columns {
		if isCompared(c) {
			b = append(append(b, comparedCell(c, cells[i])...), 0)
		}
	}
	sum := sha256.Sum256(b)
	copy(short[:], sum[:])
	return short
}

// comparedCell is what is compared of a cell.
func comparedCell(c ledger.Column, cell string) string {
	if c.Name != "flags" {
		return cell
	}
	return strings.TrimSuffix(strings.TrimSuffix(cell, reusedFlag), "|")
}

// cellsOf makes the cells of an outcome. A column that is not compared is empty.
func (x *exportFile) cellsOf(o *event.Outcome) []string {
	row := *o
	if row.Click == nil {
		row.Click = &event.Click{}
	}
	cells := make([]string, len(x.columns))
	for i, c := range x.columns {
		var text string
		switch f, isStored := x.fields[c.Name]; {
		case c.Source == ledger.Derived:
			text = derivedCell(c.Name, &row)
		case c.Name == "clicked_at" && row.Click.ClickedAt == 0:
		case isStored:
			text = describeValue(f.Value(&row))
		}
		if c.Kind == ledger.Text || c.Kind == ledger.List {
			if !x.Raw {
				text = ledger.EscapeFormula(x.Version, text)
			}
			text = ledger.CleanText(text)
		}
		cells[i] = strings.ReplaceAll(text, "\r\n", "\n") // as a reader of CSV does
	}
	return cells
}

// derivedCell is the cell of a column that follows from the outcome.
func derivedCell(name string, o *event.Outcome) string {
	number := func(minor *int64, digits int32) string {
		if minor == nil {
			return ""
		}
		return event.Decimal(*minor, digits)
	}
	switch name {
	case "amount":
		return number(o.AmountMinor, o.Exponent)
	case "net_amount":
		if o.AmountMinor == nil {
			return ""
		}
		net := int64(o.Effect) * *o.AmountMinor
		return number(&net, o.Exponent)
	case "standing_change":
		return number(o.StandingChangeMinor, o.Exponent)
	case "clawback":
		if o.Effect == -1 {
			return "yes"
		}
	case "estimated_reward":
		return number(o.EstimatedRewardMinor, rewardExponent(o))
	}
	return ""
}

// rewardExponent is how many digits a reward has: its event's, in the event's currency.
func rewardExponent(o *event.Outcome) int32 {
	if o.RewardCurrency == o.Currency {
		return o.Exponent
	}
	if c, ok := currency.Lookup(o.RewardCurrency); ok {
		return c.Digits
	}
	return 2
}

// deriveLine sets the digest of an entry's line, and whether the filters select it.
func (v *verifier) deriveLine(e *entry, line *digest, o *event.Outcome, click []byte) error {
	row := *o
	if click != nil {
		row.Click = new(event.Click)
		if err := v.codec.DecodeClick(click, row.Click); err != nil {
			return err
		}
	}
	e.marks &^= isChosen
	if v.export.selects(&row, row.Click) {
		e.marks |= isChosen
	}
	*line = v.export.digestCells(v.export.cellsOf(&row))
	return nil
}

// compareExport compares the lines of a partition.
func (r *partitionRun) compareExport(context.Context) error {
	if r.export == nil {
		return nil
	}
	if f := r.export.files[r.part.ID]; f != nil {
		defer f.file.Close()
		if err := f.eachEntry(r.compareLine); err != nil {
			return fmt.Errorf("reading a temporary file: %w", err)
		}
	}
	for i := range r.entries {
		e := &r.entries[i]
		if e.seenLine > 0 || e.why != Derivable || !e.has(isChosen) || e.row < 0 ||
			!r.export.hadArrived(r.part.ID, e.row) {
			continue
		}
		if err := r.addMissing(r.export.tally, e, &Place{r.part.ID, e.row}); err != nil {
			return err
		}
	}
	return nil
}

func (f *lineFile) eachEntry(do func(offset, line int64, sum digest) error) error {
	err := f.out.Flush()
	if err == nil {
		_, err = f.file.Seek(0, io.SeekStart)
	}
	in := bufio.NewReaderSize(f.file, 32<<10)
	var b [lineSize]byte
	for err == nil {
		if _, err = io.ReadFull(in, b[:]); err == nil {
			err = do(int64(binary.BigEndian.Uint64(b[0:])), int64(binary.BigEndian.Uint64(b[8:])), digest(b[16:]))
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// isBehind reports whether a row must have come after the state that is verified: its
// event waited then.
func (r *partitionRun) isBehind(e *entry) bool {
	return e.why == Derivable && e.seenRow == 0 && !e.has(isDue)
}

// compareLine compares one line of the CSV.
func (r *partitionRun) compareLine(offset, line int64, sum digest) error {
	t := r.export.tally
	d := Difference{Kind: Surplus, Event: &Place{r.part.ID, offset}, Line: line}
	i, found := findEvent(r.entries, offset)
	waits := found && r.isBehind(&r.entries[i])
	// Of an export that was made before the state that is verified, no row came after.
	isOlder := r.export.AsOf[r.part.ID] <= r.part.Outcomes.End
	if !isOlder && (waits || !found && offset >= r.part.Conversions.End) {
		t.Pending++
		return nil
	}
	t.Rows++
	switch {
	case !found && offset < r.part.Conversions.Start:
		t.addUnproved(EventsExpired, *d.Event, Place{r.part.ID, -1})
		return nil
	case !found:
		d.Note = "conversions has no readable event of the workspace there"
	case !r.entries[i].has(inRange):
		d.Note = outOfRange
	case waits && r.entries[i].has(isOld):
		t.addUnproved(RowExpired, *d.Event, Place{r.part.ID, -1})
		return nil
	case waits:
		d.Note = stillWaits
	default:
		return r.compareCells(i, line, sum)
	}
	return t.addDifference(d, nil)
}

// compareCells compares one line of the CSV with the entry of its event.
func (r *partitionRun) compareCells(i int, line int64, sum digest) error {
	x, e := r.export, &r.entries[i]
	d := Difference{Event: r.eventPlace(e), Line: line}
	if e.row >= 0 {
		d.Row = &Place{r.part.ID, e.row}
	}
	switch {
	case e.seenLine > 0:
		d.Kind = Doubled
	case e.why != Derivable:
		x.tally.addUnproved(e.why, *d.Event, Place{r.part.ID, e.row})
	case sum != r.lines[i]:
		d.Kind = Differs
	case !e.has(isChosen), e.row >= 0 && !x.hadArrived(r.part.ID, e.row):
		d.Kind = Surplus
		d.Note = "the manifest's filters, or its as_of, leave this row out"
	case e.has(isLate):
		x.tally.Late++
	default:
		x.tally.Equal++
	}
	e.seenLine = 1
	if d.Kind == "" {
		return nil
	}
	return x.tally.addDifference(d, func(d *Difference) error {
		o, err := r.deriveEvent(e)
		if err != nil {
			return err
		}
		d.EventID = strings.Clone(o.EventID)
		if d.Kind == Differs {
			x.wanted = append(x.wanted, wantedLine{line, len(x.tally.Differences), x.cellsOf(o)})
		}
		return nil
	})
}

// describeLines reads the lines that differ once more, and says in which cells they do.
func (x *exportFile) describeLines() error {
	if len(x.wanted) == 0 {
		return nil
	}
	err := x.eachLine(nil, func(line int64, cells []string) error {
		for _, w := range x.wanted {
			if w.line != line {
				continue
			}
			d := &x.tally.Differences[w.difference]
			for i, c := range x.columns {
				if found := comparedCell(c, cells[i]); isCompared(c) && found != w.derived[i] {
					d.Fields = append(d.Fields, FieldDifference{c.Name, w.derived[i], strings.Clone(found)})
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %s again: %w", x.File, err)
	}
	return nil
}
