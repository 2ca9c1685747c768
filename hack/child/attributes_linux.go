package child

import "syscall"

// attributes puts a child into its own process group, so that a terminal's Ctrl-C reaches only this process, which then
// stops the children in order. The kernel kills the child when this process dies. Pdeathsig refers to the thread that
// forked. Go ends a thread only when a goroutine that is locked to it ends, and nothing here locks one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
