package main

import (
	"cmp"
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
	"github.com/nimriz/partners/connectors/report/sheet"
	"github.com/nimriz/partners/schemas/catalog"
)

func printOverview(w io.Writer, group string) {
	fmt.Fprintf(w, "ctl: sets up the pipeline and inspects it. Flags come before arguments; -h after a command "+
		"explains its flags.\n\n")
	for _, c := range commands() {
		if strings.HasPrefix(c.name, group) {
			fmt.Fprintf(w, "  ctl %-20s %s\n", c.name, c.about)
		}
	}
}

func (c command) parseAndRun(args []string, stdout, stderr io.Writer, environ func(string) (string, bool)) int {
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
	case !endsFlags(args, rest) && slices.ContainsFunc(rest, func(a string) bool { return strings.HasPrefix(a, "-") }):
		err = usagef("flags come before arguments: %q", rest)
	case c.args == "" && len(rest) > 0:
		err = usagef("unexpected argument %q", rest[0])
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		out := &checkedWriter{to: stdout}
		err = do(ctx, &call{
			args:   rest,
			stdout: out,
			stderr: stderr,
			log:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
		})
		err = cmp.Or(err, out.err)
	}
	var problem *catalog.Problem
	var list *sheet.BadList
	var bad *badSecrets
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "ctl %s: %v (-h lists all flags)\n", c.name, err)
		return 2
	case errors.As(err, &problem), errors.As(err, &list), errors.As(err, &bad):
		// lines that begin with FILE:LINE, as editors read them
		fmt.Fprintln(stderr, err)
	default:
		fmt.Fprintf(stderr, "ctl %s: %v\n", c.name, err)
	}
	return 1
}

// checkedWriter remembers the first error of an output. What is printed line by line is
// not complete then, and a command must not end as if it were.
type checkedWriter struct {
	to  io.Writer
	err error
}

// Write implements io.Writer.
func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("writing to standard output: %w", err)
	}
	return n, err
}

// endsFlags reports whether the arguments in rest, which end args, come after "--": then
// they may begin with a hyphen, as a merchant's event id does.
func endsFlags(args, rest []string) bool {
	n := len(args) - len(rest)
	return n > 0 && args[n-1] == "--"
}
