package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// world is a node, its disk, and the expected output. The node's files are on the machine's file system; the parser
// writes to a file system that crashes.
type world struct {
	t    *rapid.T
	dir  string
	cfg  config.Config
	fs   *crashfs.FS
	logs *lockedBuffer

	began   time.Time
	newest  int           // hour
	hours   map[int]*hour // on disk
	files   int           // number of files created so far
	want    map[event]int // how often each must be delivered
	settled bool          // all whole lines on disk are delivered and committed
}

// event identifies a line: the file in which it first stood and its place there. A file may begin with the first line
// of the file before it.
type event struct{ File, Line int }

// hour is a file of the node.
type hour struct {
	file  int
	lines int    // number of whole lines
	torn  string // the beginning of the next line
	rest  string // the rest of the next line
	first string // the first line
}

func (w *world) path(h int) string {
	return filepath.Join(w.cfg.DataDir, "node_trades/hourly", fmt.Sprintf("202604%02d", 1+h/24), fmt.Sprint(h%24))
}

// write appends to an hour's file: the rest of a torn line, and up to n lines, the last of them torn unless whole.
func (w *world) write(h, n, size int, whole bool) {
	f := w.hours[h]
	if f == nil {
		f = &hour{file: w.files}
		w.files++
		w.hours[h] = f
		w.newest = max(w.newest, h)
	}
	text := f.rest
	if f.torn != "" {
		w.line(f)
	}
	for i := range n {
		line := fmt.Sprintf(`{"coin":"BTC","side":"B","px":"1.0","sz":"0.5","file":%d,"line":%d,"pad":"%s"}`+"\n", f.file,
			f.lines, strings.Repeat("x", size))
		if f.lines == 0 {
			f.first = line
		}
		if i == n-1 && !whole {
			half := len(line) / 2
			f.torn, f.rest = line[:half], line[half:]
			text += f.torn
			break
		}
		text += line
		w.line(f)
	}
	w.append(h, text)
}

// line counts a line that has become whole.
func (w *world) line(f *hour) {
	w.want[event{f.file, f.lines}]++
	f.lines++
	f.torn, f.rest = "", ""
}

func (w *world) append(h int, text string) {
	w.settled = false
	f, err := open(w.path(h))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// remove prunes an hour, as an operator's cron job may do once the hour is delivered.
func (w *world) remove(h int) {
	if !w.settled || w.hours[h] == nil {
		return
	}
	if err := os.Remove(w.path(h)); err != nil {
		w.t.Fatal(err)
	}
	delete(w.hours, h)
}

// replace puts another file in an hour's place. With alike it begins with the same line.
func (w *world) replace(h int, alike, rename bool) {
	old := w.hours[h]
	if !w.settled || old == nil {
		return
	}
	f := &hour{file: w.files}
	w.files++
	text := ""
	if alike && old.lines > 1 {
		var e event
		if err := json.Unmarshal([]byte(old.first), &e); err != nil {
			w.t.Fatal(err)
		}
		w.want[e]++
		f.lines, f.first, text = 1, old.first, old.first
	}
	w.hours[h] = f
	path := w.path(h)
	var err error
	if rename {
		err = errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path))
	} else { // the inode is often reused
		err = errors.Join(os.Remove(path), os.WriteFile(path, []byte(text), 0o644))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(h, 1, 40, true)
}

// cut removes a part of a torn line, as a crash of the host does; the node then writes it again.
func (w *world) cut(h int) {
	f := w.hours[h]
	if f == nil || len(f.torn) < 2 {
		return
	}
	info, err := os.Stat(w.path(h))
	if err != nil {
		w.t.Fatal(err)
	}
	n := len(f.torn) / 2
	if err := os.Truncate(w.path(h), info.Size()-int64(n)); err != nil {
		w.t.Fatal(err)
	}
	f.torn, f.rest = f.torn[:len(f.torn)-n], f.torn[len(f.torn)-n:]+f.rest
}

// act performs a random action of the node.
func (w *world) act() {
	t := w.t
	some := func() int { return rapid.IntRange(max(w.newest-3, 0), w.newest).Draw(t, "hour") }
	size := rapid.SampledFrom([]int{0, 30, 700, 3000})
	switch rapid.SampledFrom([]string{"write", "write", "torn", "huge", "hour", "late", "cut"}).Draw(t, "act") {
	case "write":
		w.write(w.newest, rapid.IntRange(1, 30).Draw(t, "lines"), size.Draw(t, "size"), true)
	case "torn":
		w.write(w.newest, rapid.IntRange(1, 5).Draw(t, "lines"), size.Draw(t, "size"), false)
	case "huge":
		w.write(w.newest, rapid.IntRange(1, 3).Draw(t, "lines"), buffer.BlockSize+rapid.IntRange(-200, 2000).Draw(t, "size"),
			rapid.Bool().Draw(t, "whole"))
	case "hour":
		w.write(w.newest+1, rapid.IntRange(1, 5).Draw(t, "lines"), size.Draw(t, "size"), rapid.Bool().Draw(t, "whole"))
	case "late":
		w.write(some(), rapid.IntRange(1, 5).Draw(t, "lines"), size.Draw(t, "size"), rapid.Bool().Draw(t, "whole"))
	case "cut":
		w.cut(some())
	}
}

// engineRun is one run of an engine, from its start to its end.
type engineRun struct {
	once    bool
	crashAt int // the step at which the machine crashes; -1: none
	fault   int // the write or sync that fails, counted from 1; the one at twice the count fails too; below 1: none
}

func (w *world) start(ctx context.Context, l engineRun) (ended <-chan error) {
	w.t.Helper()
	cfg := w.cfg
	cfg.Once = l.once
	cfg.ShutdownTimeout.Duration = waitTimeout
	if l.crashAt >= 0 {
		cfg.ShutdownTimeout.Duration = 10 * time.Millisecond
	}
	cfg = cfg.WithDefaults(2)
	// The clock runs fast, to shorten the grace period of an hour switch and the interval between commits.
	now := func() time.Time { return time.Now().Add(20 * time.Since(w.began)) }
	writes := 0
	w.fs.Inject(func(op crashfs.Op) error {
		if op.Kind != crashfs.Write && op.Kind != crashfs.Sync {
			return nil
		}
		if writes++; writes != l.fault && writes != 2*l.fault {
			return nil
		}
		if op.Kind == crashfs.Write {
			return syscall.ENOSPC
		}
		return syscall.EIO
	})
	w.fs.CrashAt(l.crashAt)
	done := make(chan error, 1)
	go func() {
		out, err := file.New(ctx, w.fs, cfg.Sink.File.Path, file.Options{MaxBytes: int64(cfg.Sink.File.MaxSize), Now: now},
			func() {})
		if err != nil {
			done <- err
			return
		}
		e, err := New(Options{Config: cfg, Output: out, FS: w.fs, Log: slog.New(slog.NewTextHandler(w.logs, nil)), Now: now})
		if err != nil {
			done <- err
			return
		}
		done <- e.Run(ctx)
	}()
	return done
}

// runEngine runs an engine while the node acts, until the engine is done, it is stopped, or the machine crashes.
func (w *world) runEngine(l engineRun, meanwhile int) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := w.start(ctx, l)
	var err error
	finished := false
	wait := func(d time.Duration) {
		select {
		case err = <-ended:
			finished = true
		case <-time.After(d):
		}
	}
	for range meanwhile {
		if !finished {
			wait(time.Duration(rapid.IntRange(0, 15).Draw(w.t, "pause")) * time.Millisecond)
		}
		w.act()
	}
	for deadline := time.Now().Add(waitTimeout); l.once && !finished && !w.fs.Crashed(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("the engine does not end:\n%s", w.logs)
		}
		wait(2 * time.Millisecond)
	}
	cancel()
	if !finished {
		if err = <-ended; l.once && !w.fs.Crashed() {
			w.t.Fatalf("the engine ended only when it was stopped: %v", err)
		}
	}
	if w.fs.Crashed() {
		return
	}
	if err != nil && l.fault == 0 {
		w.t.Fatalf("an engine ended with %v:\n%s", err, w.logs)
	}
	w.settled = l.once && err == nil && meanwhile == 0
}

// crash replaces the file system by what the next engine finds after a crash.
func (w *world) crash() {
	seed := rapid.Uint64().Draw(w.t, "loss")
	w.fs = rapid.SampledFrom([]func() *crashfs.FS{
		func() *crashfs.FS { return w.fs.Kill(false) },
		func() *crashfs.FS { return w.fs.Kill(true) },
		w.fs.PowerLoss,
		func() *crashfs.FS { return w.fs.PartialLoss(rand.New(rand.NewPCG(seed, 0))) },
	}).Draw(w.t, "crash")()
}

// check compares the content of the closed files with the expected lines.
func (w *world) check() {
	w.t.Helper()
	dir := filepath.Join(w.cfg.Sink.File.Path, "trades")
	names, err := w.fs.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	got := map[event]int{}
	for _, name := range names {
		if !strings.HasSuffix(name, ".jsonl") {
			w.t.Fatalf("%s was left behind", name)
		}
		data, err := w.fs.ReadFile(filepath.Join(dir, name))
		if err != nil {
			w.t.Fatal(err)
		}
		next := map[int]int{} // by file: in one part its lines are consecutive
		for line := range bytes.Lines(data) {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				w.t.Fatalf("%s: %q: %v", name, line, err)
			}
			if n, ok := next[e.File]; ok && e.Line != n && e.Line != 0 && n != 1 {
				w.t.Fatalf("%s: line %d of file %d is in the place of line %d", name, e.Line, e.File, n)
			}
			next[e.File] = e.Line + 1
			got[e]++
		}
	}
	for e, n := range w.want {
		if got[e] != n {
			w.t.Fatalf("line %d of file %d was delivered %d times; want %d; the files are %q\n%s", e.Line, e.File, got[e], n,
				names, w.logs)
		}
	}
	if len(got) != len(w.want) {
		w.t.Fatalf("%d lines were delivered; %d were written", len(got), len(w.want))
	}
}

// The node may do anything except remove whole lines or prune what was not read, and engines may end in any way: in the
// end the file sink holds each line once.
func TestModelOfNodesEnginesAndCrashes(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	runs, lives, crashes, lines := 0, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		w := &world{
			t: t, dir: dir, fs: crashfs.New(), logs: &lockedBuffer{}, began: time.Now(), hours: map[int]*hour{},
			want: map[event]int{},
			cfg: config.Config{
				Target: "node-1", DataDir: filepath.Join(dir, "data"), StateDir: "state", Format: config.Raw,
				Streams: []config.StreamConfig{{Name: config.Trades, Mode: config.Line}},
				Sink: config.Sink{File: &config.FileSink{
					Path: "out", MaxSize: config.Bytes(rapid.SampledFrom([]int{1, 500, 20_000, 10_000_000}).Draw(t, "maxSize")),
				}},
				Engine: config.Engine{StartAt: config.Beginning, Workers: 2, ParallelThreshold: 10},
			},
		}
		defer func() { _ = os.RemoveAll(dir) }()
		w.write(0, 1, 10, true)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			some := func() int { return rapid.IntRange(0, w.newest).Draw(t, "hour") }
			switch rapid.SampledFrom([]string{"act", "act", "act", "once", "once", "crash", "crash", "crash", "run", "fault",
				"remove", "replace"}).Draw(t, "step") {
			case "act":
				w.act()
			case "once":
				lives++
				w.runEngine(engineRun{once: true, crashAt: -1}, 0)
			case "crash":
				lives, crashes = lives+1, crashes+1
				l := engineRun{once: rapid.IntRange(0, 3).Draw(t, "run") > 0, crashAt: rapid.IntRange(0, 60).Draw(t, "at"),
					fault: rapid.IntRange(-20, 20).Draw(t, "fault")}
				meanwhile := 0
				if !l.once {
					meanwhile = rapid.IntRange(1, 6).Draw(t, "meanwhile")
				}
				w.runEngine(l, meanwhile)
				w.crash()
				w.settled = false
			case "run":
				lives++
				w.runEngine(engineRun{crashAt: -1}, rapid.IntRange(1, 8).Draw(t, "meanwhile"))
			case "fault":
				lives++
				w.runEngine(engineRun{once: true, crashAt: -1, fault: rapid.IntRange(3, 20).Draw(t, "fault")}, 0)
			case "remove":
				w.runEngine(engineRun{once: true, crashAt: -1}, 0)
				w.remove(some())
			case "replace":
				w.runEngine(engineRun{once: true, crashAt: -1}, 0)
				w.replace(some(), rapid.Bool().Draw(t, "alike"), rapid.Bool().Draw(t, "rename"))
			}
		}
		w.runEngine(engineRun{once: true, crashAt: -1}, 0)
		w.check()
		w.fs = w.fs.PowerLoss() // completed work is durable
		w.check()
		lines += len(w.want)
	})
	t.Logf("%d sequences, %d engines, %d crashes, %d lines", runs, lives, crashes, lines)
}
