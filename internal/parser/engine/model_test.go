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

// world is a node, its disk, and what must come out of it. The node's files are on the machine's file system; what the parser
// writes is on one that crashes.
type world struct {
	t    *rapid.T
	dir  string
	cfg  config.Config
	fs   *crashfs.FS
	logs *lockedBuffer

	began   time.Time
	newest  int           // hour
	hours   map[int]*hour // on disk
	files   int           // that ever were
	want    map[event]int // how often each must be delivered
	settled bool          // all that is whole on disk was delivered and committed
}

// event names a line: the file it stood in and its place there. The first line of a file may be that of the one before it.
type event struct{ File, Line int }

// hour is a file of the node.
type hour struct {
	file  int
	lines int    // whole
	torn  string // what is there of the next line, and
	rest  string // the rest of it
	first string // the first line
}

func (w *world) path(h int) string {
	return filepath.Join(w.cfg.DataDir, "node_trades/hourly", fmt.Sprintf("202604%02d", 1+h/24), fmt.Sprint(h%24))
}

// write appends to an hour's file: a torn line's rest, and up to n lines, of which the last may be torn.
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
		line := fmt.Sprintf(`{"coin":"BTC","side":"B","px":"1.0","sz":"0.5","file":%d,"line":%d,"pad":"%s"}`+"\n", f.file, f.lines, strings.Repeat("x", size))
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

// line counts a line that is whole now.
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

// remove prunes an hour. The operator's cron may do so when it was delivered.
func (w *world) remove(h int) {
	if !w.settled || w.hours[h] == nil {
		return
	}
	if err := os.Remove(w.path(h)); err != nil {
		w.t.Fatal(err)
	}
	delete(w.hours, h)
}

// replace puts another file in an hour's place, which may begin with the same line and then be another.
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
	} else { // the inode is often used again
		err = errors.Join(os.Remove(path), os.WriteFile(path, []byte(text), 0o644))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(h, 1, 40, true)
}

// cut takes back a part of a torn line, as a host's crash does, and the node writes another.
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

// act lets the node do something.
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
		w.write(w.newest, rapid.IntRange(1, 3).Draw(t, "lines"), buffer.BlockSize+rapid.IntRange(-200, 2000).Draw(t, "size"), rapid.Bool().Draw(t, "whole"))
	case "hour":
		w.write(w.newest+1, rapid.IntRange(1, 5).Draw(t, "lines"), size.Draw(t, "size"), rapid.Bool().Draw(t, "whole"))
	case "late":
		w.write(some(), rapid.IntRange(1, 5).Draw(t, "lines"), size.Draw(t, "size"), rapid.Bool().Draw(t, "whole"))
	case "cut":
		w.cut(some())
	}
}

// life is an engine's, from its start to its end.
type life struct {
	once    bool
	crashAt int // the step at which the machine crashes; -1: none
	fault   int // which write or sync fails, and the one after as many again; below 1: none
}

func (w *world) start(ctx context.Context, l life) (ended <-chan error) {
	w.t.Helper()
	cfg := w.cfg
	cfg.Once = l.once
	cfg.ShutdownTimeout.Duration = patience
	if l.crashAt >= 0 {
		cfg.ShutdownTimeout.Duration = 10 * time.Millisecond
	}
	cfg = cfg.WithDefaults(2)
	// A clock that runs fast, for the grace of an hour switch and the pause between commits.
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
		out, err := file.New(ctx, w.fs, cfg.Sink.File.Path, file.Options{MaxBytes: int64(cfg.Sink.File.MaxSize), Now: now}, func() {})
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

// live runs an engine while the node does its part, until it is done, stopped, or the machine crashes.
func (w *world) live(l life, meanwhile int) {
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
	for deadline := time.Now().Add(patience); l.once && !finished && !w.fs.Crashed(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("it does not come to its end:\n%s", w.logs)
		}
		wait(2 * time.Millisecond)
	}
	cancel()
	if !finished {
		if err = <-ended; l.once && !w.fs.Crashed() {
			w.t.Fatalf("it was stopped: %v", err)
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

// crash is what the next engine finds after a crash.
func (w *world) crash() {
	seed := rapid.Uint64().Draw(w.t, "loss")
	w.fs = rapid.SampledFrom([]func() *crashfs.FS{
		func() *crashfs.FS { return w.fs.Kill(false) },
		func() *crashfs.FS { return w.fs.Kill(true) },
		w.fs.PowerLoss,
		func() *crashfs.FS { return w.fs.PartialLoss(rand.New(rand.NewPCG(seed, 0))) },
	}).Draw(w.t, "crash")()
}

// check compares what is in the closed files with what must be there.
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
		next := map[int]int{} // by file: in one part its lines follow one another
		for line := range bytes.Lines(data) {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				w.t.Fatalf("%s: %q: %v", name, line, err)
			}
			if n, ok := next[e.File]; ok && e.Line != n && e.Line != 0 && n != 1 {
				w.t.Fatalf("%s: line %d of file %d stands where line %d was due", name, e.Line, e.File, n)
			}
			next[e.File] = e.Line + 1
			got[e]++
		}
	}
	for e, n := range w.want {
		if got[e] != n {
			w.t.Fatalf("line %d of file %d was delivered %d times; want %d; there are %q\n%s", e.Line, e.File, got[e], n, names, w.logs)
		}
	}
	if len(got) != len(w.want) {
		w.t.Fatalf("%d lines were delivered; %d were written", len(got), len(w.want))
	}
}

// Whatever a node does, short of taking whole lines back or pruning what was not read, and however engines end: the file sink holds
// each line once in the end.
func TestModelOfNodesEnginesAndCrashes(t *testing.T) {
	base := t.TempDir()
	runs, lives, crashes, lines := 0, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		w := &world{
			t: t, dir: dir, fs: crashfs.New(), logs: &lockedBuffer{}, began: time.Now(), hours: map[int]*hour{}, want: map[event]int{},
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
			switch rapid.SampledFrom([]string{"act", "act", "act", "once", "once", "crash", "crash", "crash", "run", "fault", "remove", "replace"}).Draw(t, "step") {
			case "act":
				w.act()
			case "once":
				lives++
				w.live(life{once: true, crashAt: -1}, 0)
			case "crash":
				lives, crashes = lives+1, crashes+1
				l := life{once: rapid.IntRange(0, 3).Draw(t, "run") > 0, crashAt: rapid.IntRange(0, 60).Draw(t, "at"), fault: rapid.IntRange(-20, 20).Draw(t, "fault")}
				meanwhile := 0
				if !l.once {
					meanwhile = rapid.IntRange(1, 6).Draw(t, "meanwhile")
				}
				w.live(l, meanwhile)
				w.crash()
				w.settled = false
			case "run":
				lives++
				w.live(life{crashAt: -1}, rapid.IntRange(1, 8).Draw(t, "meanwhile"))
			case "fault":
				lives++
				w.live(life{once: true, crashAt: -1, fault: rapid.IntRange(3, 20).Draw(t, "fault")}, 0)
			case "remove":
				w.live(life{once: true, crashAt: -1}, 0)
				w.remove(some())
			case "replace":
				w.live(life{once: true, crashAt: -1}, 0)
				w.replace(some(), rapid.Bool().Draw(t, "alike"), rapid.Bool().Draw(t, "rename"))
			}
		}
		w.live(life{once: true, crashAt: -1}, 0)
		w.check()
		w.fs = w.fs.PowerLoss() // what is done stays done
		w.check()
		lines += len(w.want)
	})
	t.Logf("%d sequences, %d engines, %d crashes, %d lines", runs, lives, crashes, lines)
}
