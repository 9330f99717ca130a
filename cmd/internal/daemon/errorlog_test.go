package daemon

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

func TestErrorLog(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := redactAddresses(text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
	f("http: TLS handshake error from 192.0.2.7:51234: EOF", "http: TLS handshake error from [address]: EOF")
	f("http: TLS handshake error from [2001:db8::7]:51234: EOF",
		"http: TLS handshake error from [[address]]:51234: EOF")
	f("http: panic serving 192.0.2.7:51234: boom\ngoroutine 7 [running]:\nmain.go:12 +0x1d",
		"http: panic serving [address]: boom\ngoroutine 7 [running]:\nmain.go:12 +0x1d")
	f("read tcp 10.0.0.1:8080->[fe80::1%eth0]:9: read: connection reset by peer",
		"read tcp [address]->[[address]]:9: read: connection reset by peer")
	f("from ::ffff:192.0.2.7 and 2001:db8:1:2:3:4:5:6.", "from [address] and [address].")
	f("::1: done", "[address]: done")
	f("http: Accept error: accept tcp: too many open files; retrying in 5ms",
		"http: Accept error: accept tcp: too many open files; retrying in 5ms")
	f("at 12:30:45 in file.go:12:3", "at 12:30:45 in file.go:12:3")

	var out bytes.Buffer
	errorLog(slog.New(slog.NewTextHandler(&out, nil))).Printf("http: panic serving %s: x", "192.0.2.7:1")
	if strings.Contains(out.String(), "192.0.2.7") || !strings.Contains(out.String(), "panic serving [address]") {
		t.Errorf("logged %s", &out)
	}
	out.Reset()
	errorLog(slog.New(slog.NewTextHandler(&out, nil))).Printf("http: TLS handshake error from %s: EOF", "192.0.2.7:1")
	if out.Len() > 0 {
		t.Errorf("a stranger can fill the log: %s", &out)
	}
}

func FuzzRedactAddresses(f *testing.F) {
	f.Add("x 192.0.2.7:1 ", uint32(0xc0000207), uint64(1), " y")
	f.Fuzz(func(t *testing.T, before string, v4 uint32, v6 uint64, after string) {
		var four [4]byte
		binary.BigEndian.PutUint32(four[:], v4)
		var six [16]byte
		six[0], six[1] = 0x20, 0x01
		binary.BigEndian.PutUint64(six[8:], v6)
		for _, addr := range []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)} {
			ap := netip.AddrPortFrom(addr, 443).String()
			if strings.Contains(before+after, addr.String()) {
				return
			}
			if got := redactAddresses(before + " " + ap + " " + after); strings.Contains(got, addr.String()) {
				t.Errorf("%s is left in %q", addr, got)
			}
		}
	})
}
