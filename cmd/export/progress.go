package main

import (
	"fmt"
	"os"
	"time"
)

// showProgress returns a function that shows rows, rows per second and the remaining
// time on a terminal. It returns nil if to is not a terminal.
func showProgress(to *os.File) func(rows, of int64) {
	if info, err := to.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	began := time.Now()
	var last time.Time
	return func(rows, of int64) {
		if rows < of && time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		perSecond := float64(rows) / max(time.Since(began).Seconds(), 1e-3)
		left := time.Duration(float64(of-rows) / max(perSecond, 1) * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(to, "\r\x1b[K%d of %d rows, %.0f/s, %v left", rows, of, perSecond, left)
		if rows == of {
			fmt.Fprintln(to)
		}
	}
}
