package file_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// world is what outlives the parser's processes in these tests: the source, the
// consumer, and how the engine is told to work. The file system is passed from
// one process to the next by whoever lets it crash.
type world struct {
	total    int // records in the source
	maxBytes int64
	maxAge   time.Duration
	zstd     bool
	hourly   bool
	beside   bool   // delivery goes on while a commit is carried out
	seed     uint64 // of batch sizes and commits
	takes    bool   // the consumer removes what it has read

	given map[string]string // closed files, as the consumer first saw them
	clock time.Time
}

func newWorld() *world {
	return &world{total: 40, maxBytes: 100, maxAge: 7 * time.Second, seed: 1, given: map[string]string{}, clock: time.Unix(0, 0)}
}

// line is record i of the source, in one of the hours 8 to 11. Every seventh is
// one that can never be delivered.
func (w *world) line(i int) (text string, at checkpoint.Position, bad bool) {
	perHour := w.total/4 + 1
	id := hour
	id.Hour = 8 + i/perHour
	return fmt.Sprintf("record %d%s\n", i, strings.Repeat(".", i%13)), checkpoint.Position{File: id, Offset: int64(i%perHour) * 10, Index: i % 3}, i%7 == 3
}

// chance decides by the place in the source alone, so that a process after a
// crash does the same as one without.
func (w *world) chance(next int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(next))) }

// errAgain ends a process that must start again from its checkpoint.
var errAgain = errors.New("start again")

// engine is one process: a small form of the engine's loop.
type engine struct {
	w       *world
	fs      *crashfs.FS
	store   *checkpoint.Store
	letters *deadletter.Store
	sink    sink.Sink
	saved   checkpoint.State
	next    int
}

// live runs one process until everything is delivered. The error is ErrCrashed,
// errAgain, or one that should not be.
func (w *world) live(fsys *crashfs.FS) (err error) {
	ctx := context.Background()
	e := &engine{w: w, fs: fsys}
	var closers []io.Closer
	defer func() {
		for _, c := range slices.Backward(closers) {
			_ = c.Close()
		}
		if err != nil && !errors.Is(err, sink.ErrFailed) && !errors.Is(err, checkpoint.ErrLost) && !errors.Is(err, crashfs.ErrCrashed) {
			err = fmt.Errorf("%w: %w", errAgain, err) // an outage at the start, or ErrReopen
		}
	}()
	waiting := func() { panic("a lock is held") }

	lock, err := checkpoint.Lock(ctx, fsys, "state", waiting)
	if err != nil {
		return err
	}
	closers = append(closers, lock)
	if e.store, err = checkpoint.Open(fsys, "state", "fills"); err != nil {
		return err
	}
	loaded, err := e.store.Load()
	if err != nil {
		return err
	}
	e.saved, e.next = loaded.State, int(loaded.State.LastBlock)
	if e.letters, err = deadletter.Open(fsys, "state", "fills", e.saved.DeadLetterBytes, deadletter.DefaultMaxBytes); err != nil {
		return err
	}
	closers = append(closers, e.letters)
	out, err := file.New(ctx, fsys, "out",
		file.Options{MaxBytes: w.maxBytes, MaxAge: w.maxAge, Zstd: w.zstd, Hourly: w.hourly, Now: func() time.Time { return w.clock }}, waiting)
	if err != nil {
		return err
	}
	closers = append(closers, out)
	if e.sink, err = out.Open(ctx, "fills", e.saved.Sink); err != nil {
		return err
	}
	closers = append(closers, e.sink)
	if _, err := e.commit(false); err != nil {
		return err
	}
	return e.deliver()
}

func (e *engine) deliver() error {
	for e.next < e.w.total {
		chance := e.w.chance(e.next)
		if err := e.batch(1 + chance.IntN(6)); err != nil {
			return err
		}
		e.w.clock = e.w.clock.Add(time.Second)
		if chance.IntN(3) == 0 {
			if _, err := e.commit(false); err != nil {
				return err
			}
		}
	}
	for {
		changed, err := e.commit(true)
		if err != nil || !changed {
			return err
		}
	}
}

// batch delivers up to n records, those of one file.
func (e *engine) batch(n int) error {
	_, first, _ := e.w.line(e.next)
	b := sink.Batch{File: first.File}
	i := e.next
	for ; i < min(e.next+n, e.w.total); i++ {
		text, at, bad := e.w.line(i)
		if at.File != first.File {
			break
		}
		if bad {
			entry := deadletter.Entry{Position: at, Reason: "bad", Bytes: []byte(text), LineBytes: int64(len(text))}
			if err := again(func() error { return e.letters.Append(entry) }); err != nil {
				return err
			}
			continue
		}
		b.Data = append(b.Data, text...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: at.Offset, Index: int32(at.Index)})
	}
	if len(b.Records) > 0 {
		if err := again(func() error { return e.sink.Write(context.Background(), b) }); err != nil {
			return err
		}
	}
	e.next = i
	return nil
}

func (e *engine) commit(final bool) (changed bool, err error) {
	ctx := context.Background()
	state := checkpoint.State{Directory: hour.Directory, Mode: "ByBlock", LastBlock: int64(e.next)}
	if e.next > 0 {
		_, at, _ := e.w.line(e.next - 1)
		state.Files = []checkpoint.File{{FileID: at.File, Offset: at.Offset + 10}}
	}
	err = again(func() (err error) { state.DeadLetterBytes, err = e.letters.Sync(); return err })
	if err != nil {
		return false, err
	}
	var flushed sink.Flushed
	err = again(func() (err error) { flushed, err = e.sink.Flush(ctx, final); return err })
	if err != nil {
		return false, err
	}
	state.Sink = flushed.State
	if err := e.beside(1); err != nil {
		return false, err
	}
	if flushed.Sync != nil {
		if err := again(func() error { return flushed.Sync(ctx) }); err != nil {
			return false, err
		}
	}
	if state.LastBlock == e.saved.LastBlock && bytes.Equal(state.Sink, e.saved.Sink) {
		return false, nil
	}
	if err := e.beside(2); err != nil {
		return false, err
	}
	if err := again(func() error { return e.store.Save(state) }); err != nil {
		return false, err
	}
	e.saved = state
	if err := e.beside(3); err != nil {
		return false, err
	}
	if err := again(func() error { return e.sink.Committed(ctx) }); err != nil {
		return false, err
	}
	return true, e.w.consume(e.fs)
}

// beside delivers in the middle of a commit, now and then.
func (e *engine) beside(moment uint64) error {
	chance := rand.New(rand.NewPCG(e.w.seed+moment, uint64(e.next)))
	if !e.w.beside || e.next == 0 || e.next == e.w.total || chance.IntN(2) == 0 {
		return nil
	}
	return e.batch(1 + chance.IntN(6))
}

// again makes a call until it succeeds, as the engine does in an outage.
func again(call func() error) error {
	for range 100 {
		err := call()
		if err == nil || errors.Is(err, crashfs.ErrCrashed) || errors.Is(err, sink.ErrFailed) ||
			errors.Is(err, sink.ErrReopen) || errors.Is(err, deadletter.ErrUnsynced) {
			return err
		}
	}
	return errors.New("an outage without end")
}

// errChanged is for a closed file that a consumer sees for a second time, with
// other bytes.
var errChanged = errors.New("a closed file has changed")

// consume lets the consumer look at the closed files.
func (w *world) consume(fsys *crashfs.FS) error {
	names, err := fsys.List("out/fills")
	if err != nil {
		return ignoreFault(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".jsonl") && !strings.HasSuffix(name, ".jsonl.zst") {
			continue
		}
		path := filepath.Join("out/fills", name)
		content, err := fsys.ReadFile(path)
		if err != nil {
			return ignoreFault(err)
		}
		if before, seen := w.given[name]; seen && before != string(content) {
			return fmt.Errorf("%w: %s held %q, and now %q (%w)", errChanged, name, before, content, sink.ErrFailed)
		}
		w.given[name] = string(content)
		if !w.takes {
			continue
		}
		if err := errors.Join(fsys.Remove(path), fsys.SyncDir("out/fills")); err != nil {
			return ignoreFault(err)
		}
	}
	return nil
}

// ignoreFault has the consumer come again later, unless the machine is gone.
func ignoreFault(err error) error {
	if errors.Is(err, crashfs.ErrCrashed) {
		return err
	}
	return nil
}

// check compares what consumers and the dead letter got with the source.
func (w *world) check(fsys *crashfs.FS) error {
	if err := w.consume(fsys); err != nil {
		return err
	}
	var got, want strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.given)) {
		content := w.given[name]
		text, err := unpack(name, content)
		if err != nil {
			return err
		}
		got.WriteString(text)
		if w.maxBytes > 0 && int64(len(content)) > w.maxBytes && strings.Count(text, "\n") > 1 {
			return fmt.Errorf("%s has %d bytes in more than one record, the limit is %d", name, len(content), w.maxBytes)
		}
	}
	var letters []string
	for i := range w.total {
		text, at, bad := w.line(i)
		if bad {
			letters = append(letters, at.String()+" "+text)
			continue
		}
		want.WriteString(text)
	}
	if w.hourly && (w.maxBytes == 0 || !w.zstd) {
		if err := w.checkArchives(); err != nil {
			return err
		}
	}
	if got.String() != want.String() {
		return fmt.Errorf("consumers were given %q\nwant %q", got.String(), want.String())
	}
	names, err := fsys.List("out/fills")
	if err != nil {
		return err
	}
	for _, name := range names {
		if filepath.Ext(name) == ".part" {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return checkLetters(fsys, letters)
}

// unpacker reads all frames of a file, and checks their checksums.
var unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))

// unpack returns a closed file's records.
func unpack(name, content string) (string, error) {
	if filepath.Ext(name) != ".zst" {
		return content, nil
	}
	text, err := unpacker.DecodeAll([]byte(content), nil)
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	return string(text), nil
}

// archives is what rotation by hour must give: names and records that follow
// from the source and maxBytes alone.
func (w *world) archives() map[string]string {
	want := map[string]string{}
	suffix := map[bool]string{false: ".jsonl", true: ".jsonl.zst"}[w.zstd]
	var name string
	var of checkpoint.FileID
	for i := range w.total {
		text, at, bad := w.line(i)
		if bad {
			continue
		}
		if name == "" || at.File != of || w.maxBytes > 0 && int64(len(want[name])+len(text)) > w.maxBytes {
			of = at.File
			name = fmt.Sprintf("%s-%02d-%s-%s-%015d-%06d%s", of.Date, of.Hour, of.Directory, of.Generation, at.Offset, at.Index, suffix)
		}
		want[name] += text
	}
	return want
}

func (w *world) checkArchives() error {
	got := map[string]string{}
	for name, content := range w.given {
		text, err := unpack(name, content)
		if err != nil {
			return err
		}
		got[name] = text
	}
	if want := w.archives(); !maps.Equal(got, want) {
		return fmt.Errorf("the archives are %q\nwant %q", got, want)
	}
	return nil
}

func checkLetters(fsys *crashfs.FS, want []string) error {
	data, err := fsys.ReadFile("state/deadletter/fills.jsonl")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var got []string
	for line := range bytes.Lines(data) {
		var letter struct{ Position, Bytes string }
		if err := json.Unmarshal(line, &letter); err != nil {
			return fmt.Errorf("dead letter %q: %w", line, err)
		}
		got = append(got, letter.Position+" "+letter.Bytes)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the dead letter holds %q\nwant %q", got, want)
	}
	return nil
}

// damage spoils the newest checkpoint, if there is an older one to go back to.
func damage(fsys *crashfs.FS) bool {
	loaded, err := checkpoint.Show(fsys, "state", "fills")
	if err != nil || len(loaded.SetAside) > 0 {
		return false
	}
	newest := fmt.Sprintf("\"sequence\": %d,", loaded.State.Sequence)
	slots := map[bool]string{} // by whether it is the newest
	for _, slot := range []string{"state/checkpoint/fills.0.json", "state/checkpoint/fills.1.json"} {
		if data, err := fsys.ReadFile(slot); err == nil {
			slots[bytes.Contains(data, []byte(newest))] = slot
		}
	}
	if len(slots) < 2 {
		return false
	}
	data, err := fsys.ReadFile(slots[true])
	if err != nil {
		panic(err)
	}
	data[len(data)/2] ^= 4
	f, err := fsys.Create(slots[true])
	if err != nil {
		panic(err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		panic(err)
	}
	return true
}

// crash is a way for a process to end, and what the next one finds.
type crash struct {
	name string
	next func(*crashfs.FS) *crashfs.FS
}

func crashes(seed int) []crash {
	part := func(i uint64) func(*crashfs.FS) *crashfs.FS {
		return func(f *crashfs.FS) *crashfs.FS { return f.PartialLoss(rand.New(rand.NewPCG(uint64(seed), i))) }
	}
	return []crash{
		{"killed", func(f *crashfs.FS) *crashfs.FS { return f.Kill(false) }},
		{"killed in a write", func(f *crashfs.FS) *crashfs.FS { return f.Kill(true) }},
		{"power lost", (*crashfs.FS).PowerLoss},
		{"power lost at work", part(0)},
		{"power lost at work, otherwise", part(1)},
	}
}

var position = regexp.MustCompile(`\d{8}-\d{2}-[^.]*`)

// point is what a crash point is about, without the position in a file's name.
func point(op crashfs.Op) string {
	return fmt.Sprintf("%s %s", op.Kind, position.ReplaceAllString(op.Name, "<position>"))
}

// TestACrashAtEveryStep enumerates all steps of a run: each is once the first
// that does not happen, in each way to crash, with and without a damaged newest
// checkpoint, and with a consumer that takes files away or leaves them.
func TestACrashAtEveryStep(t *testing.T) {
	for title, limits := range map[string]struct {
		records  int
		maxBytes int64
		maxAge   time.Duration
		zstd     bool
		hourly   bool
		beside   bool
	}{
		"parts end by size and by age": {records: 40, maxBytes: 100, maxAge: 7 * time.Second},
		"parts end by age":             {records: 40, maxAge: 4 * time.Second, beside: true},
		"each record is a part":        {records: 20, maxBytes: 1},
		"one part to the end":          {records: 40, beside: true},
		"one part for each hour":       {records: 40, maxAge: 4 * time.Second, hourly: true},
		"parts end by hour and size":   {records: 40, maxBytes: 100, hourly: true, beside: true},

		"compressed parts end by size and by age": {records: 40, maxBytes: 150, maxAge: 7 * time.Second, zstd: true, beside: true},
		"each record is a compressed part":        {records: 10, maxBytes: 1, zstd: true},
		"one compressed part to the end":          {records: 40, zstd: true},
		"one compressed part for each hour":       {records: 40, maxAge: 4 * time.Second, zstd: true, hourly: true},
	} {
		t.Run(title, func(t *testing.T) {
			crashAtEveryStep(t, func() *world {
				w := newWorld()
				w.total, w.maxBytes, w.maxAge = limits.records, limits.maxBytes, limits.maxAge
				w.zstd, w.hourly, w.beside = limits.zstd, limits.hourly, limits.beside
				return w
			})
		})
	}
}

func crashAtEveryStep(t *testing.T, newWorld func() *world) {
	clean := crashfs.New()
	w := newWorld()
	w.takes = true
	if err := errors.Join(w.live(clean), w.check(clean)); err != nil {
		t.Fatalf("without a crash: %v", err)
	}
	hits := map[string]int{}
	runs, damaged := 0, 0
	for k, op := range clean.Steps() {
		for _, c := range crashes(k) {
			for variant := range 4 {
				w := newWorld()
				w.takes = variant%2 == 0
				fsys := crashfs.New()
				fsys.CrashAt(k)
				if err := w.live(fsys); err != nil && !errors.Is(err, crashfs.ErrCrashed) {
					t.Fatalf("before the crash at step %d, %s: %v", k, point(op), err)
				}
				if !fsys.Crashed() {
					continue // a run whose consumer takes nothing has fewer steps
				}
				fsys = c.next(fsys)
				if variant >= 2 {
					if !damage(fsys) {
						continue
					}
					damaged++
				}
				if w.takes {
					hits[point(op)]++
				}
				runs++
				if err := errors.Join(w.consume(fsys), w.live(fsys), w.check(fsys)); err != nil {
					t.Fatalf("step %d, %s, %s, variant %d: %v", k, point(op), c.name, variant, err)
				}
				// What is done stays done.
				if err := w.check(fsys.PowerLoss()); err != nil {
					t.Fatalf("step %d, %s, %s, variant %d, then power lost at the end: %v", k, point(op), c.name, variant, err)
				}
			}
		}
	}
	t.Logf("%d crash points, %d runs, of which %d with a damaged checkpoint", len(clean.Steps()), runs, damaged)
	for _, p := range slices.Sorted(maps.Keys(hits)) {
		t.Logf("%6d  %s", hits[p], p)
	}
}

// TestAPowerLossAfterAKill looks for trust in what a killed process did and did
// not sync: the next one finds it, works on, and then the power is lost.
func TestAPowerLossAfterAKill(t *testing.T) {
	t.Run("plain", func(t *testing.T) { powerLossAfterAKill(t, newWorld) })
	t.Run("compressed", func(t *testing.T) {
		powerLossAfterAKill(t, func() *world {
			w := newWorld()
			w.zstd = true
			return w
		})
	})
}

func powerLossAfterAKill(t *testing.T, newWorld func() *world) {
	clean := crashfs.New()
	if err := newWorld().live(clean); err != nil {
		t.Fatal(err)
	}
	stride, second := 1, 30 // the second crash is in the recovery or soon after
	if testing.Short() {
		stride = 7
	}
	runs := 0
	for k := 0; k < len(clean.Steps()); k += stride {
		for j := range second {
			w := newWorld()
			fsys := crashfs.New()
			fsys.CrashAt(k)
			if err := w.live(fsys); !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("step %d: %v", k, err)
			}
			fsys = fsys.Kill((k+j)%2 == 0)
			fsys.CrashAt(j)
			if err := w.live(fsys); err != nil && !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("killed at step %d, then before step %d: %v", k, j, err)
			}
			fsys = fsys.PowerLoss()
			runs++
			if err := errors.Join(w.live(fsys), w.check(fsys)); err != nil {
				t.Fatalf("killed at step %d, power lost at step %d after that: %v", k, j, err)
			}
		}
	}
	t.Logf("%d pairs of crashes", runs)
}

// TestAnyRunWithErrorsAndCrashes draws the sizes, the errors and the crashes.
func TestAnyRunWithErrorsAndCrashes(t *testing.T) {
	rounds := 5 // of rapid's 100 each, which take a tenth of a second
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		anyRun(t)
	}
}

func anyRun(t *testing.T) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.total = rapid.IntRange(1, 80).Draw(t, "records")
		w.maxBytes = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1, 400)).Draw(t, "maxBytes")
		w.maxAge = time.Duration(rapid.IntRange(1, 30).Draw(t, "maxAge")) * time.Second
		w.seed = rapid.Uint64().Draw(t, "seed")
		w.zstd = rapid.Bool().Draw(t, "zstd")
		w.hourly = rapid.Bool().Draw(t, "hourly")
		w.beside = rapid.Bool().Draw(t, "beside commits")
		changes := !w.hourly && rapid.Bool().Draw(t, "compression is turned on and off")
		w.takes = rapid.Bool().Draw(t, "takes")
		fsys := crashfs.New()
		for range rapid.IntRange(0, 6).Draw(t, "crashes") {
			faults(t, fsys)
			fsys.CrashAt(rapid.IntRange(0, 150).Draw(t, "step"))
			w.untilItEnds(t, fsys)
			if changes {
				w.zstd = !w.zstd
			}
			c := rapid.SampledFrom(crashes(rapid.Int().Draw(t, "loss"))).Draw(t, "crash")
			fsys = c.next(fsys)
			if rapid.IntRange(0, 4).Draw(t, "damage") == 0 {
				damage(fsys)
			}
			if err := w.consume(fsys); err != nil {
				t.Fatal(err)
			}
		}
		faults(t, fsys)
		w.untilItEnds(t, fsys)
		fsys.Inject(nil)
		if err := w.check(fsys); err != nil {
			t.Fatal(err)
		}
	})
}

// faults makes one call in some number fail, for as long as the machine runs or
// until there were 30 of them: a process must come to its end at last.
func faults(t *rapid.T, fsys *crashfs.FS) {
	every := rapid.IntRange(0, 60).Draw(t, "fault every")
	if every < 3 {
		return
	}
	calls, left := 0, 30
	fsys.Inject(func(op crashfs.Op) error {
		calls++
		if calls%every != 0 || left == 0 {
			return nil
		}
		left--
		if op.Kind == crashfs.Create || op.Kind == crashfs.Write {
			return syscall.ENOSPC
		}
		return syscall.EIO
	})
}

// untilItEnds starts processes until one is done or the machine crashes.
func (w *world) untilItEnds(t *rapid.T, fsys *crashfs.FS) {
	for range 1000 {
		err := w.live(fsys)
		if err == nil || errors.Is(err, crashfs.ErrCrashed) {
			return
		}
		if !errors.Is(err, errAgain) {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not get on")
}
