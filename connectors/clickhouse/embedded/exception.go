package embedded

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Error codes of ClickHouse (src/Common/ErrorCodes.cpp) that the server itself gives.
const (
	badArguments       = 36
	notImplemented     = 48
	unknownSetting     = 115
	readonly           = 164
	requestTooLarge    = 307 // TOO_MANY_BYTES
	queryWasCancelled  = 394
	unknownCompression = 89
	pocoException      = 1000
	unspecified        = 1002 // UNKNOWN_EXCEPTION
)

// exception is an error of the server's own, in the words of ClickHouse.
type exception struct {
	code    int
	message string
}

func (e exception) Error() string {
	return fmt.Sprintf("Code: %d. DB::Exception: %s", e.code, e.message)
}

var codePrefix = regexp.MustCompile(`^Code: (\d+)\.`)

// describe makes an error one of ClickHouse's: "Code: N. DB::Exception: …".
func describe(err error) (code int, text string) {
	text = strings.TrimRight(err.Error(), "\n")
	if match := codePrefix.FindStringSubmatch(text); match != nil {
		if code, err := strconv.Atoi(match[1]); err == nil {
			return code, text
		}
	}
	return unspecified, exception{unspecified, text}.Error()
}

// statusOf is the HTTP status that ClickHouse gives an error code (HTTPHandler's
// exceptionCodeToHTTPStatus, in outline).
func statusOf(code int) int {
	switch code {
	case 6, 26, 27, badArguments, 41, 42, 43, 53, 62, 72, 117, 130, unknownCompression:
		// parsing, arguments
		return http.StatusBadRequest
	case 16, 46, 47, 50, 56, 60, 73, 81, unknownSetting:
		// unknown column, function, identifier, type, table, format, database, setting
		return http.StatusNotFound
	case readonly:
		return http.StatusForbidden
	case requestTooLarge:
		return http.StatusRequestEntityTooLarge
	case notImplemented:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}
