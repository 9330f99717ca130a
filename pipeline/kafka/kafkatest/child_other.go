//go:build !linux

package kafkatest

import "syscall"

// dieWithParent: no such thing here. A child outlives a test that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
