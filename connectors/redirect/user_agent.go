package redirect

import (
	"hash/maphash"
	"runtime"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Classes of devices.
const (
	deviceDesktop = "desktop"
	devicePhone   = "phone"
	deviceTablet  = "tablet"
	deviceTV      = "tv"
	deviceOther   = "other"
)

// otherName names every OS and browser that is not in the fixed lists.
const otherName = "Other"

const (
	// maxCachedAgents bounds the cache of User-Agents. An entry takes some 200 bytes,
	// so it is about 7 MB.
	maxCachedAgents = 32 << 10
	// maxAgentBytes is how much of a User-Agent is parsed.
	maxAgentBytes = 1024
	// parseWait is how long a request waits for a free parser. Parsing takes
	// milliseconds: without a bound, a flood of made-up User-Agents would take all
	// CPUs.
	parseWait = 100 * time.Millisecond
)

// agentInfo is all that is kept of a User-Agent.
type agentInfo struct {
	device  string // one of the classes of devices
	os      string // from knownSystems, or otherName
	browser string // from knownBrowsers, or otherName
	bot     string // botCrawler, botHeadless, botTool, or ""
}

// agentParser parses User-Agents with the definitions embedded in uap-go, behind a
// bounded cache. The keys of the cache are hashes. No User-Agent is kept, except the
// last one that was parsed, in the memory of uap-go.
type agentParser struct {
	definitions *agentDefinitions
	parsing     chan struct{} // holds one value for each parse that is running
	metrics     *handlerMetrics
	seeds       [2]maphash.Seed // chosen at start, so that no client can make keys collide
	// One lock for the whole cache is enough: a look-up holds it for 0.1 µs of a
	// request's 20 µs.
	cache *lru.Cache[agentKey, agentInfo]
}

// agentKey is a hash of 128 bits of a User-Agent.
type agentKey [2]uint64

func newAgentParser(definitions *agentDefinitions, m *handlerMetrics) *agentParser {
	cache, _ := lru.New[agentKey, agentInfo](maxCachedAgents) // fails only for a size below 1
	return &agentParser{
		definitions: definitions,
		parsing:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		metrics:     m,
		seeds:       [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		cache:       cache,
	}
}

// lookUpAgent returns what the cache or a parser says about a User-Agent. If all
// parsers stay busy for parseWait, it returns only what a search for words can tell.
func (a *agentParser) lookUpAgent(userAgent string) agentInfo {
	userAgent = userAgent[:min(len(userAgent), maxAgentBytes)]
	key := agentKey{maphash.String(a.seeds[0], userAgent), maphash.String(a.seeds[1], userAgent)}
	if info, ok := a.cache.Get(key); ok {
		return info
	}
	if !a.acquireParser() {
		a.metrics.userAgentsUnparsed.Inc()
		bot := a.definitions.classifyBot(userAgent)
		return agentInfo{device: deviceOther, os: otherName, browser: otherName, bot: bot}
	}
	defer func() { <-a.parsing }()
	if info, ok := a.cache.Get(key); ok { // another request has parsed it meanwhile
		return info
	}
	a.metrics.userAgentsParsed.Inc()
	info := a.parseAgent(userAgent)
	a.cache.Add(key, info)
	return info
}

// acquireParser reports whether the caller may parse. It waits at most parseWait.
func (a *agentParser) acquireParser() bool {
	select {
	case a.parsing <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(parseWait)
	defer timer.Stop()
	select {
	case a.parsing <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

// parseAgent reduces a User-Agent to names from fixed lists. The lists are needed: some
// definitions capture any text before the word "bot" as the family, and such a family
// is a piece of the User-Agent itself.
func (a *agentParser) parseAgent(userAgent string) agentInfo {
	browser := a.definitions.parser.ParseUserAgent(userAgent).Family
	os := a.definitions.parser.ParseOs(userAgent).Family
	device := a.definitions.parser.ParseDevice(userAgent).Family
	return agentInfo{
		device:  deviceClass(userAgent, os, device),
		os:      knownName(os, knownSystems),
		browser: knownName(browser, knownBrowsers),
		bot:     a.definitions.classifyBot(userAgent),
	}
}

// knownName returns name if it is in the list, otherwise otherName.
func knownName(name, list string) string {
	if name != "" && !strings.Contains(name, "|") && strings.Contains(list, "|"+name+"|") {
		return name
	}
	return otherName
}

// Lists of names, as uap-core writes them.
const (
	knownSystems = "|" +
		"Windows|Mac OS X|iOS|Android|Linux|Ubuntu|Debian|Fedora|Chrome OS|Windows Phone|" +
		"Windows Mobile|BlackBerry OS|Tizen|Web0S|webOS|tvOS|ATV OS X|WatchOS|KaiOS|HarmonyOS|" +
		"FreeBSD|OpenBSD|NetBSD|Solaris|Symbian OS|Bada|Firefox OS|Roku|Chromecast|"
	knownBrowsers = "|" +
		"Chrome|Chrome Mobile|Chrome Mobile WebView|Chrome Mobile iOS|Chromium|HeadlessChrome|" +
		"Safari|Mobile Safari|Mobile Safari UI/WKWebView|Firefox|Firefox Mobile|Firefox iOS|Edge|" +
		"Edge Mobile|IE|IE Mobile|Opera|Opera Mobile|Opera Mini|Opera Touch|Samsung Internet|" +
		"Android|UC Browser|Yandex Browser|Brave|Vivaldi|DuckDuckGo Mobile|DuckDuckGo|QQ Browser|" +
		"QQ Browser Mobile|MiuiBrowser|Huawei Browser|HuaweiBrowser|Amazon Silk|Whale|" +
		"Sogou Explorer|Maxthon|Puffin|Konqueror|Epiphany|SeaMonkey|Pale Moon|Instagram|Facebook|" +
		"Facebook Messenger|Snapchat|Pinterest|LinkedIn|Twitter|TikTok|WeChat|Line|Google|" +
		"Apple Mail|Outlook|Thunderbird|Electron|Googlebot|Googlebot-Image|AdsBot-Google|bingbot|" +
		"BingPreview|FacebookBot|Slackbot|Slackbot-LinkExpanding|Twitterbot|TelegramBot|WhatsApp|" +
		"Discordbot|LinkedInBot|Applebot|GPTBot|AhrefsBot|SemrushBot|YandexBot|Baiduspider|" +
		"DuckDuckBot|PetalBot|UptimeRobot|PingdomBot|curl|Wget|Python Requests|Go-http-client|" +
		"okhttp|Apache-HttpClient|"
	phoneSystems   = "|Windows Phone|Windows Mobile|BlackBerry OS|KaiOS|Symbian OS|Bada|Firefox OS|"
	desktopSystems = "|Windows|Mac OS X|Linux|Ubuntu|Debian|Fedora|Chrome OS|FreeBSD|OpenBSD|NetBSD|Solaris|"
	tvSystems      = "|tvOS|ATV OS X|Roku|Chromecast|Web0S|"
)

// deviceClass classifies a device by the families that the definitions name and by
// words in the User-Agent.
func deviceClass(userAgent, os, family string) string {
	switch {
	case family == "Spider":
		return deviceOther
	case strings.Contains(userAgent, "TV"),
		strings.Contains(userAgent, "AFT") && os == "Android", // Amazon's Fire TV
		strings.Contains(tvSystems, "|"+os+"|"):
		return deviceTV
	case os == "iOS":
		if strings.HasPrefix(family, "iPad") {
			return deviceTablet
		}
		return devicePhone
	case os == "Android", os == "HarmonyOS", os == "Tizen":
		if strings.Contains(userAgent, "Mobile") {
			return devicePhone
		}
		return deviceTablet // Android's guidance: the User-Agent of a tablet lacks "Mobile"
	case strings.Contains(phoneSystems, "|"+os+"|"):
		return devicePhone
	case strings.Contains(desktopSystems, "|"+os+"|"):
		return deviceDesktop
	}
	return deviceOther
}
