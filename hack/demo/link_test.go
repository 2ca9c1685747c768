package main

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestALinkLimitsWhatIsSentUntilItIsWidened(t *testing.T) {
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan int64)
	go func() {
		defer close(received)
		conn, err := server.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, conn)
		_ = conn.Close()
		received <- n
	}()
	const limit = 4 * chunk // per second
	l, err := newLink(t.Context(), "nats://"+server.Addr().String(), limit)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// At the limit this takes minutes.
	const size = 64 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	select {
	case err := <-sent:
		t.Fatalf("a narrow link has taken %d bytes at once (%v)", size, err)
	case <-time.After(time.Second):
	}
	l.widen(rate.Inf)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-received; n != size {
		t.Errorf("%d bytes arrived, want %d", n, size)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}
