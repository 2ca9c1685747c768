// Package resume keeps account of how far a destination that stores records and their position in one act is ahead of the parser's
// checkpoint, so that what it already has is not sent again after a crash.
//
// Late appends make the node's files take turns, and not the same turns after a restart, so the account is kept for each file by
// itself: within a file records come in their order. The package only reckons. It must never do I/O, and never call a record
// delivered that the destination did not acknowledge.
//
// What a sink does with it:
//
//	t := Open(state of the checkpoint, position of the destination)
//	Write:     leave out b.Records[:t.Skip(b)]; if t.Full(file) { outage }
//	           store the others together with t.Position(file, last), then t.Landed(file, last); after the last t.Acked(b)
//	Flush:     t.Flush()
//	Committed: t.Committed()
package resume

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// MaxFiles bounds the files of a Position, and so its size: about 50 bytes each in JSON. Only a backlog of very many very small
// files comes near.
const MaxFiles = 1024

// Point is a record's place in its file.
type Point struct {
	Offset int64
	Index  int32
}

// Compare orders points as their records are in the file: a marker's negative index is before the events of its line.
func (p Point) Compare(o Point) int {
	return cmp.Or(cmp.Compare(p.Offset, o.Offset), cmp.Compare(p.Index, o.Index))
}

// PointOf is the place of record i of a batch.
func PointOf(b sink.Batch, i int) Point {
	return Point{b.Records[i].Offset, b.Records[i].Index}
}

// Files hold a point for each of some files. In JSON: {"node_fills/20260430/8@1a2b3c4d":[offset,index]}.
type Files map[checkpoint.FileID]Point

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
		file, err := checkpoint.ParseFileID(name)
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

// State is what the parser's checkpoint keeps.
type State struct {
	// Generation counts the states of a stream that differ.
	Generation int64 `json:"generation"`
	// Files hold the last acknowledged record of files written to of late.
	Files Files `json:"files,omitempty"`
}

// Position is what the destination keeps beside the records.
type Position struct {
	// Since is the generation of the oldest checkpoint for which Files are complete.
	Since int64 `json:"since"`
	// Files hold the last stored record of each file written to since then.
	Files Files `json:"files,omitempty"`
}

// Covers tells whether p names all that was stored since the checkpoint with state s; nil is that of a checkpoint that knows no
// state. If it does not, records may be stored twice from here on. Of a nil position nothing can be told: the answer is yes.
func (p *Position) Covers(s *State) bool {
	switch {
	case p == nil:
		return true
	case s == nil:
		return p.Since == 0 && len(p.Files) == 0
	}
	return s.Generation >= p.Since
}

// Tracker is the account of one stream.
type Tracker struct {
	state     State // as the last Flush returned it
	news      bool  // something was acknowledged since
	committed int64 // generation of the last checkpoint known to be on disk
	since     int64 // see Position

	acked map[checkpoint.FileID]entry
	// ahead holds the last stored record of files whose records up to there were not all acknowledged to the caller: after a crash,
	// or a Write that failed half way.
	ahead Files
	// resumed holds how far the checkpoint covers files until their first batch comes: one that is not past it shows that the file
	// was cut and written anew, so that ahead is not about what is in it now.
	resumed Files
}

type entry struct {
	Point
	generation int64 // of the first state that includes it
}

// Open begins an account with what the checkpoint holds, nil if nothing, and what the destination holds, nil if nothing.
func Open(state *State, position *Position) *Tracker {
	t := &Tracker{acked: map[checkpoint.FileID]entry{}, ahead: Files{}, resumed: Files{}}
	if state != nil {
		t.state = State{state.Generation, maps.Clone(state.Files)}
		maps.Copy(t.resumed, state.Files)
	}
	if position != nil {
		t.since = position.Since
		t.state.Generation = max(t.state.Generation, position.Since)
		for file, p := range position.Files {
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

// Full tells that a record of the file cannot be written before a checkpoint is on disk, for want of room in the position.
func (t *Tracker) Full(file checkpoint.FileID) bool {
	_, acked := t.acked[file]
	if _, ahead := t.ahead[file]; acked || ahead || t.size() < MaxFiles {
		return false
	}
	// The checkpoint before the last is not provided for any more.
	t.prune(t.committed)
	if t.size() < MaxFiles {
		return false
	}
	if len(t.acked) > 0 {
		return true
	}
	// Of files that a crash left behind, and that were not read again, the oldest are gone most likely.
	old := slices.SortedFunc(maps.Keys(t.ahead), func(a, b checkpoint.FileID) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Hour, b.Hour))
	})
	for _, file := range old[:MaxFiles/4] {
		delete(t.ahead, file)
	}
	return false
}

func (t *Tracker) size() int { return len(t.acked) + len(t.ahead) }

// Skip returns how many records at the batch's beginning are stored already.
func (t *Tracker) Skip(b sink.Batch) int {
	if len(t.ahead) == 0 && len(t.resumed) == 0 {
		return 0
	}
	if from, ok := t.resumed[b.File]; ok {
		delete(t.resumed, b.File)
		if PointOf(b, 0).Compare(from) <= 0 {
			delete(t.ahead, b.File)
		}
	}
	until, ok := t.ahead[b.File]
	if !ok {
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

// Position returns what the destination must hold when it stores the record at p of the file, and all before it.
func (t *Tracker) Position(file checkpoint.FileID, p Point) Position {
	out := t.Now()
	out.Files[file] = p
	return out
}

// Now returns what the destination must hold if it stores nothing more.
func (t *Tracker) Now() Position {
	out := Position{Since: t.since, Files: make(Files, t.size()+1)}
	for file, e := range t.acked {
		out.Files[file] = e.Point
	}
	maps.Copy(out.Files, t.ahead)
	return out
}

// Landed tells that the destination holds the records of a file up to p.
func (t *Tracker) Landed(file checkpoint.FileID, p Point) { t.ahead[file] = p }

// Acked tells that the whole batch was acknowledged.
func (t *Tracker) Acked(b sink.Batch) {
	last := PointOf(b, len(b.Records)-1)
	t.acked[b.File] = entry{last, t.state.Generation + 1}
	if until, ok := t.ahead[b.File]; ok && until.Compare(last) <= 0 {
		delete(t.ahead, b.File)
	}
	t.news = true
}

// Flush returns the state of all that was acknowledged: the same as before if that is nothing new. The caller may not change it.
func (t *Tracker) Flush() State {
	if t.news {
		t.news = false
		t.state = State{t.state.Generation + 1, make(Files, len(t.acked))}
		for file, e := range t.acked {
			t.state.Files[file] = e.Point
		}
	}
	return t.state
}

// Committed tells that the checkpoint with the state that Flush returned last is on disk. What the checkpoint before it covers is
// forgotten; what only the last one covers is not, because a damaged checkpoint sends the parser back to the one before.
func (t *Tracker) Committed() {
	if t.committed == t.state.Generation {
		return
	}
	t.prune(t.committed)
	t.committed = t.state.Generation
}

// prune forgets what a state covers.
func (t *Tracker) prune(generation int64) {
	t.since = max(t.since, generation)
	maps.DeleteFunc(t.acked, func(_ checkpoint.FileID, e entry) bool { return e.generation <= generation })
}
