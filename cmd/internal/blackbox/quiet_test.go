//go:build linux

package blackbox

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxProblems is how many warnings and errors a process may log during an outage,
// besides one a minute. There used to be hundreds.
const maxProblems = 4

// problemLine matches a warning or an error.
var problemLine = regexp.MustCompile(`level=(WARN|ERROR) msg=("[^"]*"|\S+)`)

// expectedMessages do not count: they report what the test itself does wrong, and lost
// markers, one per partition with a hanging transaction.
var expectedMessages = []string{
	`"a catalog record is refused"`,
	`"an unreadable record went to the dead letters"`,
	`"spool: clicks are being lost"`,
	`"Kafka had lost markers of a transaction; they are written now"`,
}

// readProblems returns the warnings and errors in a process's log.
func (r *rig) readProblems(p *childProcess) (lines []string) {
	r.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if m := problemLine.FindStringSubmatch(line); m != nil && !slices.Contains(expectedMessages, m[2]) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// watchLogs starts to watch the logs. The test calls the returned function after the
// outage; it fails the test if a process has logged a line per attempt.
func (r *rig) watchLogs(what string, others ...*childProcess) (over func()) {
	r.t.Helper()
	began, before := time.Now(), map[*childProcess]int{}
	all := append(r.daemons(), others...)
	for _, p := range all {
		before[p] = len(r.readProblems(p))
	}
	return func() {
		r.t.Helper()
		most := maxProblems + int(time.Since(began)/time.Minute)
		sum := 0
		for _, p := range all {
			lines := r.readProblems(p)[before[p]:]
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
