package child

import "syscall"

// attributes: a group of its own, so that a terminal's Ctrl-C reaches only this
// process, which then stops the others in order; and death with this process.
// Pdeathsig follows the thread that forked. Go ends a thread only when a
// goroutine dies that is locked to it, and nothing here locks one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
