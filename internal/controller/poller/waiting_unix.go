//go:build unix

package poller

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peeked reports whether a socket is open with nothing to be read.
func peeked(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var b [1]byte
	var waits error
	err = raw.Read(func(fd uintptr) bool {
		_, _, waits = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true // whatever it says, it is not waited for
	})
	return err == nil && (errors.Is(waits, unix.EAGAIN) || errors.Is(waits, unix.EWOULDBLOCK))
}
