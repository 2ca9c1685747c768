// Package resume tracks how far a destination is ahead of the parser's checkpoint. The destination stores records and
// their position atomically, so records that it already has are not sent again after a crash.
//
// Late appends make the parser switch between the node's files, and it switches at other points after a restart.
// Therefore the tracker keeps a point for each file: within a file, records arrive in order. The package does no I/O,
// and never counts a record as delivered that the destination did not acknowledge.
//
// A sink uses it as follows:
//
//	t := Open(state of the checkpoint, position of the destination)
//	Write:     skip b.Records[:t.Skip(b)]; if t.Full(file) { outage }
//	           store the others together with t.Position(file, last), then t.Stored(file, last); at the end t.Acked(b)
//	Flush:     t.Flush()
//	Committed: t.Committed()
package resume

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// MaxFiles bounds the files of a Position, and so its size: about 50 bytes per file in JSON. Only a backlog of very
// many small files reaches it.
const MaxFiles = 1024

// Point is the position of a record in its file.
type Point struct {
	Offset int64
	Index  int32
}

// Compare orders points as their records are in the file. A marker's negative index precedes the events of its line.
func (p Point) Compare(o Point) int {
	return cmp.Or(cmp.Compare(p.Offset, o.Offset), cmp.Compare(p.Index, o.Index))
}

// PointOf returns the point of record i of a batch.
func PointOf(b sink.Batch, i int) Point {
	return Point{b.Records[i].Offset, b.Records[i].Index}
}

// Files maps files to points. In JSON: {"node_fills/20260430/8@1a2b3c4d":[offset,index]}.
type Files map[position.FileID]Point

// MarshalJSON implements json.Marshaler.
func (f Files) MarshalJSON() ([]byte, error) {
	out := make(map[string][2]int64, len(f))
	for file, p := range f {
		out[file.String()] = [2]int64{p.Offset, int64(p.Index)}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Files) UnmarshalJSON(data []byte) error {
	var in map[string][2]int64
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*f = make(Files, len(in))
	for name, p := range in {
		file, err := position.ParseFileID(name)
		if err != nil {
			return err
		}
		if p[1] != int64(int32(p[1])) {
			return fmt.Errorf("file %s: index %d does not fit", name, p[1])
		}
		(*f)[file] = Point{p[0], int32(p[1])}
	}
	return nil
}

// State is the part of the parser's checkpoint that this package needs.
type State struct {
	// Generation counts the distinct states of a stream.
	Generation int64 `json:"generation"`
	// Files holds the last acknowledged record of recently written files.
	Files Files `json:"files,omitempty"`
}

// Position is what the destination stores beside the records.
type Position struct {
	// Since is the generation of the oldest checkpoint for which Files are complete.
	Since int64 `json:"since"`
	// Files holds the last stored record of each file written since then.
	Files Files `json:"files,omitempty"`
}

// Covers reports whether p accounts for everything stored since the checkpoint with state s. A nil s stands for a
// checkpoint without a state. If p does not cover s, records may be stored twice from here on. A nil p carries no
// information, and Covers returns true.
func (p *Position) Covers(s *State) bool {
	switch {
	case p == nil:
		return true
	case s == nil:
		return p.Since == 0 && len(p.Files) == 0
	}
	return s.Generation >= p.Since
}

// Tracker tracks the position of one stream.
type Tracker struct {
	state     State // as returned by the last Flush
	dirty     bool  // something was acknowledged since the last Flush
	committed int64 // generation of the last checkpoint known to be on disk
	since     int64 // see Position.Since

	acked map[position.FileID]entry
	// ahead holds the last stored record of files whose records up to there were not all acknowledged to the caller,
	// after a crash or after a Write that failed halfway.
	ahead Files
	// resumed holds the checkpoint's point of each file until the file's first batch arrives. If that batch does not
	// start past the point, the file was truncated and rewritten, so ahead does not describe its present content.
	resumed Files
}

type entry struct {
	Point
	generation int64 // of the first state that includes it
}

// Open returns the tracker for the checkpoint's state and the position that the destination stored. Either may be nil.
func Open(state *State, stored *Position) *Tracker {
	t := &Tracker{acked: map[position.FileID]entry{}, ahead: Files{}, resumed: Files{}}
	if state != nil {
		t.state = State{state.Generation, maps.Clone(state.Files)}
		maps.Copy(t.resumed, state.Files)
	}
	if stored != nil {
		t.since = stored.Since
		t.state.Generation = max(t.state.Generation, stored.Since)
		for file, p := range stored.Files {
			if from, ok := t.resumed[file]; ok && p.Compare(from) <= 0 {
				t.acked[file] = entry{p, t.state.Generation}
			} else {
				t.ahead[file] = p
			}
		}
	}
	t.committed = t.state.Generation
	return t
}

// Full reports whether a record of the file must wait for a checkpoint, because the position has no room for the file.
func (t *Tracker) Full(file position.FileID) bool {
	_, acked := t.acked[file]
	if _, ahead := t.ahead[file]; acked || ahead || t.size() < MaxFiles {
		return false
	}
	// The checkpoint before the last one is no longer covered.
	t.prune(t.committed)
	if t.size() < MaxFiles {
		return false
	}
	if len(t.acked) > 0 {
		return true
	}
	// These files were left by a crash and not read again. The oldest are the most likely to be gone.
	old := slices.SortedFunc(maps.Keys(t.ahead), func(a, b position.FileID) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Hour, b.Hour))
	})
	for _, file := range old[:MaxFiles/4] {
		delete(t.ahead, file)
	}
	return false
}

func (t *Tracker) size() int { return len(t.acked) + len(t.ahead) }

// Skip returns the number of leading records of the batch that are already stored.
func (t *Tracker) Skip(b sink.Batch) int {
	until, ahead := t.Until(b.File, PointOf(b, 0))
	if !ahead {
		return 0
	}
	n, _ := slices.BinarySearchFunc(b.Records, until, func(r sink.Record, until Point) int {
		if (Point{r.Offset, r.Index}).Compare(until) <= 0 {
			return -1
		}
		return 1
	})
	return n
}

// Until returns the point up to which a file is already stored, if the destination is ahead. first is where the next
// batch of the file begins.
func (t *Tracker) Until(file position.FileID, first Point) (until Point, ahead bool) {
	if len(t.ahead) == 0 && len(t.resumed) == 0 {
		return Point{}, false
	}
	if from, ok := t.resumed[file]; ok {
		delete(t.resumed, file)
		if first.Compare(from) <= 0 {
			delete(t.ahead, file)
		}
	}
	until, ahead = t.ahead[file]
	return until, ahead
}

// Position returns the position to store with the record at p of the file and all records before it.
func (t *Tracker) Position(file position.FileID, p Point) Position {
	out := t.Now()
	out.Files[file] = p
	return out
}

// Now returns the position to store if no further record is stored.
func (t *Tracker) Now() Position {
	out := Position{Since: t.since, Files: make(Files, t.size()+1)}
	for file, e := range t.acked {
		out.Files[file] = e.Point
	}
	maps.Copy(out.Files, t.ahead)
	return out
}

// Stored records that the destination holds the records of a file up to p.
func (t *Tracker) Stored(file position.FileID, p Point) { t.ahead[file] = p }

// Acked records that the whole batch was acknowledged.
func (t *Tracker) Acked(b sink.Batch) {
	last := PointOf(b, len(b.Records)-1)
	t.acked[b.File] = entry{last, t.state.Generation + 1}
	if until, ok := t.ahead[b.File]; ok && until.Compare(last) <= 0 {
		delete(t.ahead, b.File)
	}
	t.dirty = true
}

// Flush returns the state of everything acknowledged. It returns the previous state if nothing was acknowledged since.
// The caller must not change it.
func (t *Tracker) Flush() State {
	if t.dirty {
		t.dirty = false
		t.state = State{t.state.Generation + 1, make(Files, len(t.acked))}
		for file, e := range t.acked {
			t.state.Files[file] = e.Point
		}
	}
	return t.state
}

// Committed records that the checkpoint with the state of the last Flush is on disk. It drops what the checkpoint
// before that one covers. It keeps what only the last one covers, because a damaged checkpoint sends the parser back to
// the one before.
func (t *Tracker) Committed() {
	if t.committed == t.state.Generation {
		return
	}
	t.prune(t.committed)
	t.committed = t.state.Generation
}

// prune drops the files that the state of the given generation covers.
func (t *Tracker) prune(generation int64) {
	t.since = max(t.since, generation)
	maps.DeleteFunc(t.acked, func(_ position.FileID, e entry) bool { return e.generation <= generation })
}
