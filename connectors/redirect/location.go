package redirect

import "strings"

// bareDestination returns a destination as the click records it: without query and
// fragment, and without user and password. Any of them may hold secrets.
func bareDestination(destination string) string {
	if i := strings.IndexByte(destination, '?'); i >= 0 {
		destination = destination[:i]
	}
	if i := strings.IndexByte(destination, '#'); i >= 0 {
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

// appendLocation appends a destination with parameters before its first #: whole ones in
// extra, then name=value. Either is left out if extra or name is empty. It joins them
// with ? or &, and with nothing after a final ? or &. All bytes of the destination stay
// as they are.
func appendLocation(dst []byte, destination, extra, name, value string) []byte {
	head, fragment := destination, ""
	if i := strings.IndexByte(destination, '#'); i >= 0 {
		head, fragment = destination[:i], destination[i:]
	}
	dst = append(dst, head...)
	separator := separatorAfter(head)
	if extra != "" {
		dst = append(append(dst, separator...), extra...)
		separator = "&"
	}
	if name != "" {
		dst = append(append(dst, separator...), name...)
		dst = append(append(dst, '='), value...)
	}
	return append(dst, fragment...)
}

// separatorAfter returns what must precede another parameter after head.
func separatorAfter(head string) string {
	switch {
	case strings.IndexByte(head, '?') < 0:
		return "?"
	case strings.HasSuffix(head, "?"), strings.HasSuffix(head, "&"):
		return ""
	}
	return "&"
}
