package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The pruner of Hyperliquid nodes deletes every file below the mount that was not written for 48 hours; in this test,
// for three seconds.
const (
	pruneAge   = 3 * time.Second
	pruneEvery = time.Second
	pruneTouch = 300 * time.Millisecond // in place of five minutes
)

// mount is a claim that holds the node's data, the parser's state and its output. A pruner runs on it.
type mount struct {
	t      *testing.T
	dir    string
	args   []string
	events int

	mu     sync.Mutex
	lines  []string
	pruned []string
}

func newMount(t *testing.T, sink string, args ...string) *mount {
	m := &mount{t: t, dir: t.TempDir()}
	m.args = append([]string{"run", "--data-dir", m.dir, "--state-dir", filepath.Join(m.dir, "hlparser"), "--stream",
		"order-statuses:line",
		"--stream", "fills:line", "--sink", sink, "--format", "raw"}, args...)
	// its node has written nothing yet
	if err := os.MkdirAll(filepath.Join(m.dir, "node_fills", "hourly"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// background repeats a function until the test ends.
func (m *mount) background(every time.Duration, do func()) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			do()
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
	}()
	m.t.Cleanup(func() { stop(); <-ended })
}

func (m *mount) prune() {
	err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil && time.Since(info.ModTime()) > pruneAge {
				m.mu.Lock()
				m.pruned = append(m.pruned, path)
				m.mu.Unlock()
				err = os.Remove(path)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // renamed or removed meanwhile
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
}

// write appends events as the node does, to a new hour if the file of the last one was pruned.
func (m *mount) write(hour, n int) {
	m.t.Helper()
	var text strings.Builder
	for range n {
		text.WriteString(status(m.events) + "\n")
		m.events++
	}
	appendTo(m.t, filepath.Join(m.dir, "node_order_statuses/hourly/20260430", fmt.Sprint(hour)), text.String())
}

// take collects delivered lines.
func (m *mount) take(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for line := range strings.Lines(text) {
		m.lines = append(m.lines, strings.TrimSuffix(line, "\n"))
	}
}

func (m *mount) lineCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.lines)
}

// until waits for a condition.
func (m *mount) until(what string, ok func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s did not happen", what)
		}
	}
}

// start starts a parser whose output is collected.
func (m *mount) start(logs *bytes.Buffer, startAt string) *exec.Cmd {
	m.t.Helper()
	cmd := hlparser(m.t.Context(), append(m.args, "--start-at", startAt)...)
	cmd.Env = append(cmd.Env, asTouchEvery+"="+pruneTouch.String())
	cmd.Stderr, cmd.Stdout = logs, &lineTaker{m: m}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// lineTaker collects the lines of one process, which arrive in pieces that end anywhere.
type lineTaker struct {
	m    *mount
	rest []byte // the beginning of an incomplete line
}

func (w *lineTaker) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	w.m.take(string(w.rest[:end]))
	w.rest = w.rest[end:]
	return len(p), nil
}

// committed returns the offset in an hour's files according to "checkpoint show". It includes files that are gone.
func (m *mount) committed(hour int) int {
	m.t.Helper()
	out, err := hlparser(m.t.Context(), "checkpoint", "show", "--state-dir", filepath.Join(m.dir, "hlparser")).Output()
	if err != nil {
		return -1 // no checkpoint yet
	}
	var states map[string]struct {
		Files []struct{ Hour, Offset int }
	}
	if err := json.Unmarshal(out, &states); err != nil {
		m.t.Fatal(err)
	}
	n := 0
	for _, state := range states {
		for _, f := range state.Files {
			if f.Hour == hour {
				n += f.Offset
			}
		}
	}
	return n
}

// With a pruner that runs every second, parsers that are busy, idle, stopped and killed lose nothing and deliver
// nothing twice.
func TestAPrunedMount(t *testing.T) {
	if testing.Short() {
		t.Skip("the test takes half a minute")
	}
	for _, sink := range []string{"file", "stdout"} {
		t.Run(sink, func(t *testing.T) {
			t.Parallel()
			m := newMount(t, "stdout")
			if sink == "file" {
				m = newMount(t, "file:x", "--max-size", "64Ki", "--max-age", "24h")
				m.args[slices.Index(m.args, "file:x")] = "file:" + filepath.Join(m.dir, "out")
				// A consumer removes closed files immediately. Without one, the pruner would delete them.
				m.background(20*time.Millisecond, func() { m.consume() })
			}
			m.background(pruneEvery, m.prune)
			m.write(0, 1)
			var bytesOf = func(from int) int { // of the events in the current hour's file
				n := 0
				for i := from; i < m.events; i++ {
					n += len(status(i)) + 1
				}
				return n
			}
			startAt, first := "beginning", 0
			for hour, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM} {
				if hour > 0 {
					first = m.events // of the hour's file
				}
				var logs bytes.Buffer
				cmd := m.start(&logs, startAt)
				startAt = "end"
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				for range 40 { // busy
					m.write(hour, 25)
					time.Sleep(25 * time.Millisecond)
				}
				// What is not committed at a kill is delivered again to standard output: its guarantee is
				// at-least-once.
				m.until("a commit", func() bool {
					select {
					case err := <-ended:
						t.Fatalf("the parser ended: %v\n%s", err, &logs)
					default:
					}
					return m.committed(hour) >= bytesOf(first)
				})
				time.Sleep(2 * pruneAge) // idle: the node's file is pruned
				m.write(hour+10, 5)      // and another one appears
				first = m.events - 5
				m.until("a commit after the pause", func() bool { return m.committed(hour+10) >= bytesOf(first) })
				if err := cmd.Process.Signal(end); err != nil {
					t.Fatal(err)
				}
				err := <-ended
				if strings.Contains(logs.String(), "level=ERROR") || end == syscall.SIGTERM && err != nil {
					t.Fatalf("%v: %v\n%s", end, err, &logs)
				}
			}
			msg, err := func() ([]byte, error) {
				cmd := hlparser(t.Context(), append(m.args, "--once", "--start-at", "end")...)
				cmd.Env = append(cmd.Env, asTouchEvery+"="+pruneTouch.String())
				cmd.Stdout = &lineTaker{m: m}
				var logs bytes.Buffer
				cmd.Stderr = &logs
				return logs.Bytes(), cmd.Run()
			}()
			if err != nil {
				t.Fatalf("the last run: %v\n%s", err, msg)
			}
			m.until("the last record", func() bool { return m.lineCount() >= m.events })
			m.mu.Lock()
			defer m.mu.Unlock()
			for i := range max(len(m.lines), m.events) {
				if i >= len(m.lines) || i >= m.events || m.lines[i] != status(i) {
					t.Fatalf("%d records of %d events: record %d differs", len(m.lines), m.events, i)
				}
			}
			for _, name := range m.pruned {
				if !strings.Contains(name, "node_order_statuses") {
					t.Errorf("%s was pruned", name)
				}
			}
			if len(m.pruned) == 0 {
				t.Error("nothing was pruned, so the test proves nothing")
			}
		})
	}
}

// consume removes closed files, in the order of their names.
func (m *mount) consume() {
	names, err := filepath.Glob(filepath.Join(m.dir, "out/order-statuses/*.jsonl"))
	if err != nil {
		m.t.Error(err)
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.Remove(name)
		}
		if err != nil {
			m.t.Error(err)
			return
		}
		m.take(string(text))
	}
}

// The state is deleted while no parser runs. The stream fails with instructions, and continues once it is declared a
// new one.
func TestALostCheckpointCanBeForgotten(t *testing.T) {
	m := newMount(t, "stdout", "--once")
	m.write(0, 2)
	once := func() (string, int) {
		cmd := hlparser(t.Context(), append(m.args, "--start-at", "end")...)
		out, err := cmd.CombinedOutput()
		return string(out), exitCode(err)
	}
	if out, code := once(); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	m.write(0, 2)
	state := filepath.Join(m.dir, "hlparser")
	for _, pattern := range []string{"*", "*/*"} {
		names, err := filepath.Glob(filepath.Join(state, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for range 2 {
		if out, code := once(); code != exitFailure || !strings.Contains(out, "the stream's checkpoint is lost") ||
			!strings.Contains(out, "hlparser checkpoint forget --state-dir "+state+" --stream order-statuses") {
			t.Fatalf("exit %d: %s", code, out)
		}
	}
	for _, stream := range []string{"order-statuses", "fills"} {
		if out, err := hlparser(t.Context(), "checkpoint", "forget", "--state-dir", state, "--stream",
			stream).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if out, code := once(); code != 0 {
		t.Errorf("then exit %d: %s", code, out)
	}
	if out, err := hlparser(t.Context(), "checkpoint", "forget", "--state-dir", state, "--stream",
		"fills").CombinedOutput(); exitCode(err) != exitFailure {
		t.Errorf("a stream that has a checkpoint is forgotten: %s", out)
	}
}
