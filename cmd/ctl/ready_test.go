package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ready succeeds only where a daemon says so, and says the reason where it does not.
func TestReady(t *testing.T) {
	status, body := http.StatusOK, "ok\n"
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/readyz" {
			t.Errorf("asked for %s", req.URL.Path)
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer daemon.Close()
	ask := func(admin string) (code int, said string) {
		t.Helper()
		var out bytes.Buffer
		code = runCommand([]string{"ready", "-admin", admin}, &out, &out,
			func(string) (string, bool) { return "", false })
		return code, out.String()
	}
	want := func(admin string, code int, text string) {
		t.Helper()
		if got, said := ask(admin); got != code || !strings.Contains(said, text) {
			t.Errorf("got %d %q, want %d %q", got, said, code, text)
		}
	}
	want(daemon.URL, 0, "ready")
	want(daemon.URL+"/", 0, "ready")
	status, body = http.StatusServiceUnavailable, "restoring 3 partitions\n"
	want(daemon.URL, 1, "not ready: restoring 3 partitions")
	status = http.StatusNotFound
	want(daemon.URL, 1, "answers 404 Not Found to /readyz: is it a daemon's -admin-listen?")
	daemon.Close()
	want(daemon.URL, 1, "-admin: ")
	want("::", 2, "-admin: ")
}
