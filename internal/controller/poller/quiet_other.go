//go:build !unix

package poller

import "net"

// socketQuiet reports whether a socket is open with nothing to read. That is unknown here, so each poll dials.
func socketQuiet(net.Conn) bool { return false }
