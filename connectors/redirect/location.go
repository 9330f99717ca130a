package redirect

import "strings"

// bareDestination returns a destination as the click records it: without query and
// fragment, and without user and password. Any of them may hold secrets.
func bareDestination(destination string) string {
	if i := strings.IndexAny(destination, "?#"); i >= 0 {
		destination = destination[:i]
	}
	scheme, rest, ok := strings.Cut(destination, "://")
	if !ok {
		return withoutOpaquePassword(destination)
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	i := strings.LastIndexByte(authority, '@')
	if i < 0 {
		return destination
	}
	return scheme + "://" + authority[i+1:] + path
}

// withoutOpaquePassword removes the password of a destination without //, as
// sip:alice:secret@acme.com has one. The user is whom it leads to.
func withoutOpaquePassword(destination string) string {
	scheme, rest, _ := strings.Cut(destination, ":")
	at := strings.LastIndexByte(rest, '@')
	colon := strings.IndexByte(rest, ':')
	if colon < 0 || colon > at {
		return destination
	}
	return scheme + ":" + rest[:colon] + rest[at:]
}

// addParameters adds parameters to a destination before its first #. It joins them with
// ? or &, and with nothing after a final ? or &. All bytes of the destination stay as
// they are. Empty parameters are ignored; without any, it returns the destination.
func addParameters(destination string, parameters ...string) string {
	head, fragment := destination, ""
	if i := strings.IndexByte(destination, '#'); i >= 0 {
		head, fragment = destination[:i], destination[i:]
	}
	size := len(destination)
	for _, p := range parameters {
		size += 1 + len(p)
	}
	if size == len(destination) {
		return destination
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(head)
	separator := separatorAfter(head)
	for _, p := range parameters {
		if p == "" {
			continue
		}
		b.WriteString(separator)
		b.WriteString(p)
		separator = "&"
	}
	b.WriteString(fragment)
	return b.String()
}

// separatorAfter returns what must precede another parameter after head.
func separatorAfter(head string) string {
	switch {
	case !strings.Contains(head, "?"):
		return "?"
	case strings.HasSuffix(head, "?"), strings.HasSuffix(head, "&"):
		return ""
	}
	return "&"
}
