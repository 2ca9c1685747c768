package report

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// piped is a listener whose connections are given by a test.
type piped struct{ incoming chan net.Conn }

func (p *piped) Accept() (net.Conn, error) {
	conn, ok := <-p.incoming
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p *piped) Close() error   { return nil }
func (p *piped) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr { return &net.UnixAddr{Name: f.address} }

// accept lets in a connection from an address. It returns the server's end, and a function that reports whether the
// client's end is open.
func (p *piped) accept(t *testing.T, l *connections, address string) (*connection, func() bool) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	go func() { p.incoming <- from{ours, address} }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*connection), func() bool {
		_ = theirs.SetReadDeadline(time.Now().Add(-time.Second))
		_, err := theirs.Read(make([]byte, 1))
		return !errors.Is(err, io.EOF)
	}
}

func TestWhichConnectionIsClosedForANewOne(t *testing.T) {
	type held struct {
		address string
		state   http.ConnState
	}
	idle, fresh, active := http.StateIdle, http.StateNew, http.StateActive
	for name, test := range map[string]struct {
		held []held
		from string
		goes int // -1: none
	}{
		"there is room": {[]held{{"10.0.0.1:1", idle}, {"10.0.0.2:1", idle}}, "10.0.0.3:1", -1},
		"an address is at its limit: its idle one": {[]held{{"10.0.0.1:1", active}, {"10.0.0.1:2", fresh},
			{"10.0.0.1:3", idle}}, "10.0.0.1:4", 2},
		"an address is at its limit: its silent one": {[]held{{"10.0.0.1:1", active}, {"10.0.0.1:2", fresh},
			{"10.0.0.1:3", active}}, "10.0.0.1:4", 1},
		"an address is at its limit, all active: the oldest": {[]held{{"10.0.0.1:1", active}, {"10.0.0.1:2", active},
			{"10.0.0.1:3", active}}, "10.0.0.1:4", 0},
		"IPv4 in IPv6 is the same address": {[]held{{"10.0.0.1:1", active}, {"[::ffff:10.0.0.1]:2", idle},
			{"10.0.0.1:3", idle}}, "10.0.0.1:4", 1},
		"no room: the address with the most": {
			[]held{{"10.0.0.1:1", idle}, {"10.0.0.2:1", active}, {"10.0.0.2:2", fresh}, {"10.0.0.3:1", idle},
				{"10.0.0.4:1", idle}}, "10.0.0.5:1", 2},
		"no room, all addresses alike: the oldest idle one": {
			[]held{{"10.0.0.1:1", active}, {"10.0.0.2:1", fresh}, {"10.0.0.3:1", idle}, {"10.0.0.4:1", idle},
				{"10.0.0.5:1", active}}, "10.0.0.6:1", 2},
		"a network without addresses": {[]held{{"@", idle}, {"@", idle}, {"@", idle}}, "@", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := &piped{incoming: make(chan net.Conn)}
			l := newConnections(p, 5, 3)
			open := make([]func() bool, 0, len(test.held))
			for _, h := range test.held {
				c, isOpen := p.accept(t, l, h.address)
				l.stateChanged(c, h.state)
				open = append(open, isOpen)
			}
			_, isOpen := p.accept(t, l, test.from)
			for i := range open {
				if open[i]() == (i == test.goes) {
					t.Errorf("%v is open: %v", test.held[i], i == test.goes)
				}
			}
			if !isOpen() {
				t.Error("the new connection is closed")
			}
		})
	}
}

func TestAConnectionThatEndsMakesRoom(t *testing.T) {
	p := &piped{incoming: make(chan net.Conn)}
	l := newConnections(p, 2, 2)
	first, _ := p.accept(t, l, "10.0.0.1:1")
	_, second := p.accept(t, l, "10.0.0.2:1")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_, third := p.accept(t, l, "10.0.0.3:1")
	if !second() || !third() || len(l.open) != 2 {
		t.Errorf("%d connections are open; want 2", len(l.open))
	}
}

// serving runs the server until the test ends, and returns its address.
func serving(t *testing.T, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// probe sends a probe as a kubelet does: on its own connection, from its own address.
func probe(t *testing.T, address string) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 9, 9)}, Timeout: 5 * time.Second}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", answer, err)
	}
	_ = answer.Body.Close()
}

func TestProbesAreServedWhateverConnectionsOthersHold(t *testing.T) {
	address := serving(t, Handler(Identity{}, sample()))
	hold := map[string]string{"silent": "", "half a request": "GET /status HTTP/1.1\r\nX: ",
		"answered": "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"}
	for _, text := range hold {
		for i := range 150 {
			dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 1, byte(1+i%30))}}
			conn, err := dialer.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = io.WriteString(conn, text)
		}
		probe(t, address)
	}
}

func TestARequestIsBounded(t *testing.T) {
	address := serving(t, Handler(Identity{}, sample()))
	for name, text := range map[string]string{
		"headers": "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000) +
			"\r\n",
		"a path": "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, text) // the server may have closed the connection
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: %d", name, answer.StatusCode)
			}
		}
		_ = conn.Close()
	}
	probe(t, address)
}

// The operator's endpoints require its key; probes and metrics do not.
func TestWhichEndpointsAreSealed(t *testing.T) {
	pod, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(seal.FormatOperators([]seal.PublicKey{operator.Public()}, []string{""})),
		0o600); err != nil {
		t.Fatal(err)
	}
	handler := SealedHandler(Identity{Pod: "p"}, sample(), &sampling.Sampler{},
		seal.NewGuard(pod, file, slog.New(slog.DiscardHandler)))
	session, err := seal.NewOperatorSession(operator, pod.Public())
	if err != nil {
		t.Fatal(err)
	}
	onlySealed := []string{SealedMetricsPath, sampling.Path, sampling.SamplePath("t", sampling.Filter{Stream: "Fills"})}
	for _, path := range onlySealed {
		w := httptest.NewRecorder()
		Handler(Identity{Pod: "p"}, sample()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("a parser without keys has %s: %d", path, w.Code)
		}
	}
	for path, isSealed := range map[string]bool{StatusPath: true, StackPath: true, onlySealed[0]: true,
		onlySealed[1]: true, onlySealed[2]: true, "/metrics": false, "/healthz": false, "/readyz": false} {
		plain := httptest.NewRecorder()
		handler.ServeHTTP(plain, httptest.NewRequest(http.MethodGet, path, nil))
		want := http.StatusOK
		if isSealed {
			want = http.StatusUnauthorized
		}
		if plain.Code != want {
			t.Errorf("%s without a key: %d, want %d", path, plain.Code, want)
		}
		if !isSealed {
			continue
		}
		header, challenge, err := session.Request(path)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set(seal.Header, header)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		text, err := session.Open(nil, w.Body.Bytes(), challenge)
		if err != nil || len(text) == 0 {
			t.Errorf("%s with a key: %d, %d bytes, %v", path, w.Code, len(text), err)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodHead, http.MethodOptions, http.MethodConnect} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, StatusPath, nil))
		if w.Code == http.StatusOK {
			t.Errorf("%s is answered: %s", method, fmt.Sprint(w.Body))
		}
	}
}
