package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const testPatience = 5 * time.Second

// scene is a merger with streams that the test writes to by hand.
type scene struct {
	t        *testing.T
	d        *destination
	merger   *Merger
	stop     chan struct{}
	sinks    map[string]sink.Sink
	offsets  map[string]int64
	failures chan error
	state    *checkpoint.Directory
}

func newScene(t *testing.T, d *destination, dir string, streams ...string) *scene {
	s := &scene{t: t, d: d, stop: make(chan struct{}), sinks: map[string]sink.Sink{}, offsets: map[string]int64{},
		failures: make(chan error, 100)}
	if d.crashed == nil {
		d.steps, d.crashed = -2, make(chan struct{})
	}
	names, sources := make([]string, 0, len(streams)+1), make([]Source, 0, len(streams))
	for _, name := range streams {
		names, sources = append(names, strings.ToLower(name)), append(sources, Source{name, strings.ToLower(name)})
	}
	state, err := checkpoint.Acquire(t.Context(), vfs.OS, dir, append(names, Stream), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.state = state
	t.Cleanup(func() { _ = state.Close() })
	s.merger = New(Options{
		Streams: sources, Target: "node-1", Patience: testPatience, Output: d, CloseTimeout: time.Second,
		Stopping: s.stop, Store: func() (*checkpoint.Store, error) { return state.Store(Stream) },
	})
	for _, name := range names {
		if s.sinks[name], err = s.merger.Open(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// write writes a line of a block with one event in the background.
func (s *scene) write(stream string, block int64, whole bool) {
	offset := s.offsets[stream]
	s.offsets[stream] += 100
	go func() { s.failures <- s.line(stream, offset, block, whole) }()
	synctest.Wait()
}

// writeBlocks writes lines of several blocks, with one event each, at once in the background.
func (s *scene) writeBlocks(stream string, blocks ...int64) {
	parts := make([]Part, 0, len(blocks))
	b := sink.Batch{File: position.FileID{Directory: stream, Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}}
	for i, block := range blocks {
		b.Data = fmt.Appendf(b.Data, "%s %d\n", stream, block)
		b.Records = append(b.Records, sink.Record{End: len(b.Data), Offset: int64(100 * i), Block: block})
		parts = append(parts, Part{Offset: int64(100 * i), Block: block, Events: 1, End: true, Whole: true})
	}
	s.merger.Expect(stream, parts)
	go func() { s.failures <- s.sinks[stream].Write(context.Background(), b) }()
	synctest.Wait()
}

func (s *scene) line(stream string, offset, block int64, whole bool) error {
	file := position.FileID{Directory: stream, Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}
	s.merger.Expect(stream, []Part{{Offset: offset, Block: block, Events: 1, End: true, Whole: whole}})
	text := fmt.Sprintf("%s %d\n", stream, block)
	b := sink.Batch{File: file, Data: []byte(text), Records: []sink.Record{{End: len(text), Offset: offset, Block: block}}}
	return errors.Join(s.sinks[stream].Write(context.Background(), b),
		s.sinks[stream].Write(context.Background(), sink.Batch{File: file}))
}

// delivered returns the records in short.
func (s *scene) delivered() []string {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	out := make([]string, 0, len(s.d.records))
	for _, r := range s.d.records {
		_, text, _ := strings.Cut(strings.TrimSpace(r), " ")
		var m struct {
			Kind, About string
			Block       int64
			Complete    bool
		}
		if json.Unmarshal([]byte(text), &m) == nil {
			text = fmt.Sprintf("[%s %d", m.Kind, m.Block)
			if m.About != "" {
				text += " " + m.About
			}
			if m.Complete {
				text += " complete"
			}
			text += "]"
		}
		out = append(out, text)
	}
	return out
}

func (s *scene) want(want ...string) {
	s.t.Helper()
	if got := s.delivered(); !slices.Equal(got, want) {
		s.t.Errorf("got  %q\nwant %q", got, want)
	}
}

func (s *scene) close() {
	close(s.stop)
	synctest.Wait()
	for _, opened := range s.sinks {
		if err := opened.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

func TestAStreamThatBringsNothingIsWaitedForAndThenAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		s.write("statuses", 7, true)
		s.write("fills", 7, true)
		s.write("statuses", 8, true) // nothing of a lower place can come
		s.write("statuses", 9, true) // fills may still bring block 8
		first := []string{"statuses 7", "fills 7", "[block 7 complete]", "statuses 8"}
		s.want(first...)
		time.Sleep(testPatience - time.Millisecond)
		s.want(first...)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		silent := append(slices.Clone(first), "[silent 8 Fills]", "[block 8]", "statuses 9", "[block 9]")
		s.want(silent...)
		s.write("statuses", 10, true) // at once from now on
		silent = append(silent, "statuses 10", "[block 10]")
		s.want(silent...)
		s.write("fills", 9, true) // late: its place is in the next block
		back := append(silent, "[back 10 Fills]")
		s.want(back...)
		s.write("statuses", 11, true)
		back = append(back, "statuses 11", "fills 9")
		s.want(back...)
		s.write("fills", 11, true)
		s.want(append(back, "fills 11", "[block 11 complete]")...)
		s.close()
	})
}

func TestNobodyIsSilentWhileNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		s.write("statuses", 7, true)
		s.write("fills", 7, true)
		time.Sleep(100 * testPatience)
		s.write("statuses", 8, true)
		s.write("statuses", 9, true)
		time.Sleep(testPatience / 2)
		s.write("fills", 8, true)
		s.write("fills", 9, true)
		s.want("statuses 7", "fills 7", "[block 7 complete]", "statuses 8", "fills 8", "[block 8 complete]", "statuses 9",
			"fills 9", "[block 9 complete]")
		s.close()
	})
}

func TestInStreamingModeABlockEndsWithTheNextLineOfEachStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		s.write("statuses", 7, false)
		s.write("fills", 6, false)
		s.want("fills 6")
		s.write("fills", 8, false)
		s.want("fills 6", "[block 6]", "statuses 7")
		s.write("statuses", 7, false)
		s.write("statuses", 9, false)
		s.want("fills 6", "[block 6]", "statuses 7", "statuses 7", "[block 7]", "fills 8")
		s.write("fills", 9, false)
		s.want("fills 6", "[block 6]", "statuses 7", "statuses 7", "[block 7]", "fills 8", "[block 8 complete]", "statuses 9")
		s.close()
	})
}

// With Once a stream that has little to read may be done before another has opened.
func TestNobodyWaitsForAStreamThatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		if err := s.sinks["statuses"].Close(); err != nil {
			t.Fatal(err)
		}
		f, err := s.sinks["fills"].Flush(t.Context(), true)
		if err != nil || f.Sync == nil {
			t.Fatal("nothing to commit", err)
		}
		if err := errors.Join(f.Sync(t.Context()), s.sinks["fills"].Close()); err != nil {
			t.Fatal(err)
		}
		delete(s.sinks, "fills")
		if s.sinks["statuses"], err = s.merger.Open(t.Context(), "statuses", nil); err != nil {
			t.Fatal(err)
		}
		s.write("statuses", 7, true)
		s.want("statuses 7", "[block 7]")
		s.close()
	})
}

// A stream that was done and opens again may bring more.
func TestAStreamThatOpensAgainIsWaitedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		f, err := s.sinks["fills"].Flush(t.Context(), true)
		if err != nil || f.Sync == nil {
			t.Fatal("nothing to commit", err)
		}
		if err := errors.Join(f.Sync(t.Context()), s.sinks["fills"].Close()); err != nil {
			t.Fatal(err)
		}
		if s.sinks["fills"], err = s.merger.Open(t.Context(), "fills", f.State); err != nil {
			t.Fatal(err)
		}
		s.write("statuses", 7, true)
		s.want()
		s.write("fills", 7, true)
		s.want("statuses 7", "fills 7", "[block 7 complete]")
		s.close()
	})
}

// A stream whose Write waits for the sink can bring nothing. That time does not count towards its patience.
func TestTheTimeOfAHungWriteIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &destination{}
		s := newScene(t, d, t.TempDir(), "Statuses", "Fills")
		d.gate = make(chan struct{})
		s.writeBlocks("statuses", 7, 8)
		// A line with two events, one at a time.
		s.merger.Expect("fills", []Part{{Block: 7, Events: 2, Last: 1, End: true, Whole: true}})
		b := sink.Batch{File: position.FileID{Directory: "fills", Date: "20260430", Hour: 8, Generation: "1a2b3c4d"},
			Data: []byte("fills 7\n"), Records: []sink.Record{{End: 8, Block: 7}}}
		written := make(chan error, 1)
		go func() { written <- s.sinks["fills"].Write(context.Background(), b) }()
		time.Sleep(2 * replayPatience * testPatience)
		close(d.gate)
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		time.Sleep(testPatience / 2)
		synctest.Wait()
		s.want("statuses 7", "fills 7")
		b.Records[0].Index = 1
		if err := errors.Join(s.sinks["fills"].Write(context.Background(), b),
			s.sinks["fills"].Write(context.Background(), sink.Batch{File: b.File})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.want("statuses 7", "fills 7", "fills 7", "[block 7 complete]", "statuses 8")
		s.close()
	})
}

// While a commit waits for the sink the last stream may end. That commit does not say so; another must.
func TestAStreamThatIsDoneDuringACommitIsCommittedAsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &destination{}
		s := newScene(t, d, t.TempDir(), "Statuses", "Fills")
		finish := func(stream string) {
			f, err := s.sinks[stream].Flush(t.Context(), true)
			if err == nil && f.Sync != nil {
				err = f.Sync(t.Context())
			}
			s.failures <- err
		}
		d.gate = make(chan struct{})
		go finish("statuses")
		synctest.Wait()
		go finish("fills")
		synctest.Wait()
		close(d.gate)
		synctest.Wait()
		if d.saves != savesBeforeNaming {
			t.Errorf("%d of the last checkpoints say that no record follows", d.saves)
		}
		s.close()
	})
}

func TestAStopEndsTheWaitForAnotherStreamAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, &destination{}, t.TempDir(), "Statuses", "Fills")
		s.write("fills", 7, true)
		began := time.Now()
		s.close()
		if err := <-s.failures; !errors.Is(err, context.Canceled) || time.Since(began) > 0 {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		s.want()
	})
}

// A stream's patience may end while the sink does not answer. It is then decided after the answer, and until then
// nobody is busy: with a clock that stands still while anybody is, the test would not end.
func TestNothingIsDecidedWhileTheSinkDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &destination{}
		s := newScene(t, d, t.TempDir(), "Statuses", "Fills")
		d.gate = make(chan struct{})
		s.writeBlocks("statuses", 7, 8, 9)
		s.write("fills", 7, true) // the records up to block 8 go to the sink; block 9 waits for fills
		time.Sleep(10 * replayPatience * testPatience)
		s.want()
		close(d.gate)
		synctest.Wait()
		s.want("statuses 7", "fills 7", "[block 7 complete]", "statuses 8") // fills was there until now
		time.Sleep(testPatience)
		synctest.Wait()
		s.want("statuses 7", "fills 7", "[block 7 complete]", "statuses 8", "[silent 8 Fills]", "[block 8]", "statuses 9")
		s.close()
	})
}

// The positions of a merged stream depend on who was silent. A destination that stores its position would take other
// records for those that it has if that were decided otherwise the second time.
func TestADecisionSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &destination{remote: true}
		dir := t.TempDir()
		s := newScene(t, d, dir, "Statuses", "Fills")
		s.write("statuses", 7, true)
		s.write("fills", 7, true)
		s.write("statuses", 8, true)
		s.write("statuses", 9, true)
		time.Sleep(testPatience)
		synctest.Wait()
		before := s.delivered()
		if want := "[block 9]"; before[len(before)-1] != want {
			t.Fatalf("%q does not end with %s", before, want)
		}
		d.steps = 0 // what was delivered since the decision is not committed
		for _, opened := range s.sinks {
			_ = opened.Close()
		}
		if err := s.state.Close(); err != nil {
			t.Fatal(err)
		}

		d.steps, d.crashed = -2, make(chan struct{})
		s = newScene(t, d, dir, "Statuses", "Fills")
		s.write("fills", 7, true) // this time it is there first, and has more
		s.write("fills", 8, true)
		s.write("statuses", 7, true)
		s.write("statuses", 8, true)
		s.write("statuses", 9, true)
		s.want(before...)
		s.write("statuses", 10, true)
		s.want(append(before, "statuses 10", "[back 10 Fills]", "fills 8")...)
		s.close()
	})
}
