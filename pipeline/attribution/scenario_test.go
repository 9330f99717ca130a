package attribution_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// The scenarios are the specification that people read. The language:
//
//	play          one token's script; its lines are read in this order
//	limit 98      the journey may have this many events, instead of 100,000
//	click [at=1s] [clicked=0s] [window=30d] [follow=0d] [one_sale_per_order] [reward=10%]
//	      [partner=none|review|paused] [workspace=acme] [status=appended] [bot]
//	              a click; at is when it reached Kafka. A second line reads the same click
//	              once more
//	sale S 100 [EUR] [of=ID] [order=ID] [at=…] [entered=…] [occurred=…] [workspace=acme]
//	      [body=…] [reason=…] [note=…]
//	              an event: type, id, amount and currency. at is when the gateway received
//	              it: a minute after the one before unless given, the first at 1h; entered
//	              and occurred are the same unless given. body is its name, note an entry
//	              of its metadata
//	due 4d [clicks=4d]
//	              time passes: all events (and clicks) that entered up to then have been
//	              read, and the rows of ended waits are written
//	upgrade       what is stored becomes what version 1 of the rules would have stored
//
// Times count from the click: 31d, 90m, 30d+1ms, -4m. The answer lists the rows as they
// are written: verdict, signed amount, parent, reward, the root's standing amount at
// that moment, and in parentheses what the row has changed of it; after a semicolon the
// flags. Then it lists what still waits, the sums, and how many events the journey
// keeps.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return playScript(t, d).finishAnswer()
		})
	})
}

// playScript plays one script to its end.
func playScript(t *testing.T, d *datadriven.TestData) *scriptPlayer {
	if d.Cmd != "play" {
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	s := newScriptPlayer(t, attribution.DefaultConfig())
	for line := range strings.Lines(d.Input) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := s.runLine(splitLine(fields)); err != nil {
				d.Fatalf(t, "%s: %v", strings.TrimSpace(line), err)
			}
		}
	}
	return s
}

var (
	epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	codec = event.DefaultCodec()
)

func at(d time.Duration) event.Millis { return event.MillisOf(epoch.Add(d)) }

func testToken(n uint64) [20]byte {
	var raw [20]byte
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(epoch.UnixMilli()))
	binary.BigEndian.PutUint64(raw[8:], n)
	return raw
}

// scriptPlayer runs the script of one token and collects the answer.
type scriptPlayer struct {
	t              testing.TB
	rules          *attribution.Rules
	rows           *memoryRows
	token          [20]byte
	tokenText      string
	clickBytes     []byte       // the click in the click log; nil before the first click line
	clickArrivedAt event.Millis // when it reached Kafka
	now            time.Duration
	offset         int64                       // of the latest event
	events         map[int64]*event.Conversion // by offset
	answer         []string                    // its lines so far
	net            map[string]int64            // by currency, minor units
	standing       map[string]int64            // changes by currency, minor units
	reward         map[string]int64            // by currency, minor units
	coverage       []coverageRow
}

func newScriptPlayer(t testing.TB, cfg attribution.Config) *scriptPlayer {
	rules, err := attribution.New(cfg, codec)
	if err != nil {
		t.Fatal(err)
	}
	raw := testToken(1)
	return &scriptPlayer{
		t:         t,
		rules:     rules,
		rows:      newRows(),
		token:     raw,
		tokenText: token.Text(&raw),
		now:       59 * time.Minute,
		events:    map[int64]*event.Conversion{},
		net:       map[string]int64{},
		standing:  map[string]int64{},
		reward:    map[string]int64{},
	}
}

func (s *scriptPlayer) findClick(raw *[20]byte) ([]byte, event.Millis, bool, error) {
	return s.clickBytes, s.clickArrivedAt, s.clickBytes != nil && *raw == s.token, nil
}

// scriptLine is a line of a script: a command, words, and options. Reading an option
// removes it; err is the first that could not be read.
type scriptLine struct {
	command string
	words   []string
	options map[string]string
	err     error
}

func splitLine(fields []string) *scriptLine {
	l := &scriptLine{command: fields[0], options: map[string]string{}}
	for _, f := range fields[1:] {
		if key, value, ok := strings.Cut(f, "="); ok {
			l.options[key] = value
		} else {
			l.words = append(l.words, f)
		}
	}
	return l
}

func (l *scriptLine) textOption(key, otherwise string) string {
	value, ok := l.options[key]
	if !ok {
		return otherwise
	}
	delete(l.options, key)
	return value
}

func (l *scriptLine) timeOption(key string, otherwise time.Duration) time.Duration {
	value, ok := l.options[key]
	if !ok {
		return otherwise
	}
	delete(l.options, key)
	return l.parseTime(value)
}

func (l *scriptLine) parseTime(text string) time.Duration {
	d, err := parseDuration(text)
	if l.err == nil {
		l.err = err
	}
	return d
}

// checkRead reports what could not be read, or was not.
func (l *scriptLine) checkRead() error {
	if l.err == nil && len(l.options) > 0 {
		return fmt.Errorf("unknown options %v", slices.Sorted(maps.Keys(l.options)))
	}
	return l.err
}

func (s *scriptPlayer) runLine(l *scriptLine) error {
	switch l.command {
	case "click":
		return s.runClick(l)
	case "limit":
		n, err := strconv.Atoi(strings.Join(l.words, ""))
		if err != nil {
			return err
		}
		s.rules.SetMaxEvents(n)
		return l.checkRead()
	case "due":
		through := l.parseTime(strings.Join(l.words, ""))
		clicks := l.timeOption("clicks", through)
		if err := l.checkRead(); err != nil {
			return err
		}
		return s.rules.CloseWaits(s.rows, s.findClick, &s.token, at(clicks), at(through), s.printOutcome)
	}
	if l.command == "upgrade" {
		writeVersion1(s.t, s.rows)
		return l.checkRead()
	}
	ev, err := s.parseEvent(l)
	if err != nil {
		return err
	}
	s.offset++
	s.events[s.offset] = ev
	src := attribution.Source{Partition: 3, Offset: s.offset}
	return s.rules.JudgeEvent(s.rows, s.findClick, ev, src, s.printOutcome)
}

func (s *scriptPlayer) runClick(l *scriptLine) error {
	c := &event.Click{
		WorkspaceID:         l.textOption("workspace", "acme"),
		ClickToken:          s.tokenText,
		ClickedAt:           at(l.timeOption("clicked", 0)),
		WindowMs:            l.timeOption("window", 30*24*time.Hour).Milliseconds(),
		FollowMs:            l.timeOption("follow", 0).Milliseconds(),
		TokenStatus:         event.TokenStatus(l.textOption("status", "appended")),
		Trigger:             event.TriggerLink,
		LinkID:              "lnk_1",
		Destination:         "https://shop.acme.com/",
		PartnerID:           "prt_1",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_1",
		RewardTerms:         strings.ReplaceAll(l.textOption("reward", "10%"), "_", " "),
	}
	switch partner := l.textOption("partner", ""); partner {
	case "none":
		c.PartnerID = ""
		c.PartnerRelationship = ""
		c.PartnerLifecycle = ""
	case "review":
		c.PartnerRelationship = partner
	case "paused":
		c.PartnerLifecycle = partner
	}
	if c.RewardTerms == "none" {
		c.RewardTerms = ""
	}
	for _, w := range l.words {
		switch w {
		case "bot":
			c.IsBot = true
		case "one_sale_per_order":
			c.OneSalePerOrder = true
		default:
			return fmt.Errorf("unknown word %q", w)
		}
	}
	arrivedAt := at(l.timeOption("at", time.Second))
	if err := l.checkRead(); err != nil {
		return err
	}
	wire, err := codec.AppendClick(nil, c)
	if err != nil {
		return err
	}
	if s.clickBytes == nil { // of a click sent twice, the first counts
		s.clickBytes = wire
		s.clickArrivedAt = arrivedAt
	}
	return s.rules.ApplyClick(s.rows, &s.token, slices.Clone(wire), arrivedAt, s.printOutcome)
}

var currencyDigits = map[string]int32{"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}

func (s *scriptPlayer) parseEvent(l *scriptLine) (*event.Conversion, error) {
	if !slices.Contains(event.Types(), event.Type(l.command)) || len(l.words) < 1 || len(l.words) > 3 {
		return nil, fmt.Errorf("want limit, click, due, upgrade, or an event's type, id, amount and currency")
	}
	s.now = l.timeOption("at", s.now+time.Minute)
	ev := &event.Conversion{
		WorkspaceID:   l.textOption("workspace", "acme"),
		EventID:       l.words[0],
		ClickToken:    s.tokenText,
		Type:          event.Type(l.command),
		EventName:     l.textOption("body", ""),
		ReceivedAt:    at(s.now),
		EnteredAt:     at(l.timeOption("entered", s.now)),
		OccurredAt:    at(l.timeOption("occurred", s.now)),
		OrderID:       l.textOption("order", ""),
		ParentEventID: l.textOption("of", ""),
		ReasonText:    l.textOption("reason", ""),
		ResolvedBy:    event.ResolvedByToken,
	}
	if note := l.textOption("note", ""); note != "" {
		ev.Metadata = map[string]string{"note": note}
	}
	if len(l.words) > 1 {
		ev.Currency = append(l.words, "EUR")[2]
		ev.Exponent = currencyDigits[ev.Currency]
		whole, fraction, _ := strings.Cut(l.words[1], ".")
		zeros := strings.Repeat("0", int(ev.Exponent)-len(fraction))
		minor, err := strconv.ParseInt(whole+fraction+zeros, 10, 64)
		if err != nil {
			return nil, err
		}
		ev.AmountMinor = &minor
	}
	ev.ContentSHA256 = ev.ContentHash()
	return ev, l.checkRead()
}

// printOutcome prints a row.
func (s *scriptPlayer) printOutcome(o *event.Outcome, click []byte) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s %s", o.EventID, o.Verdict)
	if o.Reason != "" {
		fmt.Fprintf(b, " %s", o.Reason)
	}
	switch {
	case o.Effect != 0 && o.AmountMinor == nil:
		fmt.Fprintf(b, " %+d", o.Effect)
	case o.Effect != 0:
		sign := map[int32]string{1: "+", -1: "-"}[o.Effect] // shown on 0.00 too
		fmt.Fprintf(b, " %s%s", sign, formatMoney(*o.AmountMinor, o.Currency))
		s.net[o.Currency] += int64(o.Effect) * *o.AmountMinor
	}
	if o.ParentType != "" {
		fmt.Fprintf(b, " of %s %s", o.ParentType, o.ParentEventID)
	}
	if o.FirstOffset != nil {
		fmt.Fprintf(b, " of event %d", *o.FirstOffset)
	}
	if o.Effect != 0 {
		if o.EstimatedRewardMinor == nil {
			b.WriteString(", no reward")
		} else {
			fmt.Fprintf(b, ", reward %s", formatMoney(*o.EstimatedRewardMinor, o.RewardCurrency))
			s.reward[o.RewardCurrency] += *o.EstimatedRewardMinor
		}
		fmt.Fprintf(b, ", standing %s", s.rootStanding(o))
	}
	if note := o.Metadata["note"]; note != "" {
		fmt.Fprintf(b, ", note %s", note)
	}
	if len(o.Flags) > 0 {
		fmt.Fprintf(b, "; %s", strings.Join(o.Flags, " "))
	}
	if o.Review == event.ReviewNeeded {
		b.WriteString("; review")
	}
	if click == nil {
		b.WriteString("; no click shown")
	}
	s.answer = append(s.answer, b.String())
	s.recordCoverage(o)
	return nil
}

func formatMoney(minor int64, currency string) string {
	return event.Decimal(minor, currencyDigits[currency]) + " " + currency
}

func formatSignedMoney(minor int64, currency string) string {
	if minor < 0 {
		return formatMoney(minor, currency)
	}
	return "+" + formatMoney(minor, currency)
}

func (s *scriptPlayer) storedEvent(id string) (e event.JourneyEvent) {
	key := event.AppendJourneyKey(nil, &s.token, event.KindEvent, id)
	if err := event.DecodeEvent(s.rows.values[string(key)], &e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// rootStanding prints the standing amount of an event's root, and what the row says to
// have changed of it.
func (s *scriptPlayer) rootStanding(o *event.Outcome) string {
	e := s.storedEvent(o.EventID)
	for e.Parent != "" {
		e = s.storedEvent(e.Parent)
	}
	if e.HasAmount != (o.StandingChangeMinor != nil) {
		s.t.Errorf("%s: standing change %v, the root's amount is %v", o.EventID, o.StandingChangeMinor, e.HasAmount)
	}
	if o.StandingChangeMinor == nil {
		return strconv.FormatInt(e.Standing(), 10)
	}
	change := *o.StandingChangeMinor
	s.standing[e.Currency] += change
	text := event.Decimal(change, currencyDigits[e.Currency])
	if change >= 0 {
		text = "+" + text
	}
	return fmt.Sprintf("%s (%s)", formatMoney(e.Standing(), e.Currency), text)
}

// finishAnswer completes the answer: what waits, the sums, and what is kept.
func (s *scriptPlayer) finishAnswer() string {
	waits := s.listWaits()
	lines := append(s.answer, waits...)
	if len(s.net) > 0 {
		lines = append(lines, "net "+formatSums(s.net, formatSignedMoney))
	}
	if len(s.standing) > 0 {
		lines = append(lines, "standing "+formatSums(s.standing, formatMoney))
	}
	if len(s.reward) > 0 {
		lines = append(lines, "rewards "+formatSums(s.reward, formatMoney))
	}
	head := s.rows.values[string(event.HeadKey(&s.token))]
	if head == nil {
		if len(s.rows.values) > 0 {
			s.t.Errorf("rows without a head: %q", slices.Sorted(maps.Keys(s.rows.values)))
		}
		return strings.Join(append(lines, "nothing is kept"), "\n") + "\n"
	}
	var h event.JourneyHead
	if err := event.DecodeHead(head, &h); err != nil {
		s.t.Fatal(err)
	}
	if n := len(s.rows.deadlines()); n != len(waits) || h.WaitClick+h.WaitParent != int64(n) {
		s.t.Errorf("%d deadlines, %d waits, head says %d", n, len(waits), h.WaitClick+h.WaitParent)
	}
	return strings.Join(append(lines, fmt.Sprintf("%d kept", h.Kept)), "\n") + "\n"
}

func (s *scriptPlayer) listWaits() (lines []string) {
	for _, key := range s.rows.scanned {
		_, kind, ok := event.ParseJourneyKey([]byte(key))
		missing := map[byte]string{event.KindWaitClick: "the click", event.KindWaitParent: "a parent"}[kind]
		if !ok || missing == "" {
			continue
		}
		var w event.JourneyWait
		if err := event.DecodeWait(s.rows.values[key], &w); err != nil {
			s.t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s waits for %s", w.Event.EventID, missing))
	}
	return lines
}

func formatSums(sums map[string]int64, format func(minor int64, currency string) string) string {
	var texts []string
	for _, currency := range slices.Sorted(maps.Keys(sums)) {
		texts = append(texts, format(sums[currency], currency))
	}
	return strings.Join(texts, ", ")
}

// parseDuration reads 30d, 1h30m or 30d+1ms.
func parseDuration(s string) (sum time.Duration, err error) {
	for part := range strings.SplitSeq(s, "+") {
		unit, text := time.Duration(0), part
		if n, ok := strings.CutSuffix(part, "d"); ok {
			unit, text = 24*time.Hour, n
		}
		if unit != 0 {
			n, err := strconv.Atoi(text)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * unit
			continue
		}
		d, err := time.ParseDuration(part)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}
