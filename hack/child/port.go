package child

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports of FreePort are below those that the kernel gives to clients, so that no client takes the port of a program
// that is down for a moment.
const firstPort, lastPort = 20_000, 30_000

// FreePort returns a port of a host that nobody listens on, for a program that must know its port before it starts.
func FreePort(host string) (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("finding a free port of %s: %w", host, err)
}
