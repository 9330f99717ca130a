package redirect

import (
	"net/http"
	"strings"
)

// Reasons for which a click does not count as a person's: the values of bot_reason. A
// request gets the first that applies.
const (
	botHead = "head" // a HEAD request
	// botPrefetch: the browser fetches ahead. Sec-Purpose, Purpose or X-Moz says
	// prefetch, or X-Purpose says preview.
	botPrefetch = "prefetch"
	botNoAgent  = "no_user_agent" // no User-Agent, or a blank one
	botCrawler  = "crawler"       // a search engine, a link preview, a monitor
	botHeadless = "headless"      // a browser without a screen
	botTool     = "tool"          // an HTTP library or command
)

// botReason returns the reason for which a request is not a person's, or "".
func botReason(r *http.Request, userAgent string, info agentInfo) string {
	switch {
	case r.Method == http.MethodHead:
		return botHead
	case isPrefetch(r.Header):
		return botPrefetch
	case strings.TrimSpace(userAgent) == "":
		return botNoAgent
	}
	return info.bot
}

func isPrefetch(h http.Header) bool {
	if len(h) == 0 {
		return false
	}
	if saysPrefetch(h["Sec-Purpose"]) || saysPrefetch(h["Purpose"]) || saysPrefetch(h["X-Moz"]) {
		return true
	}
	purpose := h["X-Purpose"]
	return len(purpose) > 0 && strings.EqualFold(purpose[0], "preview")
}

func saysPrefetch(values []string) bool {
	return len(values) > 0 && strings.Contains(strings.ToLower(values[0]), "prefetch")
}

// classifyBot classifies by the device family of the definitions and by words that the
// definitions miss.
func classifyBot(userAgent, family string) string {
	s := strings.ToLower(userAgent)
	switch {
	case containsAny(s, "headless", "phantomjs", "puppeteer", "playwright", "selenium"):
		return botHeadless
	case family == "Spider", namesCrawler(s):
		return botCrawler
	case !strings.HasPrefix(s, "mozilla/") && namesTool(s):
		return botTool
	}
	return ""
}

func namesCrawler(s string) bool {
	return containsAny(s,
		"crawl", "spider", "slurp", "facebookexternalhit", "facebookcatalog", "bingpreview", "whatsapp/",
		"skypeuripreview", "embedly", "vkshare", "mediapartners", "lighthouse", "pingdom", "uptime", "site24x7",
		"archive.org", "google-inspectiontool", "feedfetcher", "preview",
	) || strings.Contains(strings.ReplaceAll(s, "cubot", ""), "bot") // Cubot makes phones
}

func namesTool(s string) bool {
	return containsAny(s,
		"curl/", "wget/", "python", "go-http-client", "java/", "okhttp", "libwww", "httpclient", "axios",
		"node-fetch", "undici", "postman", "httpie", "scrapy", "aiohttp", "httpx", "ruby", "php", "guzzle",
		"perl", "powershell", "winhttp", "reqwest", "wrk", "hey/", "apachebench", "k6/",
	)
}

func containsAny(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}
