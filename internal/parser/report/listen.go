package report

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// Listen listens on address, in the form host:port, for Serve. In a pod with its own network it also listens on the
// pod's loopback addresses, on the same port, because port forwarding connects to localhost inside the pod's network
// namespace. node is the address of the pod's node. It is empty outside Kubernetes, and in a pod whose template does
// not set it; Listen then listens on address only.
//
// Listen uses no other interface. A pod with its node's address shares the node's network. The loopback there belongs
// to every process of the node, so Listen listens on address only. It skips a loopback address that is unavailable. If
// none is available it logs a warning that ports cannot be forwarded; nothing else depends on the loopback.
func Listen(address, node string, log *slog.Logger) (net.Listener, error) {
	own, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(own.Addr().String())
	if err != nil || !ownsLoopback(at.Addr(), node) {
		return own, nil //nolint:nilerr // an address outside of a pod's network needs no loopback
	}
	all, port := []net.Listener{own}, strconv.Itoa(int(at.Port()))
	var failed []error
	// Container runtimes try IPv4 first. A node may have only one of the two.
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, port))
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, l)
	}
	if len(all) == 1 {
		log.Warn("this pod's ports cannot be forwarded: no loopback address can be listened on", "error",
			errors.Join(failed...))
		return own, nil
	}
	return merge(all), nil
}

// ownsLoopback reports whether the loopback of the network namespace belongs to the pod alone, which is the case if the
// pod's address differs from its node's. An unspecified address includes the loopback already.
func ownsLoopback(at netip.Addr, node string) bool {
	host, err := netip.ParseAddr(node)
	return err == nil && !at.IsUnspecified() && at.Unmap().WithZone("") != host.Unmap().WithZone("")
}

// listeners combines several listeners.
type listeners struct {
	all      []net.Listener
	incoming chan incoming
	closed   chan struct{}
	close    sync.Once
	closeErr error
	accepts  sync.WaitGroup
}

// incoming is the result of an Accept.
type incoming struct {
	conn net.Conn
	err  error
}

func merge(all []net.Listener) *listeners {
	l := &listeners{all: all, incoming: make(chan incoming), closed: make(chan struct{})}
	for _, one := range all {
		l.accepts.Go(func() { l.accept(one) })
	}
	return l
}

// accept passes on what a listener accepts, including errors, until the listener is closed.
func (l *listeners) accept(from net.Listener) {
	for {
		conn, err := from.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case l.incoming <- incoming{conn, err}:
		case <-l.closed:
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
	}
}

// Accept implements net.Listener.
func (l *listeners) Accept() (net.Conn, error) {
	select {
	case in := <-l.incoming:
		return in.conn, in.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It returns when no listener accepts any more.
func (l *listeners) Close() error {
	l.close.Do(func() {
		close(l.closed)
		for _, one := range l.all {
			if err := one.Close(); err != nil {
				l.closeErr = errors.Join(l.closeErr, fmt.Errorf("closing the listener on %s: %w", one.Addr(), err))
			}
		}
		l.accepts.Wait()
	})
	return l.closeErr
}

// Addr implements net.Listener. It returns the address of the first listener.
func (l *listeners) Addr() net.Addr { return l.all[0].Addr() }
