package kafkatest

import (
	"regexp"
	"strings"
	"sync"
)

// LogBuffer is a log that a test reads while a program writes it. The zero value is
// empty.
type LogBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String implements fmt.Stringer.
func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Count is how often an expression matches.
func (b *LogBuffer) Count(expr string) int {
	return len(regexp.MustCompile(expr).FindAllString(b.String(), -1))
}
