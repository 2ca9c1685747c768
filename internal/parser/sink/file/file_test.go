package file_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// variants are the settings that the suite runs with.
var variants = map[string]file.Options{
	"one part":                  {},
	"one compressed part":       {Zstd: true},
	"each record is a part":     {MaxBytes: 1},
	"parts of 1000 bytes":       {MaxBytes: 1000},
	"parts by hour":             {Hourly: true},
	"each a compressed part":    {MaxBytes: 1, Zstd: true},
	"compressed parts and hour": {MaxBytes: 300, Zstd: true, Hourly: true},
}

// raced are the variants that the suite runs with under the race detector: with and without
// compression, and with files that are closed between records. The others differ in where files end.
var raced = []string{"one part", "parts of 1000 bytes", "compressed parts and hour"}

func TestConformance(t *testing.T) {
	for title, opts := range variants {
		if sample > 1 && !slices.Contains(raced, title) {
			continue
		}
		t.Run(title, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Target { return newDisk(t, opts).target() })
		})
	}
}

func TestConformanceWithEngine(t *testing.T) {
	for _, title := range []string{"one part", "one compressed part"} {
		t.Run(title, func(t *testing.T) {
			sinktest.RunWithEngine(t, func(t *testing.T) sinktest.Target { return newDisk(t, variants[title]).target() })
		})
	}
}

func BenchmarkConformance(b *testing.B) {
	for title, opts := range map[string]file.Options{"plain": {}, "compressed": {Zstd: true}} {
		b.Run(title, func(b *testing.B) {
			sinktest.Benchmark(b, sinktest.Target{Open: func() (sink.Output, error) {
				return file.New(b.Context(), vfs.OS, filepath.Join(b.TempDir(), "out"), opts, func() { b.Error("locked") })
			}})
		})
	}
}

// disk is a directory of the file sink, with a consumer that reads the files in the order in which they are closed.
type disk struct {
	t    *testing.T
	opts file.Options
	fs   *crashfs.FS

	mu       sync.Mutex
	outage   bool
	failures int // in the current outage
	delay    time.Duration
	closed   []string // paths without a suffix, in order of closing
	known    map[string]bool
}

func newDisk(t *testing.T, opts file.Options) *disk {
	d := &disk{t: t, opts: opts, fs: crashfs.New(), known: map[string]bool{}}
	d.fs.Inject(d.fault)
	return d
}

func (d *disk) target() sinktest.Target {
	bufferBytes := 0
	if d.opts.Zstd {
		bufferBytes = 1 << 20
	}
	return sinktest.Target{
		ExactlyOnce: true,
		BufferBytes: bufferBytes,
		Open: func() (sink.Output, error) {
			return file.New(d.t.Context(), d.fs, "out", d.opts, func() { d.t.Error("locked") })
		},
		Crash: func() {
			d.fs = d.fs.Kill(false)
			d.fs.Inject(d.fault)
		},
		Outage: func(on bool) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.outage, d.failures = on, 0
		},
		Slow: func(delay time.Duration) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.delay = delay
		},
		Received: d.received,
	}
}

// fault simulates a full or slow disk, and records the order of renames. A disk that stays full refuses truncation,
// too: crashfs keeps the half that a failed write leaves.
func (d *disk) fault(op crashfs.Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch op.Kind {
	case crashfs.Write:
		time.Sleep(d.delay)
	case crashfs.Rename:
		path := strings.TrimSuffix(strings.TrimSuffix(op.Name, ".part"), ".zst")
		if !d.known[path] {
			d.known[path] = true
			d.closed = append(d.closed, path)
		}
	}
	if !d.outage || op.Kind != crashfs.Create && op.Kind != crashfs.Write &&
		(op.Kind != crashfs.Truncate || d.failures < 20) {
		return nil
	}
	d.failures++
	return syscall.ENOSPC
}

func (d *disk) received(stream string) ([]byte, error) {
	dir := filepath.Join("out", stream)
	names, err := d.fs.List(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]string{} // by path without a suffix
	for _, name := range names {
		if base, ok := strings.CutSuffix(strings.TrimSuffix(name, ".zst"), ".jsonl"); ok {
			files[filepath.Join(dir, base)] = filepath.Join(dir, name)
		}
	}
	d.mu.Lock()
	order := slices.Clone(d.closed)
	d.mu.Unlock()
	var data []byte
	for _, path := range order {
		if files[path] == "" {
			continue
		}
		text, err := content(d.fs, files[path])
		if err != nil {
			return nil, err
		}
		data = append(data, text...)
	}
	return data, nil
}

func content(fsys vfs.FS, path string) (string, error) {
	data, err := fsys.ReadFile(path)
	if err != nil {
		return "", err
	}
	return unpack(path, string(data))
}

// closed returns the content of the closed files of a directory, in order.
func closed(fsys vfs.FS, dir string) ([]byte, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var data []byte
	for _, name := range names {
		if !strings.HasSuffix(name, ".jsonl") && !strings.HasSuffix(name, ".jsonl.zst") {
			continue
		}
		text, err := content(fsys, filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		data = append(data, text...)
	}
	return data, nil
}

var hour = position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}

// records returns a batch of lines with the offsets from, from+1, and so on.
func records(from int, lines ...string) sink.Batch {
	b := sink.Batch{File: hour}
	for i, line := range lines {
		b.Data = append(append(b.Data, line...), '\n')
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: int64(from + i), Index: 7})
	}
	return b
}

// output is one directory and the checkpoint's state of its sink.
type output struct {
	t     *testing.T
	fs    vfs.FS
	dir   string
	opts  file.Options
	state json.RawMessage

	out  *file.Output
	sink sink.Sink
}

func (o *output) open() error {
	out, err := file.New(o.t.Context(), o.fs, o.dir, o.opts, func() { o.t.Error("locked") })
	if err != nil {
		o.t.Fatal(err)
	}
	o.out = out
	o.sink, err = out.Open(o.t.Context(), "fills", o.state)
	if err != nil {
		_ = out.Close()
	}
	return err
}

func (o *output) mustOpen() {
	o.t.Helper()
	if err := o.open(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *output) close() {
	o.t.Helper()
	if err := errors.Join(o.sink.Close(), o.out.Close()); err != nil {
		o.t.Fatal(err)
	}
}

func (o *output) write(b sink.Batch) {
	o.t.Helper()
	if err := o.sink.Write(o.t.Context(), b); err != nil {
		o.t.Fatal(err)
	}
}

func (o *output) commit(final bool) {
	o.t.Helper()
	state, err := sinktest.Flush(o.t.Context(), o.sink, final)
	if err != nil {
		o.t.Fatal(err)
	}
	o.state = state
	if err := o.sink.Committed(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

func (o *output) files() []string {
	o.t.Helper()
	names, err := o.fs.List(filepath.Join(o.dir, "fills"))
	if err != nil {
		o.t.Fatal(err)
	}
	return names
}

func (o *output) wantFiles(want ...string) {
	o.t.Helper()
	if got := o.files(); !slices.Equal(got, want) {
		o.t.Fatalf("files are %q\nwant %q", got, want)
	}
}

func (o *output) path(name string) string { return filepath.Join(o.dir, "fills", name) }

func name(offset int, suffix string) string {
	return fmt.Sprintf("20260430-08-node_fills_by_block-1a2b3c4d-%015d-000007%s", offset, suffix)
}

func newOutput(t *testing.T, opts file.Options) *output {
	o := &output{t: t, fs: crashfs.New(), dir: "out", opts: opts}
	o.mustOpen()
	o.commit(false)
	return o
}

func TestOnTheMachinesFileSystem(t *testing.T) {
	o := &output{t: t, fs: vfs.OS, dir: filepath.Join(t.TempDir(), "a", "out"), opts: file.Options{MaxBytes: 8}}
	o.mustOpen()
	o.commit(false)
	o.write(records(0, "aaa", "bbb", "ccc"))
	o.commit(false)
	o.close()
	o.mustOpen()
	o.write(records(3, "ddd"))
	for range 3 {
		o.commit(true)
	}
	o.close()
	o.wantFiles(name(0, ".jsonl"), name(2, ".jsonl"))
	got, err := closed(o.fs, filepath.Join(o.dir, "fills"))
	if err != nil || string(got) != "aaa\nbbb\nccc\nddd\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestAPartEndsBetweenRecordsBeforeItGetsTooLong(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 10})
	o.write(records(0, "aaa", "bbb"))                // 8 bytes
	o.write(records(2, "c", "dddddddddddddd", "ee")) // 2 bytes fill it; 15 need their own part; 3
	o.write(records(5, "ffffff"))                    // 7 bytes: exactly full
	o.write(records(6, "g"))
	for range 3 {
		o.commit(true)
	}
	for offset, want := range map[int]string{0: "aaa\nbbb\nc\n", 3: "dddddddddddddd\n", 4: "ee\nffffff\n", 6: "g\n"} {
		got, err := o.fs.ReadFile(o.path(name(offset, ".jsonl")))
		if err != nil || string(got) != want {
			t.Errorf("the part from %d is %q (%v), want %q", offset, got, err, want)
		}
	}
	if len(o.files()) != 4 {
		t.Errorf("files are %q, want 4", o.files())
	}
}

func TestAPartEndsByAgeWithoutAFurtherRecord(t *testing.T) {
	now := time.Date(2026, 4, 30, 8, 0, 0, 0, time.UTC)
	o := newOutput(t, file.Options{MaxAge: time.Minute, Now: func() time.Time { return now }})
	o.write(records(0, "a"))
	o.commit(false)
	o.close()
	now = now.Add(time.Minute)
	o.mustOpen() // the age survives a restart
	o.commit(false)
	o.commit(false)
	o.wantFiles(name(0, ".jsonl"))
}

func TestAPartIsRenamedAfterTheSecondCheckpointThatListsItAsComplete(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 2})
	o.write(records(0, "a", "b"))
	o.commit(false)
	o.wantFiles(name(0, ".part"), name(1, ".part"))
	o.commit(false)
	o.wantFiles(name(0, ".jsonl"), name(1, ".jsonl"))
	// A consumer may have removed them: they must not reappear as .part files.
	o.fs = o.fs.(*crashfs.FS).PowerLoss()
	o.wantFiles(name(0, ".jsonl"), name(1, ".jsonl"))
}

func TestAFullDiskLeavesNothingOfABatch(t *testing.T) {
	fsys := crashfs.New()
	o := &output{t: t, fs: fsys, dir: "out", opts: file.Options{MaxBytes: 8}}
	o.mustOpen()
	o.commit(false)
	o.write(records(0, "a"))
	writes := 0
	fsys.Inject(func(op crashfs.Op) error {
		if op.Kind != crashfs.Write {
			return nil
		}
		writes++
		if writes%3 != 0 { // the third part of the batch does not fit
			return nil
		}
		return syscall.ENOSPC
	})
	for range 3 {
		err := o.sink.Write(t.Context(), records(1, "bbb", "cccc", "dddddd", "e"))
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) {
			t.Fatalf("got %v, want only ENOSPC", err)
		}
	}
	fsys.Inject(nil)
	o.commit(false)
	o.wantFiles(name(0, ".part"))
	if got, err := o.fs.ReadFile(o.path(name(0, ".part"))); string(got) != "a\n" {
		t.Fatalf("the part holds %q, %v", got, err)
	}
	o.write(records(1, "bbb", "cccc", "dddddd", "e"))
	for range 3 {
		o.commit(true)
	}
	if got, err := closed(o.fs, "out/fills"); string(got) != "a\nbbb\ncccc\ndddddd\ne\n" {
		t.Fatalf("delivered %q, %v", got, err)
	}
}

func TestAFailedSyncRequiresReopen(t *testing.T) {
	fsys := crashfs.New()
	o := &output{t: t, fs: fsys, dir: "out"}
	o.mustOpen()
	o.commit(false)
	o.write(records(0, "a"))
	o.commit(false)
	for _, kind := range []crashfs.Kind{crashfs.Sync, crashfs.SyncDir} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == crashfs.SyncDir {
				o.opts.MaxBytes = 1
				o.out, o.sink = nil, nil
				o.fs = fsys.Kill(false)
				fsys = o.fs.(*crashfs.FS)
				o.mustOpen()
			}
			o.write(records(1, "b"))
			fsys.Inject(func(op crashfs.Op) error {
				if op.Kind == kind {
					return syscall.EIO
				}
				return nil
			})
			_, err := sinktest.Flush(t.Context(), o.sink, false)
			if !errors.Is(err, sink.ErrReopen) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v, want ErrReopen for EIO", err)
			}
			fsys.Inject(nil)
			if _, err := sinktest.Flush(t.Context(), o.sink, false); !errors.Is(err, sink.ErrReopen) {
				t.Fatalf("a second flush returns %v, want ErrReopen, because a later sync proves nothing", err)
			}
			if err := o.sink.Write(t.Context(), records(1, "b")); !errors.Is(err, sink.ErrReopen) {
				t.Fatalf("Write returns %v, want ErrReopen", err)
			}
		})
	}
}

func TestOutputThatContradictsTheCheckpointFailsAndIsNotChanged(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, o *output)
		says   string
	}{
		"no checkpoint at all": {
			change: func(_ *testing.T, o *output) { o.state = nil },
			says:   "which is not in the checkpoint",
		},
		"the open part is missing": {
			change: func(t *testing.T, o *output) { must(t, o.fs.Remove(o.path(name(2, ".part")))) },
			says:   name(2, ".part") + " is missing",
		},
		"the open part is shorter than recorded": {
			change: func(t *testing.T, o *output) { truncate(t, o, name(2, ".part"), 1) },
			says:   "has 1 bytes, and the checkpoint says that it holds 2",
		},
		"a complete part is shorter than recorded": {
			change: func(t *testing.T, o *output) { truncate(t, o, name(0, ".part"), 1) },
			says:   "has 1 bytes, and the checkpoint says that it holds 4",
		},
		"a complete part is longer than recorded": {
			change: func(t *testing.T, o *output) { truncate(t, o, name(0, ".part"), 100) },
			says:   "another program writes to it",
		},
		"a state of another sink": {
			change: func(_ *testing.T, o *output) { o.state = json.RawMessage(`"somewhere"`) },
			says:   "the checkpoint's state of the file sink",
		},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			o := newOutput(t, file.Options{MaxBytes: 4})
			o.write(records(0, "a", "b", "c"))
			o.commit(false)
			o.write(records(3, "d", "e")) // not committed
			o.close()
			c.change(t, o)
			before := o.files()
			err := o.open()
			if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v\nwant ErrFailed with %q", err, c.says)
			}
			o.wantFiles(before...)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, o *output, name string, size int64) {
	t.Helper()
	f, err := o.fs.Append(o.path(name))
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
}

func TestClosedFilesMayBeRemovedAndForeignFilesStay(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 2})
	f, err := o.fs.Create(o.path("notes.part"))
	must(t, err)
	must(t, f.Close())
	o.write(records(0, "a", "b"))
	o.commit(false)
	o.commit(false)
	must(t, o.fs.Remove(o.path(name(0, ".jsonl"))))
	o.close()
	o.mustOpen()
	o.wantFiles(name(1, ".jsonl"), "notes.part")
}

func TestAClosedFileIsNeverOverwritten(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 2})
	o.write(records(0, "a"))
	// The same position again, while its part is not renamed yet.
	if err := o.sink.Write(t.Context(), records(0, "A")); !errors.Is(err, sink.ErrFailed) {
		t.Fatalf("got %v, want ErrFailed", err)
	}
	o.close()
	o.mustOpen()
	o.write(records(0, "a"))
	for range 3 {
		o.commit(true)
	}
	// And once it is renamed.
	err := o.sink.Write(t.Context(), records(0, "A"))
	if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), "move out/fills/"+name(0, ".jsonl")+" away") {
		t.Fatalf("got %v, want ErrFailed with instructions", err)
	}
	if got, _ := closed(o.fs, "out/fills"); string(got) != "a\n" {
		t.Fatalf("the closed file holds %q", got)
	}
}

func TestTheRemovalOfAnOpenPartIsDetected(t *testing.T) {
	o := newOutput(t, file.Options{})
	o.write(records(0, "a"))
	must(t, o.fs.Remove(o.path(name(0, ".part"))))
	if _, err := sinktest.Flush(t.Context(), o.sink, false); !errors.Is(err, sink.ErrFailed) {
		t.Fatalf("got %v, want ErrFailed", err)
	}
}

func TestNamesDistinguishModesAndGenerations(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 2})
	for _, f := range []position.FileID{
		{Directory: "node_fills_by_block", Date: "20260430", Hour: 10, Generation: "00000001"},
		{Directory: "node_fills_by_block", Date: "20260430", Hour: 9, Generation: "00000001"},
		{Directory: "node_fills_streaming", Date: "20260430", Hour: 9, Generation: "00000001"},
		{Directory: "node_fills_by_block", Date: "20260430", Hour: 9, Generation: "00000002"},
		{Directory: "node_fills_by_block", Date: "20260429", Hour: 23, Generation: "00000001"},
	} {
		b := records(0, "a")
		b.File = f
		o.write(b)
	}
	for range 3 {
		o.commit(true)
	}
	o.wantFiles(
		"20260429-23-node_fills_by_block-00000001-000000000000000-000007.jsonl",
		"20260430-09-node_fills_by_block-00000001-000000000000000-000007.jsonl",
		"20260430-09-node_fills_by_block-00000002-000000000000000-000007.jsonl",
		"20260430-09-node_fills_streaming-00000001-000000000000000-000007.jsonl",
		"20260430-10-node_fills_by_block-00000001-000000000000000-000007.jsonl",
	)
}

// The parsers of all nodes have their directories in one claim.
func TestParsersInSiblingDirectoriesDoNotWait(t *testing.T) {
	claim := t.TempDir()
	targets := []string{"node-1", "node-2"}
	outputs := make([]*file.Output, 0, len(targets))
	for _, target := range targets {
		dir := filepath.Join(claim, "hyperliquid", "mainnet", target)
		out, err := file.New(t.Context(), vfs.OS, dir, file.Options{}, func() { t.Errorf("the parser of %s waits", target) })
		must(t, err)
		outputs = append(outputs, out)
	}
	for _, out := range outputs {
		must(t, out.Close())
	}
}

func TestASecondParserWaitsForTheDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := file.New(t.Context(), vfs.OS, dir, file.Options{}, func() { t.Error("the first one waits") })
	must(t, err)
	second, err := file.New(t.Context(), vfs.OS, dir, file.Options{}, func() { must(t, first.Close()) })
	must(t, err)
	must(t, second.Close())
}

func BenchmarkWrite(b *testing.B) {
	dir := b.TempDir()
	out, err := file.New(b.Context(), vfs.OS, dir, file.Options{MaxBytes: 1 << 30}, func() {})
	if err != nil {
		b.Fatal(err)
	}
	s, err := out.Open(b.Context(), "fills", nil)
	if err != nil {
		b.Fatal(err)
	}
	line := strings.Repeat("x", 499)
	batch := records(0, slices.Repeat([]string{line}, 2000)...)
	b.SetBytes(int64(len(batch.Data)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		batch.Records[0].Offset = int64(i)
		if err := s.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		if i%64 == 63 {
			state, err := sinktest.Flush(b.Context(), s, false)
			if err != nil || bytes.Equal(state, nil) {
				b.Fatal(err)
			}
			if err := s.Committed(b.Context()); err != nil {
				b.Fatal(err)
			}
			names, _ := filepath.Glob(filepath.Join(dir, "fills", "*.jsonl"))
			for _, name := range names {
				_ = os.Remove(name)
			}
		}
	}
}

func TestAMarkerThatBeginsAPartSortsBeforeTheEventsOfItsLine(t *testing.T) {
	o := newOutput(t, file.Options{MaxBytes: 1})
	b := records(9, "gap", "skipped", "event")
	for i, index := range []int32{-2, -1, 0} {
		b.Records[i].Offset, b.Records[i].Index = 9, index
	}
	o.write(b)
	for range 3 {
		o.commit(true)
	}
	o.close()
	o.mustOpen() // it recognizes its own files
	got, err := closed(o.fs, "out/fills")
	must(t, err)
	if string(got) != "gap\nskipped\nevent\n" {
		t.Fatalf("sorted by name the parts hold %q", got)
	}
}
