package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Group runs named tasks. They start in the order of Go, and stop in the reverse order,
// each before the next is told: what comes later may use what came earlier until its
// own end.
type Group struct {
	tasks []*task
	ended chan *task
}

// taskTimeout is when a task is given up. A task may be a group itself, whose tasks
// stop one after another, each within StopTimeout.
const taskTimeout = 3 * StopTimeout

type task struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Go starts a task. It runs until its context ends; a task that returns earlier ends
// the group.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	if g.ended == nil {
		g.ended = make(chan *task, 64)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{name: name, cancel: cancel, done: make(chan struct{})}
	g.tasks = append(g.tasks, t)
	go func() {
		defer close(t.done)
		t.err = run(ctx)
		g.ended <- t
	}()
}

// Wait waits until ctx is done or a task ends, then stops the tasks, the last one
// first. It returns their errors, each with its task's name.
func (g *Group) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-g.ended:
	}
	return g.Stop()
}

// Stop stops the tasks, the last one first.
func (g *Group) Stop() error {
	var errs []error
	for i := len(g.tasks) - 1; i >= 0; i-- {
		t := g.tasks[i]
		t.cancel()
		select {
		case <-t.done:
			if t.err != nil && !errors.Is(t.err, context.Canceled) {
				errs = append(errs, fmt.Errorf("%s: %w", t.name, t.err))
			}
		case <-time.After(taskTimeout):
			errs = append(errs, fmt.Errorf("%s did not stop within %v", t.name, taskTimeout))
		}
	}
	g.tasks = nil
	return errors.Join(errs...)
}

// Watch returns a context that ends with ctx, or when a task ends before its time: then
// its cause names the task.
func (g *Group) Watch(ctx context.Context) context.Context {
	if g.ended == nil {
		g.ended = make(chan *task, 64)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-ctx.Done():
		case t := <-g.ended:
			cancel(fmt.Errorf("%s ended early: %w", t.name, errors.Join(t.err, errEarly)))
			g.ended <- t
		}
	}()
	return ctx
}

var errEarly = errors.New("nobody told it to")
