package catalog

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Ways in which a domain compares slugs.
const (
	SlugCaseExact  = "exact"  // the default
	SlugCaseIgnore = "ignore" // for links typed by hand and QR codes in capitals
)

// DomainSettings is how a domain answers beside its links. Its aliases answer likewise.
type DomainSettings struct {
	Root     string `json:"root,omitzero"`      // destination of the bare domain; "": 404
	NotFound string `json:"not_found,omitzero"` // destination of slugs that no link has; "": 404
	SlugCase string `json:"slug_case,omitzero"` // exact, ignore; "": exact
}

// domainEntry is a domain as a file has it: its host alone, or with settings.
type domainEntry struct {
	Host string
	DomainSettings
}

func domainFields(d *domainEntry) fieldTable {
	return fieldTable{
		textField("host", &d.Host),
		nonEmptyTextField("root", &d.Root),
		nonEmptyTextField("not_found", &d.NotFound),
		nonEmptyTextField("slug_case", &d.SlugCase),
	}
}

// domainsField is the list of a workspace's domains. An entry is text or a mapping.
func domainsField(key string, w *Workspace) field {
	return field{
		key: key,
		decode: func(d *decoder, n ast.Node, at *fieldPath) {
			d.eachItem(n, at, func(n ast.Node, at *fieldPath) {
				var entry domainEntry
				if _, ok := n.(*ast.MappingNode); ok {
					d.readFields(n, at, domainFields(&entry))
				} else {
					entry.Host = d.readText(n, at)
				}
				w.Domains = append(w.Domains, entry.Host)
				w.setDomain(entry.Host, entry.DomainSettings)
			})
		},
		format: func() string {
			entries := make([]string, len(w.Domains))
			for i, host := range w.Domains {
				entries[i] = quoteScalar(host)
				if settings, ok := w.Settings[host]; ok {
					entries[i] = domainFields(&domainEntry{host, settings}).formatFlow()
				}
			}
			return "[" + strings.Join(entries, ", ") + "]"
		},
	}
}

// setDomain keeps settings that are not the default.
func (w *Workspace) setDomain(host string, settings DomainSettings) {
	if settings.SlugCase == SlugCaseExact {
		settings.SlugCase = ""
	}
	if settings == (DomainSettings{}) {
		return
	}
	if w.Settings == nil {
		w.Settings = map[string]DomainSettings{}
	}
	w.Settings[host] = settings
}

// checkDomains checks the settings of the workspace's domains.
func (c *checker) checkDomains(w *Workspace, at *fieldPath) {
	for _, host := range slices.Sorted(maps.Keys(w.Settings)) {
		i := slices.Index(w.Domains, host)
		if i < 0 {
			c.addProblem(at.field("domains"), "settings of %q, which is not among the workspace's domains", host)
			continue
		}
		c.checkDomainSettings(w.Settings[host], at.field("domains").item(i))
	}
	c.checkSlugCase(w, at)
}

func (c *checker) checkDomainSettings(s DomainSettings, at *fieldPath) {
	if s.Root != "" {
		c.checkDestination(s.Root, at.field("root"))
	}
	if s.NotFound != "" {
		c.checkDestination(s.NotFound, at.field("not_found"))
	}
	c.checkOneOf(cmp.Or(s.SlugCase, SlugCaseExact), at.field("slug_case"), "slug_case", SlugCaseExact, SlugCaseIgnore)
}

// checkSlugCase refuses slugs that only their case tells apart, where it does not. An
// archived link gives way to an active one.
func (c *checker) checkSlugCase(w *Workspace, at *fieldPath) {
	seen := map[string]firstUse{}
	for i := range w.Links {
		l, here := &w.Links[i], at.field("links").item(i).field("slug")
		if w.Settings[l.Domain].SlugCase == SlugCaseIgnore && l.Slug != "" && l.Status != StatusArchived {
			c.checkUnique(seen, l.Domain+"/"+foldSlug(l.Slug), here, "address (slug_case: ignore)")
		}
	}
}

// foldSlug returns the form in which slugs are compared where case is ignored.
// Unicode's folding also makes one of ß and ss, of the two small sigmas and of ligatures
// and their letters.
func foldSlug(slug string) string {
	if !strings.ContainsFunc(slug, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.ToLower(slug)
	}
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(slug)))
}

// machinePaths are what browsers, crawlers, ad exchanges and phones ask every host for.
var machinePaths = []string{"robots.txt", "favicon.ico", "favicon.png", "favicon.svg", "apple-app-site-association",
	"browserconfig.xml", "sitemap.xml", "ads.txt", "app-ads.txt", "security.txt", "llms.txt"}

// IsMachinePath reports whether a slug is a path that programs ask every host for. A
// person is not sent there: without a link of that slug, not_found does not count for it.
func IsMachinePath(slug string) bool {
	return slices.Contains(machinePaths, slug) || strings.HasPrefix(slug, ".well-known/") ||
		strings.HasPrefix(slug, "apple-touch-icon")
}

// SlugOf returns the path of a short URL without its first slash and without one trailing
// slash, percent-decoded once; false if nothing is left. Only a literal trailing slash is
// removed: an encoded one is part of the slug.
func SlugOf(u *url.URL) (string, bool) {
	path := u.RawPath // set only if the client's encoding is not the default one
	if path == "" {
		path = u.Path
	}
	path, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "", false
	}
	path = strings.TrimSuffix(path, "/")
	if u.RawPath == "" {
		return path, path != ""
	}
	slug, err := url.PathUnescape(path)
	return slug, err == nil && slug != ""
}
