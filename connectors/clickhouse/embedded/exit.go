package embedded

import (
	"errors"
	"unsafe"
)

// skipDestructors makes an exit through the C library end the process at once.
// Otherwise it destroys libchdb's static objects while the engine's threads use them: of
// 25 test binaries with the race detector, whose runtime exits that way, 16 ended with
// SIGSEGV behind their last test. The handlers of an exit run last in, first out, so
// this one is registered once the engine has started. Go's own exit runs none.
func skipDestructors() error {
	var onExit func(function uintptr, argument unsafe.Pointer) int32
	if err := libcFunction("on_exit", &onExit); err != nil {
		return err
	}
	exit, err := libcSymbol("_exit")
	if err != nil {
		return err
	}
	if onExit(exit, nil) != 0 {
		return errors.New("registering a handler of the process's exit")
	}
	return nil
}
