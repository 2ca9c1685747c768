package report

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

const (
	// maxConnections bounds the open connections, and maxConnectionsEach those of one address. The operator, a kubelet
	// and a Prometheus hold one or two each.
	maxConnections     = 64
	maxConnectionsEach = 8
)

// connections is a listener that bounds the number of open connections. It never refuses a new connection, so that a
// client with rare requests, such as a kubelet's probe, is served however many connections others hold. Instead it
// closes a connection of the address with the most: one that is idle, or else one that has not sent its request, or
// else one that is being answered. Among these it closes the one that has been in that state the longest.
type connections struct {
	net.Listener
	all, each int

	mu    sync.Mutex
	open  map[*connection]struct{}
	clock uint64 // counts state changes, to order them
}

func newConnections(listener net.Listener, all, each int) *connections {
	return &connections{Listener: listener, all: all, each: each, open: map[*connection]struct{}{}}
}

// connection is an open connection.
type connection struct {
	net.Conn
	owner   *connections
	address netip.Addr // the zero value if the network has no addresses
	state   http.ConnState
	since   uint64
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, owner: l, state: http.StateNew}
	if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		c.address = from.Addr().Unmap()
	}
	if victim := l.admit(c); victim != nil {
		_ = victim.Close()
	}
	return c, nil
}

// admit adds a connection, and returns the one to close for it, or nil if there is room.
func (l *connections) admit(c *connection) *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	var victim *connection
	held := map[netip.Addr]int{}
	for o := range l.open {
		held[o.address]++
	}
	switch {
	case held[c.address] >= l.each:
		victim = l.evictable(func(o *connection) bool { return o.address == c.address })
	case len(l.open) >= l.all:
		most := 0
		for _, n := range held {
			most = max(most, n)
		}
		victim = l.evictable(func(o *connection) bool { return held[o.address] == most })
	}
	if victim != nil {
		delete(l.open, victim)
	}
	l.clock++
	c.since = l.clock
	l.open[c] = struct{}{}
	return victim
}

// evictable returns the open connection to close first.
func (l *connections) evictable(among func(*connection) bool) *connection {
	var first *connection
	for c := range l.open {
		if among(c) && (first == nil || c.closeCost() < first.closeCost() || c.closeCost() == first.closeCost() &&
			c.since < first.since) {
			first = c
		}
	}
	return first
}

// closeCost is the cost of closing a connection; higher is worse.
func (c *connection) closeCost() int {
	switch c.state {
	case http.StateIdle:
		return 0
	case http.StateNew:
		return 1
	default:
		return 2
	}
}

// stateChanged records the state of a connection. It is the http.Server's ConnState.
func (l *connections) stateChanged(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	c.state, c.since = state, l.clock
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
