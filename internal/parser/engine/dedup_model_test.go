package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// ledger is a sink that holds exactly what was committed, and refuses some records once.
type ledger struct {
	data    []byte
	breakAt int             // the write that fails permanently; below 1: none
	outage  int             // the write that fails once; likewise
	refuse  map[string]bool // records that are refused once
	writes  int
}

func (l *ledger) Open(_ context.Context, _ string, state json.RawMessage) (sink.Sink, error) {
	n := 0
	if state != nil {
		if err := json.Unmarshal(state, &n); err != nil {
			return nil, err
		}
	}
	l.data = l.data[:n]
	return l, nil
}

func (l *ledger) Write(_ context.Context, b sink.Batch) error {
	if l.writes++; l.writes == l.breakAt {
		return fmt.Errorf("%w: broken by the test", sink.ErrFailed)
	}
	if l.writes == l.outage {
		return errors.New("an outage of the test")
	}
	for i := range b.Records {
		if record := string(b.Record(i)); l.refuse[record] {
			delete(l.refuse, record)
			return &sink.Refusal{Index: i, Reason: "refused by the test"}
		}
	}
	l.data = append(l.data, b.Data...)
	return nil
}

func (l *ledger) Flush(context.Context, bool) (sink.Flushed, error) {
	return sink.Flushed{State: json.RawMessage(strconv.Itoa(len(l.data)))}, nil
}
func (l *ledger) Committed(context.Context) error { return nil }
func (l *ledger) Delivered() int64                { return int64(bytes.Count(l.data, []byte("\n"))) }
func (l *ledger) Close() error                    { return nil }

// chain is a node that restarts, and the records expected from the lines that it wrote. It does not use the engine's
// own bookkeeping.
type chain struct {
	t     *rapid.T
	dir   string
	mode  config.Mode
	fs    *crashfs.FS
	sink  *ledger
	logs  *lockedBuffer
	cfg   config.Config
	sizes map[int]int // number of events of each block
	lines map[string]*row

	// State of the node.
	hour        int
	block, from int // what it writes next
	withheld    []piece
	seq         int

	files map[int]*written // by hour
	fresh int              // number of files written so far
	oracle
}

// piece is a range of a block's events.
type piece struct{ block, from, to int }

// row is a whole valid line: a piece, with some malformed events.
type row struct {
	piece
	bad map[int]bool
}

// written is a file.
type written struct {
	id   int
	tail string   // no newline yet
	news []string // whole lines that no parser has read
}

// oracle computes the expected records from the lines, in the order in which they must be read.
type oracle struct {
	deduplicate, markers bool
	oneByOne             bool // each event is an output of its own

	want []string       // the records; in streaming mode only the events
	good map[[2]int]int // how often an event was written well-formed
	// mayRepeat holds events written twice in consecutive lines of one block: nothing shows whether the node started
	// over.
	mayRepeat  map[[2]int]bool
	markersDue map[string]int       // expected markers of the dead letter
	last       map[int]int          // by file: block of the newest line
	visit      map[int]map[int]bool // by file: events shown in the lines of that block
	back       map[int]int          // by file: the node is back until this block
	known      map[[2]int]bool
	seen       map[int]bool // blocks
	highest    int
	newest     int // block of the newest line
}

func (o *oracle) text(block, i int) string { return trade(block*100+i) + "\n" }

// bad adds a line that is not a line of the node.
func (o *oracle) bad(file, length int, streaming bool) {
	m := strings.NewReplacer("REASON", "", "BYTES", fmt.Sprint(length)).Replace(deadLetterText)
	if o.markers {
		o.markersDue[m]++
	}
	if o.markers && !streaming {
		o.want = append(o.want, m)
	}
	delete(o.visit, file)
}

const deadLetterText = `{"target":"node-1","stream":"_marker","pos":"","kind":"deadLetter","about":"Trades",` +
	`"block":null,"index":null,"from":null,"to":null,"bytes":BYTES,"file":"","reason":"REASON"}` + "\n"

// anyIndex is a marker's index. In streaming mode it depends on earlier lines, which this model does not follow.
var anyIndex = regexp.MustCompile(`"index":[0-9]+,`)

func deadEventText(block, index int) string {
	return fmt.Sprintf(`{"target":"node-1","stream":"_marker","pos":"","kind":"gap","about":"Trades",`+
		`"block":%d,"index":%d,"from":%[1]d,"to":%[1]d,"bytes":null,"file":null,"reason":""}`+"\n", block, index)
}

// row adds a valid line of streaming mode. refused reports the events that the sink refuses when they are delivered.
func (o *oracle) row(file int, r *row, refused func(block, i int) bool) {
	if o.visit[file] == nil || r.block != o.last[file] {
		o.visit[file] = map[int]bool{}
	}
	o.last[file] = r.block
	for i := r.from; i < r.to; i++ {
		event := [2]int{r.block, i}
		again := o.deduplicate && o.known[event]
		if r.bad[i] || !again && refused(r.block, i) {
			o.markersDue[anyIndex.ReplaceAllString(deadEventText(r.block, i-r.from), "")]++
			continue
		}
		o.good[event]++
		if o.visit[file][i] {
			o.mayRepeat[event] = true
		}
		o.visit[file][i] = true
		if !again {
			o.known[event] = true
			o.want = append(o.want, o.text(r.block, i))
		}
	}
}

// line adds a valid line of by-block mode.
func (o *oracle) line(file int, r *row, refused func(block, i int) bool) {
	last, begun := o.last[file]
	known, adds := o.seen[r.block], 0
	for i := r.from; i < r.to; i++ {
		if !r.bad[i] {
			o.good[[2]int{r.block, i}]++
		}
		if !o.known[[2]int{r.block, i}] {
			known = false
			// While an event is delivered it is unknown which of the events after it are malformed.
			if !r.bad[i] || o.oneByOne && i > r.from {
				adds++
			}
		}
	}
	before := last
	if !begun {
		before = o.highest
	}
	back := r.block <= before
	o.order(r.block, o.back[file], adds, begun, back)
	if back {
		o.back[file] = max(o.back[file], before)
	}
	if r.block >= o.back[file] {
		delete(o.back, file)
	}
	for i := r.from; i < r.to; i++ {
		event := [2]int{r.block, i}
		switch {
		case o.deduplicate && o.known[event] || o.deduplicate && known:
		case r.bad[i]:
			if o.markers && (!o.deduplicate || !o.seen[r.block]) {
				o.want = append(o.want, deadEventText(r.block, i))
			}
		case refused(r.block, i):
			if o.markers {
				o.want = append(o.want, deadEventText(r.block, i))
			}
		default:
			o.known[event] = true
			o.want = append(o.want, o.text(r.block, i))
		}
	}
	o.seen[r.block] = true
	o.last[file], o.highest, o.newest = r.block, max(o.highest, r.block), r.block
}

func (c *chain) path(hour int) string {
	directory := map[config.Mode]string{config.Line: "node_trades", config.Streaming: "node_trades_streaming",
		config.ByBlock: "node_trades_by_block"}[c.mode]
	return filepath.Join(c.dir, "data", directory, "hourly/20260430", fmt.Sprint(hour))
}

func (c *chain) draw(what string, from, to int) int { return rapid.IntRange(from, to).Draw(c.t, what) }

func (c *chain) size(block int) int {
	n, ok := c.sizes[block]
	if !ok {
		n = c.draw("events of a block", 0, 4)
		c.sizes[block] = n
	}
	return n
}

// render writes a piece as a line. All lines differ.
func (c *chain) render(p piece) string {
	c.seq++
	r := &row{piece: p, bad: map[int]bool{}}
	if c.mode == config.Line {
		line := trade(p.block*100+p.from) + "\n"
		if c.draw("malformed", 0, 9) == 0 {
			return strings.Replace(line, "}", "", 1)
		}
		c.lines[line] = r
		return line
	}
	var events []string
	for i := p.from; i < p.to; i++ {
		event := trade(p.block*100 + i)
		if c.draw("malformed", 0, 14) == 0 {
			event, r.bad[i] = `{"coin":}`, true
		}
		events = append(events, event)
	}
	line := fmt.Sprintf(`{"local_time":"%d","block_time":"t","block_number":%d,"events":[%s]}`+"\n", c.seq, p.block,
		strings.Join(events, ","))
	c.lines[line] = r
	return line
}

// append adds text to an hour's file.
func (c *chain) append(hour int, text string) {
	f, err := open(c.path(hour))
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		c.t.Fatal(err)
	}
	w := c.files[hour]
	if w == nil {
		c.fresh++
		w = &written{id: c.fresh}
		c.files[hour] = w
	}
	lines := strings.SplitAfter(w.tail+text, "\n")
	w.tail = lines[len(lines)-1]
	w.news = append(w.news, lines[:len(lines)-1]...)
}

// next returns what the node writes next, and advances the node.
func (c *chain) next() piece {
	p := piece{c.block, c.from, c.size(c.block)}
	switch {
	case c.mode == config.Line:
		p.to = p.from + 1
		c.from++
		return p
	case c.mode == config.Streaming && p.to-p.from > 1:
		p.to = c.draw("events of a line up to", p.from+1, p.to)
	}
	if c.from = p.to; c.from >= c.size(c.block) {
		c.block, c.from = c.block+1, 0
	}
	return p
}

// act performs a random action of the node.
func (c *chain) act() {
	back := func() {
		if c.mode != config.Line { // it writes blocks again
			c.block, c.from = max(c.block-c.draw("blocks that are written again", 0, 6), 1), 0
		}
		c.hour += c.draw("hours that pass", 0, 1)
	}
	switch rapid.SampledFrom([]string{"write", "write", "write", "torn", "torn", "restart", "hour", "withhold", "late",
		"late", "glued", "again"}).Draw(c.t, "act") {
	case "write":
		for range c.draw("lines", 1, 6) {
			c.append(c.hour, c.render(c.next()))
		}
	case "torn":
		line := c.render(c.next())
		c.append(c.hour, line[:c.draw("length", 1, len(line)-1)])
		back()
	case "restart":
		back()
	case "hour":
		c.hour++
	case "withhold":
		c.withheld = append(c.withheld, c.next())
	case "late":
		if len(c.withheld) > 0 {
			i := c.draw("which", 0, len(c.withheld)-1)
			c.append(max(c.hour-c.draw("hours before", 0, 2), 0), c.render(c.withheld[i]))
			c.withheld = slices.Delete(c.withheld, i, i+1)
		}
	case "glued":
		c.append(c.hour, strings.TrimSuffix(c.render(c.next()), "\n")+c.render(c.next()))
	case "again": // an hour is pruned and written again
		c.settle()
		hour := c.hour - c.draw("hours before", 0, 2)
		if c.files[hour] == nil || c.mode == config.Line {
			return
		}
		if err := os.Remove(c.path(hour)); err != nil {
			c.t.Fatal(err)
		}
		delete(c.files, hour)
		block := max(c.block-c.draw("blocks that are written again", 1, 6), 1)
		for ; block < c.block; block++ {
			c.append(hour, c.render(piece{block, 0, c.size(block)}))
		}
	}
}

// run reads to the end of the files with one parser.
func (c *chain) run(breakAt int) error {
	cfg := c.cfg
	cfg.Once = true
	cfg = cfg.WithDefaults(2)
	c.sink.writes, c.sink.breakAt = 0, breakAt
	hasty := c.draw("a commit a file", 0, 1) == 1
	began, looks := time.Now(), atomic.Int64{}
	e, err := New(Options{Config: cfg, Output: c.sink, FS: c.fs, Log: slog.New(slog.NewTextHandler(c.logs, nil)),
		Now: func() time.Time {
			if hasty {
				return began.Add(time.Duration(looks.Add(1)) * time.Second)
			}
			return time.Now()
		}})
	if err != nil {
		c.t.Fatal(err)
	}
	if c.oneByOne {
		limitOutputs(e, 1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	return e.Run(ctx)
}

// settle delivers all whole lines, with parsers that break in between, and updates the oracle.
func (c *chain) settle() {
	refused := map[string]bool{}
	hours := slices.Sorted(maps.Keys(c.files))
	for _, hour := range hours {
		for _, line := range c.files[hour].news {
			if r := c.lines[line]; r != nil && c.mode != config.Line && c.draw("refused", 0, 9) == 0 {
				// Where an event may come twice, it is unknown whether the sink is offered again what it has.
				if r.from < r.to && (c.mode == config.ByBlock || !c.known[[2]int{r.block, r.from}]) {
					refused[c.text(r.block, r.from)] = true
				}
			}
		}
	}
	c.sink.refuse = maps.Clone(refused)
	for range c.draw("broken parsers", 0, 2) {
		if len(refused) > 0 {
			break // a refused record is taken by the next parser
		}
		_ = c.run(c.draw("writes", 1, 4))
	}
	if err := c.run(0); err != nil {
		c.t.Fatalf("%v\n%s", err, c.logs)
	}
	for _, hour := range hours {
		f := c.files[hour]
		for _, line := range f.news {
			r := c.lines[line]
			switch {
			case r == nil:
				c.bad(f.id, len(line)-1, c.mode == config.Streaming)
			case c.mode == config.Line:
				c.good[[2]int{r.block, r.from}]++
				c.want = append(c.want, c.text(r.block, r.from))
			default:
				take := c.line
				if c.mode == config.Streaming {
					take = c.row
				}
				take(f.id, r, func(block, i int) bool {
					text := c.text(block, i)
					was := refused[text]
					delete(refused, text)
					return was
				})
			}
		}
		f.news = nil
	}
	c.sink.refuse = nil
}

// order adds the marker before a line of by-block mode. back reports whether the line goes back; its file is back until
// a block.
func (o *oracle) order(block, until, adds int, begun, back bool) {
	if !o.markers || o.highest == 0 {
		return
	}
	late := false
	if o.deduplicate {
		late = !o.seen[block] && block < o.highest || o.seen[block] && adds > 0
	} else {
		late = begun && !back && (block <= o.newest || until == 0 && block <= o.highest)
	}
	switch {
	case late:
		o.want = append(o.want, markerText("late", block, 0, o.highest))
	case block > o.highest+1:
		o.want = append(o.want, markerText("gap", block, o.highest+1, block-1))
	case back:
		o.want = append(o.want, markerText("replay", block, 0, o.highest))
	}
}

var varies = regexp.MustCompile(`"(pos|file|reason)":"[^"]*"`)

// check compares the content of the sink with the expected records.
func (c *chain) check() {
	got := slices.Collect(strings.Lines(varies.ReplaceAllString(string(c.sink.data), `"$1":""`)))
	// How a torn tail of a pruned file is counted is up to the tailer.
	got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, `"kind":"skipped"`) })
	fail := func(format string, args ...any) {
		c.t.Helper()
		var all strings.Builder
		for _, hour := range slices.Sorted(maps.Keys(c.files)) {
			data, _ := os.ReadFile(c.path(hour))
			fmt.Fprintf(&all, "hour %d:\n%s\n", hour, data)
		}
		event := strings.TrimSuffix(trade(0), "0}")
		c.t.Fatal(strings.ReplaceAll(fmt.Sprintf(format+"\ndelivered\n%s\n%s", append(args, c.sink.data, all.String())...),
			event, "{"))
	}
	c.checkSequence(got, fail)
	c.checkCounts(got, fail)
}

// checkSequence compares the records (in streaming mode only the events) with the expected ones.
func (c *chain) checkSequence(got []string, fail func(string, ...any)) {
	same := got
	if c.mode == config.Streaming { // the markers are checked separately
		shown := map[string]bool{}
		same = slices.DeleteFunc(slices.Clone(got), func(line string) bool {
			var record struct{ N int }
			_ = json.Unmarshal([]byte(line), &record)
			twice := shown[line] && c.deduplicate && c.mayRepeat[[2]int{record.N / 100, record.N % 100}]
			shown[line] = true
			return record.N == 0 || twice
		})
	}
	if !slices.Equal(same, c.want) {
		at := 0
		for at < min(len(same), len(c.want)) && same[at] == c.want[at] {
			at++
		}
		fail("record %d differs; want\n%s", at, strings.Join(c.want, ""))
	}
}

// checkCounts counts by block and index, and follows the markers as a consumer does.
func (c *chain) checkCounts(got []string, fail func(string, ...any)) {
	events, markers := map[[2]int]int{}, map[string]int{}
	// What a consumer knows of the order: blocks ascend, except that a marker announces older blocks until they pass
	// the highest.
	newest, highest, from, just := 0, 0, 0, false
	for _, line := range got {
		var record struct {
			N            *int
			Kind         string
			Block, Index *int
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			fail("%q: %v", line, err)
		}
		switch {
		case record.N != nil:
			block := *record.N / 100
			events[[2]int{block, *record.N % 100}]++
			switch {
			case block >= highest:
				highest, from = block, 0
			case c.markers && (from == 0 || block < from || block < newest && !just):
				fail("no marker precedes block %d, which follows %d", block, highest)
			}
			newest, just = block, false
		case record.Kind == "late" || record.Kind == "replay":
			from, just = *record.Block, true
		case record.Kind == "deadLetter" || record.Index != nil:
			markers[anyIndex.ReplaceAllString(line, "")]++
		}
	}
	for _, event := range slices.SortedFunc(maps.Keys(c.good), func(a, b [2]int) int {
		return cmp.Or(a[0]-b[0], a[1]-b[1])
	}) {
		n, want := events[event], c.good[event]
		if c.deduplicate {
			want = 1
		}
		if c.deduplicate && c.mayRepeat[event] && n > want && n <= c.good[event] {
			n = want
		}
		if n != want && c.mode == config.Streaming {
			fail("event %v was delivered %d times, want %d", event, n, want)
		}
		delete(events, event)
	}
	if len(events) > 0 {
		fail("%v were delivered and never written", events)
	}
	if c.markers && c.mode == config.Streaming && !maps.Equal(markers, c.markersDue) {
		fail("markers %v, want %v", markers, c.markersDue)
	}
}

// Whatever a node writes again, late, torn or joined, in any file, across restarts and failures of parsers: nothing is
// lost, nothing is delivered twice where deduplication rules it out, and every gap is marked once.
func TestModelOfReplays(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	runs, lines := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		mode := rapid.SampledFrom([]config.Mode{config.Line, config.Streaming, config.Streaming, config.ByBlock,
			config.ByBlock}).Draw(t, "mode")
		c := &chain{
			t: t, dir: filepath.Join(base, fmt.Sprint(runs)), mode: mode, fs: crashfs.New(), sink: &ledger{},
			logs:  &lockedBuffer{},
			sizes: map[int]int{}, lines: map[string]*row{}, block: 7, files: map[int]*written{},
			oracle: oracle{
				deduplicate: mode != config.Line && rapid.Bool().Draw(t, "deduplicate"), markers: rapid.Bool().Draw(t, "markers"),
				oneByOne: rapid.Bool().Draw(t, "an output an event"),
				good:     map[[2]int]int{}, mayRepeat: map[[2]int]bool{}, markersDue: map[string]int{}, last: map[int]int{},
				visit: map[int]map[int]bool{},
				back:  map[int]int{}, known: map[[2]int]bool{}, seen: map[int]bool{},
			},
		}
		defer func() { _ = os.RemoveAll(c.dir) }()
		c.cfg = config.Config{
			Target: "node-1", DataDir: filepath.Join(c.dir, "data"), StateDir: "state", Format: config.Raw,
			Streams: []config.StreamConfig{{Name: config.Trades, Mode: mode}}, Sink: config.Sink{Stdout: &config.StdoutSink{}},
			Engine: config.Engine{
				StartAt: config.Beginning, Workers: 2, ParallelThreshold: rapid.SampledFrom([]int{1, 1000}).Draw(t, "parallel"),
				DeduplicateBlocks: c.deduplicate, Markers: c.markers,
			},
		}
		c.append(0, c.render(c.next()))
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if c.act(); rapid.IntRange(0, 3).Draw(t, "settle") == 0 {
				c.settle()
			}
		}
		c.settle()
		c.check()
		lines += len(c.lines)
	})
	t.Logf("%d sequences, %d lines", runs, lines)
}
