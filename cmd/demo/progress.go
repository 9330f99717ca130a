package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress is one line that grows on a terminal, and a line every few seconds
// elsewhere. It prints nothing for what is done at once.
type progress struct {
	out      io.Writer
	what     string
	unit     string
	terminal bool

	mu    sync.Mutex
	began time.Time
	told  time.Time
	open  bool
}

func newProgress(out io.Writer, what, unit string) *progress {
	p := &progress{out: out, what: what, unit: unit, began: time.Now(), told: time.Now()}
	if f, ok := out.(*os.File); ok {
		if st, err := f.Stat(); err == nil {
			p.terminal = st.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) set(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := 3 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.told) < every {
		return
	}
	p.told = time.Now()
	rate := float64(done) / time.Since(p.began).Seconds()
	line := fmt.Sprintf("%s  %d of %d %s, %.0f a second", p.what, done, total, p.unit, rate)
	if rate > 0 && total > done {
		line += fmt.Sprintf(", %v left", (time.Duration(float64(total-done)/rate) * time.Second).Round(time.Second))
	}
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.open = true
		return
	}
	fmt.Fprintln(p.out, line)
}

// end closes the line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.open = false
	}
}
