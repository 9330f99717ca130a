package processor_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// cable passes connections on until it is cut; then they end as if the broker were
// gone, and new ones work.
type cable struct {
	mu    sync.Mutex
	plugs []net.Conn
}

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	far, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, plug := net.Pipe()
	c.mu.Lock()
	c.plugs = append(c.plugs, plug, far)
	c.mu.Unlock()
	for _, x := range [][2]net.Conn{{far, plug}, {plug, far}} {
		go func() {
			io.Copy(x[0], x[1])
			x[0].Close()
		}()
	}
	return near, nil
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.plugs {
		p.Close()
	}
	c.plugs = nil
}

// A session whose connection is lost writes nothing any more, though its client would
// connect again: the next one looks first at what the broker may have lost.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	var log notes
	p := newLoggedProcessor(t, w.brokers, config(t.TempDir()), &log)
	c := &cable{}
	p.SetOptions(kgo.Dialer(c.dial))
	sessions := func() int { return strings.Count(log.String(), "session ended") }
	start(t, p)
	for i := range 3 {
		w.story(10)
		eventually(t, "it runs", func() bool {
			return strings.Count(log.String(), "partition restored") == (i+1)*kafkatest.Partitions
		})
		if n := sessions(); n != i {
			t.Fatalf("%d sessions ended, want %d:\n%s", n, i, &log)
		}
		c.cut()
		eventually(t, "the session ends", func() bool { return sessions() == i+1 })
	}
	w.settle(grace)
	w.conserved()
	if n := strings.Count(log.String(), "was lost: "); n != 3 {
		t.Errorf("%d sessions ended for their connection:\n%s", n, &log)
	}
}
