package kafkatest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// child is a process that ends when ours does.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is then how
	err  error
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = dieWithParent()
	c := &child{cmd: cmd, done: make(chan struct{})}
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

// kill ends the child at once, and waits for that.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL) // it may be gone already
	<-c.done
}
