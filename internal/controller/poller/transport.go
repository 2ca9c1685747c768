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

// transport is an http.RoundTripper for thousands of hosts of which each is asked for one small thing now and then. A connection that
// waits for its next request is a socket and nothing else. http.Transport keeps two goroutines and two buffers for each: of 5,000, in
// the operator, 44 MiB of stacks and 18 MiB of heap, and most of what the collector had to scan.
//
// It speaks HTTP/1.1 without TLS and sends requests without a body. It reads no more than maxHeader of an answer's headers, in no more
// than maxLines, and no more than maxHeader and maxBody together; an answer that is not final is refused. A request ends with its context:
// the connection is closed under it. A connection on which something came between two requests is not used again: it would be taken for
// the answer to the next.
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
	limit limit
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
	if conn != nil && !quiet(conn) {
		_ = conn.Close()
		conn = nil
	}
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

// read reads an answer up to its body.
func (b *buffer) read(request *http.Request) (*http.Response, error) {
	response, err := http.ReadResponse(b.in, request)
	switch {
	case b.limit.over != nil:
		return nil, b.limit.over // and not what became of it
	case err != nil:
		return nil, err
	case response.StatusCode < http.StatusOK:
		return nil, fmt.Errorf("the answer is %d, which is none", response.StatusCode)
	case response.ProtoMajor != 1:
		return nil, fmt.Errorf("the answer is in %.10q", response.Proto)
	}
	b.limit.body()
	return response, nil
}

// limit bounds what is read of an answer. Headers are also counted: a few bytes each, they would take many times as much as memory.
type limit struct {
	conn  io.Reader
	left  int  // bytes
	lines int  // of headers; -1: they are over
	empty bool // nothing of the line has come yet
	over  error
}

func newLimit(conn io.Reader) limit { return limit{conn: conn, left: maxHeader, lines: maxLines} }

// body lets a body come after the headers.
func (l *limit) body() { l.left, l.lines = l.left+maxBody, -1 }

// untouched reports whether nothing was read.
func (l *limit) untouched() bool { return l.left == maxHeader && l.lines == maxLines }

// Read implements io.Reader.
func (l *limit) Read(p []byte) (int, error) {
	switch {
	case l.over != nil:
		return 0, l.over
	case l.left <= 0 && l.lines >= 0:
		l.over = fmt.Errorf("the answer's headers are longer than %d KiB", maxHeader>>10)
		return 0, l.over
	case l.left <= 0:
		return 0, io.EOF // the one who reads the body has its own bound
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

// count takes in a byte of the headers.
func (l *limit) count(c byte) {
	switch {
	case c == '\n' && l.empty:
		l.lines = -1 // the body follows, or what else came with them
	case c == '\n' && l.lines == 0:
		l.over = fmt.Errorf("the answer has more than %d headers", maxLines)
	case c == '\n':
		l.lines--
		l.empty = true
	case c != '\r':
		l.empty = false
	}
}

// watched is a connection that knows itself whether it is open and nothing has come that was not read.
type watched interface{ quiet() bool }

// quiet reports whether a connection that was idle is open and nothing has come on it. It reports false where that is not known.
func quiet(conn net.Conn) bool {
	if w, ok := conn.(watched); ok {
		return w.quiet()
	}
	return peeked(conn)
}

func (t *transport) giveBack(b *buffer) {
	b.limit = limit{}
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
