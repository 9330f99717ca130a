package redirect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

// BenchmarkHandler measures one redirect without the network. The click is captured,
// but the handler does not wait for the disk.
func BenchmarkHandler(b *testing.B) {
	cfg := testConfig(b)
	cfg.Capture = CaptureAsync
	h, err := New(testView(b, testCatalog), testKeys(b, "acme"), codec, openSpool(b, cfg), nil, nil, discardLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	h.spool.fsync = func(*os.File) error { return nil }
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(benchRequest)))
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "203.0.113.7:4711"
	w := &discardResponse{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

type discardResponse struct{ header http.Header }

func (w *discardResponse) Header() http.Header         { return w.header }
func (w *discardResponse) WriteHeader(int)             {}
func (w *discardResponse) Write(b []byte) (int, error) { return len(b), nil }

const benchRequest = "GET /nomura HTTP/1.1\r\nHost: go.acme.com\r\nUser-Agent: " + chromeAgent +
	"\r\nReferer: https://news.example.com/a\r\n\r\n"

// BenchmarkServer compares requests per CPU-second of a separate server process. hello
// only calls http.Redirect; the other modes are this package, without and with the
// shipper. The load and the broker run in this process and are not counted. With close
// each request has a connection of its own, as those of visitors do.
//
//	go test -bench Server -benchtime 200000x ./connectors/redirect
func BenchmarkServer(b *testing.B) {
	for _, mode := range []string{"hello", "async", "durable", "shipped"} {
		b.Run(mode, func(b *testing.B) { benchmarkServer(b, mode, benchRequest) })
		b.Run(mode+"-close", func(b *testing.B) { benchmarkServer(b, mode, closingRequest) })
	}
}

const connections = 64

func benchmarkServer(b *testing.B, mode, request string) {
	brokers := ""
	if mode == "shipped" {
		brokers = kafkatest.Broker(b)[0]
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "REDIRECT_BENCH="+mode, "REDIRECT_BENCH_DIR="+b.TempDir(),
		"REDIRECT_BENCH_BROKERS="+brokers)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	defer child.Wait()
	lines := bufio.NewScanner(stdout)
	ask := func(question string) string {
		b.Helper()
		if question != "" {
			if _, err := io.WriteString(stdin, question+"\n"); err != nil {
				b.Fatal(err)
			}
		}
		if !lines.Scan() {
			b.Fatalf("server process: no response to %q: %v", question, lines.Err())
		}
		return lines.Text()
	}
	addr := ask("")
	sendRequests(b, addr, request, 5000) // warm up
	before := cpuSeconds(b, ask("cpu"))
	b.ResetTimer()
	sendRequests(b, addr, request, b.N)
	b.StopTimer()
	if mode == "shipped" {
		ask("drain")
	}
	b.ReportMetric(float64(b.N)/(cpuSeconds(b, ask("cpu"))-before), "req/cpu-s")
	stdin.Close()
}

func cpuSeconds(b *testing.B, text string) float64 {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// closingRequest is benchRequest without keep-alive.
var closingRequest = strings.Replace(benchRequest, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)

// sendRequests sends n requests over 64 connections at a time, each waiting for its
// response.
func sendRequests(b *testing.B, addr, request string, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for left.Load() > 0 {
				if err := useConnection(addr, request, &left); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// useConnection sends requests over one connection until the server closes it or none
// is left.
func useConnection(addr, request string, left *atomic.Int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for left.Add(-1) >= 0 {
		if _, err := io.WriteString(c, request); err != nil {
			return err
		}
		if err := readResponse(in); err != nil || request == closingRequest {
			return err
		}
	}
	return nil
}

func readResponse(in *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(string(line), "HTTP/1.1 302") {
			return fmt.Errorf("response %q", line)
		}
		if v, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
		if len(line) == 2 {
			_, err := in.Discard(length)
			return err
		}
	}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv("REDIRECT_BENCH"); mode != "" {
		if err := benchChild(mode); err != nil {
			fmt.Fprintln(os.Stderr, "bench server:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// benchChild serves until stdin ends. It replies to each line of stdin with the CPU
// seconds that it has used.
func benchChild(mode string) error {
	drain := func() {}
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://shop.acme.com/?ref=a%2Bb#top", http.StatusFound)
	})
	if mode != "hello" {
		cfg := DefaultConfig()
		cfg.SpoolDir = os.Getenv("REDIRECT_BENCH_DIR")
		if mode == "async" {
			cfg.Capture = CaptureAsync
		}
		spool, err := OpenSpool(cfg, discardLog(), nil)
		if err != nil {
			return err
		}
		t := new(benchTB)
		if handler, err = New(testView(t, testCatalog), testKeys(t, "acme"), codec, spool, nil, nil,
			discardLog(), nil); err != nil {
			return err
		}
		if mode == "shipped" {
			kcfg := kafka.DefaultConfig()
			kcfg.Brokers = []string{os.Getenv("REDIRECT_BENCH_BROKERS")}
			client, err := kafka.NewClient(kcfg, discardLog(), nil, ClientOptions()...)
			if err != nil {
				return err
			}
			placer := placedIn(topic.OneEpoch(kafkatest.Partitions))
			shipper, err := NewShipper(spool, client, topic.Clicks, placer, codec, nil, discardLog(), nil)
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- shipper.Run(ctx) }()
			drain = func() { stop(); <-done }
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if path := os.Getenv("PARTNERS_BENCH_PROFILE"); path != "" {
		profile, err := os.Create(path + "." + mode)
		if err != nil {
			return err
		}
		defer profile.Close()
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	server := &http.Server{Handler: handler}
	if mode != "hello" {
		quiet := Listener{l}
		l, server.ConnContext = quiet, quiet.ConnContext
	}
	go server.Serve(l)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "drain" {
			drain()
		}
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Printf("%f\n", float64(u.Utime.Nano()+u.Stime.Nano())/1e9)
	}
	return nil
}

// benchTB lets the child use the helpers of the tests. A failure panics.
type benchTB struct{ testing.TB }

func (*benchTB) Helper()           {}
func (*benchTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
