package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// A flag wins over its environment variable, which wins over the default. An error
// names the flag or variable.
func TestParse(t *testing.T) {
	parse := func(env map[string]string, args ...string) (string, error) {
		fs := NewFlags("x", "test")
		dir := fs.String("state-dir", "default", "")
		fs.Duration("grace", time.Second, "")
		err := Parse(fs, args, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
		return *dir, err
	}
	f := func(want string, env map[string]string, args ...string) {
		t.Helper()
		if got, err := parse(env, args...); err != nil || got != want {
			t.Errorf("%v %v: got %q, %v; want %q", env, args, got, err, want)
		}
	}
	f("default", nil)
	f("env", map[string]string{"PARTNERS_STATE_DIR": "env"})
	f("flag", map[string]string{"PARTNERS_STATE_DIR": "env"}, "-state-dir", "flag")
	if _, err := parse(map[string]string{"PARTNERS_GRACE": "soon"}); err == nil ||
		!strings.Contains(err.Error(), "PARTNERS_GRACE") {
		t.Errorf("a wrong variable: %v", err)
	}
	if _, err := parse(nil, "-grac", "1s"); err == nil || !strings.Contains(err.Error(), "-grac") {
		t.Errorf("an unknown flag: %v", err)
	}
	if _, err := parse(nil, "-h"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

// Tasks stop in the reverse order of their start, one after another. The error of the
// first that fails is returned.
func TestGroupStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stopped []string
		var g Group
		for i, name := range []string{"broker", "warehouse", "gateway"} {
			g.Go(name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Duration(i) * time.Second) // stopped all at once, they would end in another order
				mu.Lock()
				defer mu.Unlock()
				stopped = append(stopped, name)
				return nil
			})
		}
		broken := errors.New("disk full")
		g.Go("sink", func(context.Context) error { return broken })
		ctx := g.Watch(t.Context())
		<-ctx.Done()
		if c := context.Cause(ctx); !errors.Is(c, broken) || !strings.Contains(c.Error(), "sink stopped unexpectedly") {
			t.Errorf("cause: %v", c)
		}
		if err := g.Wait(t.Context()); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "sink: ") {
			t.Errorf("Wait: %v", err)
		}
		if want := []string{"gateway", "warehouse", "broker"}; !slices.Equal(stopped, want) {
			t.Errorf("stopped in the order %v, want %v", stopped, want)
		}
	})
}

// A request under way is finished, not aborted.
func TestHTTPDrains(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inside := make(chan struct{})
	release := make(chan struct{})
	run := HTTP(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		io.WriteString(w, "done")
	}), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- run(ctx) }()
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-inside
	cancel()
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A file of a registry's ids that lacks the built-in ones is read with them, and what is
// written has the file's.
func TestCodecReadsBuiltInIDs(t *testing.T) {
	ids := event.DefaultIDs()
	for i := range ids {
		ids[i].ID += 100
	}
	text, err := json.Marshal(ids)
	file := filepath.Join(t.TempDir(), "ids.json")
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := Codec(file)
	if err != nil {
		t.Fatal(err)
	}
	sent := event.Click{WorkspaceID: "acme", TokenStatus: event.TokenAppended, Trigger: event.TriggerLink}
	for codec, id := range map[*event.Codec]byte{event.DefaultCodec(): 6, c: 106} {
		wire, err := codec.AppendClick(nil, &sent)
		if err != nil || wire[4] != id {
			t.Fatalf("written with id %d, %v; want %d", wire[4], err, id)
		}
		var got event.Click
		if err := c.DecodeClick(wire, &got); err != nil || got.WorkspaceID != sent.WorkspaceID {
			t.Errorf("id %d: %+v, %v", id, got, err)
		}
	}
}
