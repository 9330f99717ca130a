// Command demo runs the whole pipeline in one process: real HTTP, an embedded broker
// and an embedded ClickHouse, seeded traffic, and a ledger that is compared with an
// oracle.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr, nil)) }

// realMain is main without the exit. judge replaces the oracle in tests; nil keeps it.
func realMain(args []string, stdout, stderr io.Writer, judge oracleFunc) int {
	o, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v (-h lists all flags)\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newDemo(o, stdout, stderr, judge).runDemo(ctx); err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}
