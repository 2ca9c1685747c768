package poller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counted dials and counts the dials.
func counted(dials *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// get returns the body of a response.
func get(ctx context.Context, t *transport, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := t.RoundTrip(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(response.Body)
	return string(text), errors.Join(err, response.Body.Close(), response.Body.Close())
}

func TestAConnectionIsUsedAgainUnlessTheAnswerWasNotReadToItsEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunked":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		case "/last":
			w.Header().Set("Connection", "close")
		}
		_, _ = fmt.Fprint(w, "hello ", r.URL.Path)
	}))
	defer server.Close()
	var dials atomic.Int64
	transport := newTransport(counted(&dials))
	defer transport.CloseIdleConnections()
	for i, c := range []struct {
		path  string
		dials int64
	}{{"/a", 1}, {"/chunked", 1}, {"/last", 1}, {"/b", 2}, {"/c", 2}} {
		text, err := get(t.Context(), transport, server.URL+c.path)
		if err != nil || text != "hello "+c.path || dials.Load() != c.dials {
			t.Errorf("%d: %q, %v, after %d dials; want %d", i, text, err, dials.Load(), c.dials)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/unread", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil || response.Body.Close() != nil {
		t.Fatal(err)
	}
	if _, err := response.Body.Read(make([]byte, 1)); err == nil {
		t.Error("a closed body is read")
	}
	if text, err := get(t.Context(), transport, server.URL+"/d"); err != nil || text != "hello /d" || dials.Load() != 3 {
		t.Errorf("%q, %v, after %d dials", text, err, dials.Load())
	}
}

func TestAConnectionThatTheOtherEndClosedMeanwhileIsDialledAnew(t *testing.T) {
	server := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }),
	)
	defer server.Close()
	var dials atomic.Int64
	transport := newTransport(counted(&dials))
	defer transport.CloseIdleConnections()
	for range 3 {
		if text, err := get(t.Context(), transport, server.URL); err != nil || text != "hello" {
			t.Fatalf("%q, %v", text, err)
		}
		server.CloseClientConnections()
	}
	if dials.Load() != 3 {
		t.Errorf("%d dials, want one for each", dials.Load())
	}
}

func TestARequestEndsWithItsContextInEveryPhase(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
		}
		<-hang
	}))
	defer server.Close()
	defer close(hang)
	transport := newTransport(new(net.Dialer).DialContext)
	defer transport.CloseIdleConnections()
	for _, path := range []string{"/header", "/body"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if text, err := get(ctx, transport, server.URL+path); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %q, %v", path, text, err)
		}
		cancel()
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	for name, answer := range map[string]string{
		"headers": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000),
		"body":    "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("y", 1<<20),
	} {
		transport := newTransport(func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = theirs.Read(make([]byte, 4096))
				_, _ = io.WriteString(theirs, answer)
				_ = theirs.Close()
			}()
			return ours, nil
		})
		text, err := get(t.Context(), transport, "http://pod:1/")
		if len(text) > maxHeader+maxBody || name == "headers" && err == nil {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
		transport.CloseIdleConnections()
	}
}

func TestConnectionsThatWaitForTooLongAreEnded(t *testing.T) {
	transport := newTransport(nil)
	old, other := net.Pipe()
	transport.put("old", old)
	transport.mu.Lock()
	transport.idle["old"] = idleConn{old, time.Now().Add(-2 * keepAlive)}
	transport.swept = time.Time{}
	transport.mu.Unlock()
	fresh, far := net.Pipe()
	transport.put("fresh", fresh)
	if transport.take("old") != nil || transport.take("fresh") != fresh {
		t.Error("not the old one has gone")
	}
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the old one is open: %v", err)
	}
	transport.CloseIdleConnections()
	transport.put("late", fresh)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || transport.take("late") != nil {
		t.Errorf("one that comes back after the end is kept: %v", err)
	}
}
