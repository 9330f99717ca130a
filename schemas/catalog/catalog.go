package catalog

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Plans, cheapest first. The last two include partner attribution.
const (
	PlanStarter      = "starter"
	PlanPlus         = "plus"
	PlanGrowth       = "growth"
	PlanProfessional = "professional"
	PlanEnterprise   = "enterprise"
)

// Statuses of programs and of partners (their lifecycle). Links and hosts are only
// active or archived.
const (
	StatusActive   = "active"
	StatusPaused   = "paused"
	StatusArchived = "archived"
)

// Relationships with a partner. Every one but approved makes conversions need review.
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
	// DefaultTokenParameter is the query parameter of the click token for a workspace
	// that sets none.
	DefaultTokenParameter = "nim_ct"
	// DefaultTimezone is the reporting time zone of a workspace that sets none.
	DefaultTimezone = "UTC"
	// DefaultWindow is the attribution window of a program that sets none, and of a
	// link without program.
	DefaultWindow = 30 * 24 * time.Hour
	// MaxWindow is the longest attribution window: clicks are kept that long.
	MaxWindow = 90 * 24 * time.Hour
	// MaxFollow is the longest that positives may follow an origin. It is shorter than
	// the life of a journey.
	MaxFollow = 390 * 24 * time.Hour
)

// Workspace is one merchant's account with everything it owns. In the topic, programs,
// partners and links are records of their own, so a Workspace from [View.Workspace] has
// none of the three.
type Workspace struct {
	ID             string            `json:"id"`              // [a-z0-9-]{1,64}
	Name           string            `json:"name"`            // for people; at most 200 characters
	Plan           string            `json:"plan"`            // one of the Plan constants
	Access         Access            `json:"access"`          // features that are switched on
	TokenParameter string            `json:"token_parameter"` // query parameter of the click token
	Timezone       string            `json:"timezone"`        // IANA name; days of reports and exports
	Domains        []string          `json:"domains"`         // each belongs to this workspace only
	Aliases        map[string]string `json:"aliases"`         // host → the domain as which it answers
	// how domains answer beside their links, by domain; without those of the default
	Settings map[string]DomainSettings `json:"-"`
	Programs []Program                 `json:"-"`
	Partners []Partner                 `json:"-"`
	Links    []Link                    `json:"-"`

	src *sourceFile // where it was read from; nil if it was made in Go or comes from a record
}

// Entitled reports whether the plan includes partner attribution. The access flags are
// separate.
func (w *Workspace) Entitled() bool {
	return w.Plan == PlanProfessional || w.Plan == PlanEnterprise
}

// Access holds the workspace's feature flags; a flag that a file leaves out is false.
type Access struct {
	ConversionTracking  bool `json:"conversion_tracking"`  // the gateway accepts the workspace's events
	PartnerReporting    bool `json:"partner_reporting"`    // the report shows partners' performance
	ConversionReporting bool `json:"conversion_reporting"` // the report shows single conversions
	Exports             bool `json:"exports"`              // conversions can be exported
}

// Program is a set of terms. Each click copies them, so an edit affects only later
// clicks.
type Program struct {
	ID       string `json:"id"`        // [A-Za-z0-9._-]{1,40}, unique in the workspace
	Key      string `json:"key"`       // the workspace's own name for it; same form
	Name     string `json:"name"`      // for people; at most 200 characters
	Status   string `json:"status"`    // active, paused, archived
	WindowMs int64  `json:"window_ms"` // milliseconds from click to a positive's occurred_at, inclusive
	// milliseconds from an origin's occurred_at to that of a positive that follows it
	// after the window, inclusive; 0: none does
	FollowMs        int64  `json:"follow_ms,omitzero"`
	OneSalePerOrder bool   `json:"one_sale_per_order,omitzero"` // a second sale of one order is unattributed
	Reward          Reward `json:"reward"`
	UTM             UTM    `json:"utm"`
}

// Reward is a share of the amount or a flat sum, as decimal strings. The zero value is
// no reward.
type Reward struct {
	Percent  string `json:"percent,omitzero"`  // 0 to 100, at most 4 decimals
	Flat     string `json:"flat,omitzero"`     // major units, with at most the currency's ISO 4217 digits
	Currency string `json:"currency,omitzero"` // of Flat
}

// Terms returns the text that is frozen on a click: "10%", "5.00 USD", or "" for no
// reward.
func (r Reward) Terms() string {
	switch {
	case r.Percent != "":
		return r.Percent + "%"
	case r.Flat != "":
		return r.Flat + " " + r.Currency
	}
	return ""
}

// UTM values are copied into the click, never into the destination. Each has at most
// 100 characters.
type UTM struct {
	Source   string `json:"source"`
	Medium   string `json:"medium"`
	Campaign string `json:"campaign"`
	Term     string `json:"term"`
	Content  string `json:"content"`
}

// Partner sends visitors and is credited with their conversions.
type Partner struct {
	ID           string `json:"id"`           // [A-Za-z0-9._-]{1,40}, unique in the workspace
	Key          string `json:"key"`          // the workspace's own name for it; same form
	Name         string `json:"name"`         // for people; at most 200 characters
	Relationship string `json:"relationship"` // one of the Relationship constants
	Lifecycle    string `json:"lifecycle"`    // active, paused, archived
}

// Link is one short URL. Domain and slug are its address; they belong to its id
// permanently.
type Link struct {
	// [A-Za-z0-9._-]{1,40}, unique in the workspace
	ID     string `json:"id"`
	Domain string `json:"domain"` // one of the workspace's
	// the URL's path without the first /; at most 128 bytes
	Slug               string `json:"slug"`
	Destination        string `json:"destination"`         // sent byte for byte; at most 2,048
	ConversionTracking bool   `json:"conversion_tracking"` // clicks get a token
	Token              string `json:"token"`               // auto, always, never
	// add the visited URL's query to the destination
	ForwardQuery bool      `json:"forward_query"`
	Status       string    `json:"status"`               // active, archived
	Partner      string    `json:"partner"`              // id, or "" for none
	Program      string    `json:"program"`              // id, or "" for none
	AssignmentID string    `json:"assignment_id"`        // of the link to the partner; "" for none
	AssignedAt   time.Time `json:"assigned_at,omitzero"` // UTC, milliseconds; zero if not known
	// copied into the click; at most 64 characters
	Experiment string `json:"experiment"`
	Variant    string `json:"variant"` // of the experiment; at most 64 characters
}

// Catalog is a set of workspaces that were checked, each alone and against each other.
// It does not change.
type Catalog struct {
	workspaces []Workspace // by id
	warnings   []*Problem
}

// New checks workspaces, from Go or from several calls of [Parse], against all rules,
// and returns all problems joined. It keeps a copy of its own with defaults filled in.
func New(workspaces []Workspace) (*Catalog, error) {
	own := make([]Workspace, len(workspaces))
	for i := range workspaces {
		own[i] = cloneWorkspace(&workspaces[i])
		fillDefaults(&own[i])
	}
	if err := joinProblems(checkWorkspaces(own)); err != nil {
		return nil, err
	}
	warnings := findWarnings(own)
	for i := range own {
		own[i].src = nil // frees the syntax tree
	}
	slices.SortFunc(own, func(a, b Workspace) int { return strings.Compare(a.ID, b.ID) })
	return &Catalog{workspaces: own, warnings: warnings}, nil
}

// Warnings returns what the catalog may have and its owner probably does not want: tracked
// links whose token is withheld, passwords in destinations, links that lead to other
// links. They stand in the order of the workspaces that [New] got.
func (c *Catalog) Warnings() []*Problem { return slices.Clone(c.warnings) }

// Workspaces returns a copy of the workspaces, sorted by id.
func (c *Catalog) Workspaces() []Workspace {
	out := make([]Workspace, len(c.workspaces))
	for i := range c.workspaces {
		out[i] = cloneWorkspace(&c.workspaces[i])
	}
	return out
}

func cloneWorkspace(w *Workspace) Workspace {
	c := *w
	c.Domains = slices.Clone(w.Domains)
	c.Settings = maps.Clone(w.Settings)
	c.Programs = slices.Clone(w.Programs)
	c.Partners = slices.Clone(w.Partners)
	c.Links = slices.Clone(w.Links)
	c.Aliases = make(map[string]string, len(w.Aliases))
	for host, domain := range w.Aliases {
		c.Aliases[host] = domain
	}
	return c
}

// fillDefaults sets the fields that a file may leave out.
func fillDefaults(w *Workspace) {
	setDefault(&w.TokenParameter, DefaultTokenParameter)
	setDefault(&w.Timezone, DefaultTimezone)
	if w.Domains == nil {
		w.Domains = []string{}
	}
	if w.Aliases == nil {
		w.Aliases = map[string]string{}
	}
	for i := range w.Programs {
		p := &w.Programs[i]
		setDefault(&p.Status, StatusActive)
		if p.WindowMs == 0 {
			p.WindowMs = DefaultWindow.Milliseconds()
		}
	}
	for i := range w.Partners {
		setDefault(&w.Partners[i].Lifecycle, StatusActive)
	}
	for i := range w.Links {
		l := &w.Links[i]
		setDefault(&l.Token, TokenAuto)
		setDefault(&l.Status, StatusActive)
		if !l.AssignedAt.IsZero() {
			l.AssignedAt = l.AssignedAt.UTC().Truncate(time.Millisecond)
		}
	}
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
