package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// disks are the bench's output and state on disks that may be full, and the functions that fill and free them.
type disks struct {
	*bench
	out, state vfs.FS
	zstd       bool
	fill, free func()
}

// startEngine starts an engine on the disks.
func (d *disks) startEngine(t *testing.T, once bool) *running {
	t.Helper()
	cfg := d.cfg
	cfg.Once = once
	cfg = cfg.WithDefaults(2)
	output, err := file.New(t.Context(), d.out, cfg.Sink.File.Path, file.Options{MaxBytes: 64 << 10, Zstd: d.zstd},
		func() {})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Config: cfg, Output: output, FS: d.state, Log: slog.New(slog.NewTextHandler(d.logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Engine: e, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

// records returns the records of all closed files. Any other file is an error.
func (d *disks) records(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(d.cfg.Sink.File.Path, "trades")
	names, err := d.out.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	unpack, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer unpack.Close()
	var all []byte
	for _, name := range names {
		data, err := d.out.ReadFile(filepath.Join(dir, name))
		if err == nil && d.zstd {
			data, err = unpack.DecodeAll(data, nil)
		}
		if err != nil || !strings.HasSuffix(strings.TrimSuffix(name, ".zst"), ".jsonl") {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, data...)
	}
	return string(all)
}

// fillAndFree fills the disks while lines arrive, restarts the engine meanwhile, and frees the disks.
func (d *disks) fillAndFree(t *testing.T) {
	const hour = "node_trades/20260430/8"
	idle := func(delivered int64) func(report.Stream) bool {
		return func(s report.Stream) bool {
			return s.Sink.State == report.SinkHealthy && s.DeliveredTotal >= delivered && waiting(&s) == 0
		}
	}
	full := func(r *running, committed string) {
		t.Helper()
		s := r.until("a report of the full disk", func(s report.Stream) bool {
			return s.Sink.State == report.SinkRetrying && s.Sink.RetriesTotal >= 2
		})
		if !strings.Contains(s.Sink.LastError, "no space left on device") {
			t.Errorf("the report says %+v", s.Sink)
		}
		if committed != "" && s.CommittedPosition != committed {
			t.Errorf("the position moved from %s to %s, although nothing could be written", committed, s.CommittedPosition)
		}
	}

	d.node(hour, trades(0, 100))
	r := d.startEngine(t, false)
	before := r.until("the first delivery", idle(100))
	d.fill()
	d.node(hour, trades(100, 120)) // a compressing sink accepts this few, and fails to write them with the commit
	full(r, before.CommittedPosition)
	d.node(hour, trades(120, 5000))
	d.free()
	r.until("delivery, with space again", idle(5000))

	d.fill()
	d.node(hour, trades(5000, 8000))
	full(r, "")
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = d.startEngine(t, false)
	full(r, "")
	d.free()
	r.until("delivery after a restart", idle(1))
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-d.startEngine(t, true).done; err != nil { // it closes the last file
		t.Fatal(err)
	}
	d.assertRecords(d.records(t), trades(0, 8000))
}

func forEachCompression(t *testing.T, test func(t *testing.T, packed bool)) {
	t.Helper()
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("zstd %v", packed), func(t *testing.T) { test(t, packed) })
	}
}

func TestAFullDiskIsWaitedOutWithoutLossOrRepetition(t *testing.T) {
	for title, which := range map[string]struct{ out, state bool }{
		"of the file sink": {out: true}, "of the checkpoint": {state: true}, "of both": {out: true, state: true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			forEachCompression(t, func(t *testing.T, packed bool) {
				t.Parallel()
				out, state := crashfs.New(), crashfs.New()
				var noSpace atomic.Bool
				fault := func(op crashfs.Op) error {
					switch op.Kind {
					case crashfs.Create, crashfs.Write, crashfs.Mkdir:
						if noSpace.Load() {
							return syscall.ENOSPC
						}
					}
					return nil
				}
				if which.out {
					out.Inject(fault)
				}
				if which.state {
					state.Inject(fault)
				}
				d := &disks{
					bench: newBench(t), out: out, state: state, zstd: packed,
					fill: func() { noSpace.Store(true) }, free: func() { noSpace.Store(false) },
				}
				d.cfg.Sink.File.Path, d.cfg.StateDir = "out", "state"
				d.fillAndFree(t)
			})
		})
	}
}

// TestAFullFileSystem repeats the test on a real file system: when it is full, a file can be created and a few more
// bytes written.
func TestAFullFileSystem(t *testing.T) {
	forEachCompression(t, func(t *testing.T, packed bool) {
		t.Parallel()
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.Mkdir(disk, 0o755); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk).CombinedOutput(); err != nil {
			t.Skipf("mounting a small file system is not permitted: %v: %s", err, msg)
		}
		t.Cleanup(func() {
			if msg, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, msg)
			}
		})
		d := &disks{bench: newBench(t), out: vfs.OS, state: vfs.OS, zstd: packed}
		d.cfg.Sink.File.Path, d.cfg.StateDir = filepath.Join(disk, "out"), filepath.Join(disk, "state")
		ballast := filepath.Join(disk, "ballast")
		d.fill = func() {
			f, err := os.Create(ballast)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			if closed := f.Close(); closed != nil || !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err, closed)
			}
		}
		d.free = func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
		d.fillAndFree(t)
	})
}

// A sync that fails rolls back what was written since the checkpoint, and it is written again. Consumers get each
// record once, and each counts once.
func TestRecordsThatAreRolledBackAndDeliveredAgainCountOnce(t *testing.T) {
	forEachCompression(t, func(t *testing.T, packed bool) {
		t.Parallel()
		out := crashfs.New()
		var broken atomic.Int32 // number of syncs that fail
		out.Inject(func(op crashfs.Op) error {
			if op.Kind == crashfs.Sync && broken.Add(-1) >= 0 {
				return syscall.EIO
			}
			return nil
		})
		d := &disks{bench: newBench(t), out: out, state: crashfs.New(), zstd: packed}
		d.cfg.Sink.File.Path, d.cfg.StateDir = "out", "state"
		r := d.startEngine(t, false)
		const lines = 3000
		for n := 0; n < lines; n += lines / 3 {
			broken.Store(2)
			d.node("node_trades/20260430/8", trades(n, n+lines/3))
			r.until("a commit after two failed ones", func(s report.Stream) bool {
				if s.DeliveredTotal > int64(n+lines/3) {
					t.Fatalf("%d records count as delivered; only %d exist", s.DeliveredTotal, n+lines/3)
				}
				return broken.Load() < 0 && waiting(&s) == 0 && s.DeliveredTotal == int64(n+lines/3)
			})
		}
		if s := r.Streams()[0]; s.Sink.RetriesTotal < 6 {
			t.Errorf("the stream restarted %d times; want 6", s.Sink.RetriesTotal)
		}
		if _, err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if err := <-d.startEngine(t, true).done; err != nil {
			t.Fatal(err)
		}
		d.assertRecords(d.records(t), trades(0, lines))
	})
}
