package redirect

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Promise: of the public samples of agents, at least 95 % of the bots are taken for
// bots, and at most 0.5 % of the people.
func TestSamplesOfAgents(t *testing.T) {
	d := testDefinitions(t)
	bots, people := readAgents(t, "crawler-user-agents.txt"), readAgents(t, "isbot-people.txt")
	maps.Copy(bots, readAgents(t, "isbot-bots.txt"))
	maps.DeleteFunc(people, func(agent string, _ bool) bool { return bots[agent] })
	if len(bots) < 2500 || len(people) < 500 {
		t.Fatalf("%d bots and %d people: the samples are not whole", len(bots), len(people))
	}
	caught := func(agents map[string]bool) (flagged []string) {
		for _, agent := range slices.Sorted(maps.Keys(agents)) {
			if d.classifyBot(agent) != "" {
				flagged = append(flagged, agent)
			}
		}
		return flagged
	}
	flagged := caught(bots)
	recall := float64(len(flagged)) / float64(len(bots))
	t.Logf("%d of %d bots are caught: %.3f", len(flagged), len(bots), recall)
	if recall < 0.95 {
		t.Errorf("recall %.3f, must be 0.95", recall)
	}
	flagged = caught(people)
	share := float64(len(flagged)) / float64(len(people))
	t.Logf("%d of %d people are taken for bots: %.4f %q", len(flagged), len(people), share, flagged)
	if share > 0.005 {
		t.Errorf("%.4f of the people are taken for bots, at most 0.005 may be", share)
	}
}

func readAgents(t *testing.T, file string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "agents", file))
	if err != nil {
		t.Fatal(err)
	}
	agents := map[string]bool{}
	for _, line := range listLines(string(data)) {
		agents[line] = true
	}
	return agents
}

// The form tells a bot that no list knows.
func TestFormOfAgents(t *testing.T) {
	d := testDefinitions(t)
	f := func(agent, reason string) {
		t.Helper()
		if got := d.classifyBot(agent); got != reason {
			t.Errorf("%s: %q, want %q", agent, got, reason)
		}
	}
	const webView = "Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 " +
		"Chrome/126.0.0.0 Mobile Safari/537.36 "
	f(webView, "")
	f(webView+"(+https://example.invalid/why)", botCrawler)
	f(webView+"www.example.invalid", botCrawler)
	f(webView+"ops@example.invalid", botCrawler)
	f(webView+"ops[at]example", botCrawler)
	f(webView+"looker.io/2.0", botCrawler)
	f(webView+"(Ecosia android@111.0.5563.116)", "")
	f(webView+"com.example.app/1.0 .NET4.0C", "")
	f(webView+"en_IR@calendar=gregorian", "")
	f(webView+"Newlookbot/1", botCrawler)
	f(webView+"newlook-bot", botCrawler)
	f(webView+"fuboTV/4.75.0 Botswana Caboto", "")
	f(webView+"CUBOT_X30", "")
	f(webView+"FirefoxPreview/3.0", "")
	f("Mozilla/5.0 (compatible; Newlook/1.0)", botCrawler)
	f("Mozilla/5.0 (compatible; Konqueror/4.4; Linux) KHTML/4.4 (like Gecko)", "")
	f("Mozilla/5.0 (X11; U; Linux i686) AppleWebKit/605 (KHTML, like Gecko) Newlook-User/1.0", botCrawler)
	f("Newlook/1.0", botTool)
	f("Newlook", botTool)
	f("Lynx/2.9.0 libwww-FM/2.14 SSL-MM/1.4.1", "")
	f("Podcasts/1.0 (iPhone; iOS 17.1)", "")
	f("User-Agent: "+webView, "")
	// what the field missed
	for _, agent := range []string{"ChatGPT-User/1.0", "Claude-User", "Perplexity-User", "Gemini-Deep-Research",
		"meta-externalads/1.1", "Mozilla/5.0 (compatible; meta-externalfetcher/1.1)", "Viber", "kube-probe/1.15",
		"http.rb/5.1.1 (Mastodon/4.2.0; +https://mastodon.example/)", "Mozilla/5.0 Cardyb/1.1", "GoogleHC/1.0",
		"Google-Safety", "ELB-HealthChecker/2.0", "Cloudflare-Healthchecks/1.0", "Checkly/1.0", "Zabbix", "curl",
		"Mozilla/4.0 (compatible; ms-office; MSOffice 16)", "Microsoft Office Existence Discovery",
		"check_http/v2.1.2 (monitoring-plugins 2.1.2)", "prometheus/2.18.1"} {
		if d.classifyBot(agent) == "" {
			t.Errorf("%s is taken for a person's", agent)
		}
	}
}

func FuzzClassifyBot(f *testing.F) {
	d := testDefinitions(f)
	f.Add(chromeAgent)
	f.Add("Mozilla/5.0 (compatible; \xff)")
	f.Fuzz(func(t *testing.T, agent string) {
		if reason := d.classifyBot(agent); reason == "" && d.classifyBot(agent+" (+https://a.example)") == "" {
			t.Errorf("%q: an address makes no robot of it", agent)
		}
	})
}

func BenchmarkClassifyBot(b *testing.B) {
	d := testDefinitions(b)
	b.ReportAllocs()
	for b.Loop() {
		d.classifyBot(chromeAgent)
	}
}

// A word for tools in the model of a phone is no tool.
func TestModelIsNoTool(t *testing.T) {
	definitions := testDefinitions(t)
	if got := definitions.classifyBot("Mozilla/5.0 (Linux; Android 7.0; K6000 Plus Build/NRD90M) AppleWebKit/537.36 " +
		"(KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36"); got != "" {
		t.Errorf("a phone is taken for %q", got)
	}
	// a tool that calls itself a browser
	if got := definitions.classifyBot("Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1.19041." +
		"1682"); got != botTool {
		t.Errorf("PowerShell is taken for %q", got)
	}
	if got := definitions.classifyBot("k6/0.49.0 (load test)"); got != botTool {
		t.Errorf("k6 is taken for %q", got)
	}
}
