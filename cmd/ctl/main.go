// Command ctl sets the pipeline up and looks into it: topics, tables, catalog, click tokens, test events, why an event counts, dead letters, and a rollup that is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// command is one thing that ctl can do.
type command struct {
	name  string // the words that select it
	args  string // what follows the flags, for the usage
	about string
	// define declares the flags and returns what to do once they are parsed.
	define func(fs *flag.FlagSet) func(ctx context.Context, c *call) error
}

// call is one run of a command.
type call struct {
	args           []string
	stdout, stderr io.Writer
	log            *slog.Logger
}

func (c *call) say(format string, a ...any) { fmt.Fprintf(c.stdout, format+"\n", a...) }

// usageError is a command line that cannot be right, whatever the state of the world.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

func commands() []command {
	return slices.Concat(topicsCommands(), migrateCommands(), catalogCommands(), tokenCommands(), eventCommands(), whyCommands(), disputeCommands(), lettersCommands(), rollupCommands())
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.LookupEnv)) }

// run returns the exit code: 0 done, 1 failed, 2 wrong command line.
func run(args []string, stdout, stderr io.Writer, environ func(string) (string, bool)) int {
	for _, c := range commands() {
		if words := strings.Fields(c.name); len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.run(args[len(words):], stdout, stderr, environ)
		}
	}
	group := ""
	if len(args) > 0 && slices.ContainsFunc(commands(), func(c command) bool { return strings.HasPrefix(c.name, args[0]+" ") }) {
		group, args = args[0]+" ", args[1:]
	}
	if len(args) > 0 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		overview(stdout, group)
		return 0
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "ctl %s%s: unknown command\n\n", group, args[0])
	}
	overview(stderr, group)
	return 2
}

func overview(w io.Writer, group string) {
	fmt.Fprintf(w, "ctl: sets the pipeline up and looks into it. Flags stand before arguments; each command explains its own with -h.\n\n")
	for _, c := range commands() {
		if strings.HasPrefix(c.name, group) {
			fmt.Fprintf(w, "  ctl %-20s %s\n", c.name, c.about)
		}
	}
}

func (c command) run(args []string, stdout, stderr io.Writer, environ func(string) (string, bool)) int {
	fs := daemon.NewFlags(strings.TrimSpace("ctl "+c.name+" [flags] "+c.args), c.about)
	do := c.define(fs)
	err := daemon.Parse(fs, args, environ)
	if errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(stdout)
		fs.Usage()
		return 0
	}
	switch rest := fs.Args(); {
	case err != nil:
		err = usageError{err}
	case slices.ContainsFunc(rest, func(a string) bool { return strings.HasPrefix(a, "-") }):
		err = usagef("flags stand before arguments: %q", rest)
	case c.args == "" && len(rest) > 0:
		err = usagef("unexpected argument %q", rest[0])
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = do(ctx, &call{args: rest, stdout: stdout, stderr: stderr, log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))})
	}
	var problem *catalog.Problem
	var claim *report.BadClaim
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "ctl %s: %v (-h lists all flags)\n", c.name, err)
		return 2
	case errors.As(err, &problem), errors.As(err, &claim): // lines that begin with FILE:LINE:COL, as editors want them
		fmt.Fprintln(stderr, err)
	default:
		fmt.Fprintf(stderr, "ctl %s: %v\n", c.name, err)
	}
	return 1
}
