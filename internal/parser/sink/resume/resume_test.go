package resume_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
)

// world simulates a node's files, a destination that stores records and position atomically, and a parser's disk.
type world struct {
	files    map[position.FileID][]resume.Point
	stored   map[position.FileID][]resume.Point
	position *resume.Position
	last     saved // checkpoint
	before   saved // the one before it

	t       *resume.Tracker
	read    map[position.FileID]int // records acknowledged by this process
	drawn   *saved                  // taken by the last Flush
	written bool                    // drawn is the last checkpoint
}

type saved struct {
	state []byte // JSON; nil: none
	read  map[position.FileID]int
}

func file(i int) position.FileID {
	return position.FileID{Directory: "node_fills", Date: fmt.Sprintf("2026%04d", i/24), Hour: i % 24,
		Generation: "1a2b3c4d"}
}

func (w *world) open(t interface {
	Fatalf(format string, args ...any)
}) {
	var state *resume.State
	if w.last.state != nil {
		state = new(resume.State)
		if err := json.Unmarshal(w.last.state, state); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if !w.position.Covers(state) {
		t.Fatalf("the position %v does not cover the state %s", w.position, w.last.state)
	}
	w.t, w.read, w.drawn, w.written = resume.Open(state, w.position), maps.Clone(w.last.read), nil, false
	if w.read == nil {
		w.read = map[position.FileID]int{}
	}
	w.land(w.t.Now())
}

func (w *world) land(p resume.Position) { w.position = &p }

// write stores up to n records of a file, atOnce records in each act. It fails after the given number of acts, unless
// that is negative.
func (w *world) write(f position.FileID, n, atOnce, acts int) (done bool) {
	from := w.read[f]
	points := w.files[f][from:min(from+n, len(w.files[f]))]
	b := sink.Batch{File: f}
	for _, p := range points {
		b.Data = append(b.Data, "x\n"...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: p.Offset, Index: p.Index})
	}
	for i := w.t.Skip(b); i < len(points); {
		if acts == 0 {
			return false
		}
		acts--
		j := min(i+atOnce, len(points))
		w.stored[f] = append(w.stored[f], points[i:j]...)
		w.land(w.t.Position(f, points[j-1]))
		w.t.Stored(f, points[j-1])
		i = j
	}
	w.t.Acked(b)
	w.read[f] = from + len(points)
	return true
}

func (w *world) flush() {
	state, _ := json.Marshal(w.t.Flush())
	w.drawn, w.written = &saved{state, maps.Clone(w.read)}, false
}

func (w *world) save() {
	if w.drawn != nil && !w.written {
		w.before, w.last, w.written = w.last, *w.drawn, true
		if w.before.state == nil {
			w.before = w.last
		}
	}
}

func (w *world) commit() {
	w.flush()
	w.save()
	w.t.Committed()
}

// Files are read in any order, writes fail halfway, processes end between any two steps, and a damaged checkpoint sends
// the parser back to the checkpoint before.
func TestEveryRecordIsStoredOnceWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{files: map[position.FileID][]resume.Point{}, stored: map[position.FileID][]resume.Point{}}
		names := make([]position.FileID, rapid.IntRange(1, 4).Draw(t, "files"))
		for i := range names {
			f, at := file(i), resume.Point{Index: -2}
			names[i] = f
			for range rapid.IntRange(1, 60).Draw(t, "records") {
				if at.Index++; rapid.Bool().Draw(t, "next line") {
					at.Offset += 100
					at.Index = int32(rapid.IntRange(-1, 0).Draw(t, "index"))
				}
				w.files[f] = append(w.files[f], at)
			}
		}
		w.open(t)
		w.commit()
		actions := map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				f := rapid.SampledFrom(names).Draw(t, "file")
				if w.read[f] == len(w.files[f]) {
					return
				}
				n, atOnce, acts := rapid.IntRange(1, 12).Draw(t, "n"), rapid.IntRange(1, 5).Draw(t, "at once"),
					rapid.IntRange(-1, 3).Draw(t, "acts")
				if !w.write(f, n, atOnce, acts) && rapid.Bool().Draw(t, "again") {
					w.write(f, rapid.SampledFrom([]int{n, n/2 + 1}).Draw(t, "cut"), rapid.IntRange(1, 5).Draw(t, "at once"), -1)
				}
			},
			"flush": func(*rapid.T) { w.flush() },
			"save":  func(*rapid.T) { w.save() },
			"committed": func(*rapid.T) {
				if w.written {
					w.t.Committed()
				}
			},
			"crash": func(t *rapid.T) { w.open(t) },
			"damage": func(t *rapid.T) {
				w.last = w.before
				w.open(t)
			},
		}
		// Most actions are writes.
		actions["write more"], actions["write still more"] = actions["write"], actions["write"]
		t.Repeat(actions)
		w.open(t)
		for _, f := range names {
			for w.read[f] < len(w.files[f]) {
				w.write(f, 3, 2, -1)
			}
			if !slices.Equal(w.stored[f], w.files[f]) {
				t.Fatalf("%s: stored %v, want %v", f, w.stored[f], w.files[f])
			}
		}
	})
}

func TestAPositionStaysSmallInABacklogOfTinyFiles(t *testing.T) {
	w := &world{files: map[position.FileID][]resume.Point{}, stored: map[position.FileID][]resume.Point{}}
	const files = 4 * resume.MaxFiles
	for i := range files {
		w.files[file(i)] = []resume.Point{{0, 0}, {100, 0}}
	}
	w.open(t)
	w.commit()
	commits, crashAt := 0, 1500
	for i := 0; i < files; i++ {
		f := file(i)
		if w.t.Full(f) {
			w.commit()
			commits++
			if w.t.Full(f) {
				t.Fatalf("there is no room for file %d after a commit", i)
			}
		}
		w.write(f, 2, 1, -1)
		if i%100 == 0 {
			if text, err := json.Marshal(w.position); err != nil || len(text) > 64*resume.MaxFiles {
				t.Fatalf("the position has %d bytes, %v", len(text), err)
			}
		}
		if i == crashAt {
			crashAt += 1500
			w.open(t)
			i = len(w.read) - 1 // as the engine continues from its checkpoint
		}
	}
	for f, points := range w.files {
		if !slices.Equal(w.stored[f], points) {
			t.Fatalf("%s: stored %v, want %v", f, w.stored[f], points)
		}
	}
	if commits > files/resume.MaxFiles*3 {
		t.Errorf("Full required %d commits", commits)
	}
}

func TestFilesThatNeverComeBackAreEvicted(t *testing.T) {
	stored := &resume.Position{Files: resume.Files{}}
	for i := range resume.MaxFiles {
		stored.Files[file(i)] = resume.Point{Offset: 1}
	}
	tr := resume.Open(&resume.State{}, stored)
	if tr.Full(file(resume.MaxFiles)) {
		t.Error("there is no room for a new file")
	}
	if got := tr.Now().Files; len(got) > resume.MaxFiles || got[file(resume.MaxFiles-1)] != (resume.Point{Offset: 1}) {
		t.Errorf("%d files are kept, the newest with %v", len(got), got[file(resume.MaxFiles-1)])
	}
}

func batch(f position.FileID, offsets ...int64) sink.Batch {
	b := sink.Batch{File: f}
	for _, o := range offsets {
		b.Data = append(b.Data, "x\n"...)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: o})
	}
	return b
}

func TestATruncatedAndRewrittenFileIsStored(t *testing.T) {
	f := file(0)
	tr := resume.Open(&resume.State{Generation: 3, Files: resume.Files{f: {Offset: 500}}},
		&resume.Position{Since: 2, Files: resume.Files{f: {Offset: 900}}})
	if got := tr.Skip(batch(f, 400, 500, 600)); got != 0 {
		t.Errorf("%d records before the checkpoint were skipped, want none", got)
	}
	if got := tr.Skip(batch(f, 600, 700)); got != 0 {
		t.Errorf("%d records after the checkpoint were skipped, want none", got)
	}
	tr = resume.Open(&resume.State{Generation: 3, Files: resume.Files{f: {Offset: 500}}},
		&resume.Position{Since: 2, Files: resume.Files{f: {Offset: 900}}})
	if got := tr.Skip(batch(f, 600, 900, 1000)); got != 2 {
		t.Errorf("%d records were skipped, want 2", got)
	}
}

func TestACheckpointOlderThanThePositionKnowsIsNotCovered(t *testing.T) {
	empty := &resume.Position{Files: resume.Files{}}
	for title, c := range map[string]struct {
		state    *resume.State
		position *resume.Position
		want     bool
	}{
		"nothing anywhere":                     {nil, nil, true},
		"no position":                          {&resume.State{Generation: 7}, nil, true},
		"a start that was not saved":           {nil, empty, true},
		"a checkpoint as old as the position":  {&resume.State{Generation: 7}, &resume.Position{Since: 7}, true},
		"a checkpoint older than the position": {&resume.State{Generation: 6}, &resume.Position{Since: 7}, false},
		"records and no checkpoint":            {nil, &resume.Position{Files: resume.Files{file(0): {}}}, false},
		"old records, and no checkpoint":       {nil, &resume.Position{Since: 1}, false},
	} {
		if got := c.position.Covers(c.state); got != c.want {
			t.Errorf("%s: covered is %v", title, got)
		}
	}
}

func TestAFlushWithNothingNewIsTheSameState(t *testing.T) {
	tr := resume.Open(nil, nil)
	if s := tr.Flush(); s.Generation != 0 || len(s.Files) != 0 {
		t.Errorf("the first state is %v", s)
	}
	for want := range int64(5) {
		b := batch(file(0), want)
		tr.Stored(b.File, resume.PointOf(b, 0))
		tr.Acked(b)
		for range 2 {
			if s := tr.Flush(); s.Generation != want+1 || s.Files[b.File].Offset != want {
				t.Errorf("state %d is %v", want+1, s)
			}
			tr.Committed()
		}
	}
	for i := range 3 {
		b := batch(file(1+i), 0)
		tr.Acked(b)
		tr.Flush()
		tr.Committed()
	}
	if p := tr.Now(); len(p.Files) != 1 || p.Since != 7 {
		t.Errorf("after the commits the position is %v", p)
	}
}

func TestFilesAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := resume.Files{}
		for range rapid.IntRange(0, 5).Draw(t, "files") {
			want[file(rapid.IntRange(0, 90).Draw(t, "file"))] = resume.Point{
				Offset: rapid.Int64Range(0, 1<<60).Draw(t, "offset"), Index: rapid.Int32().Draw(t, "index"),
			}
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got resume.Files
		if err := json.Unmarshal(data, &got); err != nil || !maps.Equal(got, want) {
			t.Fatalf("%s is read as %v, %v", data, got, err)
		}
	})
	for _, bad := range []string{
		`{"x":[1,2]}`, `{"node_fills/20260430/8@1a2b3c4d":[1,4294967296]}`, `[]`, `{"node_fills/20260430/8@1a2b3c4d":{}}`,
	} {
		if err := json.Unmarshal([]byte(bad), new(resume.Files)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
