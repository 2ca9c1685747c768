package poller

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// transport is an http.RoundTripper for thousands of hosts of which each is asked for one small thing now and then. A connection that
// waits for its next request is a socket and nothing else. http.Transport keeps two goroutines and two buffers for each: of 5,000, in
// the operator, 44 MiB of stacks and 18 MiB of heap, and most of what the collector had to scan.
//
// It speaks HTTP/1.1 without TLS, sends requests without a body, and reads no answer of more than maxHeader and maxBody together. A
// request ends with its context: the connection is closed under it.
type transport struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	buffers sync.Pool // of *buffer

	mu     sync.Mutex
	idle   map[string]waiting // by address
	swept  time.Time          // when idle was last looked through
	closed bool
}

// waiting is a connection between two requests.
type waiting struct {
	conn  net.Conn
	since time.Time
}

// buffer is what one exchange needs besides its connection.
type buffer struct {
	limit io.LimitedReader
	in    *bufio.Reader
	out   *bufio.Writer
}

func newTransport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *transport {
	return &transport{dial: dial, idle: map[string]waiting{}, buffers: sync.Pool{New: func() any {
		return &buffer{in: bufio.NewReaderSize(nil, ioBuffer), out: bufio.NewWriterSize(nil, ioBuffer)}
	}}}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	conn := t.take(request.URL.Host)
	if conn != nil {
		response, silent, err := t.exchange(request, conn)
		if err == nil || !silent || ctx.Err() != nil {
			return response, err
		}
		// The other end had closed it meanwhile.
	}
	conn, err := t.dial(ctx, "tcp", request.URL.Host)
	if err != nil {
		return nil, err
	}
	response, _, err := t.exchange(request, conn)
	return response, err
}

// exchange sends the request and reads the answer up to its body. It closes the connection if it fails; silent tells that then no byte
// of an answer had come.
func (t *transport) exchange(request *http.Request, conn net.Conn) (response *http.Response, silent bool, err error) {
	ctx := request.Context()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	b := t.buffers.Get().(*buffer)
	b.limit = io.LimitedReader{R: conn, N: maxHeader + maxBody}
	b.in.Reset(&b.limit)
	b.out.Reset(conn)
	if err = request.Write(b.out); err == nil {
		err = b.out.Flush()
	}
	if err == nil {
		response, err = http.ReadResponse(b.in, request)
	}
	if err != nil {
		stop()
		_ = conn.Close()
		silent = b.limit.N == maxHeader+maxBody
		t.giveBack(b)
		if end := ctx.Err(); end != nil {
			err = end
		}
		return nil, silent, err
	}
	response.Body = &body{
		ReadCloser: response.Body, transport: t, buffer: b, conn: conn, stop: stop, ctx: ctx, address: request.URL.Host, last: response.Close,
	}
	return response, false, nil
}

func (t *transport) giveBack(b *buffer) {
	b.limit.R = nil
	b.in.Reset(nil)
	b.out.Reset(nil)
	t.buffers.Put(b)
}

// take returns a connection that waits; nil when there is none.
func (t *transport) take(address string) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.idle[address]
	if !ok {
		return nil
	}
	delete(t.idle, address)
	return w.conn
}

// put lets a connection wait for the next request, and ends those that have waited for too long.
func (t *transport) put(address string, conn net.Conn) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.idle[address]; taken || t.closed {
		_ = conn.Close()
		return
	}
	t.idle[address] = waiting{conn, now}
	if now.Sub(t.swept) < keepAlive/2 {
		return
	}
	t.swept = now
	for address, w := range t.idle {
		if now.Sub(w.since) > keepAlive {
			delete(t.idle, address)
			_ = w.conn.Close()
		}
	}
}

// CloseIdleConnections ends the connections that wait, and those in use once they are not.
func (t *transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for address, w := range t.idle {
		delete(t.idle, address)
		_ = w.conn.Close()
	}
}

// body is that of an answer. The connection is used again if the body was read to its end.
type body struct {
	io.ReadCloser
	transport *transport
	buffer    *buffer
	conn      net.Conn
	stop      func() bool
	ctx       context.Context
	address   string
	last      bool // the other end closes the connection
	whole     bool
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.buffer == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.whole = true
	case err != nil && b.ctx.Err() != nil:
		err = b.ctx.Err()
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	if b.buffer == nil {
		return nil
	}
	if b.stop() && b.whole && !b.last && b.buffer.in.Buffered() == 0 {
		b.transport.put(b.address, b.conn)
	} else {
		_ = b.conn.Close()
	}
	b.transport.giveBack(b.buffer)
	b.buffer = nil
	return nil
}
