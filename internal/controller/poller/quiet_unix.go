//go:build unix

package poller

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketQuiet reports whether a socket is open with nothing to read.
func socketQuiet(conn net.Conn) bool {
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
		return true // do not wait for data
	})
	return err == nil && (errors.Is(waits, unix.EAGAIN) || errors.Is(waits, unix.EWOULDBLOCK))
}
