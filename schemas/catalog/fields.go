package catalog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The tables of this file say how each key of a catalog file is read and written.
// [Parse] and [Format] both follow them. Their order is that of the messages ("known
// are …") and of the files that Format writes.

// A field is one key of a mapping, bound to a Go value.
type field struct {
	key     string
	decode  func(d *decoder, n ast.Node, at *fieldPath) // reads the value, or adds a problem
	format  func() string                               // the value as YAML, or "" to leave the key out
	missing string                                      // the problem if the key is absent; "" if it may be
}

// A fieldTable lists the keys of one kind of mapping.
type fieldTable []field

func workspaceFields(w *Workspace) fieldTable {
	access := mappingField("access", accessFields(&w.Access))
	access.missing = "required: say which features the workspace may use"
	return fieldTable{
		textField("id", &w.ID),
		textField("name", &w.Name),
		textField("plan", &w.Plan),
		access,
		nonEmptyTextField("token_parameter", &w.TokenParameter),
		nonEmptyTextField("timezone", &w.Timezone),
		domainsField("domains", w),
		valueField("aliases", &w.Aliases, (*decoder).readTextMap, formatTextMap),
		listField("programs", &w.Programs, programFields),
		listField("partners", &w.Partners, partnerFields),
		listField("links", &w.Links, linkFields),
	}
}

func accessFields(a *Access) fieldTable {
	return fieldTable{
		flagField("conversion_tracking", &a.ConversionTracking),
		flagField("partner_reporting", &a.PartnerReporting),
		flagField("conversion_reporting", &a.ConversionReporting),
		flagField("exports", &a.Exports),
	}
}

func programFields(p *Program) fieldTable {
	return fieldTable{
		textField("id", &p.ID),
		textField("key", &p.Key),
		textField("name", &p.Name),
		nonEmptyTextField("status", &p.Status),
		valueField("window", &p.WindowMs, (*decoder).readWindow, formatDuration),
		valueField("follow", &p.FollowMs, (*decoder).readFollow, formatOptionalDuration),
		flagField("one_sale_per_order", &p.OneSalePerOrder),
		rewardField("reward", &p.Reward),
		mappingField("utm", utmFields(&p.UTM)),
	}
}

func rewardFields(r *Reward) fieldTable {
	return fieldTable{
		nonEmptyTextField("percent", &r.Percent),
		nonEmptyTextField("flat", &r.Flat),
		nonEmptyTextField("currency", &r.Currency),
	}
}

func utmFields(u *UTM) fieldTable {
	return fieldTable{
		textField("source", &u.Source),
		textField("medium", &u.Medium),
		textField("campaign", &u.Campaign),
		textField("term", &u.Term),
		textField("content", &u.Content),
	}
}

func partnerFields(p *Partner) fieldTable {
	return fieldTable{
		textField("id", &p.ID),
		textField("key", &p.Key),
		textField("name", &p.Name),
		textField("relationship", &p.Relationship),
		nonEmptyTextField("lifecycle", &p.Lifecycle),
	}
}

func linkFields(l *Link) fieldTable {
	return fieldTable{
		textField("id", &l.ID),
		textField("domain", &l.Domain),
		textField("slug", &l.Slug),
		textField("destination", &l.Destination),
		flagField("conversion_tracking", &l.ConversionTracking),
		nonEmptyTextField("token", &l.Token),
		flagField("forward_query", &l.ForwardQuery),
		nonEmptyTextField("status", &l.Status),
		textField("partner", &l.Partner),
		textField("program", &l.Program),
		textField("assignment_id", &l.AssignmentID),
		valueField("assigned_at", &l.AssignedAt, (*decoder).readTimestamp, formatTimestamp),
		textField("experiment", &l.Experiment),
		textField("variant", &l.Variant),
	}
}

// knownKeys lists the keys for a message.
func (t fieldTable) knownKeys() string {
	keys := make([]string, len(t))
	for i := range t {
		keys[i] = t[i].key
	}
	return strings.Join(keys, ", ")
}

func (t fieldTable) fieldOf(key string) *field {
	i := slices.IndexFunc(t, func(f field) bool { return f.key == key })
	if i < 0 {
		return nil
	}
	return &t[i]
}

// formatFlow writes the fields that have a value as {key: value, …}, or "" if none has.
func (t fieldTable) formatFlow() string {
	var pairs []string
	for i := range t {
		if value := t[i].format(); value != "" {
			pairs = append(pairs, t[i].key+": "+value)
		}
	}
	if len(pairs) == 0 {
		return ""
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

// valueField binds a Go value to the function that reads it and the one that writes it.
func valueField[T any](key string, value *T, read func(*decoder, ast.Node, *fieldPath) T,
	write func(T) string) field {
	return field{
		key:    key,
		decode: func(d *decoder, n ast.Node, at *fieldPath) { *value = read(d, n, at) },
		format: func() string { return write(*value) },
	}
}

// textField is text that may be empty: no key means the same.
func textField(key string, value *string) field {
	return valueField(key, value, (*decoder).readText, formatText)
}

// nonEmptyTextField is text where the empty text would silently mean the default.
func nonEmptyTextField(key string, value *string) field {
	return valueField(key, value, (*decoder).readNonEmptyText, formatText)
}

func flagField(key string, value *bool) field {
	return valueField(key, value, (*decoder).readFlag, strconv.FormatBool)
}

// mappingField is a mapping with fields of its own. Without any value it is left out.
func mappingField(key string, fields fieldTable) field {
	return field{
		key:    key,
		decode: func(d *decoder, n ast.Node, at *fieldPath) { d.readFields(n, at, fields) },
		format: fields.formatFlow,
	}
}

func rewardField(key string, value *Reward) field {
	f := mappingField(key, rewardFields(value))
	readFields := f.decode
	f.decode = func(d *decoder, n ast.Node, at *fieldPath) {
		readFields(d, n, at)
		if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 0 {
			d.addProblem(at, nodePosition(n), "needs percent, or flat and currency; leave it out for no reward")
		}
	}
	return f
}

// listField is a list of mappings, written with one mapping a line.
func listField[T any](key string, items *[]T, fields func(*T) fieldTable) field {
	return field{
		key: key,
		decode: func(d *decoder, n ast.Node, at *fieldPath) {
			d.eachItem(n, at, func(n ast.Node, at *fieldPath) {
				var item T
				d.readFields(n, at, fields(&item))
				*items = append(*items, item)
			})
		},
		format: func() string {
			var b strings.Builder
			for i := range *items {
				b.WriteString("\n      - " + cmp.Or(fields(&(*items)[i]).formatFlow(), "{}"))
			}
			return b.String()
		},
	}
}
