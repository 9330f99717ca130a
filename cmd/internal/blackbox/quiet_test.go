//go:build linux

package blackbox

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// loudest is how many warnings and errors a process may log of an outage, beside one a
// minute: that it waits, and what comes of it. There were hundreds.
const loudest = 4

// trouble is a line that counts.
var trouble = regexp.MustCompile(`level=(WARN|ERROR) msg=("[^"]*"|\S+)`)

// ours are messages that are no matter of an outage: what the test itself did wrong on
// purpose, and lost markers, one for each partition that Kafka left open.
var ours = []string{`"a catalog record is refused"`, `"an unreadable record went to the dead letters"`,
	`"spool: clicks are being lost"`, `"Kafka had lost the marker of a transaction; it is written now"`}

// troubles are the warnings and errors in a process's log.
func (r *rig) troubles(p *process) (lines []string) {
	r.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if m := trouble.FindStringSubmatch(line); m != nil && !slices.Contains(ours, m[2]) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// quiet begins to watch the logs; the function that it returns, to be called when the
// outage is over, complains of processes that logged a line for each attempt.
func (r *rig) quiet(what string, others ...*process) (over func()) {
	r.t.Helper()
	began, before := time.Now(), map[*process]int{}
	all := append(r.daemons(), others...)
	for _, p := range all {
		before[p] = len(r.troubles(p))
	}
	return func() {
		r.t.Helper()
		most := loudest + int(time.Since(began)/time.Minute)
		sum := 0
		for _, p := range all {
			lines := r.troubles(p)[before[p]:]
			sum += len(lines)
			if len(lines) > most {
				r.t.Errorf("%s: %s logged %d warnings and errors in %v, %d are enough; the last:\n%s",
					what, p.name, len(lines), time.Since(began).Round(time.Second), most,
					strings.Join(lines[max(0, len(lines)-10):], "\n"))
			}
		}
		r.t.Logf("%s: %d processes logged %d warnings and errors", what, len(all), sum)
	}
}
