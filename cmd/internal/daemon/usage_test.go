package daemon

import (
	"errors"
	"testing"
)

// Everything that is wrong with a command line is reported at once, with exit status 2.
func TestUsage(t *testing.T) {
	if err := Usage(nil, Required("-a", "x")); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	err := Usage(Required("-a", ""), nil, errors.New("-b: odd"))
	if !errors.Is(err, ErrUsage) || err.Error() != "wrong command line: -a: missing; -b: odd" {
		t.Errorf("got %v", err)
	}
}
