package poller

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// transport is an http.RoundTripper for thousands of hosts with a small request to each now and then. An idle
// connection is a socket and nothing else. http.Transport keeps two goroutines and two buffers per connection: for
// 5,000, in the operator, 44 MiB of stacks and 18 MiB of heap, which was most of what the garbage collector had to
// scan.
//
// It speaks HTTP/1.1 without TLS and sends requests without a body. It reads at most maxHeader bytes of headers, in at
// most maxLines lines, and at most maxHeader and maxBody bytes together. It refuses a response that is not final. A
// request ends with its context, by closing the connection. A connection that receives data between two requests is not
// reused: the data would be taken for the next response.
type transport struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	buffers sync.Pool // of *buffer

	mu     sync.Mutex
	idle   map[string]idleConn // by address
	swept  time.Time           // last removal of expired connections
	closed bool
}

// idleConn is a connection between two requests.
type idleConn struct {
	conn  net.Conn
	since time.Time
}

// buffer holds the state of one exchange besides its connection.
type buffer struct {
	limit limit
	in    *bufio.Reader
	out   *bufio.Writer
}

func newTransport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *transport {
	return &transport{dial: dial, idle: map[string]idleConn{}, buffers: sync.Pool{New: func() any {
		return &buffer{in: bufio.NewReaderSize(nil, ioBuffer), out: bufio.NewWriterSize(nil, ioBuffer)}
	}}}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	conn := t.take(request.URL.Host)
	if conn != nil && !quiet(conn) {
		_ = conn.Close()
		conn = nil
	}
	if conn != nil {
		response, silent, err := t.exchange(request, conn)
		if err == nil || !silent || ctx.Err() != nil {
			return response, err
		}
		// The server had closed the idle connection.
	}
	conn, err := t.dial(ctx, "tcp", request.URL.Host)
	if err != nil {
		return nil, err
	}
	response, _, err := t.exchange(request, conn)
	return response, err
}

// exchange sends the request and reads the response up to its body. After a failure it closes the connection; silent is
// true then if no byte of a response had arrived.
func (t *transport) exchange(request *http.Request, conn net.Conn) (response *http.Response, silent bool, err error) {
	ctx := request.Context()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	b := t.buffers.Get().(*buffer)
	b.limit = newLimit(conn)
	b.in.Reset(&b.limit)
	b.out.Reset(conn)
	if err = request.Write(b.out); err == nil {
		err = b.out.Flush()
	}
	if err == nil {
		response, err = b.read(request)
	}
	if err != nil {
		stop()
		_ = conn.Close()
		silent = b.limit.untouched()
		t.putBuffer(b)
		if end := ctx.Err(); end != nil {
			err = end
		}
		return nil, silent, err
	}
	response.Body = &body{
		ReadCloser: response.Body, transport: t, buffer: b, conn: conn, stop: stop, ctx: ctx,
		address: request.URL.Host, closing: response.Close,
	}
	return response, false, nil
}

// read reads a response up to its body.
func (b *buffer) read(request *http.Request) (*http.Response, error) {
	response, err := http.ReadResponse(b.in, request)
	switch {
	case b.limit.over != nil:
		return nil, b.limit.over // the cause, not its effect on the parser of the response
	case err != nil:
		return nil, err
	case response.StatusCode < http.StatusOK:
		return nil, fmt.Errorf("the response has status %d, which is not final", response.StatusCode)
	case response.ProtoMajor != 1:
		return nil, fmt.Errorf("the response has protocol %.10q", response.Proto)
	}
	b.limit.body()
	return response, nil
}

// limit bounds what is read of a response. It also counts headers: a header of a few bytes takes many times as much
// memory.
type limit struct {
	conn  io.Reader
	left  int  // bytes
	lines int  // header lines left; -1 after the headers
	empty bool // the current line is empty so far
	over  error
}

func newLimit(conn io.Reader) limit { return limit{conn: conn, left: maxHeader, lines: maxLines} }

// body allows for a body after the headers.
func (l *limit) body() { l.left, l.lines = l.left+maxBody, -1 }

// untouched reports whether nothing was read.
func (l *limit) untouched() bool { return l.left == maxHeader && l.lines == maxLines }

// Read implements io.Reader.
func (l *limit) Read(p []byte) (int, error) {
	switch {
	case l.over != nil:
		return 0, l.over
	case l.left <= 0 && l.lines >= 0:
		l.over = fmt.Errorf("the response's headers are longer than %d KiB", maxHeader>>10)
		return 0, l.over
	case l.left <= 0:
		return 0, io.EOF // the reader of the body has its own bound
	}
	n, err := l.conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	for _, c := range p[:n] {
		if l.lines < 0 || l.over != nil {
			break
		}
		l.count(c)
	}
	if l.over != nil {
		return 0, l.over
	}
	return n, err
}

// count counts a byte of the headers.
func (l *limit) count(c byte) {
	switch {
	case c == '\n' && l.empty:
		l.lines = -1 // the body follows
	case c == '\n' && l.lines == 0:
		l.over = fmt.Errorf("the response has more than %d headers", maxLines)
	case c == '\n':
		l.lines--
		l.empty = true
	case c != '\r':
		l.empty = false
	}
}

// quietConn is a connection that can report whether it is open with no unread data.
type quietConn interface{ quiet() bool }

// quiet reports whether an idle connection is open with no unread data. It returns false when that is unknown.
func quiet(conn net.Conn) bool {
	if c, ok := conn.(quietConn); ok {
		return c.quiet()
	}
	return socketQuiet(conn)
}

func (t *transport) putBuffer(b *buffer) {
	b.limit = limit{}
	b.in.Reset(nil)
	b.out.Reset(nil)
	t.buffers.Put(b)
}

// take removes and returns an idle connection; nil when there is none.
func (t *transport) take(address string) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.idle[address]
	if !ok {
		return nil
	}
	delete(t.idle, address)
	return c.conn
}

// put keeps a connection for the next request, and closes expired ones.
func (t *transport) put(address string, conn net.Conn) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.idle[address]; taken || t.closed {
		_ = conn.Close()
		return
	}
	t.idle[address] = idleConn{conn, now}
	if now.Sub(t.swept) < keepAlive/2 {
		return
	}
	t.swept = now
	for address, c := range t.idle {
		if now.Sub(c.since) > keepAlive {
			delete(t.idle, address)
			_ = c.conn.Close()
		}
	}
}

// CloseIdleConnections closes idle connections now, and those in use when they become idle.
func (t *transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for address, c := range t.idle {
		delete(t.idle, address)
		_ = c.conn.Close()
	}
}

// body is the body of a response. The connection is reused if the body was read to its end.
type body struct {
	io.ReadCloser
	transport *transport
	buffer    *buffer
	conn      net.Conn
	stop      func() bool
	ctx       context.Context
	address   string
	closing   bool // the server closes the connection
	complete  bool // read to its end
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.buffer == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.complete = true
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
	if b.stop() && b.complete && !b.closing && b.buffer.in.Buffered() == 0 {
		b.transport.put(b.address, b.conn)
	} else {
		_ = b.conn.Close()
	}
	b.transport.putBuffer(b.buffer)
	b.buffer = nil
	return nil
}
