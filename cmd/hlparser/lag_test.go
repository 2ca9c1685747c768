package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// The age of the oldest line that waits is that of the line, and not that of the process that reports it: an alert that
// lines are near their retention must not begin again. Here no line is ever acknowledged, and the file grows on.
func TestTheLagGoesOnThroughKill9(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8")
	appendTo(t, file, status(1)+"\n")
	began := time.Now()
	for run := range 4 {
		cmd := hlparser(t.Context(), "run", "--data-dir", filepath.Join(dir, "data"), "--state-dir",
			filepath.Join(dir, "state"), "--stream", "order-statuses:line", "--start-at", "beginning",
			"--sink", "nats://127.0.0.1:1/NOBODY", "--listen", "127.0.0.1:0")
		logs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended unless the test failed
		address := ""
		lines := bufio.NewScanner(logs)
		for address == "" && lines.Scan() {
			if _, after, ok := strings.Cut(lines.Text(), "address="); ok {
				address = strings.Fields(after)[0]
			}
		}
		if address == "" {
			t.Fatalf("run %d logs no address", run)
		}
		go func() { _, _ = io.Copy(io.Discard, logs) }()

		first := awaitLag(t, address)
		if old := time.Since(began); first < old-time.Second {
			t.Errorf("run %d: the first report has a lag of %s, and the line is %s old", run, first, old)
		}
		appendTo(t, file, status(run+2)+"\n")
		for deadline := time.Now().Add(20 * time.Second); ; {
			saved, err := filepath.Glob(filepath.Join(dir, "state/checkpoint/*.json"))
			if err != nil {
				t.Fatal(err)
			}
			if len(saved) > 0 && awaitLag(t, address) >= first+time.Second {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("run %d: the lag was %s and is %s; checkpoints: %v", run, first, awaitLag(t, address), saved)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
}

// awaitLag returns the lag of the first report that has one.
func awaitLag(t *testing.T, address string) time.Duration {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get(fmt.Sprintf("http://%s/status", address))
		if err != nil {
			t.Fatal(err)
		}
		var r report.Report
		err = json.NewDecoder(response.Body).Decode(&r)
		_ = response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Streams) == 1 && r.Streams[0].LagSeconds != nil && *r.Streams[0].LagSeconds > 0 {
			return time.Duration(*r.Streams[0].LagSeconds * float64(time.Second))
		}
		if time.Now().After(deadline) {
			t.Fatalf("no lag is reported: %+v", r)
		}
	}
}
