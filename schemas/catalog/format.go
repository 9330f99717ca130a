package catalog

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Format writes workspaces as a catalog file that [Parse] reads back to the same
// workspaces.
func Format(workspaces []Workspace) []byte {
	var b strings.Builder
	b.WriteString("workspaces:\n")
	for i := range workspaces {
		formatWorkspace(&b, &workspaces[i])
	}
	return []byte(b.String())
}

func formatWorkspace(b *strings.Builder, w *Workspace) {
	fmt.Fprintf(b, "  - id: %s\n", scalar(w.ID))
	fmt.Fprintf(b, "    name: %s\n", scalar(w.Name))
	fmt.Fprintf(b, "    plan: %s\n", scalar(w.Plan))
	fmt.Fprintf(b, "    access: {conversion_tracking: %t, partner_reporting: %t, conversion_reporting: %t, "+
		"exports: %t}\n",
		w.Access.ConversionTracking, w.Access.PartnerReporting, w.Access.ConversionReporting, w.Access.Exports)
	fmt.Fprintf(b, "    token_parameter: %s\n", scalar(w.TokenParameter))
	fmt.Fprintf(b, "    timezone: %s\n", scalar(w.Timezone))
	domains := make([]string, len(w.Domains))
	for i, d := range w.Domains {
		domains[i] = scalar(d)
	}
	fmt.Fprintf(b, "    domains: [%s]\n", strings.Join(domains, ", "))
	if len(w.Aliases) > 0 {
		var f fields
		for _, host := range slices.Sorted(maps.Keys(w.Aliases)) {
			f.raw(scalar(host), scalar(w.Aliases[host]))
		}
		fmt.Fprintf(b, "    aliases: %s\n", f)
	}
	formatList(b, "programs", w.Programs, formatProgram)
	formatList(b, "partners", w.Partners, formatPartner)
	formatList(b, "links", w.Links, formatLink)
}

func formatList[T any](b *strings.Builder, key string, items []T, format func(*T) fields) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "    %s:\n", key)
	for i := range items {
		fmt.Fprintf(b, "      - %s\n", format(&items[i]))
	}
}

func formatProgram(p *Program) (f fields) {
	f.text("id", p.ID)
	f.text("key", p.Key)
	f.text("name", p.Name)
	f.text("status", p.Status)
	f.raw("window", formatWindow(p.WindowMs))
	if p.Reward != (Reward{}) {
		var r fields
		r.text("percent", p.Reward.Percent)
		r.text("flat", p.Reward.Flat)
		r.text("currency", p.Reward.Currency)
		f.raw("reward", r.String())
	}
	if p.UTM != (UTM{}) {
		var u fields
		u.text("source", p.UTM.Source)
		u.text("medium", p.UTM.Medium)
		u.text("campaign", p.UTM.Campaign)
		u.text("term", p.UTM.Term)
		u.text("content", p.UTM.Content)
		f.raw("utm", u.String())
	}
	return f
}

func formatPartner(p *Partner) (f fields) {
	f.text("id", p.ID)
	f.text("key", p.Key)
	f.text("name", p.Name)
	f.text("relationship", p.Relationship)
	f.text("lifecycle", p.Lifecycle)
	return f
}

func formatLink(l *Link) (f fields) {
	f.text("id", l.ID)
	f.text("domain", l.Domain)
	f.text("slug", l.Slug)
	f.text("destination", l.Destination)
	f.raw("conversion_tracking", strconv.FormatBool(l.ConversionTracking))
	f.text("token", l.Token)
	f.raw("forward_query", strconv.FormatBool(l.ForwardQuery))
	f.text("status", l.Status)
	f.text("partner", l.Partner)
	f.text("program", l.Program)
	f.text("assignment_id", l.AssignmentID)
	if !l.AssignedAt.IsZero() {
		f.raw("assigned_at", strconv.Quote(l.AssignedAt.UTC().Format(time.RFC3339Nano)))
	}
	f.text("experiment", l.Experiment)
	f.text("variant", l.Variant)
	return f
}

// formatWindow uses the largest unit that fits.
func formatWindow(ms int64) string {
	s := ms / 1000
	switch {
	case s%86400 == 0:
		return fmt.Sprintf("%dd", s/86400)
	case s%3600 == 0:
		return fmt.Sprintf("%dh", s/3600)
	case s%60 == 0:
		return fmt.Sprintf("%dm", s/60)
	}
	return fmt.Sprintf("%ds", s)
}

// fields is a flow mapping in the making.
type fields []string

func (f *fields) raw(key, value string) { *f = append(*f, key+": "+value) }

// text leaves an empty value out.
func (f *fields) text(key, value string) {
	if value != "" {
		f.raw(key, scalar(value))
	}
}

func (f fields) String() string { return "{" + strings.Join(f, ", ") + "}" }

var plainScalar = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*$`)

// scalar quotes whatever YAML, in any of its versions, might take for something else
// than text.
func scalar(s string) string {
	if plainScalar.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y",
		"n"}, s) {
		return s
	}
	return strconv.Quote(s)
}
