package file_test

import (
	"bytes"
	"context"
	"crypto/sha256"
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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// world holds what outlives the parser's processes in these tests: the source, the consumer, and the engine's settings.
// The test passes the file system from one process to the next.
type world struct {
	total    int // records in the source
	maxBytes int64
	maxAge   time.Duration
	zstd     bool
	hourly   bool
	beside   bool   // delivery continues during a commit
	seed     uint64 // of batch sizes and commits
	takes    bool   // the consumer removes files that it has read
	limited  bool   // the output and the disk have limits; not together with beside

	consuming bool              // the consumer is reading, and not the sink
	given     map[string]string // closed files, as the consumer first saw them
	clock     time.Time
}

func newWorld() *world {
	return &world{
		total: 40, maxBytes: 100, maxAge: 7 * time.Second, seed: 1, given: map[string]string{}, clock: time.Unix(0, 0),
	}
}

// copy returns a copy of the present world.
func (w *world) copy() *world {
	c := *w
	c.given = maps.Clone(w.given)
	return &c
}

// line returns record i of the source, in one of the hours 8 to 11. Every seventh record can never be delivered.
func (w *world) line(i int) (text string, at position.Position, bad bool) {
	perHour := w.total/4 + 1
	id := hour
	id.Hour = 8 + i/perHour
	at = position.Position{File: id, Offset: int64(i%perHour) * 10, Index: i % 3}
	return fmt.Sprintf("record %d%s\n", i, strings.Repeat(".", i%13)), at, i%7 == 3
}

// chance returns a generator that depends on the position in the source alone, so that a process after a crash repeats
// the decisions of one without.
func (w *world) chance(next int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(next))) }

// errRestart ends a process that must restart from its checkpoint.
var errRestart = errors.New("restart from the checkpoint")

// engine is one process: a reduced form of the engine's loop.
type engine struct {
	w       *world
	fs      *crashfs.FS
	store   *checkpoint.Store
	letters *deadletter.Store
	out     *file.Output
	sink    sink.Sink
	saved   checkpoint.State
	next    int
}

// live runs one process until everything is delivered. The error is ErrCrashed, errRestart, or an unexpected one.
func (w *world) live(fsys *crashfs.FS) (err error) {
	ctx := context.Background()
	e := &engine{w: w, fs: fsys}
	var closers []io.Closer
	defer func() {
		for _, c := range slices.Backward(closers) {
			_ = c.Close()
		}
		if err != nil && !errors.Is(err, sink.ErrFailed) && !errors.Is(err, checkpoint.ErrLost) &&
			!errors.Is(err, crashfs.ErrCrashed) {
			err = fmt.Errorf("%w: %w", errRestart, err) // an outage at the start, or ErrReopen
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
	e.letters, err = deadletter.Open(fsys, "state", "fills", e.saved.DeadLetterBytes, deadletter.DefaultMaxBytes)
	if err != nil {
		return err
	}
	closers = append(closers, e.letters)
	opts := file.Options{
		MaxBytes: w.maxBytes, MaxAge: w.maxAge, Zstd: w.zstd, Hourly: w.hourly, Now: func() time.Time { return w.clock },
	}
	if w.limited {
		fsys.SetSpace(500, 1000)
		opts.MaxTotalBytes, opts.MinFreePercent = 2*w.maxBytes, 10
	}
	if e.out, err = file.New(ctx, fsys, "out", opts, waiting); err != nil {
		return err
	}
	closers = append(closers, e.out)
	if e.sink, err = e.out.Open(ctx, "fills", e.saved.Sink); err != nil {
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

// batch delivers up to n records of one file.
func (e *engine) batch(n int) error {
	_, first, _ := e.w.line(e.next)
	b := sink.Batch{File: first.File}
	var letters []deadletter.Entry
	i := e.next
	for ; i < min(e.next+n, e.w.total); i++ {
		text, at, bad := e.w.line(i)
		if at.File != first.File {
			break
		}
		if bad {
			letters = append(letters, deadletter.Entry{
				Position: at, Reason: "bad", Bytes: []byte(text), LineBytes: int64(len(text)),
			})
			continue
		}
		b.Data = append(b.Data, text...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: at.Offset, Index: int32(at.Index)})
	}
	if len(b.Records) > 0 {
		if err := retry(func() error { return e.write(b) }); err != nil {
			return err
		}
	}
	for _, entry := range letters {
		if err := retry(func() error { return e.letters.Append(entry) }); err != nil {
			return err
		}
	}
	e.next = i
	return nil
}

// write tries to write. A refused batch may be waiting for room: as the engine does, write commits the records before
// it, and time advances.
func (e *engine) write(b sink.Batch) error {
	err := e.sink.Write(context.Background(), b)
	if err == nil || !e.w.limited || ends(err) {
		return err
	}
	e.w.clock = e.w.clock.Add(time.Second)
	if _, err := e.commit(false); err != nil {
		return err
	}
	return err
}

func (e *engine) commit(final bool) (changed bool, err error) {
	ctx := context.Background()
	state := checkpoint.State{Directory: hour.Directory, Mode: "ByBlock", LastBlock: int64(e.next)}
	if e.next > 0 {
		_, at, _ := e.w.line(e.next - 1)
		state.Files = []checkpoint.File{{FileID: at.File, Offset: at.Offset + 10}}
	}
	err = retry(func() (err error) { state.DeadLetterBytes, err = e.letters.Sync(); return err })
	if err != nil {
		return false, err
	}
	var flushed sink.Flushed
	err = retry(func() (err error) { flushed, err = e.sink.Flush(ctx, final); return err })
	if err != nil {
		return false, err
	}
	state.Sink = flushed.State
	if err := e.beside(1); err != nil {
		return false, err
	}
	if flushed.Sync != nil {
		if err := retry(func() error { return flushed.Sync(ctx) }); err != nil {
			return false, err
		}
	}
	if state.LastBlock == e.saved.LastBlock && bytes.Equal(state.Sink, e.saved.Sink) {
		return false, nil
	}
	if err := e.beside(2); err != nil {
		return false, err
	}
	if err := retry(func() error { return e.store.Save(state) }); err != nil {
		return false, err
	}
	e.saved = state
	if err := e.beside(3); err != nil {
		return false, err
	}
	if err := retry(func() error { return e.sink.Committed(ctx) }); err != nil {
		return false, err
	}
	if e.w.limited {
		if err := retry(e.out.Keep); err != nil {
			return false, err
		}
	}
	return true, e.w.consume(e.fs)
}

// beside sometimes delivers a batch during a commit.
func (e *engine) beside(moment uint64) error {
	chance := rand.New(rand.NewPCG(e.w.seed+moment, uint64(e.next)))
	if !e.w.beside || e.next == 0 || e.next == e.w.total || chance.IntN(2) == 0 {
		return nil
	}
	return e.batch(1 + chance.IntN(6))
}

// maxAttempts is how often the engine makes a call before it restarts.
const maxAttempts = 10

// retry calls until the call succeeds, as the engine does in an outage.
func retry(call func() error) error {
	for range maxAttempts {
		err := call()
		if err == nil || ends(err) {
			return err
		}
	}
	return errors.New("the outage does not end")
}

// ends reports whether no further call can succeed.
func ends(err error) bool {
	return errors.Is(err, crashfs.ErrCrashed) || errors.Is(err, sink.ErrFailed) || errors.Is(err, sink.ErrReopen) ||
		errors.Is(err, deadletter.ErrUnsynced)
}

// errChanged reports a closed file whose content differs from what the consumer saw earlier.
var errChanged = errors.New("a closed file has changed")

// consume lets the consumer read the closed files.
func (w *world) consume(fsys *crashfs.FS) error {
	w.consuming = true
	defer func() { w.consuming = false }()
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

// ignoreFault drops an error that the consumer retries later. It keeps a crash of the machine.
func ignoreFault(err error) error {
	if errors.Is(err, crashfs.ErrCrashed) {
		return err
	}
	return nil
}

// check compares what consumers and the dead letter received with the source.
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
			return fmt.Errorf("%s has %d bytes in several records, want at most %d", name, len(content), w.maxBytes)
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
		return fmt.Errorf("consumers received %q\nwant %q", got.String(), want.String())
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

// unpacker decodes all frames of a file and verifies their checksums.
var unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0))

// unpack returns the records of a closed file.
func unpack(name, content string) (string, error) {
	if filepath.Ext(name) != ".zst" {
		return content, nil
	}
	text, err := unpacker.DecodeAll([]byte(content), nil)
	if err != nil {
		return "", fmt.Errorf("unpacking %s: %w", name, err)
	}
	return string(text), nil
}

// archives returns the names and records that hourly rotation must yield, given only the source and maxBytes.
func (w *world) archives() map[string]string {
	want := map[string]string{}
	suffix := map[bool]string{false: ".jsonl", true: ".jsonl.zst"}[w.zstd]
	var name string
	var current position.FileID
	for i := range w.total {
		text, at, bad := w.line(i)
		if bad {
			continue
		}
		if name == "" || at.File != current || w.maxBytes > 0 && int64(len(want[name])+len(text)) > w.maxBytes {
			current = at.File
			name = fmt.Sprintf("%s-%02d-%s-%s-%015d-%06d%s",
				current.Date, current.Hour, current.Directory, current.Generation, at.Offset, at.Index, suffix)
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
			return fmt.Errorf("decoding dead letter %q: %w", line, err)
		}
		got = append(got, letter.Position+" "+letter.Bytes)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the dead letter holds %q\nwant %q", got, want)
	}
	return nil
}

// damage corrupts the newest checkpoint if there is an older one. It reports whether it did.
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

// crash is a way for a process to end, and the file system that the next one finds.
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
		{"power lost during writes", part(0)},
		{"power lost during writes, other losses", part(1)},
	}
}

var inFileName = regexp.MustCompile(`\d{8}-\d{2}-[^.]*`)

// point names a crash point, without the position in a file's name.
func point(op crashfs.Op) string {
	return fmt.Sprintf("%s %s", op.Kind, inFileName.ReplaceAllString(op.Name, "<position>"))
}

// TestACrashAtEveryStep enumerates all steps of a run. Each step is once the first that does not happen, in each kind
// of crash, with and without a damaged newest checkpoint, and with a consumer that removes files or leaves them.
func TestACrashAtEveryStep(t *testing.T) {
	for title, limits := range map[string]struct {
		records  int
		maxBytes int64
		maxAge   time.Duration
		zstd     bool
		hourly   bool
		beside   bool
	}{
		"parts end by size and by age": {records: 24, maxBytes: 100, maxAge: 7 * time.Second},
		"parts end by age":             {records: 24, maxAge: 4 * time.Second, beside: true},
		"each record is a part":        {records: 12, maxBytes: 1},
		"a single part":                {records: 24, beside: true},
		"one part for each hour":       {records: 24, maxAge: 4 * time.Second, hourly: true},
		"parts end by hour and size":   {records: 24, maxBytes: 100, hourly: true, beside: true},

		"compressed parts end by size and by age": {
			records: 24, maxBytes: 150, maxAge: 7 * time.Second, zstd: true, beside: true,
		},
		"each record is a compressed part":  {records: 10, maxBytes: 1, zstd: true},
		"a single compressed part":          {records: 24, zstd: true},
		"one compressed part for each hour": {records: 24, maxAge: 4 * time.Second, zstd: true, hourly: true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				crashAtEveryStep(t, func() *world {
					w := newWorld()
					w.total, w.maxBytes, w.maxAge = limits.records, limits.maxBytes, limits.maxAge
					w.zstd, w.hourly, w.beside = limits.zstd, limits.hourly, limits.beside
					return w
				})
			})
		})
	}
}

// crashed returns the world and the file system after a process that crashes before a step, or nil if there is no such
// step.
func crashed(t *testing.T, w *world, step int) (*world, *crashfs.FS) {
	t.Helper()
	fsys := crashfs.New()
	fsys.CrashAt(step)
	if err := w.live(fsys); err != nil && !errors.Is(err, crashfs.ErrCrashed) {
		t.Fatalf("before the crash at step %d: %v", step, err)
	}
	if !fsys.Crashed() {
		return nil, nil
	}
	return w, fsys
}

// seen holds the states from which a run succeeded. A run is deterministic, and many crashes leave the same state, so
// each state is tried once.
type seen map[[sha256.Size]byte]bool

func (s seen) add(w *world, fsys *crashfs.FS) (first bool) {
	key := sha256.Sum256(fmt.Appendf(nil, "%t %d %q %s", w.takes, w.clock.UnixNano(), w.given, fsys.Image()))
	first = !s[key]
	s[key] = true
	return first
}

func crashAtEveryStep(t *testing.T, newWorld func() *world) {
	clean := crashfs.New()
	w := newWorld()
	w.takes = true
	if err := errors.Join(w.live(clean), w.check(clean)); err != nil {
		t.Fatalf("without a crash: %v", err)
	}
	hits := map[string]int{}
	runs, damaged, known := 0, 0, seen{}
	for k, op := range clean.Steps() {
		if k%sample != 0 {
			continue
		}
		at := point(op)
		var befores [2]*world
		var lefts [2]*crashfs.FS
		for i := range befores {
			w := newWorld()
			w.takes = i == 0
			befores[i], lefts[i] = crashed(t, w, k)
		}
		for variant := range 4 {
			before, left := befores[variant%2], lefts[variant%2]
			if left == nil {
				continue // a run whose consumer removes nothing has fewer steps
			}
			for _, c := range crashes(k) {
				w, fsys := before.copy(), c.next(left.Copy())
				if variant >= 2 {
					if !damage(fsys) {
						continue
					}
					damaged++
				}
				if w.takes {
					hits[at]++
				}
				if !known.add(w, fsys) {
					continue
				}
				runs++
				if err := errors.Join(w.consume(fsys), w.live(fsys), w.check(fsys)); err != nil {
					t.Fatalf("step %d, %s, %s, variant %d: %v", k, at, c.name, variant, err)
				}
				// Completed work survives.
				if err := w.check(fsys.PowerLoss()); err != nil {
					t.Fatalf("step %d, %s, %s, variant %d, then power lost at the end: %v", k, at, c.name, variant, err)
				}
			}
		}
	}
	t.Logf("%d crash points, %d distinct states after them, %d damaged checkpoints", len(clean.Steps()), runs, damaged)
	for _, p := range slices.Sorted(maps.Keys(hits)) {
		t.Logf("%6d  %s", hits[p], p)
	}
}

// TestAPowerLossAfterAKill detects reliance on unsynced work of a killed process: the next process finds it, works on,
// and then the power is lost.
func TestAPowerLossAfterAKill(t *testing.T) {
	for title, packed := range map[string]bool{"plain": false, "compressed": true} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				powerLossAfterAKill(t, func() *world {
					w := newWorld()
					w.zstd = packed
					return w
				})
			})
		})
	}
}

func powerLossAfterAKill(t *testing.T, newWorld func() *world) {
	clean := crashfs.New()
	if err := newWorld().live(clean); err != nil {
		t.Fatal(err)
	}
	const second = 30 // the second crash is during the recovery or soon after
	pairs, runs, known := 0, 0, seen{}
	for k := 0; k < len(clean.Steps()); k += sample {
		before, left := crashed(t, newWorld(), k)
		for j := range second {
			w, fsys := before.copy(), left.Copy().Kill((k+j)%2 == 0)
			fsys.CrashAt(j)
			if err := w.live(fsys); err != nil && !errors.Is(err, crashfs.ErrCrashed) {
				t.Fatalf("killed at step %d, then before step %d: %v", k, j, err)
			}
			fsys = fsys.PowerLoss()
			pairs++
			if !known.add(w, fsys) {
				continue
			}
			runs++
			if err := errors.Join(w.live(fsys), w.check(fsys)); err != nil {
				t.Fatalf("killed at step %d, power lost at step %d after that: %v", k, j, err)
			}
		}
	}
	t.Logf("%d pairs of crashes, %d distinct states after them", pairs, runs)
}

// TestAnyRunWithErrorsAndCrashes draws the sizes, the errors and the crashes.
func TestAnyRunWithErrorsAndCrashes(t *testing.T) {
	rounds := 5 // each is 100 runs of rapid, in about a tenth of a second
	if testing.Short() || sample > 1 {
		rounds = 1
	}
	for round := range rounds {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			t.Parallel()
			anyRun(t)
		})
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

// faults makes every nth call fail, up to 30 times, so that a process completes eventually.
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
		if !errors.Is(err, errRestart) {
			t.Fatal(err)
		}
	}
	t.Fatal("the stream makes no progress")
}
