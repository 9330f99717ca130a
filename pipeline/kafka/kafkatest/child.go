package kafkatest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// childProcess is a process that ends when ours does.
type childProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is then how
	err  error
}

func startChild(cmd *exec.Cmd) (*childProcess, error) {
	cmd.SysProcAttr = dieWithParent()
	c := &childProcess{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux ends the child when the thread that started it ends, not the process:
		// this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	return c, <-started
}

// killAndWait ends the child at once, and waits for that.
func (c *childProcess) killAndWait() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL) // it may be gone already
	<-c.done
}
