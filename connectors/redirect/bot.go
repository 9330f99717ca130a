package redirect

import (
	"net/http"
	"strings"
	"unicode"
)

// Reasons for which a click does not count as a person's: the values of bot_reason. A
// request gets the first that applies.
const (
	botHead     = "head"          // a HEAD request
	botNoAgent  = "no_user_agent" // no User-Agent, or one without a letter, such as -
	botCrawler  = "crawler"       // names itself as one, or says whose it is: search, preview, monitor
	botHeadless = "headless"      // a browser without a screen
	botTool     = "tool"          // an HTTP library or command, or no system is named
)

// botReason returns the reason for which a request is not a person's, or "".
func botReason(r *http.Request, userAgent string, info agentInfo) string {
	switch {
	case r.Method == http.MethodHead:
		return botHead
	case strings.IndexFunc(userAgent, unicode.IsLetter) < 0:
		return botNoAgent
	}
	return info.bot
}
