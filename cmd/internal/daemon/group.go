package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Group runs named tasks. They start in the order of Go and stop in the reverse order,
// one after another: a task may use the tasks that were started before it until its own
// end.
//
// It is our own because of this ordered stop: errgroup and oklog/run stop all tasks at
// once.
type Group struct {
	tasks []*task
	ended chan *task
}

// taskTimeout bounds the stop of a task. A task may be a group itself, whose tasks stop
// one after another, each within StopTimeout.
const taskTimeout = 3 * StopTimeout

// maxTasks bounds the tasks of a group, so that a task that ends never blocks.
const maxTasks = 64

// task is one function that a Group runs.
type task struct {
	name   string             // for errors
	cancel context.CancelFunc // ends the task's context
	done   chan struct{}      // closed when the function has returned
	err    error              // what it returned; valid after done
}

// Go starts a task, which runs until its context ends. A task that returns earlier ends
// the group.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	if g.ended == nil {
		g.ended = make(chan *task, maxTasks)
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

// Watch returns a context that ends with ctx, or when a task returns without having
// been stopped. The cause then names the task.
func (g *Group) Watch(ctx context.Context) context.Context {
	if g.ended == nil {
		g.ended = make(chan *task, maxTasks)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-ctx.Done():
		case t := <-g.ended:
			cancel(unexpectedStop(t))
			g.ended <- t
		}
	}()
	return ctx
}

func unexpectedStop(t *task) error {
	if t.err == nil {
		return fmt.Errorf("%s stopped unexpectedly", t.name)
	}
	return fmt.Errorf("%s stopped unexpectedly: %w", t.name, t.err)
}
