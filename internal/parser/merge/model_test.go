package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/resume"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// destination keeps records over the crashes of the processes that write to it.
type destination struct {
	mu      sync.Mutex
	remote  bool // it stores the position with the records; otherwise it is cut back to the state of the checkpoint
	records []string
	stored  *resume.Position
	refuses string // records with this text
	steps   int    // calls until the process crashes; negative: never
	crashed chan struct{}
	flaky   *rand.Rand    // nil: no outages
	gate    chan struct{} // Write and Flush wait for it; nil: they do not wait
	// saves is how many checkpoints say that no record follows. The file sink names a file after the second.
	saves int
}

var (
	errOutage  = errors.New("the destination does not answer")
	errCrashed = errors.New("the process has crashed")
)

// step counts a call, and reports whether the process has crashed.
func (d *destination) step() bool {
	select {
	case <-d.crashed:
		return true
	default:
	}
	if d.steps--; d.steps == -1 {
		close(d.crashed)
		return true
	}
	return false
}

func (d *destination) Open(_ context.Context, _ string, state json.RawMessage) (sink.Sink, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &destinationSink{d: d}
	var saved destinationState
	if state != nil {
		if err := json.Unmarshal(state, &saved); err != nil {
			return nil, err
		}
	}
	if d.remote {
		s.tracker = resume.Open(saved.Resume, d.stored)
	} else {
		d.records = d.records[:saved.Length]
	}
	return s, nil
}

func (d *destination) Close() error { return nil }

type destinationState struct {
	Length int           `json:"length"`
	Saves  int           `json:"saves"`
	Resume *resume.State `json:"resume,omitempty"`
}

type destinationSink struct {
	d         *destination
	tracker   *resume.Tracker
	delivered int64
	saves     int // by the newest Flush
}

const savesBeforeNaming = 2

func (s *destinationSink) Write(ctx context.Context, b sink.Batch) error {
	if s.d.gate != nil {
		<-s.d.gate
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.step() {
		return errCrashed
	}
	if len(b.Records) > 0 {
		s.d.saves = 0
	}
	from := 0
	if s.tracker != nil {
		from = s.tracker.Skip(b)
	}
	for i := from; i < len(b.Records); i++ {
		text := string(b.Record(i))
		if s.d.refuses != "" && strings.Contains(text, s.d.refuses) {
			return &sink.Refusal{Index: i, Reason: "it is refused"}
		}
	}
	failsAt := -1
	if s.d.flaky != nil && s.d.flaky.IntN(4) == 0 {
		failsAt = from + s.d.flaky.IntN(len(b.Records)-from+1)
	}
	for i := from; i < len(b.Records); i++ {
		if i == failsAt {
			break
		}
		if s.tracker != nil || failsAt < 0 {
			s.d.records = append(s.d.records, fmt.Sprintf("%s %s", b.Position(i), b.Record(i)))
			s.delivered++
		}
		if s.tracker != nil {
			p := s.tracker.Position(b.File, resume.PointOf(b, i))
			s.d.stored = &p
			s.tracker.Stored(b.File, resume.PointOf(b, i))
		}
	}
	if failsAt >= 0 {
		return errOutage
	}
	if s.tracker != nil {
		s.tracker.Acked(b)
	}
	return ctx.Err()
}

func (s *destinationSink) Flush(_ context.Context, final bool) (sink.Flushed, error) {
	if s.d.gate != nil {
		<-s.d.gate
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.step() {
		return sink.Flushed{}, errCrashed
	}
	s.saves = 0
	if final {
		s.saves = min(s.d.saves+1, savesBeforeNaming)
	}
	state := destinationState{Length: len(s.d.records), Saves: s.saves}
	if s.tracker != nil {
		r := s.tracker.Flush()
		state.Resume = &r
	}
	text, err := json.Marshal(state)
	return sink.Flushed{State: text, Sync: func(context.Context) error {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		if s.d.step() {
			return errCrashed
		}
		return nil
	}}, err
}

func (s *destinationSink) Committed(context.Context) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.step() {
		return errCrashed
	}
	s.d.saves = s.saves
	if s.tracker != nil {
		s.tracker.Committed()
	}
	return nil
}

func (s *destinationSink) Delivered() int64 {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.delivered
}

func (s *destinationSink) Close() error { return nil }

// modelStream is what a node writes of one stream, and what its pipeline has saved.
type modelStream struct {
	Source
	slots []slot

	// Saved by the pipeline.
	next int // slot
	sink json.RawMessage
	dead []string
}

// slot is what a pipeline delivers at once.
type slot struct {
	file  position.FileID
	parts []Part
	text  [][]string // of the parts' events; "" for those that the filter drops
}

func (s *slot) batches(split func(n int) int) []sink.Batch {
	var all []sink.Batch
	b := sink.Batch{File: s.file}
	for i, p := range s.parts {
		for j, text := range s.text[i] {
			if text == "" {
				continue
			}
			b.Data = append(b.Data, text...)
			b.Records = append(b.Records, sink.Record{
				End: len(b.Data), Offset: p.Offset, Index: int32(p.Index + j), Block: p.Block,
			})
			if split(3) == 0 {
				all = append(all, b)
				b = sink.Batch{File: s.file}
			}
		}
	}
	if len(b.Records) > 0 {
		all = append(all, b)
	}
	return append(all, sink.Batch{File: s.file})
}

// drawStream draws a stream. In streaming mode a block has several lines.
func drawStream(t *rapid.T, name string, blocks int64, whole bool) *modelStream {
	s := &modelStream{Source: Source{Name: name, Kebab: strings.ToLower(name)}}
	var current slot
	offset, number, hour := int64(0), 0, 8
	cut := func() {
		if len(current.parts) > 0 {
			s.slots = append(s.slots, current)
		}
		current = slot{file: position.FileID{
			Directory: strings.ToLower(name), Date: "20260430", Hour: hour, Generation: "1a2b3c4d",
		}}
	}
	cut()
	first := rapid.Int64Range(1, 3).Draw(t, "first block")
	for block := first; block <= blocks; block++ {
		lines := 1
		if !whole {
			lines = rapid.IntRange(0, 3).Draw(t, "lines")
		} else if rapid.IntRange(0, 9).Draw(t, "gap") == 0 {
			continue
		}
		for range lines {
			events := 1
			if whole {
				events = rapid.IntRange(0, 4).Draw(t, "events")
			}
			p := Part{Offset: offset, Block: block, End: true, Whole: whole,
				BlockTime: fmt.Appendf(nil, `"2026-04-30T%02d:00:00.5"`, 8+block/4),
				LocalTime: fmt.Appendf(nil, `"2026-04-30T%02d:00:01"`, 8+block/4)}
			text := make([]string, 0, events)
			for i := range events {
				line := ""
				if rapid.IntRange(0, 3).Draw(t, "filtered") > 0 {
					line = fmt.Sprintf("%s %d/%d\n", name, block, number)
				}
				number++
				text = append(text, line)
				// A long line is delivered in parts.
				if i == 1 && rapid.Bool().Draw(t, "cut") {
					half := p
					half.End, half.Events, half.Last = false, len(text), int32(len(text)-1)
					current.parts, current.text = append(current.parts, half), append(current.text, text)
					cut()
					p.Index, text = i+1, nil
				}
			}
			p.Events, p.Last = len(text), int32(p.Index+len(text)-1)
			current.parts, current.text = append(current.parts, p), append(current.text, text)
			offset += 100
			switch rapid.IntRange(0, 9).Draw(t, "cut") {
			case 0, 1, 2:
				cut()
			case 3:
				hour, offset = hour+1, 0
				cut()
			case 4:
				if block > first { // the node goes back
					block--
				}
			}
		}
	}
	cut()
	return s
}

// errRestart reports that a pipeline begins again where it was saved, beside the others.
var errRestart = errors.New("the stream restarts")

// pipeline delivers a stream from where it was saved. It returns the error that ended it.
func (s *modelStream) pipeline(ctx context.Context, m *Merger, d *destination, random *rand.Rand) error {
	for {
		if err := s.attempt(ctx, m, d, random); !errors.Is(err, errRestart) {
			return err
		}
	}
}

func (s *modelStream) attempt(ctx context.Context, m *Merger, d *destination, random *rand.Rand) error {
	var opened sink.Sink
	var err error
	for opened == nil {
		if opened, err = m.Open(ctx, s.Kebab, s.sink); err != nil && !errors.Is(err, errOutage) {
			return err
		}
	}
	next, dead := s.next, slices.Clone(s.dead)
	crashed := func() bool {
		select {
		case <-d.crashed:
			return true
		default:
			return false
		}
	}
	commit := func(final bool) error {
		f, err := opened.Flush(ctx, final)
		if err != nil {
			return err
		}
		for f.Sync != nil {
			if err := f.Sync(ctx); err == nil {
				break
			} else if !errors.Is(err, errOutage) {
				return err
			}
		}
		d.mu.Lock()
		if d.step() {
			d.mu.Unlock()
			return errCrashed
		}
		s.next, s.sink, s.dead = next, f.State, slices.Clone(dead)
		d.mu.Unlock()
		return opened.Committed(ctx)
	}
	err = func() error {
		if err := commit(false); err != nil {
			return err
		}
		for ; next < len(s.slots); next++ {
			slot := &s.slots[next]
			m.Expect(s.Kebab, slot.parts)
			for _, b := range slot.batches(random.IntN) {
				for {
					err := opened.Write(ctx, b)
					if refusal, refused := errors.AsType[*sink.Refusal](err); refused {
						if refusal.Index > 0 {
							if err := retry(func() error { return opened.Write(ctx, b.Slice(0, refusal.Index)) }); err != nil {
								return err
							}
						}
						dead = append(dead, string(b.Record(refusal.Index)))
						if refusal.Index+1 == len(b.Records) {
							break
						}
						b = b.Slice(refusal.Index+1, len(b.Records))
						continue
					}
					if errors.Is(err, errOutage) && !crashed() {
						if random.IntN(4) == 0 {
							return errRestart
						}
						continue
					}
					if err != nil {
						return err
					}
					break
				}
			}
			if random.IntN(3) == 0 {
				next++
				err := commit(false)
				next--
				if err != nil {
					return err
				}
			}
		}
		return commit(true)
	}()
	return errors.Join(err, opened.Close())
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, errOutage) {
			return err
		}
	}
}

// expected returns the records in the order of blocks, without markers.
func expected(streams []*modelStream, refuses string) (records []string, dead map[string]bool) {
	type placed struct {
		key  int64
		rank int
		n    int
		text string
	}
	var all []placed
	dead = map[string]bool{}
	for rank, s := range streams {
		floor := int64(0)
		n := 0
		for _, slot := range s.slots {
			for i, p := range slot.parts {
				key := max(p.Block, floor)
				for _, text := range slot.text[i] {
					switch {
					case text == "":
					case refuses != "" && strings.Contains(text, refuses):
						dead[text] = true
					default:
						all = append(all, placed{key, rank, n, text})
						n++
					}
				}
				if p.Block == key {
					floor = key
					if p.Whole && p.End {
						floor++
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		if a.key != b.key {
			return int(a.key - b.key)
		}
		return a.rank - b.rank
	})
	for _, p := range all {
		records = append(records, p.text)
	}
	return records, dead
}

func TestNothingIsLostDoubledOrOutOfOrderThroughCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.Bool().Draw(t, "by block")
		blocks := rapid.Int64Range(1, 12).Draw(t, "blocks")
		streams := make([]*modelStream, 0, 3)
		for _, name := range []string{"Statuses", "Diffs", "Fills"}[:rapid.IntRange(1, 3).Draw(t, "streams")] {
			streams = append(streams, drawStream(t, name, blocks, whole))
		}
		d := &destination{remote: rapid.Bool().Draw(t, "remote")}
		if rapid.Bool().Draw(t, "refusals") {
			d.refuses = "/3\n"
		}
		seed := rapid.Uint64().Draw(t, "seed")
		dir := tempDir(t)
		crashes := rapid.IntRange(0, 4).Draw(t, "crashes")
		for run := 0; ; run++ {
			d.steps, d.crashed, d.flaky = -2, make(chan struct{}), nil
			if run < crashes {
				d.steps = rapid.IntRange(0, 40).Draw(t, "steps")
			}
			if rapid.Bool().Draw(t, "outages") {
				d.flaky = rand.New(rand.NewPCG(seed, uint64(run)))
			}
			if runProcess(t, dir, d, streams, seed+uint64(run)) {
				break
			}
		}
		if d.saves < savesBeforeNaming {
			t.Errorf("all streams are done, and %d of the last checkpoints say so", d.saves)
		}
		want, dead := expected(streams, d.refuses)
		check(t, d.records, want, streams)
		for _, s := range streams {
			for _, text := range s.dead {
				if !dead[text] {
					t.Errorf("%q is in the dead letter twice, or was not refused", text)
				}
				delete(dead, text)
			}
		}
		if len(dead) > 0 {
			t.Errorf("missing in the dead letter: %v", dead)
		}
	})
}

// runProcess runs all pipelines until they are done, or the process crashes.
func runProcess(t *rapid.T, dir string, d *destination, streams []*modelStream, seed uint64) (done bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	names, sources := make([]string, 0, len(streams)+1), make([]Source, 0, len(streams))
	for _, s := range streams {
		names = append(names, s.Kebab)
		sources = append(sources, s.Source)
	}
	state, err := checkpoint.Acquire(ctx, vfs.OS, dir, append(names, Stream), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	m := New(Options{
		Streams: sources, Target: "node-1", Patience: time.Minute, Output: d, CloseTimeout: time.Second,
		Store: func() (*checkpoint.Store, error) { return state.Store(Stream) },
	})
	crashed := d.crashed
	go func() {
		select {
		case <-crashed:
			cancel()
		case <-ctx.Done():
		}
	}()
	errs := make([]error, len(streams))
	var wg sync.WaitGroup
	for i, s := range streams {
		wg.Go(func() { errs[i] = s.pipeline(ctx, m, d, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("the pipelines wait for each other: %+v", m.session.order)
	}
	select {
	case <-crashed:
		return false
	default:
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return true
}

func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "merge-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// check compares the destination's records with the wanted ones, and every block's marker with the records before it.
func check(t *rapid.T, records, want []string, streams []*modelStream) {
	var got []string
	seen := map[int64]bool{}
	delivered := map[string]int64{}
	lastPosition := map[string]bool{}
	for _, r := range records {
		at, text, _ := strings.Cut(r, " ")
		if lastPosition[at] {
			t.Errorf("two records have the position %s", at)
		}
		lastPosition[at] = true
		if !strings.HasPrefix(text, "{") {
			got = append(got, text)
			name, rest, _ := strings.Cut(text, " ")
			var block, n int64
			if _, err := fmt.Sscanf(rest, "%d/%d", &block, &n); err != nil {
				t.Fatal(err)
			}
			if p, err := position.Parse(at); err != nil || p.Offset == block {
				delivered[fmt.Sprintf("%s %d", name, block)]++
			}
			continue
		}
		var marker struct {
			Pos, Kind, About string
			Block            int64
			Events           map[string]int64
			Delivered        map[string]int64
			Complete         bool
		}
		if err := json.Unmarshal([]byte(text), &marker); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if marker.Kind == "silent" || marker.Kind == "back" {
			continue
		}
		if marker.Kind != "block" || seen[marker.Block] {
			t.Errorf("unexpected: %s", text)
		}
		seen[marker.Block] = true
		for _, s := range streams {
			key := fmt.Sprintf("%s %d", s.Name, marker.Block)
			if marker.Delivered[s.Name] < delivered[key] {
				t.Errorf("%s: %d records of %s precede it", text, delivered[key], s.Name)
			}
			var events int64
			floor := int64(0)
			for _, slot := range s.slots {
				for _, p := range slot.parts {
					if p.Block >= floor && p.Block == marker.Block {
						events += int64(p.Events)
					}
					if p.Block >= floor {
						floor = p.Block
						if p.Whole && p.End {
							floor++
						}
					}
				}
			}
			if events != marker.Events[s.Name] {
				t.Errorf("%s: the node wrote %d events of %s", text, events, s.Name)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%swant:\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
}
