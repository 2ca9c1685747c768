package file_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// disked is an output on a disk of 1000 bytes, with a clock and a consumer.
type disked struct {
	*output
	disk    *crashfs.FS
	now     time.Time
	next    int  // offset of the next record
	last    int  // its value at the last commit
	tried   bool // the next record was refused
	listing bool // the test itself lists the files
}

func (d *disked) commit(final bool) {
	d.t.Helper()
	d.output.commit(final)
	d.last = d.next
}

func newDisked(t *testing.T, opts file.Options) *disked {
	d := &disked{disk: crashfs.New(), now: time.Unix(1000, 0)}
	opts.Now = func() time.Time { return d.now }
	d.output = &output{t: t, fs: d.disk, dir: "out", opts: opts}
	d.disk.SetSpace(1000, 1000)
	d.mustOpen()
	d.commit(false)
	return d
}

// deliver handles a record as the engine does: it tries, commits the records before it, and tries again later.
func (d *disked) deliver() error {
	d.t.Helper()
	limit, held := d.opts.MaxTotalBytes, d.held()
	if err := d.sink.Write(d.t.Context(), records(d.next, "a record of 20 bytes")); err != nil {
		if d.next != d.last {
			d.t.Errorf("a record is refused within the engine's next commit: %v", err)
		}
		if !d.tried {
			d.tried = true // the engine commits once per refusal
			d.commit(false)
		}
		return err
	}
	if limit > 0 && held >= limit && d.next == d.last {
		d.t.Errorf("%d bytes are held, and the limit is %d", held, limit)
	}
	d.next++
	d.tried = false
	return nil
}

// take removes the first n closed files, or all if n is -1.
func (d *disked) take(n int) (taken int) {
	d.t.Helper()
	for _, name := range d.files() {
		if strings.HasSuffix(name, ".part") || taken == n {
			continue
		}
		if err := d.fs.Remove(d.path(name)); err != nil {
			d.t.Fatal(err)
		}
		taken++
	}
	return taken
}

func (d *disked) held() (n int64) {
	d.t.Helper()
	d.listing = true
	defer func() { d.listing = false }()
	for _, name := range d.files() {
		size, err := d.fs.Size(d.path(name))
		if err != nil {
			d.t.Fatal(err)
		}
		n += size
	}
	return n
}

func TestAStreamWaitsAtMaxTotalSizeUntilFilesAreRemoved(t *testing.T) {
	for title, opts := range map[string]file.Options{
		"by size": {MaxBytes: 64, MaxTotalBytes: 200}, "by hour": {MaxBytes: 64, MaxTotalBytes: 200, Hourly: true},
		"one part holds all": {MaxTotalBytes: 200}, "each record a part": {MaxBytes: 1, MaxTotalBytes: 200},
		"packed": {MaxBytes: 100, MaxTotalBytes: 200, Zstd: true},
	} {
		t.Run(title, func(t *testing.T) {
			d := newDisked(t, opts)
			for range 3 {
				refused := error(nil)
				for i := 0; refused == nil; i++ {
					if i == 100 {
						t.Fatal("there is no limit")
					}
					refused = d.deliver()
					if i%2 == 1 {
						d.commit(false)
					}
				}
				if text := refused.Error(); !strings.Contains(text, "maxTotalSize") || !strings.Contains(text, "out/fills") ||
					len(text) > 400 {
					t.Errorf("got %v", refused)
				}
				if held := d.held(); held > 200+2*34 { // two records are written between commits
					t.Errorf("%d bytes are held", held)
				}
				before := d.files()
				for range 5 {
					d.now = d.now.Add(time.Minute)
					if err := d.deliver(); err == nil {
						t.Fatalf("there is room although nothing was removed: %q", d.files())
					}
				}
				if now := d.files(); len(now) != len(before) {
					t.Errorf("the files were %q and are now %q", before, now)
				}
				// A consumer has something to remove. Otherwise the wait would never end.
				if d.take(-1) == 0 {
					t.Fatalf("no file is closed: %q", d.files())
				}
				d.now = d.now.Add(time.Second)
				if err := d.deliver(); err != nil {
					t.Fatalf("all closed files were removed, but the record is refused: %v", err)
				}
			}
		})
	}
}

func TestARestartedStreamCountsItsExistingFiles(t *testing.T) {
	d := newDisked(t, file.Options{MaxBytes: 64, MaxTotalBytes: 200})
	for range 100 {
		if d.deliver() != nil {
			break
		}
		d.commit(false)
	}
	d.close()
	d.mustOpen()
	d.commit(false)
	if err := d.deliver(); err == nil {
		t.Error("after a restart there is room")
	}
	d.close()
	d.take(-1)
	d.mustOpen()
	d.commit(false)
	if err := d.deliver(); err != nil {
		t.Errorf("nothing is held after a restart: %v", err)
	}
}

func TestAStreamWaitsBelowTheFloorOfFreeSpace(t *testing.T) {
	for title, opts := range map[string]file.Options{
		"plain": {MinFreePercent: 10}, "packed": {MinFreePercent: 10, Zstd: true},
		"by hour": {MinFreePercent: 10, Hourly: true},
	} {
		t.Run(title, func(t *testing.T) {
			d := newDisked(t, opts)
			step := func(free int64) error {
				d.disk.SetSpace(free, 1000)
				d.now = d.now.Add(time.Second)
				_ = d.deliver() // the result of the previous commit's check
				d.commit(false)
				return d.deliver()
			}
			for i, s := range []struct {
				free int64
				ok   bool
			}{
				{1000, true}, {100, true}, {99, false}, {0, false}, {100, false}, {110, true}, {100, true}, {99, false},
				{500, true},
			} {
				err := step(s.free)
				if (err == nil) != s.ok {
					t.Fatalf("step %d, %d of 1000 bytes free: %v", i, s.free, err)
				}
				if err != nil && (!strings.Contains(err.Error(), "minFreePercent keeps 10 %") ||
					!strings.Contains(err.Error(), "1000 B free")) {
					t.Errorf("got %v", err)
				}
			}
			// The open part is closed so that a consumer can remove it, except if the names must depend on the records
			// alone.
			closed := len(d.files()) - len(partsOf(d.files()))
			if (closed > 0) == opts.Hourly {
				t.Errorf("the files are %q", d.files())
			}
		})
	}
}

func partsOf(names []string) (parts []string) {
	for _, name := range names {
		if strings.HasSuffix(name, ".part") {
			parts = append(parts, name)
		}
	}
	return parts
}

func TestNoFloorWhenOffOrUnknown(t *testing.T) {
	for title, test := range map[string]struct {
		percent     int
		free, total int64
	}{"off": {0, 0, 1000}, "the disk does not report its size": {10, 0, 0}} {
		t.Run(title, func(t *testing.T) {
			d := newDisked(t, file.Options{MinFreePercent: test.percent})
			d.disk.SetSpace(test.free, test.total)
			if err := d.deliver(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The disk is checked at most once a second, whatever the clock does, and not at all while nothing is delivered.
func TestTheDiskIsCheckedAtMostOncePerSecond(t *testing.T) {
	d := newDisked(t, file.Options{MaxBytes: 64, MaxTotalBytes: 1000, MinFreePercent: 10})
	checks, lists := 0, 0
	d.disk.Inject(func(op crashfs.Op) error {
		switch {
		case op.Kind == crashfs.Space:
			checks++
		case op.Kind == crashfs.List && !d.listing:
			lists++
		}
		return nil
	})
	d.now = d.now.Add(time.Second)
	for range 20 {
		if err := d.deliver(); err != nil {
			t.Fatal(err)
		}
		d.commit(false)
	}
	if checks != 1 || lists != 0 {
		t.Errorf("within an instant: %d checks, %d lists", checks, lists)
	}
	d.now = d.now.Add(-24 * time.Hour)
	for range 5 {
		if err := d.deliver(); err != nil {
			t.Fatal(err)
		}
		d.commit(false)
	}
	if checks != 2 {
		t.Errorf("with the clock set back: %d checks", checks)
	}
	d.disk.SetSpace(0, 1000)
	d.now = d.now.Add(time.Second)
	_ = d.deliver()
	d.commit(false)
	checks, lists = 0, 0
	for range 100 {
		d.now = d.now.Add(100 * time.Millisecond)
		if err := d.deliver(); err == nil {
			t.Fatal("there is room")
		}
	}
	if checks > 11 || lists > 0 {
		t.Errorf("in 10 s of waiting: %d checks, %d lists", checks, lists)
	}
	checks = 0
	d.now = d.now.Add(time.Hour)
	d.commit(false)
	if checks != 0 {
		t.Error("an idle stream checks the disk")
	}
}

func TestAFailedCheckOfTheDiskIsAnOutage(t *testing.T) {
	d := newDisked(t, file.Options{MinFreePercent: 10})
	d.disk.Inject(func(op crashfs.Op) error {
		if op.Kind == crashfs.Space {
			return syscall.EIO
		}
		return nil
	})
	if err := d.deliver(); err != nil {
		t.Error(err)
	}
	d.now = d.now.Add(time.Second)
	d.commit(false)
	if err := d.deliver(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "out/fills") {
		t.Errorf("got %v", err)
	}
	d.disk.Inject(nil)
	if err := d.deliver(); err != nil {
		t.Error(err)
	}
}

// For any limits, batches, commits and consumer: the limits hold, delivery resumes when a consumer removes all closed
// files, and every record is delivered once.
func TestAnyStreamWithLimitsResumesAndHoldsThem(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		maxBytes := rapid.Int64Range(1, 100).Draw(rt, "maxBytes")
		opts := file.Options{
			MaxBytes: maxBytes, MaxTotalBytes: rapid.Int64Range(2*maxBytes, 600).Draw(rt, "maxTotal"),
			Hourly: rapid.Bool().Draw(rt, "hourly"), Zstd: rapid.Bool().Draw(rt, "zstd"),
		}
		d := newDisked(t, opts)
		var got strings.Builder
		collect := func() {
			data, err := closed(d.fs, "out/fills")
			if err != nil {
				rt.Fatal(err)
			}
			got.Write(data)
			d.take(-1)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			d.now = d.now.Add(time.Duration(rapid.IntRange(-2, 3).Draw(rt, "seconds")) * time.Second)
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				collect()
			case 1, 2, 3:
				d.commit(false)
			default:
				if d.deliver() == nil {
					continue
				}
				collect()
				d.now = d.now.Add(2 * time.Second)
				if err := d.deliver(); err != nil {
					rt.Fatalf("all closed files were removed, but the record is refused: %v; %q", err, d.files())
				}
			}
		}
		for range 3 {
			d.commit(true)
		}
		collect()
		if want := strings.Repeat("a record of 20 bytes\n", d.next); got.String() != want {
			rt.Fatalf("%d bytes were delivered, want %d", got.Len(), len(want))
		}
		d.close()
	})
}

// A clock that jumps closes no file early while the process runs, and never keeps one open forever. A start in the
// future counts as now.
func TestPartsAgeAcrossAnyJumpOfTheClock(t *testing.T) {
	const day = 24 * time.Hour
	for title, test := range map[string]struct {
		jump    time.Duration
		restart bool
		after   time.Duration // upper bound until the part is closed, measured from the jump
	}{
		"no jump":                        {0, false, time.Minute},
		"no jump, over a restart":        {0, true, time.Minute},
		"back a day":                     {-day, false, time.Minute},
		"back a day, over a restart":     {-day, true, time.Minute},
		"back a second":                  {-time.Second, false, time.Minute},
		"ahead a day":                    {day, false, time.Second},
		"ahead a day, over a restart":    {day, true, time.Second},
		"ahead a second, over a restart": {time.Second, true, time.Minute},
	} {
		for _, packed := range []bool{false, true} {
			d := newDisked(t, file.Options{MaxAge: time.Minute, Zstd: packed})
			if err := d.deliver(); err != nil {
				t.Fatal(err)
			}
			d.commit(false)
			if test.restart {
				d.close()
			}
			d.now = d.now.Add(test.jump)
			if test.restart {
				d.mustOpen()
				d.commit(false)
			}
			jumped, closedAfter := d.now, time.Duration(-1)
			for range 200 {
				d.now = d.now.Add(time.Second)
				d.commit(false)
				d.commit(false)
				if len(partsOf(d.files())) == 0 {
					closedAfter = d.now.Sub(jumped)
					break
				}
			}
			if closedAfter < 0 || closedAfter > test.after+2*time.Second {
				t.Errorf("%s, packed %v: closed %s after the jump, want %s at most", title, packed, closedAfter, test.after)
			}
		}
	}
}
