package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// folder is a data directory and its output, with the parser between them.
type folder struct {
	t       *testing.T
	dir     string
	written []string
	parser  *os.Process
	ended   chan error
	logs    *lockedBuffer
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// write appends 50 lines, as the node does.
func (f *folder) write(hour string) {
	f.t.Helper()
	for range 50 {
		line := status(len(f.written))
		appendTo(f.t, f.path("data/node_order_statuses/hourly/"+hour), line+"\n")
		f.written = append(f.written, line)
	}
}

func (f *folder) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) start() {
	f.t.Helper()
	cmd := hlparser(f.t.Context(), "run", "--data-dir", f.path("data"), "--stream", "order-statuses:line", "--format",
		"raw",
		"--state-dir", f.path("state"), "--start-at", "beginning", "--sink", "file:"+f.path("out"), "--min-free-percent", "0")
	f.logs = &lockedBuffer{}
	cmd.Stderr = f.logs
	f.must(cmd.Start())
	f.parser, f.ended = cmd.Process, make(chan error, 1)
	go func() { f.ended <- cmd.Wait() }()
}

func (f *folder) stop(signal syscall.Signal) {
	f.t.Helper()
	f.must(f.parser.Signal(signal))
	if err := <-f.ended; err != nil && signal == syscall.SIGTERM {
		f.t.Fatalf("after SIGTERM the parser ended with %v; its log: %s", err, f.logs)
	}
}

func (f *folder) delivered() (lines []string) {
	f.t.Helper()
	names, err := filepath.Glob(f.path("out/order-statuses/*"))
	f.must(err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) { // it was closed meanwhile
			return nil
		}
		f.must(err)
		lines = append(lines, slices.Collect(strings.Lines(string(text)))...)
	}
	return lines
}

// until waits until everything that was written is delivered.
func (f *folder) until() {
	f.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for ; len(f.delivered()) < len(f.written); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%d of %d lines are delivered; the parser's log: %s", len(f.delivered()), len(f.written), f.logs)
		}
	}
}

// waitForLog waits until the parser's log contains a text.
func (f *folder) waitForLog(text string) {
	f.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !strings.Contains(f.logs.String(),
		text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%q is not in the log: %s", text, f.logs)
		}
	}
}

// Data that disappears from the parser's view, while it runs, at its start, or across kill -9, is neither lost nor read
// twice when it is back.
func TestNothingOutOfSightIsLostOrReadTwice(t *testing.T) {
	for _, target := range []string{"data", "data/node_order_statuses", "data/node_order_statuses/hourly",
		"data/node_order_statuses/hourly/20260430"} {
		for _, when := range []string{"while it runs", "at its start", "through kill -9"} {
			t.Run(when+" "+filepath.Base(target), func(t *testing.T) {
				t.Parallel()
				f := &folder{t: t, dir: t.TempDir()}
				f.write("20260430/8")
				f.write("20260430/9")
				f.start()
				f.until()
				hide := func() { f.must(os.Rename(f.path(target), f.path("away"))) }
				switch when {
				case "while it runs":
					hide()
				case "at its start":
					f.stop(syscall.SIGTERM)
					hide()
					f.start()
					f.waitForLog("the stream begins")
				default:
					hide()
					f.stop(syscall.SIGKILL)
					f.start()
					f.waitForLog("the stream begins")
				}
				if filepath.Base(target) != "20260430" { // a pruned day looks the same
					f.waitForLog("no such file or directory")
				}
				time.Sleep(time.Second) // how long the data is away; no event marks its end
				f.must(os.Rename(f.path("away"), f.path(target)))
				f.write("20260430/9")
				f.write("20260430/10")
				f.until()
				f.stop(syscall.SIGTERM)
				got := f.delivered()
				slices.Sort(got)
				wants := make([]string, 0, len(f.written))
				for _, line := range f.written {
					wants = append(wants, line+"\n")
				}
				slices.Sort(wants)
				if !slices.Equal(got, wants) {
					t.Errorf("%d records are delivered; %d lines were written", len(got), len(wants))
				}
			})
		}
	}
}

// With --once, everything that should have been read and was not is reported in a line, and the status is 1.
func TestOnceEndsWithStatus1AndReportsWhatItDidNotRead(t *testing.T) {
	for name, c := range map[string]struct {
		make       func(data string) error
		wantOutput string
	}{
		"no data directory": {func(string) error { return nil }, "does not exist"},
		"no stream":         {func(data string) error { return os.Mkdir(data, 0o755) }, "has no node_order_statuses/hourly"},
		"a file as a day": {func(data string) error {
			return writeFile(data + "/node_order_statuses/hourly/20260430")
		}, "hourly/20260430: not a directory"},
		"a pipe": {func(data string) error {
			if err := os.MkdirAll(data+"/node_order_statuses/hourly/20260430", 0o755); err != nil {
				return err
			}
			return syscall.Mkfifo(data+"/node_order_statuses/hourly/20260430/8", 0o644)
		}, "20260430/8: not a regular file: it is a named pipe"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.make(filepath.Join(dir, "data")); err != nil {
				t.Fatal(err)
			}
			out, err := hlparser(t.Context(), "run", "--once", "--data-dir", filepath.Join(dir, "data"), "--stream",
				"order-statuses:line",
				"--state-dir", filepath.Join(dir, "state"), "--sink", "stdout").CombinedOutput()
			if code := exitCode(err); code != 1 || !strings.Contains(string(out), c.wantOutput) {
				t.Errorf("status %d with output %s; want 1, and %q", code, out, c.wantOutput)
			}
		})
	}
}

func writeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}
