package ingest

import (
	"fmt"
	"mime"
	"net/http"
	"strings"
)

// maxQuoted is how much of a header's value an answer repeats, in bytes.
const maxQuoted = 60

// mediaFault says why a body is not plain JSON by its headers, or "": there is one
// content-type, application/json in UTF-8, and no encoding, because the signature covers
// the bytes as sent.
func mediaFault(header http.Header) string {
	for _, encoding := range header.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return "content-encoding is " + quoteValue(encoding) + ": send the body as it was signed, not encoded"
		}
	}
	values := header.Values("Content-Type")
	switch {
	case len(values) == 0:
		return "content-type is missing: it is application/json"
	case len(values) > 1:
		return "content-type is there more than once"
	case values[0] == "application/json":
		return ""
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset := params["charset"]
	switch {
	case err != nil || media != "application/json":
		return "content-type is " + quoteValue(values[0]) + ", not application/json"
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return "content-type has the charset " + quoteValue(charset) + ": JSON is in UTF-8, so leave it out, or " +
			"write charset=utf-8"
	}
	return ""
}

// quoteValue quotes a header's value for its sender, in ASCII and shortened.
func quoteValue(value string) string {
	if len(value) > maxQuoted {
		return fmt.Sprintf("%+q…", value[:maxQuoted])
	}
	return fmt.Sprintf("%+q", value)
}
