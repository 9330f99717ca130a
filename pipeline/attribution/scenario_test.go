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
//	play                          one token's story; what follows is read in this order
//	limit 98                      the journey may have so many events, instead of 100,000
//	click [at=1s] [clicked=0s] [window=30d] [reward=10%] [partner=none|review|paused] [workspace=acme] [status=appended] [bot]
//	                              a click; at is when it reached Kafka. Again: the same click is read once more
//	sale S 100 [EUR]              an event: type, id, amount and currency, then
//	  [of=ID] [order=ID] [at=…] [occurred=…] [workspace=acme] [body=…]
//	                              at is when the gateway received it: by default a minute after the one before, the first at 1h; occurred is by default the same
//	due 4d [clicks=4d]            time passes: events (and clicks) that were received up to then have been read, and the rows of ended waits are written
//
// Times count from the click: 31d, 90m, 30d+1ms, -4m. The answer lists the rows as they
// are written: verdict, signed amount, parent, reward, and what stands of the root
// then; behind a semicolon flags; then what still waits, the sums, and what the journey
// keeps.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return playScript(t, d).finish()
		})
	})
}

// playScript plays one story to its end.
func playScript(t *testing.T, d *datadriven.TestData) *story {
	if d.Cmd != "play" {
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	s := newStory(t, attribution.DefaultConfig())
	for line := range strings.Lines(d.Input) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := s.line(fields); err != nil {
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

// story plays one token.
type story struct {
	t      testing.TB
	rules  *attribution.Rules
	rows   *rowMap
	raw    [20]byte
	text   string
	wire   []byte // the click in the click log
	kafka  event.Millis
	now    time.Duration
	offset int64
	out    []string
	net    map[string]int64
	reward map[string]int64
	digits map[string]int32
	said   map[int64]*event.Conversion // by offset
	told   []told
}

func newStory(t testing.TB, cfg attribution.Config) *story {
	rules, err := attribution.New(cfg, codec)
	if err != nil {
		t.Fatal(err)
	}
	raw := testToken(1)
	return &story{t: t, rules: rules, rows: newRows(), raw: raw, text: token.Text(&raw), now: 59 * time.Minute,
		net: map[string]int64{}, reward: map[string]int64{}, digits: map[string]int32{},
		said: map[int64]*event.Conversion{}}
}

func (s *story) clicks(raw *[20]byte) ([]byte, event.Millis, bool, error) {
	return s.wire, s.kafka, s.wire != nil && *raw == s.raw, nil
}

func (s *story) line(f []string) error {
	kind, args := f[0], f[1:]
	var words []string
	options := map[string]string{}
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			options[k] = v
		} else {
			words = append(words, a)
		}
	}
	var err error
	duration := func(key string, otherwise time.Duration) time.Duration {
		v, ok := options[key]
		delete(options, key)
		if !ok {
			return otherwise
		}
		d, e := parseDuration(v)
		if e != nil {
			err = e
		}
		return d
	}
	text := func(key, otherwise string) string {
		v, ok := options[key]
		delete(options, key)
		if !ok {
			return otherwise
		}
		return v
	}
	switch kind {
	case "click":
		err2 := s.clickLine(words, duration, text)
		err = firstOf(err, err2)
	case "limit":
		n, e := strconv.Atoi(strings.Join(words, ""))
		err = firstOf(err, e)
		s.rules.SetMaxEvents(n)
	case "due":
		through, e := parseDuration(strings.Join(words, ""))
		clicks := duration("clicks", through)
		err = firstOf(err, e)
		if err == nil {
			err = s.rules.Due(s.rows, s.clicks, &s.raw, at(clicks), at(through), s.emit)
		}
	default:
		ev, e := s.eventLine(kind, words, duration, text)
		err = firstOf(err, e)
		if err == nil {
			s.offset++
			s.said[s.offset] = ev
			err = s.rules.Event(s.rows, s.clicks, ev, attribution.Source{Partition: 3, Offset: s.offset}, s.emit)
		}
	}
	if err == nil && len(options) > 0 {
		err = fmt.Errorf("unknown options %v", slices.Sorted(maps.Keys(options)))
	}
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *story) clickLine(words []string, duration func(string, time.Duration) time.Duration,
	text func(string, string) string) error {
	c := &event.Click{WorkspaceID: text("workspace", "acme"), ClickToken: s.text,
		ClickedAt: at(duration("clicked", 0)), WindowMs: duration("window", 30*24*time.Hour).Milliseconds(),
		TokenStatus: event.TokenStatus(text("status",
			"appended")), Trigger: event.TriggerLink, LinkID: "lnk_1", Destination: "https://shop.acme.com/",
		PartnerID: "prt_1", PartnerRelationship: "approved", PartnerLifecycle: "active", ProgramID: "prg_1",
		RewardTerms: strings.ReplaceAll(text("reward", "10%"), "_", " ")}
	switch partner := text("partner", ""); partner {
	case "none":
		c.PartnerID, c.PartnerRelationship, c.PartnerLifecycle = "", "", ""
	case "review":
		c.PartnerRelationship = partner
	case "paused":
		c.PartnerLifecycle = partner
	}
	if c.RewardTerms == "none" {
		c.RewardTerms = ""
	}
	for _, w := range words {
		if w != "bot" {
			return fmt.Errorf("unknown word %q", w)
		}
		c.IsBot = true
	}
	wire, err := codec.AppendClick(nil, c)
	if err != nil {
		return err
	}
	kafka := at(duration("at", time.Second))
	if s.wire == nil {
		s.wire, s.kafka = wire, kafka // of a click sent twice, the first counts
	}
	return s.rules.Click(s.rows, &s.raw, slices.Clone(wire), kafka, s.emit)
}

var digits = map[string]int32{"EUR": 2, "USD": 2, "JPY": 0, "KWD": 3}

func (s *story) eventLine(kind string, words []string, duration func(string, time.Duration) time.Duration,
	text func(string, string) string) (*event.Conversion, error) {
	if !slices.Contains(event.Types(), event.Type(kind)) || len(words) < 1 || len(words) > 3 {
		return nil, fmt.Errorf("want limit, click, due, or an event's type, id, amount and currency")
	}
	s.now = duration("at", s.now+time.Minute)
	ev := &event.Conversion{WorkspaceID: text("workspace", "acme"), EventID: words[0], ClickToken: s.text,
		Type: event.Type(kind), EventName: text("body", ""), ReceivedAt: at(s.now),
		OccurredAt: at(duration("occurred", s.now)), OrderID: text("order", ""), ParentEventID: text("of", "")}
	if len(words) > 1 {
		ev.Currency = append(words, "EUR")[2]
		ev.Exponent = digits[ev.Currency]
		whole, fraction, _ := strings.Cut(words[1], ".")
		minor, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", int(ev.Exponent)-len(fraction)), 10, 64)
		if err != nil {
			return nil, err
		}
		ev.AmountMinor = &minor
	}
	ev.ContentSHA256 = ev.Content()
	return ev, nil
}

// emit prints a row.
func (s *story) emit(o *event.Outcome, click []byte) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s %s", o.EventID, o.Verdict)
	if o.Reason != "" {
		fmt.Fprintf(b, " %s", o.Reason)
	}
	switch {
	case o.Effect != 0 && o.AmountMinor == nil:
		fmt.Fprintf(b, " %+d", o.Effect)
	case o.Effect != 0:
		signed := int64(o.Effect) * *o.AmountMinor
		sign := map[int32]string{1: "+", -1: "-"}[o.Effect]
		fmt.Fprintf(b, " %s%s", sign, s.money(*o.AmountMinor, o.Currency, false))
		s.net[o.Currency] += signed
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
			fmt.Fprintf(b, ", reward %s", s.money(*o.EstimatedRewardMinor, o.RewardCurrency, false))
			s.reward[o.RewardCurrency] += *o.EstimatedRewardMinor
		}
		fmt.Fprintf(b, ", %s stands", s.standing(o.EventID))
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
	s.out = append(s.out, b.String())
	s.tell(o)
	return nil
}

func (s *story) money(minor int64, currency string, plus bool) string {
	text := event.Decimal(minor, digits[currency])
	if plus && minor >= 0 {
		text = "+" + text
	}
	return text + " " + currency
}

func (s *story) row(id string) (e event.JourneyEvent) {
	if err := event.DecodeEvent(s.rows.values[string(event.AppendJourneyKey(nil, &s.raw, event.KindEvent, id))],
		&e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// standing prints what stands of the root of an event.
func (s *story) standing(id string) string {
	e := s.row(id)
	for e.Parent != "" {
		e = s.row(e.Parent)
	}
	if !e.HasAmount {
		return strconv.FormatInt(e.Standing(), 10)
	}
	return s.money(e.Standing(), e.Currency, false)
}

func (s *story) finish() string {
	var waits []string
	for _, k := range s.rows.scanned {
		if _, kind, ok := event.ParseJourneyKey([]byte(k)); ok && (kind == event.KindWaitClick ||
			kind == event.KindWaitParent) {
			var w event.JourneyWait
			if err := event.DecodeWait(s.rows.values[k], &w); err != nil {
				s.t.Fatal(err)
			}
			what := map[byte]string{event.KindWaitClick: "the click", event.KindWaitParent: "a parent"}[kind]
			waits = append(waits, fmt.Sprintf("%s waits for %s", w.Event.EventID, what))
		}
	}
	out := append(s.out, waits...)
	if sums := s.sums(s.net, true); sums != "" {
		out = append(out, "net "+sums)
	}
	if sums := s.sums(s.reward, false); sums != "" {
		out = append(out, "rewards "+sums)
	}
	var h event.JourneyHead
	head := s.rows.values[string(event.HeadKey(&s.raw))]
	if head == nil {
		if len(s.rows.values) > 0 {
			s.t.Errorf("rows without a head: %q", slices.Sorted(maps.Keys(s.rows.values)))
		}
		return strings.Join(append(out, "nothing is kept"), "\n") + "\n"
	}
	if err := event.DecodeHead(head, &h); err != nil {
		s.t.Fatal(err)
	}
	if n := len(s.rows.deadlines()); n != len(waits) || h.WaitClick+h.WaitParent != int64(n) {
		s.t.Errorf("%d deadlines, %d waits, head says %d", n, len(waits), h.WaitClick+h.WaitParent)
	}
	return strings.Join(append(out, fmt.Sprintf("%d kept", h.Kept)), "\n") + "\n"
}

func (s *story) sums(by map[string]int64, plus bool) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, s.money(by[c], c, plus))
	}
	return strings.Join(parts, ", ")
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
