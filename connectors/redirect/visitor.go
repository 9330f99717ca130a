package redirect

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ua-parser/uap-go/uaparser"
)

// Why a click is not a person's; bot_reason. A request has the first that applies.
const (
	botHead = "head" // a HEAD request
	// the browser fetches ahead: Sec-Purpose, Purpose or X-Moz says prefetch, X-Purpose
	// says preview
	botPrefetch = "prefetch"
	botNoAgent  = "no_user_agent" // no User-Agent, or a blank one
	botCrawler  = "crawler"       // a search engine, a link preview, a monitor
	botHeadless = "headless"      // a browser without a screen
	botTool     = "tool"          // an HTTP library or command
)

// Classes of devices.
const (
	deviceDesktop = "desktop"
	devicePhone   = "phone"
	deviceTablet  = "tablet"
	deviceTV      = "tv"
	deviceOther   = "other"
)

// other is every OS and browser that is not known by name.
const other = "Other"

// agent is all that is kept of a User-Agent.
type agent struct {
	device  string
	os      string
	browser string
	bot     string // botCrawler, botHeadless, botTool, or ""
}

// botOf gives the reason for which a request is not a person's, or "".
func botOf(r *http.Request, userAgent string, a agent) string {
	switch {
	case r.Method == http.MethodHead:
		return botHead
	case len(r.Header) > 0 && prefetches(r.Header):
		return botPrefetch
	case strings.TrimSpace(userAgent) == "":
		return botNoAgent
	}
	return a.bot
}

func prefetches(h http.Header) bool {
	for _, name := range [...]string{"Sec-Purpose", "Purpose", "X-Moz"} {
		if v := h[name]; len(v) > 0 && strings.Contains(strings.ToLower(v[0]), "prefetch") {
			return true
		}
	}
	v := h["X-Purpose"]
	return len(v) > 0 && strings.EqualFold(v[0], "preview")
}

const (
	agentShards = 32
	// shardAgents bounds a generation of one shard: 32,768 agents in all, about 3 MB.
	shardAgents = 512
	// maxAgent is how much of a User-Agent is looked at.
	maxAgent = 1024
	// parseWait is how long a request waits for a parser. Parsing takes milliseconds,
	// so a flood of made-up agents would otherwise take all CPUs.
	parseWait = 100 * time.Millisecond
)

// agents parses User-Agents with the definitions embedded in uap-go, behind a bounded
// cache whose keys are hashes: no User-Agent is kept, but the last ones that were
// parsed, in the parser's own memory.
type agents struct {
	parser  *uaparser.Parser
	parsers chan struct{} // one value for each parse under way
	metrics *handlerMetrics
	seeds   [2]maphash.Seed
	shards  [agentShards]agentShard
}

type agentKey [2]uint64

// agentShard forgets by generations: when young is full it becomes old, and what was
// old and not used since is gone.
type agentShard struct {
	mu         sync.Mutex // guards both maps
	young, old map[agentKey]agent
	_          [40]byte // shards of their own cache lines
}

// userAgents reads uap-go's embedded definitions.
func userAgents() (*uaparser.Parser, error) {
	// Its own cache is of no use behind ours, and it would keep User-Agents; 1 is its
	// minimum.
	parser, err := uaparser.New(uaparser.WithCacheSize(1))
	if err != nil {
		return nil, fmt.Errorf("reading user agent definitions: %w", err)
	}
	return parser, nil
}

func newAgents(parser *uaparser.Parser, m *handlerMetrics) *agents {
	a := &agents{
		parser:  parser,
		parsers: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		metrics: m,
		seeds:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	for i := range a.shards {
		a.shards[i].young = make(map[agentKey]agent)
	}
	return a
}

// of returns what is known of a User-Agent.
func (a *agents) of(userAgent string) agent {
	userAgent = userAgent[:min(len(userAgent), maxAgent)]
	key := agentKey{maphash.String(a.seeds[0], userAgent), maphash.String(a.seeds[1], userAgent)}
	shard := &a.shards[key[0]%agentShards]
	if known, ok := shard.get(key); ok {
		return known
	}
	select {
	case a.parsers <- struct{}{}:
	default:
		timer := time.NewTimer(parseWait)
		defer timer.Stop()
		select {
		case a.parsers <- struct{}{}:
		case <-timer.C:
			a.metrics.unparsed.Inc()
			return agent{device: deviceOther, os: other, browser: other, bot: robot(userAgent, "")}
		}
	}
	defer func() { <-a.parsers }()
	if known, ok := shard.get(key); ok { // parsed for somebody else meanwhile
		return known
	}
	a.metrics.parsed.Inc()
	parsed := a.parse(userAgent)
	shard.put(key, parsed)
	return parsed
}

func (s *agentShard) get(key agentKey) (agent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.young[key]; ok {
		return v, true
	}
	v, ok := s.old[key]
	if ok {
		s.add(key, v)
	}
	return v, ok
}

func (s *agentShard) put(key agentKey, v agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(key, v)
}

// add is called with mu held.
func (s *agentShard) add(key agentKey, v agent) {
	if len(s.young) >= shardAgents {
		s.young, s.old = make(map[agentKey]agent), s.young
	}
	s.young[key] = v
}

// parse reduces a User-Agent to names from fixed lists. Some definitions capture
// whatever stands before the word bot: such a family is a piece of the User-Agent
// itself.
func (a *agents) parse(userAgent string) agent {
	family := a.parser.ParseUserAgent(userAgent).Family
	os := a.parser.ParseOs(userAgent).Family
	device := a.parser.ParseDevice(userAgent).Family
	return agent{
		device:  deviceClass(userAgent, os, device),
		os:      listed(os, knownSystems),
		browser: listed(family, knownBrowsers),
		bot:     robot(userAgent, device),
	}
}

func listed(name, list string) string {
	if name != "" && !strings.Contains(name, "|") && strings.Contains(list, "|"+name+"|") {
		return name
	}
	return other
}

// Names as uap-core writes them.
const (
	knownSystems = "|Windows|Mac OS X|iOS|Android|Linux|Ubuntu|Debian|Fedora|Chrome OS|Windows Phone|Windows " +
		"Mobile|BlackBerry OS|Tizen|Web0S|webOS|tvOS|ATV OS X|WatchOS|KaiOS|" +
		"HarmonyOS|FreeBSD|OpenBSD|NetBSD|Solaris|Symbian OS|Bada|Firefox OS|Roku|Chromecast|"
	knownBrowsers = "|Chrome|Chrome Mobile|Chrome Mobile WebView|Chrome Mobile " +
		"iOS|Chromium|HeadlessChrome|Safari|Mobile Safari|Mobile Safari UI/WKWebView|Firefox|Firefox " +
		"Mobile|Firefox iOS|" +
		"Edge|Edge Mobile|IE|IE Mobile|Opera|Opera Mobile|Opera Mini|Opera Touch|Samsung Internet|Android|UC " +
		"Browser|Yandex Browser|Brave|Vivaldi|DuckDuckGo Mobile|DuckDuckGo|QQ Browser|QQ Browser Mobile|" +
		"MiuiBrowser|Huawei Browser|HuaweiBrowser|Amazon Silk|Whale|Sogou " +
		"Explorer|Maxthon|Puffin|Konqueror|Epiphany|SeaMonkey|Pale Moon|Instagram|Facebook|Facebook " +
		"Messenger|Snapchat|Pinterest|LinkedIn|Twitter|" +
		"TikTok|WeChat|Line|Google|Apple " +
		"Mail|Outlook|Thunderbird|Electron|Googlebot|Googlebot-Image|AdsBot-Google|bingbot|BingPreview|FacebookBot|Slackbot|Slackbot-LinkExpanding|Twitterbot|TelegramBot|WhatsApp|" +
		"Discordbot|LinkedInBot|Applebot|GPTBot|AhrefsBot|SemrushBot|YandexBot|Baiduspider|DuckDuckBot|PetalBot|UptimeRobot|PingdomBot|curl|Wget|Python Requests|Go-http-client|okhttp|Apache-HttpClient|"
)

func deviceClass(userAgent, os, family string) string {
	switch {
	case family == "Spider":
		return deviceOther
	case strings.Contains(userAgent, "TV") || strings.Contains(userAgent, "AFT") && os == "Android" || os == "tvOS" ||
		os == "ATV OS X" || os == "Roku" || os == "Chromecast" || os == "Web0S":
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
		return deviceTablet // what Android's own guidance for user agents says
	case strings.Contains("|Windows Phone|Windows Mobile|BlackBerry OS|KaiOS|Symbian OS|Bada|Firefox OS|", "|"+os+"|"):
		return devicePhone
	case strings.Contains("|Windows|Mac OS X|Linux|Ubuntu|Debian|Fedora|Chrome OS|FreeBSD|OpenBSD|NetBSD|Solaris|",
		"|"+os+"|"):
		return deviceDesktop
	}
	return deviceOther
}

// robot classifies by the device family of the definitions and by words that they miss.
func robot(userAgent, family string) string {
	s := strings.ToLower(userAgent)
	switch {
	case containsAny(s, "headless", "phantomjs", "puppeteer", "playwright", "selenium"):
		return botHeadless
	case family == "Spider", containsAny(s, "crawl", "spider", "slurp", "facebookexternalhit", "facebookcatalog",
		"bingpreview", "whatsapp/", "skypeuripreview", "embedly", "vkshare", "mediapartners",
		"lighthouse", "pingdom", "uptime", "site24x7", "archive.org", "google-inspectiontool", "feedfetcher",
		"preview"),
		strings.Contains(strings.ReplaceAll(s, "cubot", ""), "bot"): // Cubot makes phones
		return botCrawler
	case !strings.HasPrefix(s, "mozilla/") &&
		containsAny(s, "curl/", "wget/", "python", "go-http-client", "java/", "okhttp", "libwww", "httpclient",
			"axios", "node-fetch", "undici", "postman", "httpie",
			"scrapy", "aiohttp", "httpx", "ruby", "php", "guzzle", "perl", "powershell", "winhttp", "reqwest", "wrk",
			"hey/", "apachebench", "k6/"):
		return botTool
	}
	return ""
}

func containsAny(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// referrerHost is the host of a Referer, in lower case and without port, or "". An IP
// address is not kept, whoever's it is.
func referrerHost(referer string) string {
	_, rest, ok := strings.Cut(referer, "://")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	host, _, _ := strings.Cut(rest, ":")
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || len(host) > 253 {
		return ""
	}
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return ""
		}
	}
	// The last label of an IPv4 address begins with a digit in every notation, that of
	// a name never does (RFC 3696 §2).
	if last := host[strings.LastIndexByte(host, '.')+1:]; last == "" || '0' <= last[0] && last[0] <= '9' {
		return ""
	}
	return host
}

// remoteAddr is the visitor's address; it is used for the country and goes nowhere
// else.
func remoteAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
