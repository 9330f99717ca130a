package embedded

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Error codes of ClickHouse (src/Common/ErrorCodes.cpp) that this server returns
// itself.
const (
	badArguments          = 36
	notImplemented        = 48
	unknownSetting        = 115
	readonly              = 164
	requestTooLarge       = 307 // TOO_MANY_BYTES
	tooManyQueries        = 202 // TOO_MANY_SIMULTANEOUS_QUERIES
	sessionNotFound       = 372
	sessionIsLocked       = 373
	invalidSessionTimeout = 374
	queryWasCancelled     = 394
	unknownCompression    = 89
	pocoException         = 1000
	unspecified           = 1002 // UNKNOWN_EXCEPTION
)

// exception is an error of this server in the form of ClickHouse.
type exception struct {
	code    int
	message string
}

// Error returns the text that ClickHouse would send.
func (e exception) Error() string {
	return fmt.Sprintf("Code: %d. DB::Exception: %s", e.code, e.message)
}

var codePrefix = regexp.MustCompile(`^Code: (\d+)\.`)

// describeError puts an error into the form of ClickHouse: "Code: N. DB::Exception: …".
func describeError(err error) (code int, text string) {
	text = strings.TrimRight(err.Error(), "\n")
	if match := codePrefix.FindStringSubmatch(text); match != nil {
		if code, err := strconv.Atoi(match[1]); err == nil {
			return code, text
		}
	}
	return unspecified, exception{unspecified, text}.Error()
}

// httpStatus returns the HTTP status that ClickHouse gives an error code (HTTPHandler's
// exceptionCodeToHTTPStatus, in outline).
func httpStatus(code int) int {
	switch code {
	case 6, 26, 27, badArguments, 41, 42, 43, 53, 62, 72, 117, 130, unknownCompression, invalidSessionTimeout:
		// parsing, arguments
		return http.StatusBadRequest
	case 16, 46, 47, 50, 56, 60, 73, 81, unknownSetting, sessionNotFound:
		// unknown column, function, identifier, type, table, format, database, setting, session
		return http.StatusNotFound
	case readonly:
		return http.StatusForbidden
	case sessionIsLocked:
		return http.StatusLocked
	case tooManyQueries:
		return http.StatusTooManyRequests
	case requestTooLarge:
		return http.StatusRequestEntityTooLarge
	case notImplemented:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}
