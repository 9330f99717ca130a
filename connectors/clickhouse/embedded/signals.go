package embedded

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Sizes in glibc on amd64.
const (
	sizeofSigaction = 152 // struct sigaction
	sizeofSigset    = 128 // sigset_t
)

// libcFunction resolves a function of the C library.
func libcFunction(name string, function any) error {
	symbol, err := libcSymbol(name)
	if err != nil {
		return err
	}
	purego.RegisterFunc(function, symbol)
	return nil
}

// libcSymbol returns the address of a function of the C library, which either libchdb or
// Go's loader has brought into the process.
func libcSymbol(name string) (uintptr, error) {
	self, err := purego.Dlopen("", purego.RTLD_NOW)
	if err != nil {
		return 0, fmt.Errorf("finding %s: %w", name, err)
	}
	symbol, err := purego.Dlsym(self, name)
	if err != nil {
		return 0, fmt.Errorf("finding %s: %w", name, err)
	}
	return symbol, nil
}

// disableSignalHandlers makes libchdb leave signals alone. The call itself resets some
// handlers to their defaults, which would cost Go its nil checks (SIGSEGV) and
// preemption (SIGURG). So it saves all handlers before and restores them after.
func (l *library) disableSignalHandlers() error {
	var sigaction func(signal int32, action, old unsafe.Pointer) int32
	if err := libcFunction("sigaction", &sigaction); err != nil {
		return err
	}
	signals := []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT,
		syscall.SIGBUS, syscall.SIGFPE, syscall.SIGUSR1, syscall.SIGSEGV, syscall.SIGUSR2, syscall.SIGPIPE,
		syscall.SIGTERM, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPROF, syscall.SIGSYS,
	}
	saved := make([][sizeofSigaction]byte, len(signals))
	for i, signal := range signals {
		if sigaction(int32(signal), nil, unsafe.Pointer(&saved[i])) != 0 {
			return fmt.Errorf("reading the handler of %v", signal)
		}
	}
	l.setSignalHandlers(0)
	for i, signal := range signals {
		if sigaction(int32(signal), unsafe.Pointer(&saved[i]), nil) != 0 {
			return fmt.Errorf("restoring the handler of %v", signal)
		}
	}
	return nil
}

// keepSignalMask runs do, which blocks SIGPIPE on the thread it runs on, and restores
// the signal mask. Otherwise threads that Go starts from this one, and their child
// processes, would inherit it.
func keepSignalMask(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var sigmask func(how int32, set, old unsafe.Pointer) int32
	if err := libcFunction("pthread_sigmask", &sigmask); err != nil {
		return err
	}
	const setMask = 2 // SIG_SETMASK
	var saved [sizeofSigset]byte
	if sigmask(setMask, nil, unsafe.Pointer(&saved)) != 0 {
		return fmt.Errorf("reading the signal mask")
	}
	defer sigmask(setMask, unsafe.Pointer(&saved), nil)
	return do()
}
