package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/forwarded"
)

func TestDaysFlag(t *testing.T) {
	life := 40 * 24 * time.Hour
	fs := NewFlags("x", "test")
	DaysFlag(fs, &life, "click-life", "how `long`")
	parse := func(text string) error {
		return Parse(fs, nil, func(string) (string, bool) { return text, true })
	}
	good := func(text string, want time.Duration) {
		t.Helper()
		if err := parse(text); err != nil || life != want {
			t.Errorf("%s: %v, %v; want %v", text, life, err, want)
		}
	}
	good("3d", 72*time.Hour)
	good("0d", 0)
	good("36h", 36*time.Hour)
	good("1h30m", 90*time.Minute)
	good("500ms", 500*time.Millisecond)
	good("65535d", 65535*24*time.Hour)
	for _, text := range []string{"", "d", "-1d", "1.5d", "65536d", "40", "1d12h", "soon"} {
		if err := parse(text); err == nil || !strings.Contains(err.Error(), "PARTNERS_CLICK_LIFE: want a ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The usage prints the default in the unit in which people give it.
func TestDaysFlagUsage(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		fs := NewFlags("x", "test")
		DaysFlag(fs, &d, "click-life", "how `long`")
		var out bytes.Buffer
		fs.SetOutput(&out)
		fs.Usage()
		if !strings.Contains(out.String(), "-click-life long\n    \thow long"+want+"\n") {
			t.Errorf("%v: %s", d, out.String())
		}
	}
	f(960*time.Hour, " (default 40d)")
	f(36*time.Hour, " (default 36h0m0s)")
	f(5*time.Second, " (default 5s)")
	f(0, "")
}

func TestClickHouseFlag(t *testing.T) {
	var cfg clickhouse.Config
	fs := NewFlags("x", "test")
	ClickHouseFlag(fs, &cfg)
	const dsn = "http://user@host:8123/partners"
	environ := func(name string) (string, bool) { return dsn, name == "PARTNERS_CLICKHOUSE" }
	if err := Parse(fs, nil, environ); err != nil || cfg.DSN != dsn {
		t.Errorf("%q, %v", cfg.DSN, err)
	}
}

// The flags of a program behind proxies. An error names the flag or the variable.
func TestProxyFlags(t *testing.T) {
	parse := func(env map[string]string, args ...string) (forwarded.Config, error) {
		cfg := forwarded.DefaultConfig()
		fs := NewFlags("x", "test")
		ProxyFlags(fs, &cfg)
		ForwardedHostFlag(fs, &cfg)
		err := Parse(fs, args, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		return cfg, errors.Join(err, cfg.Validate())
	}
	good := func(want string, env map[string]string, args ...string) {
		t.Helper()
		cfg, err := parse(env, args...)
		if got := fmt.Sprint(cfg); err != nil || got != want {
			t.Errorf("%v %v: %s, %v; want %s", env, args, got, err, want)
		}
	}
	bad := func(want string, env map[string]string, args ...string) {
		t.Helper()
		if cfg, err := parse(env, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v %v: %v, %v; want %s", env, args, cfg, err, want)
		}
	}
	good("{[] none false  false}", nil)
	good("{[10.0.0.0/8 fd00::/8] x-forwarded-for true  false}", nil,
		"-trusted-proxies", "10.0.0.0/8, fd00::/8", "-forwarded-header", "x-forwarded-for", "-forwarded-host")
	good("{[10.0.0.1/32] forwarded false  true}", map[string]string{"PARTNERS_TRUSTED_PROXIES": "10.0.0.1",
		"PARTNERS_FORWARDED_HEADER": "forwarded", "PARTNERS_PROXY_PROTOCOL": "true"})
	good("{[10.0.0.2/32] none false  false}", map[string]string{"PARTNERS_TRUSTED_PROXIES": "10.0.0.1"},
		"-trusted-proxies", "10.0.0.2")
	bad("PARTNERS_TRUSTED_PROXIES", map[string]string{"PARTNERS_TRUSTED_PROXIES": "proxy.acme.com"})
	bad("-trusted-proxies: 10.1.2.3/8 has bits", nil, "-trusted-proxies", "10.1.2.3/8")
	bad("-forwarded-header: ", nil, "-forwarded-header", "x-real-ip", "-trusted-proxies", "10.0.0.1")
	bad("-forwarded-header: -trusted-proxies is missing", nil, "-forwarded-header", "forwarded")
	bad("-forwarded-host: ", nil, "-forwarded-host")
	bad("-proxy-protocol: ", nil, "-proxy-protocol")
}
