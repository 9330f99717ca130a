// Command ctl sets up the pipeline and inspects it: topics, tables, catalog, click
// tokens, secrets, test events, the reasons for a verdict, dead letters, and rollups.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// command is one command of ctl.
type command struct {
	name  string // the words that select it
	args  string // the arguments after the flags, for the usage; "" for none
	about string // one sentence for the usage
	// define declares the flags and returns the function that runs once they are
	// parsed.
	define func(fs *flag.FlagSet) func(ctx context.Context, c *call) error
}

// call is one run of a command.
type call struct {
	args           []string // after the flags
	stdout, stderr io.Writer
	log            *slog.Logger
}

func (c *call) say(format string, a ...any) { fmt.Fprintf(c.stdout, format+"\n", a...) }

// usageError is an error in the command line, whatever the state of the pipeline.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

func commands() []command {
	return slices.Concat(topicsCommands(), migrateCommands(), catalogCommands(), tokenCommands(),
		secretsCommands(), eventCommands(),
		whyCommands(), disputeCommands(), verifyCommands(), deadLetterCommands(), rollupCommands(),
		repairCommands(), dropMonthsCommands(), readyCommands())
}

func main() { os.Exit(runCommand(os.Args[1:], os.Stdout, os.Stderr, os.LookupEnv)) }

// runCommand runs the command that args select. It returns the exit status: 0 done, 1
// failed, 2 wrong command line.
func runCommand(args []string, stdout, stderr io.Writer, environ func(string) (string, bool)) int {
	for _, c := range commands() {
		if words := strings.Fields(c.name); len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.parseAndRun(args[len(words):], stdout, stderr, environ)
		}
	}
	group := ""
	if len(args) > 0 && slices.ContainsFunc(commands(), func(c command) bool {
		return strings.HasPrefix(c.name, args[0]+" ")
	}) {
		group = args[0] + " "
		args = args[1:]
	}
	if len(args) > 0 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		printOverview(stdout, group)
		return 0
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "ctl %s%s: unknown command\n\n", group, args[0])
	}
	printOverview(stderr, group)
	return 2
}
