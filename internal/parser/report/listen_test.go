package report

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// podAddress and otherAddress are addresses of this machine other than localhost's.
const podAddress, otherAddress = "127.77.1.1", "127.77.1.2"

// listening calls Listen with a free port, and returns the listener, its port and the log.
func listening(t *testing.T, host, node string) (net.Listener, int, *bytes.Buffer) {
	t.Helper()
	var logged bytes.Buffer
	l, err := Listen(net.JoinHostPort(host, "0"), node, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port, &logged
}

// open reports whether an address accepts connections.
func open(t *testing.T, network, host string, port int) bool {
	t.Helper()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(t.Context(), network, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// Port forwarding connects to localhost, over IPv4 and then IPv6, inside the pod's network namespace.
func TestWhereAParserListens(t *testing.T) {
	for name, test := range map[string]struct {
		host, node            string
		own, localhost, other bool
	}{
		"in a pod with a network of its own":            {podAddress, "192.0.2.1", true, true, false},
		"in a pod on its node's network":                {podAddress, podAddress, true, false, false},
		"in a pod of a template without the node":       {podAddress, "", true, false, false},
		"in a pod with an invalid node address":         {podAddress, "node-1", true, false, false},
		"outside Kubernetes, on all addresses":          {"0.0.0.0", "", true, true, true},
		"in a pod, on all addresses":                    {"0.0.0.0", "192.0.2.1", true, true, true},
		"in a pod that listens on its loopback already": {"127.0.0.1", "192.0.2.1", false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, port, logged := listening(t, test.host, test.node)
			for host, want := range map[string]bool{podAddress: test.own, "localhost": test.localhost,
				otherAddress: test.other} {
				if got := open(t, "tcp4", host, port); got != want {
					t.Errorf("%s accepts connections: %v", host, got)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			for _, host := range []string{podAddress, "localhost", otherAddress} {
				if open(t, "tcp4", host, port) || open(t, "tcp6", "localhost", port) {
					t.Errorf("%s accepts connections after Close", host)
				}
			}
			if _, err := l.Accept(); err == nil {
				t.Error("Accept succeeds after Close")
			}
			if logged.Len() > 0 {
				t.Errorf("Listen logs %s", logged)
			}
		})
	}
}

func TestTheNodesAddressIsRecognizedInAnyNotation(t *testing.T) {
	for name, test := range map[string]struct {
		at, node string
		want     bool
	}{
		"the pod's own":                   {"10.0.0.7", "192.0.2.1", true},
		"the node's":                      {"192.0.2.1", "192.0.2.1", false},
		"the node's, as IPv6":             {"::ffff:192.0.2.1", "192.0.2.1", false},
		"the pod's, over IPv6":            {"2001:db8::7", "2001:db8::1", true},
		"the node's, over IPv6":           {"2001:db8::1", "2001:DB8:0::1", false},
		"of different families":           {"2001:db8::7", "192.0.2.1", true},
		"the node's, with a zone":         {"fe80::1%eth0", "fe80::1", false},
		"every address":                   {"::", "192.0.2.1", false},
		"without a node address":          {"10.0.0.7", "", false},
		"with a name as the node address": {"10.0.0.7", "node-1", false},
		"with several node addresses":     {"10.0.0.7", "192.0.2.1,2001:db8::1", false},
	} {
		if got := ownsLoopback(netip.MustParseAddr(test.at), test.node); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A loopback that another process has, such as a sidecar, causes a warning and nothing else.
func TestALoopbackInUseDoesNotEndAParser(t *testing.T) {
	var taken []net.Listener
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken = append(taken, first)
	port := strconv.Itoa(first.Addr().(*net.TCPAddr).Port)
	if l, err := net.Listen("tcp", net.JoinHostPort("::1", port)); err == nil {
		taken = append(taken, l)
	}
	defer func() {
		for _, l := range taken {
			_ = l.Close()
		}
	}()
	var logged bytes.Buffer
	l, err := Listen(net.JoinHostPort(podAddress, port), "192.0.2.1", slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if !open(t, "tcp4", podAddress, first.Addr().(*net.TCPAddr).Port) {
		t.Error("the pod's own address does not accept connections")
	}
	if text := logged.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "cannot be forwarded") {
		t.Errorf("Listen logs %q", text)
	}
	if _, err := Listen(net.JoinHostPort(podAddress, port), "", slog.Default()); err == nil {
		t.Error("Listen succeeds on an address in use")
	}
}

// Both addresses serve the same, and share one bound on connections.
func TestAForwardedPortServesTheSameAsTheAddress(t *testing.T) {
	l, port, _ := listening(t, podAddress, "192.0.2.1")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, Handler(Identity{Pod: "p", Namespace: "ns", PodUID: "u"}, sample())) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 3 {
		for _, host := range []string{podAddress, "127.0.0.1"} {
			answer, err := client.Get("http://" + net.JoinHostPort(host, strconv.Itoa(port)) + StatusPath)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil || !strings.Contains(string(text), `"pod":"p","namespace":"ns","podUID":"u"`) {
				t.Errorf("at %s: %s, %v", host, text, err)
			}
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// starting is a source that becomes ready after a while.
type starting struct{ ready atomic.Bool }

func (*starting) Streams() []Stream { return nil }
func (s *starting) Ready() bool     { return s.ready.Load() }

func (s *starting) Distributions() *Distributions { return nil }

// A probe of StartPath during the start gets its response when the parser is ready, and after StartWait at the latest.
func TestAStartFailsNoProbe(t *testing.T) {
	for name, test := range map[string]struct {
		path         string
		takes, waits time.Duration // takes 0: forever
		gone         time.Duration // after which the client has gone
	}{
		"ready":                       {StartPath, time.Nanosecond, 0, 0},
		"starting":                    {StartPath, 2 * time.Second, 2 * time.Second, 0},
		"waiting for the sink":        {StartPath, 0, StartWait, 0},
		"a kubelet that gives up":     {StartPath, 0, time.Second, time.Second},
		"liveness does not wait":      {"/healthz", 0, 0, 0},
		"another query does not wait": {"/healthz?x=start", 0, 0, 0},
		"a query with a value":        {"/healthz?start=1", 2 * time.Second, 2 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &starting{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.takes == time.Nanosecond {
					source.ready.Store(true)
				} else if test.takes > 0 {
					time.AfterFunc(test.takes, func() { source.ready.Store(true) })
				}
				if test.gone > 0 {
					time.AfterFunc(test.gone, cancel)
				}
				handler, began := Handler(Identity{}, source), time.Now()
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, test.path, nil))
				took := time.Since(began)
				if w.Code != http.StatusOK || took < test.waits || took > test.waits+readyPollInterval {
					t.Errorf("answered %d after %s, want %s", w.Code, took, test.waits)
				}
			})
		})
	}
	if StartWait >= requestTime {
		t.Errorf("a response after %s is too late: a request is limited to %s", StartWait, requestTime)
	}
}
