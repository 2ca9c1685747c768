package poller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	constants "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

const (
	// forwardTimeout bounds one poll through the API server. It may have to open a tunnel first: two more handshakes over
	// a long distance.
	forwardTimeout = 5 * time.Second
	// maxRefusal bounds, in bytes, the kubelet's message of why it cannot forward.
	maxRefusal = 1 << 10
	// maxAhead bounds, in bytes, what is read ahead from a tunnel.
	maxAhead = 4 << 10
)

// NewForwardingClient returns a client that reaches pods as kubectl port-forward does, through the API server and the
// kubelet, for an operator that runs outside the cluster. It needs the verbs get and create on pods/portforward, and
// Kubernetes 1.31 or later, where API servers forward over websockets. A tunnel costs the API server and the kubelet
// far more than a poll, so it stays open between polls.
func NewForwardingClient(config *rest.Config, port int) (*Client, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client to forward ports with: %w", err)
	}
	f := &forwarder{config: config, api: clients.CoreV1().RESTClient()}
	// Not an address but a key for connections, from which dial derives the pod. A namespace has no dots.
	name := func(namespace string, e Endpoint) string { return e.PodName + "." + namespace }
	return newClient(port, forwardTimeout, name, f.dial), nil
}

// forwarder opens tunnels to ports of pods.
type forwarder struct {
	config *rest.Config
	api    rest.Interface
}

func (f *forwarder) dial(ctx context.Context, _, address string) (net.Conn, error) {
	// A dial takes no longer than a poll may, whatever its context allows.
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	dot := strings.LastIndexByte(host, '.')
	where := f.api.Post().Resource("pods").Name(host[:dot]).Namespace(host[dot+1:]).SubResource("portforward").URL()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	transport, holder, err := websocket.RoundTripperFor(f.config)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	socket, err := websocket.Negotiate(transport, holder, request, constants.WebsocketsSPDYTunnelingPortForwardV1)
	if err != nil {
		return nil, fmt.Errorf("forwarding a port through the API server: %w", err)
	}
	connection, err := spdy.NewClientConnection(portforward.NewTunnelingConnectionWithLogger(logr.Discard(), socket))
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	// CreateStream takes no context.
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	t, err := newTunnel(connection, port)
	if !stop() {
		if t != nil {
			_ = t.Close() // its connection is closed already
		}
		return nil, fmt.Errorf("opening a tunnel: %w", ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	return t, nil
}

// tunnel is a connection to a port of a pod. It reads ahead, so that it notices data that was not requested.
type tunnel struct {
	httpstream.Stream
	connection httpstream.Connection
	// refused is closed once refusal has the kubelet's message of why it does not forward; "" for none.
	refused chan struct{}
	refusal string

	mu      sync.Mutex
	changed *sync.Cond // of the fields below
	ahead   bytes.Buffer
	err     error // follows the data in ahead
	closed  bool
}

func newTunnel(connection httpstream.Connection, port string) (*tunnel, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, "0") // the only request of its connection
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errorStream, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	t := &tunnel{Stream: data, connection: connection, refused: make(chan struct{})}
	t.changed = sync.NewCond(&t.mu)
	go func() {
		defer close(t.refused)
		text, _ := io.ReadAll(io.LimitReader(errorStream, maxRefusal)) // ends with the connection
		t.refusal = string(text)
	}()
	go t.readAhead()
	// Nothing is written to it.
	if err := errorStream.Close(); err != nil {
		return nil, fmt.Errorf("opening a tunnel: %w", err)
	}
	return t, nil
}

// readAhead reads until the stream ends or the tunnel is closed, at most maxAhead bytes ahead of Read.
func (t *tunnel) readAhead() {
	chunk := make([]byte, maxAhead)
	for {
		n, err := t.Stream.Read(chunk)
		if err != nil {
			err = t.cause(err)
		}
		t.mu.Lock()
		t.ahead.Write(chunk[:n])
		t.err = err
		t.changed.Broadcast()
		for t.ahead.Len() > 0 && !t.closed {
			t.changed.Wait()
		}
		end := err != nil || t.closed
		t.mu.Unlock()
		if end {
			return
		}
	}
}

// cause returns the kubelet's message, if there is one, in place of the end of the stream.
func (t *tunnel) cause(err error) error {
	<-t.refused
	if t.refusal != "" {
		return fmt.Errorf("forwarding a port on the node: %s", t.refusal)
	}
	return err
}

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.ahead.Len() == 0 && t.err == nil && !t.closed {
		t.changed.Wait()
	}
	switch {
	case t.ahead.Len() > 0:
		n, _ := t.ahead.Read(b)
		t.changed.Broadcast()
		return n, nil
	case t.err != nil:
		return 0, t.err
	}
	return 0, net.ErrClosed
}

// quiet reports whether the tunnel is open with no unread data.
func (t *tunnel) quiet() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ahead.Len() == 0 && t.err == nil && !t.closed
}

// Close closes both streams and their connection.
func (t *tunnel) Close() error {
	t.mu.Lock()
	t.closed = true
	t.changed.Broadcast()
	t.mu.Unlock()
	return t.connection.Close()
}

// LocalAddr and RemoteAddr are placeholders: a tunnel has no network address.
func (t *tunnel) LocalAddr() net.Addr  { return &net.UnixAddr{Name: "port-forward"} }
func (t *tunnel) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "port-forward"} }

// SetDeadline is not supported: the transport closes the connection of a request that takes too long.
func (t *tunnel) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (t *tunnel) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (t *tunnel) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
