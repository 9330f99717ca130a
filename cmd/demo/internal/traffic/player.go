package traffic

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// player turns the steps of one token's journey into events.
type player struct {
	generator *generator
	prefix    string       // of the journey's ids
	workspace string       // of the click
	foreign   string       // another workspace whose merchant may send events, "" if none
	token     string       // of the click
	clicked   event.Millis // when the click was made
	rng       *rand.Rand   // draws amounts and tokens

	steps    int                     // played so far
	minor    int64                   // amount drawn last, in minor units
	currency string                  // of minor; "" before the first draw
	occurred map[string]event.Millis // by event id: a repeated event keeps its occurred_at
}

func (r *generator) newPlayer(prefix, workspace, tok string, rng *rand.Rand) *player {
	return &player{
		generator: r,
		prefix:    prefix,
		workspace: workspace,
		token:     tok,
		clicked:   event.MillisOf(r.cfg.Now()),
		rng:       rng,
		occurred:  make(map[string]event.Millis),
	}
}

// nextEvent returns the event of a step.
func (t *player) nextEvent(s step) (*message, error) {
	t.steps++
	name := func(prefix, id string) string {
		if id == "" {
			return ""
		}
		return t.prefix + "-" + prefix + id
	}
	m := &message{twin: s.twin, wantRefusal: s.refused, Conversion: event.Conversion{
		WorkspaceID:   t.workspace,
		EventID:       name("", s.id),
		ClickToken:    t.token,
		Type:          s.typ,
		EventName:     s.name,
		OrderID:       name("o", s.order),
		ParentEventID: name("", s.parent),
	}}
	if s.typ == event.Sale {
		m.EventName = cmp.Or(s.name, "checkout")
		m.CustomerRef = t.prefix + "-käufer"
		m.Metadata = map[string]string{"store": "eu-1", "basket": "b" + t.prefix}
		quantity := int32(1 + len(t.prefix)%3)
		m.Quantity = &quantity
	} else if s.typ != event.Lead {
		m.ReasonText = "as agreed with \"customer\" <3"
	}
	if s.foreign {
		m.WorkspaceID = t.foreign
	}
	t.setOccurredAt(m, s)
	if err := t.setAmount(m, s); err != nil {
		return nil, err
	}
	return m, t.replaceToken(m, s)
}

func (t *player) setOccurredAt(m *message, s step) {
	at, again := t.occurred[m.EventID]
	switch {
	case s.at != nil:
		at = t.clicked.Add(*s.at)
	case !again:
		// At most 5 minutes from now, or the gateway refuses it; more than a second, or
		// the processor flags it as too fast.
		at = t.clicked.Add(2*time.Second + time.Duration(t.steps)*20*time.Second)
	}
	t.occurred[m.EventID], m.OccurredAt = at, at
}

// setAmount sets amount and currency: those of the step, or for its words those drawn
// last or now.
func (t *player) setAmount(m *message, s step) error {
	if s.amount == "" {
		return nil
	}
	if s.amount == "any" || t.currency == "" {
		t.currency = []string{"EUR", "EUR", "EUR", "EUR", "USD", "USD", "JPY"}[t.rng.IntN(7)]
		t.minor = 500 + t.rng.Int64N(50_000)
	}
	minor, currency := t.minor, t.currency
	switch s.amount {
	case "any", "same":
	case "part":
		minor = 1 + t.rng.Int64N(t.minor)
	case "more":
		minor = t.minor + t.rng.Int64N(1000)
	case "other":
		currency = map[string]string{"EUR": "USD"}[currency]
		currency = cmp.Or(currency, "EUR")
	default:
		var err error
		if minor, err = minorUnits(s.amount, s.currency); err != nil {
			return err
		}
		currency = s.currency
	}
	m.AmountMinor = &minor
	m.Currency = currency
	m.Exponent = exponents[currency]
	return nil
}

// replaceToken gives the event another token than the journey's if the step says so.
func (t *player) replaceToken(m *message, s step) error {
	switch s.token {
	case "":
		return nil
	case "forged":
		raw, err := token.Parse(t.token)
		raw[5] ^= 1
		m.ClickToken = token.Text(&raw)
		return err
	}
	at := t.clicked.Time()
	if s.token == "old" {
		at = at.AddDate(0, 0, -60)
	}
	raw, err := t.generator.cfg.Keys.Mint(t.workspace, at, newTokenSource(t.rng.Uint64()))
	m.ClickToken = token.Text(&raw)
	return err
}

// newTokenSource returns the random bytes of tokens that are minted here.
func newTokenSource(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// expectedRow is a row that a scenario expects.
type expectedRow struct {
	scenario                  string // its name
	workspace, token, eventID string // which event
	want                      string // as formatRow prints it
	mayWait                   bool   // the event may have no row yet
}

// lateScenario is a scenario whose late steps have not been played.
type lateScenario struct {
	scenario *scenario
	player   *player
	due      time.Time // when all waits of the other steps have ended
}

// playScenarios plays each scenario on a link of its kind. It leaves out a scenario if
// the catalog has no such link, or if the scenario needs keys or a second workspace
// that do not exist.
func (r *generator) playScenarios(ctx context.Context, scenarios []scenario) (late []lateScenario, err error) {
	for i := range scenarios {
		r.reportProgress(i, len(scenarios), PhaseScenarios)
		s := &scenarios[i]
		rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(i)<<32))
		if s.needsKeys && r.cfg.Keys == nil {
			continue
		}
		tok, target, err := r.clickForKind(ctx, s.link)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if tok == "" {
			continue
		}
		t := r.newPlayer(fmt.Sprintf("%s-s%d", r.eventIDPrefix, i+1), target.workspace.ID, tok, rng)
		if t.foreign = r.otherMerchant(t.workspace); s.needsOther && t.foreign == "" {
			continue
		}
		if err := r.playSteps(ctx, s, t, s.steps); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if s.late != nil && r.cfg.Grace <= MaxGrace {
			late = append(late, lateScenario{s, t, r.cfg.Now().Add(r.cfg.Grace + 50*time.Millisecond)})
		}
	}
	r.reportProgress(len(scenarios), len(scenarios), PhaseScenarios)
	return late, nil
}

func (r *generator) playLateSteps(ctx context.Context, late []lateScenario) error {
	for i, l := range late {
		r.reportProgress(i, len(late), PhaseLate)
		if err := waitOrDone(ctx, l.due.Sub(r.cfg.Now())); err != nil {
			return err
		}
		if err := r.playSteps(ctx, l.scenario, l.player, l.scenario.late); err != nil {
			return fmt.Errorf("%s: %w", l.scenario.name, err)
		}
	}
	r.reportProgress(len(late), len(late), PhaseLate)
	return nil
}

// clickForKind follows the first link of the kind that shows a token.
func (r *generator) clickForKind(ctx context.Context, kind string) (string, *target, error) {
	for i := range r.targets {
		t := &r.targets[i]
		_, merchant := r.client.secrets[t.workspace.ID]
		if !merchant || t.hidden || !t.fitsKind(kind) {
			continue
		}
		v := visit{target: t, agent: browsers[i%len(browsers)], referrer: referrers[0]}
		if t.link.ForwardQuery {
			v.extra = "color=red%20or%2fand+blue&size="
			v.forwarded = v.extra
		}
		tok, err := r.client.followLink(ctx, &v)
		if err != nil || tok != "" {
			return tok, t, err
		}
	}
	return "", nil, nil
}

func (t *target) fitsKind(kind string) bool {
	approved := t.partner != nil && t.partner.Relationship == catalog.RelationshipApproved
	switch kind {
	case "percent":
		return approved && t.program != nil && t.program.Reward.Percent != ""
	case "flat":
		return t.partner != nil && t.program != nil && t.program.Reward.Flat != ""
	case "follow":
		return approved && t.program != nil && t.program.FollowMs > 0
	case "none":
		return t.partner == nil
	}
	return false
}

// otherMerchant returns another workspace that may post events, "" if there is none.
func (r *generator) otherMerchant(workspace string) string {
	for i := range r.targets {
		w := r.targets[i].workspace
		if _, ok := r.client.secrets[w.ID]; ok && w.ID != workspace && w.Access.ConversionTracking {
			return w.ID
		}
	}
	return ""
}

func (r *generator) playSteps(ctx context.Context, s *scenario, t *player, steps []step) error {
	var events []*message
	for _, st := range steps {
		m, err := t.nextEvent(st)
		if err != nil {
			return err
		}
		events = append(events, m)
		if st.refused == nil && st.want != "" {
			r.ledger.expectedRows = append(r.ledger.expectedRows, expectedRow{
				scenario:  s.name,
				workspace: m.WorkspaceID,
				token:     m.ClickToken,
				eventID:   m.EventID,
				want:      st.want,
				mayWait:   r.cfg.Grace > MaxGrace && strings.Contains(st.want, "_not_found"),
			})
		}
	}
	if s.batch {
		return r.client.sendBatch(ctx, t.workspace, fmt.Sprint("msg-", t.prefix), events)
	}
	for _, m := range events {
		r.ledger.scenarioEvents++
		id := fmt.Sprintf("msg-%s-%d", t.prefix, r.ledger.scenarioEvents)
		if err := r.client.sendEvent(ctx, m, id); err != nil {
			return err
		}
	}
	return nil
}

// CheckScenarios compares the verdicts of the scenarios with what a person expects. It
// presumes that each click reached the processor within the grace. It returns nil if
// all verdicts are as expected.
func (l *Ledger) CheckScenarios(outcomes []event.Outcome) []string {
	type key struct{ workspace, token, eventID string }
	rows := make(map[key][]*event.Outcome)
	for i := range outcomes {
		o := &outcomes[i]
		k := key{o.WorkspaceID, o.ClickToken, o.EventID}
		rows[k] = append(rows[k], o)
	}
	for _, r := range rows {
		slices.SortFunc(r, func(a, b *event.Outcome) int { return cmp.Compare(a.EventOffset, b.EventOffset) })
	}
	var f findings
	for _, want := range l.expectedRows {
		k := key{want.workspace, want.token, want.eventID}
		if len(rows[k]) == 0 {
			if !want.mayWait {
				f.addFinding("%s: %s has no row, want %s", want.scenario, want.eventID, want.want)
			}
			continue
		}
		if got := formatRow(rows[k][0]); got != want.want {
			f.addFinding("%s: %s is %q, want %q", want.scenario, want.eventID, got, want.want)
		}
		rows[k] = rows[k][1:]
	}
	return f.limited()
}

// formatRow prints the part of a row that scenarios expect. It leaves out the flags that
// the click decides, and dated_back, which a run at midnight would get by chance.
func formatRow(o *event.Outcome) string {
	words := []string{string(o.Verdict)}
	if o.Reason != "" {
		words = append(words, o.Reason)
	}
	if o.Effect != 0 {
		sign, amount := "+", "1"
		if o.Effect < 0 {
			sign = "-"
		}
		if o.AmountMinor != nil {
			amount = event.Decimal(*o.AmountMinor, o.Exponent) + " " + o.Currency
		}
		words = append(words, sign+amount)
	}
	for _, flag := range o.Flags {
		switch flag {
		case event.FlagOverReversed, event.FlagCurrencyMismatch, event.FlagAmountMissing, event.FlagParentInferred,
			event.FlagWithoutEffect, event.FlagMoneyDiffers, event.FlagOrderRepeated:
			words = append(words, flag)
		}
	}
	return strings.Join(words, " ")
}
