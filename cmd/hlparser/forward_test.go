package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// byLocalhost connects as a container runtime does that forwards a port, inside the pod's network namespace: to
// localhost, over IPv4 and, where nothing listens, over IPv6.
func byLocalhost(ctx context.Context, port int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp4", "localhost:"+strconv.Itoa(port))
	if err == nil {
		return conn, nil
	}
	conn, err6 := dialer.DialContext(ctx, "tcp6", "localhost:"+strconv.Itoa(port))
	if err6 != nil {
		return nil, fmt.Errorf("IPv4: %w IPv6: %w", err, err6)
	}
	return conn, nil
}

// inAPod starts the parser as a pod does that has this address, on a node that has the other one, and returns where it
// listens.
func inAPod(t *testing.T, address, node string) int {
	t.Helper()
	dir := t.TempDir()
	cmd := hlparser(t.Context(), "run", "--data-dir", dir, "--state-dir", filepath.Join(dir, "state"), "--stream", "fills",
		"--sink", "stdout", "--listen", address+":0")
	cmd.Env = append(cmd.Env, "HLPARSER_POD=mainnet-7pui9g6e1h", "HLPARSER_NAMESPACE=team-a", "HLPARSER_POD_UID=0ddba11",
		"HLPARSER_NODE_ADDRESS="+node)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var text []byte
	for piece := make([]byte, 1024); ; {
		n, err := said.Read(piece)
		text = append(text, piece[:n]...)
		_, after, ok := strings.Cut(string(text), "msg=reporting address="+address+":")
		if ok && strings.Contains(after, "\n") {
			number, _, _ := strings.Cut(strings.Fields(after)[0], " ")
			port, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%q: %v", after, err)
			}
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return port
		}
		if err != nil {
			t.Fatalf("it does not listen: %s", text)
		}
	}
}

func TestAForwardedPortReachesAParserOfAPodAlone(t *testing.T) {
	const address = "127.77.2.1"
	port := inAPod(t, address, "192.0.2.1")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return byLocalhost(ctx, port) },
	}}
	answer, err := client.Get("http://mainnet-7pui9g6e1h.team-a:9464" + report.StatusPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var r report.Report
	err = json.NewDecoder(answer.Body).Decode(&r)
	if err != nil || r.Pod != "mainnet-7pui9g6e1h" || r.Namespace != "team-a" || r.PodUID != "0ddba11" {
		t.Errorf("the report is %+v, %v", r, err)
	}

	port = inAPod(t, address, address)
	if conn, err := byLocalhost(t.Context(), port); err == nil {
		_ = conn.Close()
		t.Error("a parser on its node's network listens on the node's loopback, which every pod of the node's network shares")
	}
}

// A kubelet probes the start a moment after the container has begun, and readiness and liveness right after that. In a
// successful start no probe fails, because each failure is an Unhealthy event.
func TestAStartThatGoesWellFailsNoProbe(t *testing.T) {
	port := inAPod(t, "127.77.2.2", "192.0.2.1")
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{report.StartPath, "/readyz", "/healthz"} {
		answer, err := client.Get("http://127.77.2.2:" + strconv.Itoa(port) + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s is answered with %d", path, answer.StatusCode)
		}
	}
}
