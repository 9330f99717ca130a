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

// Format writes workspaces as a catalog file, from which [Parse] reads the same
// workspaces.
func Format(workspaces []Workspace) []byte {
	var b strings.Builder
	b.WriteString("workspaces:\n")
	for i := range workspaces {
		indent := "  - "
		for _, f := range workspaceFields(&workspaces[i]) {
			value := f.format()
			if value == "" {
				continue
			}
			b.WriteString(indent + f.key + ":")
			if value[0] != '\n' {
				b.WriteByte(' ')
			}
			b.WriteString(value + "\n")
			indent = "    "
		}
	}
	return []byte(b.String())
}

func formatOptionalDuration(ms int64) string {
	if ms == 0 {
		return ""
	}
	return formatDuration(ms)
}

// formatDuration uses the largest unit that gives a whole number.
func formatDuration(ms int64) string {
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

func formatTimestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.Quote(t.UTC().Format(time.RFC3339Nano))
}

func formatText(s string) string {
	if s == "" {
		return ""
	}
	return quoteScalar(s)
}

func formatTextMap(texts map[string]string) string {
	if len(texts) == 0 {
		return ""
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		pairs = append(pairs, quoteScalar(key)+": "+quoteScalar(texts[key]))
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

var (
	plainScalar = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*$`)
	// plain words that some version of YAML reads as a flag or as null
	yamlWords = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
)

// quoteScalar quotes all text that any version of YAML might read as something else.
func quoteScalar(s string) string {
	if plainScalar.MatchString(s) && !slices.Contains(yamlWords, s) {
		return s
	}
	return strconv.Quote(s)
}
