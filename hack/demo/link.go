package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"

	"golang.org/x/time/rate"
)

// link forwards connections to a server, as a network of limited bandwidth would: what each connection sends is
// limited, what it receives is not.
type link struct {
	listener net.Listener
	server   string // address
	end      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	limit    rate.Limit // bytes per second of each connection
	limiters []*rate.Limiter
}

// chunk is the most, in bytes, that is forwarded at once.
const chunk = 16 << 10

// newLink forwards to the server of a URL, with a limit in bytes per second for each connection.
func newLink(ctx context.Context, server string, limit rate.Limit) (*link, error) {
	at, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("forwarding to %s: %w", server, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("forwarding to %s: %w", server, err)
	}
	l := &link{listener: listener, server: at.Host, limit: limit}
	l.end, l.stop = context.WithCancel(context.WithoutCancel(ctx)) // it ends with close
	l.running.Go(l.accept)
	return l, nil
}

// url returns the URL of a NATS server behind the link.
func (l *link) url() string { return "nats://" + l.listener.Addr().String() }

// widen sets the limit of all connections, in bytes per second.
func (l *link) widen(limit rate.Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	for _, one := range l.limiters {
		one.SetLimit(limit)
	}
}

// close ends all connections.
func (l *link) close() error {
	l.stop()
	err := l.listener.Close()
	l.running.Wait()
	if err != nil {
		return fmt.Errorf("closing the link to %s: %w", l.server, err)
	}
	return nil
}

func (l *link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return // it is closed
		}
		l.running.Go(func() { l.forward(from) })
	}
}

// forward serves one connection until either side or the link ends it.
func (l *link) forward(from net.Conn) {
	ctx, cancel := context.WithCancel(l.end)
	defer cancel()
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.server)
	if err != nil {
		_ = from.Close() // the client sees that the server does not answer
		return
	}
	// Whatever ends one direction ends the connection: reads return when it is closed.
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		_ = from.Close()
		_ = to.Close()
		close(closed)
	})
	defer func() {
		cancel()
		<-closed
	}()
	if tcp, ok := from.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 * chunk) // a larger one would only hide the limit for longer
	}
	l.running.Go(func() {
		defer cancel()
		_ = copyLimited(ctx, from, to, rate.NewLimiter(rate.Inf, chunk))
	})
	_ = copyLimited(ctx, to, from, l.limiter())
}

func (l *link) limiter() *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := rate.NewLimiter(l.limit, chunk)
	l.limiters = append(l.limiters, one)
	return one
}

func copyLimited(ctx context.Context, to, from net.Conn, limiter *rate.Limiter) error {
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if err := limiter.WaitN(ctx, n); err != nil {
				return err
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}
