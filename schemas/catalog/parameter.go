package catalog

import "strings"

// ServerName returns what the loosest servers make of a decoded parameter name: the name
// of the variable, and whether the parameter is only a part of it. PHP drops blanks in
// front, ends a name at a NUL, and writes _ for a blank, a dot and an unclosed bracket;
// PHP, Rack and qs read ref[] and ref[a] as parts of ref, and Rack [ref] as ref.
//
//	" nim.ct"  → nim_ct, whole        nim_ct[0] → nim_ct, a part
func ServerName(name string) (variable string, part bool) {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.TrimLeft(strings.TrimSpace(name), "[]")
	if end := strings.IndexByte(name, ']'); end >= 0 {
		name, _, part = strings.Cut(name[:end], "[")
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '.' || r == '[' {
			return '_'
		}
		return r
	}, name), part
}

// ReadsAs reports whether some server takes a decoded parameter name for the token
// parameter, or for a part of it.
func ReadsAs(name, tokenParameter string) bool {
	variable, _ := ServerName(name)
	token, _ := ServerName(tokenParameter)
	return strings.EqualFold(variable, token)
}
