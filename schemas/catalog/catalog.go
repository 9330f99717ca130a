package catalog

import (
	"slices"
	"strings"
	"time"
)

// Plans, cheapest first. The last two are entitled to partner attribution.
const (
	PlanStarter      = "starter"
	PlanPlus         = "plus"
	PlanGrowth       = "growth"
	PlanProfessional = "professional"
	PlanEnterprise   = "enterprise"
)

// States of a program, a partner's lifecycle, a link (active or archived) and a host
// (active or archived).
const (
	StatusActive   = "active"
	StatusPaused   = "paused"
	StatusArchived = "archived"
)

// States of the relationship with a partner. Only approved is free of review.
const (
	RelationshipApproved    = "approved"
	RelationshipReview      = "review"
	RelationshipInvited     = "invited"
	RelationshipDeclined    = "declined"
	RelationshipBanned      = "banned"
	RelationshipDeactivated = "deactivated"
)

// Token settings of a link.
const (
	TokenAuto   = "auto"   // shown where the destination is safe to modify
	TokenAlways = "always" // shown on signed and OAuth destinations too
	TokenNever  = "never"
)

const (
	// DefaultTokenParameter is the query parameter of the click token where a workspace
	// names none.
	DefaultTokenParameter = "nim_ct"
	// DefaultTimezone is the reporting time zone where a workspace names none.
	DefaultTimezone = "UTC"
	// DefaultWindow is the attribution window of a program that names none, and of a
	// link without program.
	DefaultWindow = 30 * 24 * time.Hour
	// MaxWindow bounds a program's window: clicks are kept that long.
	MaxWindow = 90 * 24 * time.Hour
)

// Workspace is one tenant with everything it owns. In the topic, programs, partners and
// links are records of their own, so a Workspace from [View.Workspace] has none of the
// three.
type Workspace struct {
	ID             string            `json:"id"` // [a-z0-9-]{1,64}
	Name           string            `json:"name"`
	Plan           string            `json:"plan"`
	Access         Access            `json:"access"`
	TokenParameter string            `json:"token_parameter"`
	Timezone       string            `json:"timezone"` // IANA name
	Domains        []string          `json:"domains"`  // each belongs to this workspace only
	Aliases        map[string]string `json:"aliases"`  // host → the domain as which it answers
	Programs       []Program         `json:"-"`
	Partners       []Partner         `json:"-"`
	Links          []Link            `json:"-"`

	src *source // where it was read from; nil if it was made in Go or comes from a record
}

// Entitled says whether the plan includes partner attribution. The access flags are
// asked separately.
func (w *Workspace) Entitled() bool {
	return w.Plan == PlanProfessional || w.Plan == PlanEnterprise
}

// Access holds the workspace's feature flags; a flag that a file leaves out is false.
type Access struct {
	ConversionTracking  bool `json:"conversion_tracking"`
	PartnerReporting    bool `json:"partner_reporting"`
	ConversionReporting bool `json:"conversion_reporting"`
	Exports             bool `json:"exports"`
}

// Program is a set of terms. They are copied into every click, so an edit changes only
// clicks to come.
type Program struct {
	ID       string `json:"id"`
	Key      string `json:"key"`
	Name     string `json:"name"`
	Status   string `json:"status"`    // active, paused, archived
	WindowMs int64  `json:"window_ms"` // milliseconds from click to a positive's occurred_at, inclusive
	Reward   Reward `json:"reward"`
	UTM      UTM    `json:"utm"`
}

// Reward is a share of the amount or a flat sum, as decimal strings; the zero value is
// no reward.
type Reward struct {
	Percent  string `json:"percent,omitzero"`  // 0 to 100, at most 4 decimals
	Flat     string `json:"flat,omitzero"`     // with at most the currency's ISO 4217 digits
	Currency string `json:"currency,omitzero"` // of Flat
}

// Terms is the text that is frozen on a click: "10%", "5.00 USD", or "" for no reward.
func (r Reward) Terms() string {
	switch {
	case r.Percent != "":
		return r.Percent + "%"
	case r.Flat != "":
		return r.Flat + " " + r.Currency
	}
	return ""
}

// UTM values are copied into the click, never into the destination.
type UTM struct {
	Source   string `json:"source"`
	Medium   string `json:"medium"`
	Campaign string `json:"campaign"`
	Term     string `json:"term"`
	Content  string `json:"content"`
}

// Partner is who may have earned a conversion.
type Partner struct {
	ID           string `json:"id"`
	Key          string `json:"key"`
	Name         string `json:"name"`
	Relationship string `json:"relationship"`
	Lifecycle    string `json:"lifecycle"` // active, paused, archived
}

// Link is one short URL. Domain and slug are its address, and stay with its id for
// ever.
type Link struct {
	ID                 string    `json:"id"`
	Domain             string    `json:"domain"`
	Slug               string    `json:"slug"`
	Destination        string    `json:"destination"` // passed on byte for byte
	ConversionTracking bool      `json:"conversion_tracking"`
	Token              string    `json:"token"` // auto, always, never
	ForwardQuery       bool      `json:"forward_query"`
	Status             string    `json:"status"`  // active, archived
	Partner            string    `json:"partner"` // id, or "" for none
	Program            string    `json:"program"` // id, or "" for none
	AssignmentID       string    `json:"assignment_id"`
	AssignedAt         time.Time `json:"assigned_at,omitzero"` // UTC, milliseconds
	Experiment         string    `json:"experiment"`
	Variant            string    `json:"variant"`
}

// Catalog is a set of workspaces that were checked, alone and against each other. It
// does not change.
type Catalog struct {
	workspaces []Workspace // by id
}

// New checks workspaces, from Go or from several calls of [Parse], against all rules,
// and reports every problem joined. It keeps its own copy, with defaults filled in.
func New(workspaces []Workspace) (*Catalog, error) {
	own := make([]Workspace, len(workspaces))
	for i := range workspaces {
		own[i] = clone(&workspaces[i])
		fillDefaults(&own[i])
	}
	if err := joinProblems(validate(own)); err != nil {
		return nil, err
	}
	for i := range own {
		own[i].src = nil // the syntax tree is of no more use
	}
	slices.SortFunc(own, func(a, b Workspace) int { return strings.Compare(a.ID, b.ID) })
	return &Catalog{workspaces: own}, nil
}

// Workspaces returns a copy of what the catalog holds, by id.
func (c *Catalog) Workspaces() []Workspace {
	out := make([]Workspace, len(c.workspaces))
	for i := range c.workspaces {
		out[i] = clone(&c.workspaces[i])
	}
	return out
}

func clone(w *Workspace) Workspace {
	c := *w
	c.Domains = slices.Clone(w.Domains)
	c.Programs = slices.Clone(w.Programs)
	c.Partners = slices.Clone(w.Partners)
	c.Links = slices.Clone(w.Links)
	c.Aliases = make(map[string]string, len(w.Aliases))
	for host, domain := range w.Aliases {
		c.Aliases[host] = domain
	}
	return c
}

// fillDefaults makes everything explicit that a file may leave out.
func fillDefaults(w *Workspace) {
	orElse(&w.TokenParameter, DefaultTokenParameter)
	orElse(&w.Timezone, DefaultTimezone)
	if w.Domains == nil {
		w.Domains = []string{}
	}
	if w.Aliases == nil {
		w.Aliases = map[string]string{}
	}
	for i := range w.Programs {
		p := &w.Programs[i]
		orElse(&p.Status, StatusActive)
		if p.WindowMs == 0 {
			p.WindowMs = DefaultWindow.Milliseconds()
		}
	}
	for i := range w.Partners {
		orElse(&w.Partners[i].Lifecycle, StatusActive)
	}
	for i := range w.Links {
		l := &w.Links[i]
		orElse(&l.Token, TokenAuto)
		orElse(&l.Status, StatusActive)
		if !l.AssignedAt.IsZero() {
			l.AssignedAt = l.AssignedAt.UTC().Truncate(time.Millisecond)
		}
	}
}

func orElse(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
