package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progressLine shows progress: one line that is rewritten on a terminal, or a line
// every few seconds elsewhere. It prints nothing for short work.
type progressLine struct {
	out      io.Writer
	what     string // the work, such as settling
	unit     string // what is counted, such as rows
	terminal bool   // whether out is one

	mu        sync.Mutex
	startedAt time.Time
	printedAt time.Time
	lineOpen  bool // the terminal's cursor is behind the line
}

func newProgressLine(out io.Writer, what, unit string) *progressLine {
	p := &progressLine{out: out, what: what, unit: unit, startedAt: time.Now(), printedAt: time.Now()}
	if f, ok := out.(*os.File); ok {
		if st, err := f.Stat(); err == nil {
			p.terminal = st.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progressLine) update(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := 3 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.printedAt) < every {
		return
	}
	p.printedAt = time.Now()
	rate := float64(done) / time.Since(p.startedAt).Seconds()
	line := fmt.Sprintf("%s  %d of %d %s, %.0f a second", p.what, done, total, p.unit, rate)
	if rate > 0 && total > done {
		line += fmt.Sprintf(", %v left", (time.Duration(float64(total-done)/rate) * time.Second).Round(time.Second))
	}
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.lineOpen = true
		return
	}
	fmt.Fprintln(p.out, line)
}

// clearLine removes the line from the terminal.
func (p *progressLine) clearLine() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lineOpen {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.lineOpen = false
	}
}
