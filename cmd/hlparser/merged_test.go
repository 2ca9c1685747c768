package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// mergedPatience is --patience of the parser, and less than the pause of a stream that falls silent.
const mergedPatience = 300 * time.Millisecond

// mergedStream is a stream of the node whose lines name their block.
type mergedStream struct {
	name    string // in records
	flag    string // value of --stream
	dir     string
	key     string // of an event's number
	byBlock bool
	text    func(event, block int) string
	mean    int // events of a block; some blocks have none

	blocks [][]string // by block: its lines
	events int
}

// mergedNode writes three streams of one chain, each at its own pace. Their files and lines are its own: what a test
// expects is read from its files at the end.
type mergedNode struct {
	data    string
	streams []*mergedStream
	replays bool // it restarts, and writes blocks again
	seed    uint64

	head     atomic.Int64 // blocks of the chain
	restarts atomic.Int64
}

const (
	mergedFirst  = 1000 // the first block
	mergedRecent = 200  // records in the message of a fault
)

func newMergedNode(data string, modes [3]string, replays bool, seed uint64) *mergedNode {
	kinds := []mergedStream{
		{name: "OrderStatuses", flag: "order-statuses", dir: "node_order_statuses", key: `"oid":`, mean: 20,
			text: func(event, _ int) string { return status(event) }},
		{name: "RawBookDiffs", flag: "raw-book-diffs", dir: "node_raw_book_diffs", key: `"oid":`, mean: 8, text: soakDiff},
		{name: "Fills", flag: "fills", dir: "node_fills", key: `"tid":`, mean: 2, text: soakFill},
	}
	n := &mergedNode{data: data, replays: replays, seed: seed}
	for i, s := range kinds {
		s.byBlock = modes[i] == "by-block"
		s.flag += ":" + modes[i]
		s.dir += "_" + strings.ReplaceAll(modes[i], "-", "_")
		n.streams = append(n.streams, &s)
	}
	return n
}

// line returns a line of a block. Ten blocks are an hour of the chain, so that positions are in many files.
func (s *mergedStream) line(block int, events []string) string {
	at := time.Date(2026, 4, 30, 0, 0, 0, 0, time.UTC).Add(time.Duration(block-mergedFirst) * 6 * time.Minute).
		Format("2006-01-02T15:04:05")
	return fmt.Sprintf(`{"local_time":"%s.75","block_time":"%s.25","block_number":%d,"events":[%s]}`+"\n",
		at, at, block, strings.Join(events, ","))
}

// produce adds the next block.
func (s *mergedStream) produce(r *rand.Rand, block int) {
	lines, all := make([]string, 0, 2*s.mean), make([]string, 0, 2*s.mean)
	for range r.IntN(2 * s.mean) {
		event := s.text(s.events, block)
		s.events++
		all = append(all, event)
		lines = append(lines, s.line(block, []string{event}))
	}
	if s.byBlock {
		lines = []string{s.line(block, all)}
	}
	s.blocks = append(s.blocks, lines)
}

// write writes a stream until the context is done and the chain ends. The last stream falls silent now and then.
func (n *mergedNode) write(ctx context.Context, i int) error {
	s, r := n.streams[i], rand.New(rand.NewPCG(n.seed, uint64(i)))
	path := func(hour int) string {
		return filepath.Join(n.data, s.dir, "hourly", strconv.Itoa(20260401+hour/24), strconv.Itoa(hour%24))
	}
	hour := 0
	silentAt := 40 + r.IntN(40)
	restarts := int64(0)
	for next := 0; ; {
		head := int(n.head.Load())
		if restarts < n.restarts.Load() { // blocks again, but never the current one: that looks like its continuation
			restarts = n.restarts.Load()
			next = max(0, next-2-r.IntN(8))
			hour++
		}
		if next >= head {
			if ctx.Err() != nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if i == 2 && next >= silentAt {
			silentAt = next + 100 + r.IntN(100)
			soakSleep(ctx, 4*mergedPatience)
		}
		text, begin := "", next
		for range 1 + r.IntN(4) {
			for len(s.blocks) <= next {
				s.produce(r, mergedFirst+len(s.blocks))
			}
			if next < head {
				text += strings.Join(s.blocks[next], "")
				next++
			}
		}
		file := path(hour)
		cut := r.IntN(len(text) + 1)
		if err := appendText(file, text[:cut]); err != nil {
			return err
		}
		time.Sleep(time.Duration(r.IntN(10*(i+1))) * time.Millisecond)
		if n.replays && r.IntN(60) == 0 { // it exits within a line
			n.restarts.Add(1)
			next = begin
			continue
		}
		if err := appendText(file, text[cut:]); err != nil {
			return err
		}
		if r.IntN(100) == 0 {
			hour++
		}
	}
}

func appendText(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// run writes until the context is done: about 100 blocks a second, and some of them in a burst.
func (n *mergedNode) run(ctx context.Context) error {
	var g errgroup.Group
	for i := range n.streams {
		g.Go(func() error { return n.write(ctx, i) })
	}
	r := rand.New(rand.NewPCG(n.seed, 99))
	for ctx.Err() == nil {
		n.head.Add(int64(1 + r.IntN(3)))
		soakSleep(ctx, time.Duration(r.IntN(40))*time.Millisecond)
	}
	return g.Wait()
}

// mergedEvent identifies an event.
type mergedEvent struct {
	stream string
	event  int
}

func (s *mergedStream) eventOf(text []byte) (mergedEvent, error) {
	at := bytes.Index(text, []byte(s.key))
	if at < 0 {
		return mergedEvent{}, fmt.Errorf("no %s in %.200s", s.key, text)
	}
	var event int
	if _, err := fmt.Sscanf(string(text[at+len(s.key):]), "%d", &event); err != nil {
		return mergedEvent{}, fmt.Errorf("%w in %.200s", err, text)
	}
	return mergedEvent{s.name, event}, nil
}

// onDisk returns how often the whole lines of the node hold each event, and the events of each block.
func (n *mergedNode) onDisk(t *testing.T) (times map[mergedEvent]int, blocks map[int64]map[mergedEvent]bool) {
	t.Helper()
	times, blocks = map[mergedEvent]int{}, map[int64]map[mergedEvent]bool{}
	for _, s := range n.streams {
		files, err := filepath.Glob(filepath.Join(n.data, s.dir, "hourly/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for line := range bytes.Lines(content) {
				var e struct {
					Block  int64             `json:"block_number"`
					Events []json.RawMessage `json:"events"`
				}
				if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil {
					continue // torn
				}
				if blocks[e.Block] == nil {
					blocks[e.Block] = map[mergedEvent]bool{}
				}
				for _, text := range e.Events {
					id, err := s.eventOf(text)
					if err != nil {
						t.Fatal(err)
					}
					times[id]++
					blocks[e.Block][id] = true
				}
			}
		}
	}
	return times, blocks
}

// mergedOracle reads the merged stream, and reports what it must not be.
type mergedOracle struct {
	streams []*mergedStream
	// deduplicated reports whether no event may occur twice. If not, blocks that the node wrote again come late.
	deduplicated bool
	times        map[mergedEvent]int // on disk
	blocks       map[int64]map[mergedEvent]bool

	got     map[mergedEvent]int
	pending []mergedRecord // events since the newest block's marker
	index   int64          // how many records there are since
	marked  int64          // that block
	// switched reports whether since then a stream became silent or came back.
	switched bool
	silent   map[string][][2]int64 // by stream: blocks during which the others did not wait; 0: it lasts

	markers, complete, late, silences int
}

type mergedRecord struct {
	Stream, Pos, Kind, About string
	Block                    int64
	Complete                 bool
	Delivered, Events        map[string]int64
	Event                    json.RawMessage
}

func (o *mergedOracle) take(line []byte) error {
	var r mergedRecord
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("%w in %.300q", err, line)
	}
	o.index++
	if r.Stream != "_marker" {
		o.pending = append(o.pending, r)
		return o.event(&r)
	}
	parts := strings.Split(r.Pos, ":")
	if len(parts) != 3 || parts[1] != strconv.FormatInt(r.Block, 10) {
		return fmt.Errorf("the position of a marker of block %d is %q", r.Block, r.Pos)
	}
	if r.Block == o.marked {
		o.index-- // it has a position after that block's marker
	}
	switch r.Kind {
	case "block":
		index, err := strconv.ParseInt(parts[2], 10, 64)
		if err != nil {
			return err
		}
		return o.end(&r, index)
	case "silent":
		o.silences++
		o.switched = true
		o.silent[r.About] = append(o.silent[r.About], [2]int64{r.Block, 0})
	case "back":
		o.switched = true
		spans := o.silent[r.About]
		if len(spans) == 0 || spans[len(spans)-1][1] != 0 {
			return fmt.Errorf("%s is back in block %d, and was not silent", r.About, r.Block)
		}
		spans[len(spans)-1][1] = r.Block
	default:
		return fmt.Errorf("an unknown marker: %s", line)
	}
	return nil
}

func (o *mergedOracle) rank(stream string) int {
	return slices.IndexFunc(o.streams, func(s *mergedStream) bool { return s.name == stream })
}

// event checks that an event was written, and not delivered too often.
func (o *mergedOracle) event(r *mergedRecord) error {
	rank := o.rank(r.Stream)
	if rank < 0 {
		return fmt.Errorf("an unknown stream: %q", r.Stream)
	}
	id, err := o.streams[rank].eventOf(r.Event)
	if err != nil {
		return err
	}
	if !o.blocks[r.Block][id] {
		return fmt.Errorf("event %v of block %d was not written", id, r.Block)
	}
	before := o.got[id]
	if o.got[id]++; o.deduplicated && before > 0 || before >= o.times[id] {
		return fmt.Errorf("event %v of block %d is delivered for the %dth time, at %s", id, r.Block, before+1, r.Pos)
	}
	if r.Block <= o.marked {
		if o.late++; before == 0 && !o.explained(r) {
			return fmt.Errorf("event %v of block %d comes after the marker of block %d, and its stream was not silent",
				id, r.Block, o.marked)
		}
	}
	return nil
}

// explained reports whether a marker explains that an event is late.
func (o *mergedOracle) explained(r *mergedRecord) bool {
	return slices.ContainsFunc(o.silent[r.Stream], func(span [2]int64) bool {
		return r.Block >= span[0] && (span[1] == 0 || r.Block <= span[1])
	})
}

// end checks the marker of a block, record index of it.
func (o *mergedOracle) end(r *mergedRecord, index int64) error {
	if r.Block <= o.marked {
		return fmt.Errorf("the marker of block %d follows that of block %d", r.Block, o.marked)
	}
	late := false
	rank, counts := 0, map[string]int64{}
	for _, e := range o.pending {
		switch is := o.rank(e.Stream); {
		case e.Block > r.Block:
			return fmt.Errorf("an event of block %d precedes the marker of block %d", e.Block, r.Block)
		case e.Block < r.Block:
			if late = true; e.Block > o.marked && !o.explained(&e) {
				return fmt.Errorf("an event of block %d, which has no marker, precedes the marker of block %d", e.Block, r.Block)
			}
		case is < rank && !o.switched:
			return fmt.Errorf("an event of %s follows one of %s in block %d", e.Stream, o.streams[rank].name, r.Block)
		default:
			rank = is
			counts[e.Stream]++
		}
	}
	if before := o.index - 1; index != before && (index > before || !late) {
		return fmt.Errorf("the marker of block %d is record %d of it, and follows %d records", r.Block, index, before)
	}
	for _, s := range o.streams {
		if got := counts[s.name]; got != r.Delivered[s.name] || got > r.Events[s.name] {
			return fmt.Errorf("block %d has %d events of %s, and its marker says %d of %d",
				r.Block, got, s.name, r.Delivered[s.name], r.Events[s.name])
		}
	}
	o.marked, o.pending, o.index, o.switched = r.Block, o.pending[:0], 0, false
	o.markers++
	if !r.Complete {
		return nil
	}
	o.complete++
	for id := range o.blocks[r.Block] {
		if o.got[id] == 0 {
			return fmt.Errorf("block %d is complete without event %v", r.Block, id)
		}
	}
	return nil
}

// finish checks that everything was delivered.
func (o *mergedOracle) finish() error {
	for id, n := range o.times {
		switch got := o.got[id]; {
		case got == 0:
			return fmt.Errorf("event %v was not delivered; the newest block is %d", id, o.marked)
		case !o.deduplicated && got != n:
			return fmt.Errorf("event %v was delivered %d times, and written %d times", id, got, n)
		}
	}
	return nil
}

// Three streams are delivered as one, by block, while a node writes them at different paces, restarts, and lets one of
// them fall silent, and the parser is killed at random moments. In the end the sink holds every event once, each
// block's marker once after its events, and what is out of order is explained by a marker.
func TestTheMergedStreamLosesAndDoublesNothingThroughKill9(t *testing.T) {
	kills := 6
	if testing.Short() {
		kills = 2
	}
	if text := os.Getenv(soakFor); text != "" { // about a second a kill
		duration, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		kills = max(kills, int(duration/time.Second))
	}
	seed := soakNumber(t, soakSeed, time.Now().Nanosecond())
	t.Logf("%s=%d", soakSeed, seed)
	byBlock, streaming := [3]string{"by-block", "by-block", "by-block"}, [3]string{"streaming", "streaming", "streaming"}
	mixed := [3]string{"by-block", "streaming", "streaming"}
	for i, c := range []struct {
		name        string
		modes       [3]string
		replays     bool
		deduplicate bool
		sink        func(*testing.T) mergedSink
	}{
		{"by-block", byBlock, false, false, mergedFiles},
		{"streaming", streaming, false, false, mergedFiles},
		{"mixed", mixed, false, false, mergedFiles},
		{"by-block, restarts", byBlock, true, false, mergedFiles},
		{"by-block, restarts, deduplicated", byBlock, true, true, mergedFiles},
		{"streaming, restarts", streaming, true, false, mergedFiles},
		{"streaming, restarts, deduplicated", streaming, true, true, mergedFiles},
		{"by-block, restarts, NATS", byBlock, true, false, mergedNATS},
		{"streaming, restarts, NATS", streaming, true, false, mergedNATS},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			node := newMergedNode(t.TempDir(), c.modes, c.replays, uint64(seed+i))
			mergedKills(t, node, c.sink(t), c.deduplicate, kills)
		})
	}
}

func mergedKills(t *testing.T, node *mergedNode, sink mergedSink, deduplicate bool, kills int) {
	args := append([]string{"run", "--data-dir", node.data, "--state-dir", t.TempDir(), "--start-at", "beginning",
		"--order", "block", "--patience", mergedPatience.String(), "--format", "enveloped",
		fmt.Sprintf("--deduplicate-blocks=%t", deduplicate)}, sink.args...)
	for _, s := range node.streams {
		args = append(args, "--stream", s.flag)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() { failed = node.run(ctx) })
	defer writing.Wait()
	defer stop()
	r := rand.New(rand.NewPCG(node.seed, 100))
	for i := range kills {
		cmd := hlparser(t.Context(), args...)
		logs := &lockedBuffer{}
		cmd.Stderr = logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("run %d ended without a signal: %v\n%s", i, err, logs)
		case <-time.After(time.Duration(100+r.IntN(1500)) * time.Millisecond):
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended //nolint:errcheck // it was killed
	}
	stop()
	writing.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	if msg, err := hlparser(t.Context(), append(args, "--once")...).CombinedOutput(); err != nil {
		t.Fatalf("the last run: %v\n%s", err, msg)
	}
	o := &mergedOracle{streams: node.streams, deduplicated: deduplicate, got: map[mergedEvent]int{},
		silent: map[string][][2]int64{}}
	o.times, o.blocks = node.onDisk(t)
	recent := make([]string, 0, mergedRecent+1) // what came before a fault
	for where, record := range sink.records(t.Context()) {
		recent = slices.Delete(append(recent, record[:min(len(record), 160)]), 0, max(0, len(recent)-mergedRecent+1))
		if err := o.take([]byte(record)); err != nil {
			t.Fatalf("%s: %v\n%s", where, err, strings.Join(recent, "\n"))
		}
	}
	if err := o.finish(); err != nil {
		t.Fatal(err)
	}
	if o.markers == 0 || o.complete == 0 {
		t.Errorf("of %d blocks with a marker %d are complete", o.markers, o.complete)
	}
	t.Logf("%d events of %d blocks through %d kills and %d restarts of the node; %d markers, %d of complete blocks; "+
		"%d silences, %d late events", len(o.times), len(o.blocks), kills, node.restarts.Load(), o.markers, o.complete,
		o.silences, o.late)
}
