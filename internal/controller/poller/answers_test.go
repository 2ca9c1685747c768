package poller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"k8s.io/streaming/pkg/httpstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// scripted dials servers that answer the n-th request on a connection by a script.
func scripted(
	t *testing.T, dials *atomic.Int64, script func(conn net.Conn, request int),
) func(context.Context, string, string) (net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				asked := make([]byte, 4096)
				for i := 0; ; i++ {
					if _, err := conn.Read(asked); err != nil {
						return
					}
					script(conn, i)
				}
			}()
		}
	}()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}
}

func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// Data that arrives on an idle connection is never the response to the next request.
func TestWhatComesUnaskedIsNotTheNextAnswer(t *testing.T) {
	for name, late := range map[string]string{
		"another answer":    answer("this was not requested"),
		"a byte":            "x",
		"an empty line":     "\r\n",
		"a final chunk":     "0\r\n\r\n",
		"an early response": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
		"an end":            "",
	} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			come := make(chan struct{})
			transport := newTransport(scripted(t, &dials, func(conn net.Conn, i int) {
				_, _ = io.WriteString(conn, answer(fmt.Sprint("answer ", i)))
				<-come // when it waits
				if late == "" {
					_ = conn.Close()
				} else {
					_, _ = io.WriteString(conn, late)
				}
				come <- struct{}{}
			}))
			defer transport.CloseIdleConnections()
			for range 3 {
				text, err := get(t.Context(), transport, "http://pod:1/")
				if err != nil || text != "answer 0" {
					t.Fatalf("got %q, %v", text, err)
				}
				come <- struct{}{}
				<-come
				eventuallyNotQuiet(t, transport)
			}
			if dials.Load() != 3 {
				t.Errorf("%d dials, want one for each", dials.Load())
			}
		})
	}
}

// eventuallyNotQuiet waits until the data that was sent has arrived.
func eventuallyNotQuiet(t *testing.T, transport *transport) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		transport.mu.Lock()
		w := transport.idle["pod:1"]
		transport.mu.Unlock()
		if w.conn == nil || !quiet(w.conn) {
			return
		}
	}
	t.Fatal("nothing has come")
}

func TestAConnectionOnWhichNothingCameIsUsedAgain(t *testing.T) {
	var dials atomic.Int64
	transport := newTransport(
		scripted(t, &dials, func(conn net.Conn, i int) { _, _ = io.WriteString(conn, answer(fmt.Sprint(i))) }),
	)
	defer transport.CloseIdleConnections()
	for i := range 3 {
		if text, err := get(t.Context(), transport, "http://pod:1/"); err != nil || text != fmt.Sprint(i) {
			t.Errorf("%d: %q, %v", i, text, err)
		}
	}
	if dials.Load() != 1 {
		t.Errorf("%d dials", dials.Load())
	}
}

// Each odd response: how the transport handles it, and whether it reuses the connection.
func TestOddAnswers(t *testing.T) {
	many := strings.Repeat("X: y\r\n", maxLines+1)
	const refused = "\x00"
	for name, test := range map[string]struct {
		answer string
		want   string // the body; refused: none
		dials  int64  // of two requests
	}{
		"100, and then an answer": {"HTTP/1.1 100 Continue\r\n\r\n" + answer("hello"), refused, 2},
		"103, and then an answer": {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer("hello"), refused, 2},
		"101": {
			"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello", refused, 2,
		},
		"199": {"HTTP/1.1 199 X\r\n\r\n", refused, 2},
		"two lengths": {
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", refused, 2,
		},
		"a negative length":       {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", refused, 2},
		"a length with a plus":    {"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", refused, 2},
		"a length that overflows": {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", refused, 2},
		"a length and chunks": {
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", 1,
		},
		"less than its length": {answer("hello")[:len(answer("hello"))-1] + "\x00close", refused, 2},
		"more than its length": {answer("hello") + "garbage", "hello", 2},
		"two answers":          {answer("hello") + answer("again"), "hello", 2},
		"a chunk that overflows": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n", refused, 2,
		},
		"a huge chunk extension": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 100000) + "\r\nhello\r\n0\r\n\r\n",
			refused, 2,
		},
		"many small chunk extensions": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat(
				"1;"+strings.Repeat("x", 1000)+"\r\nh\r\n", 1000,
			) + "0\r\n\r\n",
			refused, 2,
		},
		"trailers": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello", 1,
		},
		"trailers without end": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5\r\nhello\r\n0\r\n" + strings.Repeat(
				"A: b\r\n", 100000,
			),
			refused, 2,
		},
		"chunks, compressed": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", refused, 2,
		},
		"HTTP/0.9":            {"hello\x00close", refused, 2},
		"HTTP/1.0 to its end": {"HTTP/1.0 200 OK\r\n\r\nhello\x00close", "hello", 2},
		"HTTP/1.0 that stays": {
			"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello", 1,
		},
		"HTTP/1.0 with a length": {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 2},
		"HTTP/2":                 {"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", refused, 2},
		"HTTP/2's preface":       {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused, 2},
		"that goes and stays": {
			"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 5\r\n\r\nhello", "hello", 2,
		},
		"204 with a body":         {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "", 2},
		"304 with a body":         {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", "", 2},
		"a status of five digits": {"HTTP/1.1 99999 OK\r\nContent-Length: 5\r\n\r\nhello", refused, 2},
		"many headers":            {"HTTP/1.1 200 OK\r\n" + many + "Content-Length: 5\r\n\r\nhello", refused, 2},
		"as many headers as may be": {
			"HTTP/1.1 200 OK\r\n" + many[:(maxLines-2)*len("X: y\r\n")] + "Content-Length: 5\r\n\r\nhello", "hello", 1,
		},
		"a long header": {
			"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxHeader) + "\r\nContent-Length: 5\r\n\r\nhello", refused, 2,
		},
		"a header almost too long": {
			"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxHeader-200) + "\r\nContent-Length: 5\r\n\r\nhello", "hello", 1,
		},
		"a header without end": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1<<20), refused, 2},
		"a body of many lines": {answer(strings.Repeat("\n", 200_000)), strings.Repeat("\n", 200_000), 1},
		"headers behind other headers": {
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + strings.Repeat("X: y\r\n", 1000), "hello", 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			transport := newTransport(scripted(t, &dials, func(conn net.Conn, _ int) {
				text, end := strings.CutSuffix(test.answer, "\x00close")
				_, _ = io.WriteString(conn, text)
				if end {
					_ = conn.Close()
				}
			}))
			defer transport.CloseIdleConnections()
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				text, err := get(ctx, transport, "http://pod:1/")
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("it is waited for: %q", text)
				}
				if (err != nil) != (test.want == refused) || err == nil && text != test.want {
					t.Errorf("got %.100q, %v", text, err)
				}
				settle(t, transport, test.dials)
			}
			if dials.Load() != test.dials {
				t.Errorf("%d dials, want %d", dials.Load(), test.dials)
			}
		})
	}
}

// settle waits until the data after a response, which makes its connection useless, has arrived.
func settle(t *testing.T, transport *transport, dials int64) {
	t.Helper()
	transport.mu.Lock()
	_, waits := transport.idle["pod:1"]
	transport.mu.Unlock()
	if waits && dials > 1 {
		eventuallyNotQuiet(t, transport)
	}
}

// A response that drips ends with its context, in each of its parts.
func TestAnAnswerThatDripsEndsInTime(t *testing.T) {
	for name, begin := range map[string]string{
		"the first line": "HTT",
		"headers":        "HTTP/1.1 200 OK\r\nX: ",
		"many headers":   "HTTP/1.1 200 OK\r\n",
		"the body":       "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
		"a chunk's size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0",
		"an extension":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
		"trailers":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: ",
	} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int64
			transport := newTransport(scripted(t, &dials, func(conn net.Conn, _ int) {
				_, err := io.WriteString(conn, begin)
				for err == nil {
					time.Sleep(time.Millisecond)
					_, err = io.WriteString(conn, "0")
				}
			}))
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			text, err := get(ctx, transport, "http://pod:1/")
			if took := time.Since(start); err == nil || took > 5*time.Second {
				t.Errorf("%q, %v after %s", text, err, took)
			}
		})
	}
}

// Conditions and events quote errors about responses, which must be short and on one line.
func TestWhatIsSaidOfAnOddAnswerIsBounded(t *testing.T) {
	long := strings.Repeat("y", 10_000)
	for name, text := range map[string]string{
		"no HTTP":         long + "\r\n\r\n",
		"control":         "HTTP/1.1 \x1b[31m\r\n\r\n",
		"a long status":   "HTTP/1.1 " + long + "\r\n\r\n",
		"no header":       "HTTP/1.1 200 OK\r\n" + long + "\r\n\r\n",
		"a long length":   "HTTP/1.1 200 OK\r\nContent-Length: " + long + "\r\n\r\n",
		"a long encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + long + "\r\n\r\n",
		"a long protocol": "HTTP/2.0 200 OK\r\n\r\n",
		"compressed":      "HTTP/1.1 200 OK\r\nContent-Encoding: " + long + "\r\n\r\n",
		"a bad trailer":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + long[:3000] + "\r\n\r\n",
		"a bad chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + long + "\r\n",
	} {
		var dials atomic.Int64
		c := newClient(1, time.Second, func(string, Endpoint) string { return "pod" },
			scripted(t, &dials, func(conn net.Conn, _ int) { _, _ = io.WriteString(conn, text); _ = conn.Close() }))
		var r report.Report
		err := c.Fetch(t.Context(), "ns", Endpoint{Plain: true}, time.Minute, &r)
		if err == nil || len(err.Error()) > 2*maxError || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%s: %q", name, err)
		}
		c.Close()
	}
}

// The memory that a response of nothing but headers takes.
func TestHeadersTakeLittleMemory(t *testing.T) {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\n")
	for i := 0; b.Len() < maxHeader+maxBody; i++ {
		fmt.Fprintf(&b, "%x:\r\n", i)
	}
	var dials atomic.Int64
	text := []byte(b.String())
	transport := newTransport(scripted(t, &dials, func(conn net.Conn, _ int) { _, _ = conn.Write(text) }))
	defer transport.CloseIdleConnections()
	if _, err := get(t.Context(), transport, "http://pod:1/"); err == nil {
		t.Fatal("it is taken") // and warms the pool up
	}
	// The least of some: under the race detector a pool drops some of what is put into it.
	least := uint64(math.MaxUint64)
	for range 20 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := get(t.Context(), transport, "http://pod:1/"); err == nil {
			t.Fatal("it is taken")
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	if least > 16<<10 {
		t.Errorf("%d KiB each", least>>10)
	}
}

// stream is a stream of a tunnel: reads return what the test writes.
type stream struct {
	*io.PipeReader
	httpstream.Stream
}

func (s stream) Read(p []byte) (int, error)  { return s.PipeReader.Read(p) }
func (s stream) Write(p []byte) (int, error) { return len(p), nil }
func (s stream) Close() error                { return nil }

// carrier is a connection of two streams.
type carrier struct {
	httpstream.Connection
	streams []stream
}

func (c *carrier) CreateStream(http.Header) (httpstream.Stream, error) {
	s := c.streams[0]
	c.streams = c.streams[1:]
	return s, nil
}
func (c *carrier) Close() error { return nil }

func TestATunnelKnowsWhatComesUnasked(t *testing.T) {
	open := func() (*tunnel, *io.PipeWriter, *io.PipeWriter) {
		trouble, says := io.Pipe()
		data, comes := io.Pipe()
		tunnel, err := newTunnel(&carrier{streams: []stream{{PipeReader: trouble}, {PipeReader: data}}}, "1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _, _ = tunnel.Close(), says.Close(), comes.Close() })
		return tunnel, says, comes
	}
	noisy := func(tunnel *tunnel) bool {
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if !quiet(tunnel) {
				return true
			}
		}
		return false
	}
	tunnel, _, comes := open()
	if !quiet(tunnel) {
		t.Error("a new one is not quiet")
	}
	if _, err := io.WriteString(comes, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(tunnel, got); err != nil || string(got) != "hel" || quiet(tunnel) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := io.ReadFull(tunnel, got[:2]); err != nil || string(got[:2]) != "lo" || !quiet(tunnel) {
		t.Errorf("%q, %v: when all was read it is quiet", got[:2], err)
	}
	if _, err := io.WriteString(comes, "late"); err != nil || !noisy(tunnel) {
		t.Errorf("what comes late is not seen: %v", err)
	}

	tunnel, says, comes := open()
	_, _ = io.WriteString(says, "no such pod")
	_, _ = says.Close(), comes.Close()
	if !noisy(tunnel) {
		t.Error("an end is not seen")
	}
	if _, err := tunnel.Read(got); err == nil ||
		!strings.Contains(err.Error(), "forwarding a port on the node: no such pod") {
		t.Errorf("it ends with %v", err)
	}

	tunnel, _, _ = open()
	waits := make(chan error, 1)
	go func() { _, err := tunnel.Read(make([]byte, 1)); waits <- err }()
	if err := tunnel.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waits; err == nil || quiet(tunnel) {
		t.Errorf("a closed one is read: %v", err)
	}
}

// Pods have addresses of either family. A proxy, which reaches other servers, is not used for them.
func TestAPodIsReachedOverBothFamiliesAndThroughNoProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Logf("this machine has no %s: %v", ip, err)
			continue
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(
				w, `{"parser":"hlparser","pod":"p","target":"t","namespace":"ns","podUID":"u","streams":[{"name":"Fills"}]}`,
			)
		}))
		_ = server.Listener.Close()
		server.Listener = l
		server.Start()
		c := NewClient(l.Addr().(*net.TCPAddr).Port)
		var r report.Report
		e := Endpoint{Target: "t", PodName: "p", IP: ip, Pod: health.PodState{UID: "u", Running: true}, Plain: true}
		if err := c.Fetch(t.Context(), "ns", e, time.Minute, &r); err != nil || r.PodUID != "u" || r.Namespace != "ns" {
			t.Errorf("%s: %+v, %v", ip, r, err)
		}
		c.Close()
		server.Close()
	}
}
