//go:build unix && !linux

package child

import "syscall"

// attributes: a group of its own, so that a terminal's Ctrl-C reaches only this
// process, which then stops the others in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
