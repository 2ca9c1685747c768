//go:build unix && !linux

package child

import "syscall"

// attributes puts a child into its own process group, so that a terminal's Ctrl-C reaches only this process, which then
// stops the children in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
